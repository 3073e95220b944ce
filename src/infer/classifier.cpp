#include "dynvit/infer/classifier.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/data/data_settings.hpp"

namespace dynvit {
namespace {

// A file's own go before a name; without prediction modules it has no stages.
ModelSettings settings_in(const ModelFile& file, const std::string& model) {
    if (file.settings && !file.recognized) return *file.settings;
    ModelSettings settings = settings_of(file, model);
    if (!has_prediction_modules(file)) settings.pruning_loc = {};
    return settings;
}

PruningPlan plan_of(const ModelFile& file, const ModelSettings& settings, const ClassifierOptions& options) {
    const double ratio = options.keep_ratio;
    if (!(ratio >= 0 && ratio <= 1)) {
        throw Error("keep-ratio", "found ", ratio, ", expected 0 (what the file says) to 1");
    }
    if (!options.policy.empty()) find_policy(options.policy, learns_nothing);
    if (!options.thresholds.empty()) return plan_for_thresholds(settings, options.thresholds);
    PruningPlan plan;
    if (ratio > 0) {
        plan = plan_for_ratio(settings, ratio, file.path.string() + ":");
    } else if (file.bundle) {
        plan = file.bundle->plan;
    } else if (settings.stages() > 0) {
        plan = plan_for_ratio(settings, kDefaultKeepRatio);
    }
    if (!plan.dense() && !options.policy.empty()) plan.policy = options.policy;
    return plan;
}

}  // namespace

Classifier::Classifier(const std::filesystem::path& file, const ClassifierOptions& options) {
    const ModelFile read = read_model_file(file, {.known = {.normalization_known = !options.model.empty()}});
    check_classifies(read);
    const ModelSettings settings = settings_in(read, options.model);
    DynamicVit model(settings, at::make_generator<at::CPUGeneratorImpl>(0));
    const PruningPlan plan = plan_of(read, settings, options);
    load_weights(*model, read, Fit::kEvaluate, asks_prediction_modules(plan));
    model->to(options.device);
    const Preprocessing preprocessing = options.preprocessing.over(read.preprocessing.value_or(Preprocessing()));
    session_ = std::make_unique<const InferenceSession>(*model, plan, options.precision, PolicyInputs(), preprocessing);
    class_names_ = read.class_names;
    if (!class_names_.empty() && std::ssize(class_names_) != settings.num_classes) {
        throw Error("weights", file.string(), ": names ", class_names_.size(), " classes, expected the model's ",
                    settings.num_classes);
    }
}

std::vector<Classification> Classifier::classify(const std::vector<Image>& pictures, std::int64_t top) const {
    if (pictures.empty()) return {};
    const ModelSettings& settings = session_->settings();
    const EvalTransform transform =
        eval_transform(session_->preprocessing(), settings.image_height(), settings.image_width());
    std::vector<Image> cropped;
    for (const Image& picture : pictures) cropped.push_back(apply(transform, picture));
    const SessionOutput output = session_->run(stack_images(cropped));
    const auto best = output.logits.softmax(-1).topk(std::clamp<std::int64_t>(top, 1, settings.num_classes));
    const at::Tensor probabilities = std::get<0>(best).cpu(), classes = std::get<1>(best).cpu();
    std::vector<Classification> results(pictures.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
        const auto b = static_cast<std::int64_t>(i);
        for (std::int64_t c = 0; c < classes.size(1); ++c) {
            const std::int64_t index = classes[b][c].item<std::int64_t>();
            const std::string name = class_names_.empty() ? "" : class_names_[static_cast<std::size_t>(index)];
            results[i].classes.push_back({index, probabilities[b][c].item<double>(), name});
        }
        for (std::size_t s = 0; s < output.counts.size(); ++s) {
            results[i].kept.push_back(output.kept_of(b, s, settings.patches()));
        }
    }
    return results;
}

Classification Classifier::classify(const Image& picture, std::int64_t top) const {
    return classify(std::vector<Image>{picture}, top).front();
}

}  // namespace dynvit
