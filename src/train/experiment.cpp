#include "dynvit/train/experiment.hpp"

#include "dynvit/core/error.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"

namespace dynvit {

void TrainSettings::fields(FieldVisitor& v) {
    v.field("epochs", epochs, "passes over the training pictures", at_least(1));
    v.field("max_steps", max_steps, "stop after so many steps; 0: after all epochs", at_least(0));
    v.field("batch_size", batch_size, "pictures a step", at_least(1));
    v.field("accumulate", accumulate, "batches whose gradients are added up before a step", at_least(1));
    v.field("keep_ratio", keep_ratio, "target rho (stages aim at rho, rho^2, ...), or a target a stage",
            above_up_to(0, 1));
    v.field("target_gmacs", target_gmacs,
            "in place of keep_ratio: the largest rho of at most so many GMACs; 0: keep_ratio", at_least(0));
    v.field("weights", weights,
            "start from these weights, a file or a folder as --weights takes them; '': random ones");
    v.field("teacher", teacher, "the dense teacher's, likewise; '': the starting weights");
    v.field("blend", blend,
            "what is saved and evaluated: this share of the way from the starting weights to the trained ones, which "
            "forgets less; 1: the trained ones",
            between(0, 1));
    v.field("precision", precision, "of matrix products", std::vector<std::string>{"float32", "bfloat16", "float16"});
    v.field("device", device, "auto (the GPU if there is one), cpu, cuda, cuda:1, ...");
    v.field("threads", threads,
            "processor threads of LibTorch; other numbers of them give other last bits; 0: as --threads, or as the run "
            "that is resumed had",
            between(0, 1024));
    v.field("record_steps", record_steps,
            "on a GPU: start a step whose shapes repeat as one recorded piece (CUDA graph)");
    v.field("seed", seed, "of the order of pictures, augmentation, decisions, new weights", between(0, 0x1p63));
    v.field("log_every", log_every, "steps between lines of metrics.jsonl", at_least(1));
    v.field("eval_every", eval_every, "epochs between evaluations; the last epoch always; 0: never", at_least(0));
    v.field("save_every", save_every, "epochs between checkpoints; the last epoch always", at_least(1));
    v.field("save_as", save_as, "type of the weights in last and best.safetensors (training goes on in float32)",
            std::vector<std::string>{"float32", "bfloat16", "float16"});
    v.field(
        "best_by", best_by,
        "top-1, or the mAP of a label file, that chooses best.safetensors and its weights; *_ema: of the averaged ones",
        std::vector<std::string>{"pruned", "dense", "pruned_ema", "dense_ema"});
    v.field("stop_at", stop_at, "stop once that reaches so many percent; 0: never", between(0, 100));
    v.field("max_skipped_steps", max_skipped_steps,
            "so many steps in a row without a finite loss and gradient stop the run", at_least(1));
    v.field("tensorboard", tensorboard, "write RUN/tensorboard too: scalars and kept tokens");
    v.field("timeout", timeout,
            "of several processes: seconds that one waits for the others in a step, before all end; ten minutes until "
            "the first step is done",
            above(0));
    v.section("schedule", schedule, "learning rate: linear warm-up, then half a cosine");
    v.section("optimizer", optimizer, "AdamW");
    v.section("loss", loss, "weights of the losses");
    v.section("selection", selection, "which tokens go on in training");
    v.section("mixup", mixup, "pictures blended two by two");
    v.section("ema", ema, "running average of the weights");
    if (!v.reads()) return;
    if (blend < 1 && weights.empty()) v.reject("blend", str("found ", blend, ", expected train.weights with it"));
    if (blend < 1 && ema.on()) v.reject("blend", str("found ", blend, ", expected 1 with an ema.decay above 0"));
    if (!ema.on() && best_by.ends_with("_ema")) {
        v.reject("best_by", "found " + best_by + ", expected ema.decay above 0 with it");
    }
    if (stop_at > 0 && eval_every == 0) {
        v.reject("stop_at", str("found ", stop_at, ", expected eval_every above 0 with it"));
    }
}

std::vector<double> TrainSettings::stage_targets(std::int64_t stages) const {
    return stage_shares(keep_ratio, stages);
}

namespace {

// Finds the ratio that train.target_gmacs asks for.
void find_ratio(FieldVisitor& v, const ModelSettings& model, TrainSettings& train) {
    if (train.target_gmacs == 0) return;
    const std::string found = str("found ", train.target_gmacs, ", expected ");
    if (model.stages() == 0)
        v.reject("train.target_gmacs", found + "model.pruning_loc to name stages that can save them");
    const double rho = find_keep_ratio(model, train.target_gmacs);
    if (!(rho > 0)) {
        const std::vector<std::int64_t> none(model.pruning_loc.size(), 0);
        v.reject("train.target_gmacs", str(found, "at least the ", 1e-9 * static_cast<double>(count_macs(model, none)),
                                           " of a model that keeps no patch"));
    }
    train.keep_ratio = {rho};
}

void check_keep_ratio(FieldVisitor& v, const ModelSettings& model, const std::vector<double>& shares) {
    const std::string key = "train.keep_ratio";
    const std::int64_t given = std::ssize(shares), stages = model.stages();
    if (given == 0 || (given > 1 && given != stages)) {
        v.reject(key, str("found ", given, " numbers, expected one or as many as model.pruning_loc, ", stages));
    }
    for (std::size_t i = 1; i < shares.size(); ++i) {
        if (shares[i] <= shares[i - 1]) continue;
        v.reject(key, str("found ", shares[i], " after ", shares[i - 1],
                          ", expected shares that do not grow: a dropped patch does not come back"));
    }
}

// Each loss with a weight needs things that other settings may not give.
void check_needs(FieldVisitor& v, const Experiment& e) {
    for (const Loss& loss : all_losses()) {
        const double weight = e.train.loss.weights.at(loss.name);
        if (weight == 0) continue;
        const std::string key = "train.loss." + loss.name, found = str("found ", weight, ", expected ");
        if (loss.needs_labels && !e.data.labelled) {
            v.reject(key, found + "0 where data.labelled is false", {"data.labelled"});
        }
        if (loss.needs_teacher && e.train.weights.empty() && e.train.teacher.empty()) {
            v.reject(key, found + "0, or a teacher: give train.weights or train.teacher");
        }
        if (loss.needs_head && *loss.needs_head != e.model.classifies()) {
            v.reject(key, str(found, "0 where model.num_classes is ", e.model.num_classes,
                              *loss.needs_head ? ": the outputs are an embedding" : ": the outputs are classes"));
        }
    }
}

void check_reduction(FieldVisitor& v, const Experiment& e) {
    const ModelSettings& model = e.model;
    if (model.deletes() || model.stages() == 0) return;
    const std::string found = str("found ", model.reduction, ", expected ");
    if (e.train.selection.deterministic_from > 0) {
        v.reject("model.reduction", str(found, "train.selection.deterministic_from 0 with it: it does something to ",
                                        "tokens that are removed, and masked ones stay"));
    }
    if (!model.matches()) return;
    const auto check_shares = [&](const std::string& key, const std::vector<double>& shares) {
        const std::string fault = find_count_fault(model, tokens_per_stage(shares, model.patches()));
        if (!fault.empty()) v.reject(key, str("with model.reduction tome: ", fault));
    };
    check_shares("train.keep_ratio", e.train.stage_targets(model.stages()));
    for (const double ratio : drawn_ratios(e.train.selection)) {
        check_shares("train.selection.keep_ratio_range", stage_ratios(ratio, model.stages()));
    }
    for (const std::string& name : loss_names(&Loss::needs_saliency)) {
        if (e.train.loss.weights.at(name) == 0) continue;
        v.reject("model.reduction",
                 str(found, "train.loss.", name, " 0 with it: there is no prediction module to teach"));
    }
}

void check_losses(FieldVisitor& v, const Experiment& e) {
    check_needs(v, e);
    if (e.data.label_kind == "multi" && !e.train.loss.binary()) {
        v.reject("train.loss.classification_kind",
                 "found cross_entropy, expected binary with data.label_kind multi: a picture may have any number of "
                 "classes",
                 {"data.label_kind"});
    }
    const bool draws_to_the_end = e.model.stages() > 0 && e.train.selection.deterministic_from >= 1;
    if (e.train.loss.teach(draws_to_the_end)) return;
    std::vector<std::string> always, drawing, beside;
    for (const Loss& loss : all_losses()) {
        (loss.needs_draws ? drawing : always).push_back(loss.name);
        beside.push_back("train.loss." + loss.name);
    }
    v.reject("train.loss",
             str("found no weight above 0 that moves the backbone, expected one of ", join(always, ", "),
                 drawing.empty() ? "" : ", or " + join(drawing, ", ") + " with stages that are drawn to the end"),
             beside);
}

}  // namespace

void Experiment::fields(FieldVisitor& v) {
    v.section("model", model, "the network");
    v.section("data", data, "the pictures");
    v.section("train", train, "the training");
    if (!v.reads()) return;
    num_classes_given = v.gives("model.num_classes");
    find_ratio(v, model, train);
    check_keep_ratio(v, model, train.keep_ratio);
    const std::int64_t frozen = train.optimizer.frozen_blocks;
    if (frozen > model.depth) {
        v.reject("train.optimizer.frozen_blocks",
                 str("found ", frozen, ", expected at most model.depth, ", model.depth));
    }
    check_reduction(v, *this);
    check_losses(v, *this);
}

void Experiment::set_num_classes(std::int64_t count) {
    model.num_classes = count;
    num_classes_given = true;
    if (train.target_gmacs == 0) return;
    train.keep_ratio = {find_keep_ratio(model, train.target_gmacs)};
    if (train.keep_ratio.front() > 0) return;
    throw Error("config", "train.target_gmacs: found ", train.target_gmacs, ", expected more for a model of ", count,
                " classes");
}

}  // namespace dynvit
