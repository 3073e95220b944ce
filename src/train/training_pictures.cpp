#include "training_pictures.hpp"

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/infer/evaluate.hpp"
#include "dynvit/train/seed_use.hpp"

namespace dynvit {
namespace {

LoaderOptions training_options(const Experiment& e) {
    LoaderOptions options = loader_options(e.data, Split::kTrain);
    options.batch_size = e.train.batch_size;
    options.seed = seed_for(e.train.seed, SeedUse::kData);
    return options;
}

std::int64_t count_steps_per_epoch(const Experiment& e, const Dataset& pictures) {
    const TrainSettings& settings = e.train;
    const std::int64_t steps = batch_count(pictures.size(), training_options(e)) / settings.accumulate;
    if (steps == 0) {
        throw Error("train", "found ", pictures.size(), " training pictures, expected at least train.batch_size",
                    settings.accumulate > 1 ? " x train.accumulate, " : ", ",
                    settings.batch_size * settings.accumulate);
    }
    if (settings.loss.need_labels() && !pictures.labelled()) {
        throw Error("train", "the training pictures have no labels, expected data.labelled false with them, and 0 in ",
                    "train.loss for ", join(loss_names(&Loss::needs_labels), ", "));
    }
    if (settings.loss.need_labels() && std::ssize(pictures.class_names()) > e.model.num_classes) {
        throw Error("train", "found ", pictures.class_names().size(),
                    " classes in the data, expected at most "
                    "model.num_classes, ",
                    e.model.num_classes);
    }
    return steps;
}

void take_class_count(Experiment& e, const Dataset& pictures) {
    if (e.num_classes_given || !e.train.loss.need_labels() || pictures.class_names().empty()) return;
    e.set_num_classes(std::ssize(pictures.class_names()));
    log::info(str("model.num_classes: ", e.model.num_classes, ", from ", pictures.classes_from()));
}

void check_label_kind(const Experiment& e, const Dataset& pictures) {
    if (!pictures.multi_label() || e.train.loss.binary()) return;
    throw Error("train", pictures.classes_from(),
                ": found pictures of several classes or of none, or data.label_kind multi, but ",
                "train.loss.classification_kind cross_entropy, expected binary with them");
}

// Null where there are none.
std::unique_ptr<Dataset> open_validation(const Experiment& e, const Dataset& training) {
    if (e.train.eval_every == 0) return nullptr;
    if (!has_validation(e.data)) {
        if (!e.data.val_root.empty()) throw Error("data", e.data.val_root, ": no folder val in it (data.val_root)");
        log::warn("no folder val in " + e.data.root + ": nothing is evaluated, and no best checkpoint kept");
        return nullptr;
    }
    auto pictures = make_dataset(e.data, Split::kVal, e.model.image_height(), e.model.image_width());
    check_label_kind(e, *pictures);
    if (training.labelled() && training.class_names() != pictures->class_names()) {
        throw Error("data", "the classes of val/ (", pictures->class_names().size(), ", ", pictures->classes_from(),
                    ") are not those of train/ (", training.class_names().size(), ", ", training.classes_from(),
                    "), expected the same, or a class list that numbers both: data.classes");
    }
    return pictures;
}

}  // namespace

TrainingPictures open_pictures(Experiment& e) {
    TrainingPictures pictures;
    pictures.training = make_dataset(e.data, Split::kTrain, e.model.image_height(), e.model.image_width());
    check_label_kind(e, *pictures.training);
    take_class_count(e, *pictures.training);
    if (e.train.loss.need_labels() && !e.train.weights.empty())
        warn_of_numbering(*pictures.training, e.model.num_classes);
    pictures.steps_per_epoch = count_steps_per_epoch(e, *pictures.training);
    pictures.validation = open_validation(e, *pictures.training);
    return pictures;
}

Loader training_loader(const Experiment& e, const TrainingPictures& pictures, bool pin_memory, std::int64_t step,
                       std::int64_t last, const BatchShare& share) {
    const std::int64_t an_epoch = pictures.steps_per_epoch;
    LoaderOptions options = training_options(e);
    options.pin_memory = pin_memory;
    options.share = share;
    options.epoch = step / an_epoch;
    options.epochs = (last + an_epoch - 1) / an_epoch - options.epoch;
    options.epoch_batches = an_epoch * e.train.accumulate;
    options.first_batch = step % an_epoch * e.train.accumulate;
    return Loader(*pictures.training,
                  make_transform(e.data, Split::kTrain, e.model.image_height(), e.model.image_width()), options);
}

}  // namespace dynvit
