#include "dynvit/train/losses.hpp"

#include <ATen/ATen.h>

namespace dynvit {
namespace {

// The teacher's use of the tokens that a stage has to choose from, (B, n) as its log_probs; 0 for masked ones.
at::Tensor saliency_of(const TrainingOutput& student, const std::vector<at::Tensor>& saliency, std::size_t stage) {
    if (!student.positions.empty()) return saliency[stage].gather(1, student.positions[stage]);
    return stage == 0 ? saliency[0] : saliency[stage] * student.decisions[stage - 1].detach();
}

}  // namespace

at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& target) {
    return -(target * at::log_softmax(logits, -1, at::kFloat)).sum(-1).mean();
}

at::Tensor soft_targets(const at::Tensor& labels, std::int64_t classes, double smoothing) {
    const at::Tensor spread = at::full({labels.size(0), classes}, smoothing / static_cast<double>(classes),
                                       labels.options().dtype(at::kFloat));
    return spread.scatter_add(1, labels.unsqueeze(1), at::full({labels.size(0), 1}, 1.0 - smoothing, spread.options()));
}

at::Tensor kl_loss(const at::Tensor& logits, const at::Tensor& teacher_logits, bool reverse) {
    const at::Tensor student = at::log_softmax(logits, -1, at::kFloat);
    const at::Tensor teacher = at::log_softmax(teacher_logits, -1, at::kFloat);
    const at::Tensor divergence = reverse ? student.exp() * (student - teacher) : teacher.exp() * (teacher - student);
    return divergence.sum(-1).mean();
}

at::Tensor token_distillation_loss(const at::Tensor& features, const at::Tensor& teacher_features,
                                   const at::Tensor& decision, bool kl) {
    at::Tensor distance;  // (B, N)
    if (kl) {
        const at::Tensor teacher = at::log_softmax(teacher_features, -1, at::kFloat);
        distance = (teacher.exp() * (teacher - at::log_softmax(features, -1, at::kFloat))).sum(-1);
    } else {
        distance = at::mse_loss(features.to(at::kFloat), teacher_features.to(at::kFloat), at::Reduction::None).mean(-1);
    }
    const at::Tensor kept = decision.detach();
    return (distance * kept).sum() / kept.sum().clamp_min(1.0);
}

at::Tensor keep_ratio_loss(const std::vector<at::Tensor>& decisions, const std::vector<double>& targets) {
    TORCH_CHECK(!decisions.empty() && decisions.size() == targets.size(), "one target a stage is needed");
    at::Tensor sum;
    for (std::size_t s = 0; s < decisions.size(); ++s) {
        const at::Tensor distance = (decisions[s].mean(1) - targets[s]).square().mean();
        sum = sum.defined() ? sum + distance : distance;
    }
    return sum / static_cast<double>(decisions.size());
}

at::Tensor saliency_loss(const at::Tensor& log_prob, const at::Tensor& saliency) {
    const at::Tensor there = saliency > 0;
    const at::Tensor scores = (log_prob.select(-1, 0) - log_prob.select(-1, 1)).to(at::kFloat);
    // With p the scores' softmax, exp(score) = exp(level) n p: a term for the ranking and one for the level.
    const at::Tensor counted = scores.masked_fill(there.logical_not(), -1e4);
    const at::Tensor use = saliency / saliency.sum(-1, /*keepdim=*/true).clamp_min(1e-12);
    const at::Tensor ranking = (at::xlogy(use, use) - use * at::log_softmax(counted, -1)).sum(-1);
    const at::Tensor level = at::logsumexp(counted, -1) - there.sum(-1).clamp_min(1).log();
    return (ranking + at::where(there.any(-1), level.exp() - 1 - level, 0.0)).mean();
}

Losses compute_losses(const LossSettings& settings, const TrainingOutput& student,
                      const std::optional<InferenceModel::DenseOutput>& teacher, const at::Tensor& target,
                      const std::vector<double>& keep_ratios) {
    Losses losses;
    losses.total = at::zeros({}, student.logits.options().dtype(at::kFloat));
    const auto add = [&](at::Tensor& loss, double weight, at::Tensor value) {
        loss = std::move(value);
        losses.total = losses.total + weight * loss;
    };
    if (settings.classification > 0) {
        add(losses.classification, settings.classification, classification_loss(student.logits, target));
    }
    if (settings.kl > 0) {
        add(losses.kl, settings.kl,
            kl_loss(student.logits, teacher->logits, settings.kl_direction == "student_teacher"));
    }
    if (settings.distill > 0) {
        const at::Tensor decision = student.decisions.empty() ? at::ones_like(student.features.select(2, 0), at::kFloat)
                                                              : student.decisions.back();
        add(losses.distill, settings.distill,
            token_distillation_loss(student.features, teacher->features, decision, settings.distill_kind == "kl"));
    }
    if (settings.ratio > 0 && !student.decisions.empty()) {
        add(losses.ratio, settings.ratio, keep_ratio_loss(student.decisions, keep_ratios));
    }
    if (settings.saliency > 0 && !student.log_probs.empty()) {
        at::Tensor sum;
        for (std::size_t s = 0; s < student.log_probs.size(); ++s) {
            const at::Tensor distance = saliency_loss(student.log_probs[s], saliency_of(student, teacher->saliency, s));
            sum = sum.defined() ? sum + distance : distance;
        }
        add(losses.saliency, settings.saliency, sum / static_cast<double>(student.log_probs.size()));
    }
    return losses;
}

}  // namespace dynvit
