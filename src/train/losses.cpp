#include "dynvit/train/losses.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "dynvit/core/error.hpp"

// One line a loss, in the order of train.loss and of the sum. Its file defines make_NAME_loss().
#define DYNVIT_LOSSES(LOSS) \
    LOSS(classification)    \
    LOSS(kl)                \
    LOSS(embedding)         \
    LOSS(distill)           \
    LOSS(ratio)             \
    LOSS(saliency)

namespace dynvit {

#define DYNVIT_DECLARE(name) Loss make_##name##_loss();
DYNVIT_LOSSES(DYNVIT_DECLARE)

namespace {

bool any_needs(const LossSettings& settings, bool Loss::*need) {
    return std::ranges::any_of(all_losses(),
                               [&](const Loss& loss) { return loss.*need && settings.weights.at(loss.name) > 0; });
}

}  // namespace

const std::vector<Loss>& all_losses() {
#define DYNVIT_MAKE(name) make_##name##_loss(),
    static const std::vector<Loss> losses = {DYNVIT_LOSSES(DYNVIT_MAKE)};
    return losses;
}

std::vector<std::string> loss_names(bool Loss::*need) {
    std::vector<std::string> names;
    for (const Loss& loss : all_losses()) {
        if (loss.*need) names.push_back(loss.name);
    }
    return names;
}

LossSettings::LossSettings() {
    for (const Loss& loss : all_losses()) {
        weights.emplace(loss.name, loss.weight);
        if (loss.choice) choices.emplace(loss.choice->key, loss.choice->values.front());
    }
}

void LossSettings::fields(FieldVisitor& v) {
    for (const Loss& loss : all_losses()) v.field(loss.name, weights.at(loss.name), loss.comment, at_least(0));
    for (const Loss& loss : all_losses()) {
        if (!loss.choice) continue;
        v.field(loss.choice->key, choices.at(loss.choice->key), loss.choice->comment, loss.choice->values);
    }
    v.field("label_smoothing", label_smoothing, "share of the target spread over all classes", between(0, 1));
    v.field("target_threshold", target_threshold,
            "binary: targets above it count as 1, others as 0 (DeiT III with mixup: 0); 1: they stay as they are",
            between(0, 1));
    v.field("distill_mean", distill_mean,
            "of several processes: distill is the mean over the kept tokens of all pictures of a step, so that any "
            "number of processes gives the same, or of each process's (as the reference), and then over the processes",
            std::vector<std::string>{"all", "process"});
    if (target_threshold < 1 && !binary()) {
        v.reject("target_threshold",
                 str("found ", target_threshold, ", expected 1 without classification_kind binary"));
    }
}

bool LossSettings::need_labels() const {
    return any_needs(*this, &Loss::needs_labels);
}

bool LossSettings::need_teacher() const {
    return any_needs(*this, &Loss::needs_teacher);
}

bool LossSettings::need_saliency() const {
    return any_needs(*this, &Loss::needs_saliency);
}

bool LossSettings::teach(bool draws) const {
    return std::ranges::any_of(
        all_losses(), [&](const Loss& loss) { return weights.at(loss.name) > 0 && (draws || !loss.needs_draws); });
}

Losses compute_losses(const LossSettings& settings, const TrainingOutput& student,
                      const std::optional<InferenceModel::DenseOutput>& teacher, const at::Tensor& target,
                      const std::vector<double>& keep_ratios, const TokenCount& token_count) {
    const LossInputs inputs{settings, student, teacher ? &*teacher : nullptr, target, keep_ratios, token_count};
    Losses losses;
    losses.total = at::zeros({}, student.logits.options().dtype(at::kFloat));
    for (const Loss& loss : all_losses()) {
        const double weight = settings.weights.at(loss.name);
        if (weight == 0) continue;
        const at::Tensor value = loss.compute(inputs);
        if (!value.defined()) continue;
        losses.total = losses.total + weight * value;
        losses.each.emplace(loss.name, value);
    }
    return losses;
}

}  // namespace dynvit
