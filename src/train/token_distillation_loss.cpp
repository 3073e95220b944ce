// How far the kept tokens are from the teacher's.
#include <ATen/ATen.h>

#include "dynvit/ops/token_gather.hpp"
#include "dynvit/train/losses.hpp"

namespace dynvit {

at::Tensor token_distillation_loss(const at::Tensor& features, const at::Tensor& teacher_features,
                                   const at::Tensor& decision, bool kl, const TokenCount& count) {
    at::Tensor distance;  // (B, N)
    if (kl) {
        const at::Tensor teacher = at::log_softmax(teacher_features, -1, at::kFloat);
        distance = (teacher.exp() * (teacher - at::log_softmax(features, -1, at::kFloat))).sum(-1);
    } else {
        distance = at::mse_loss(features.to(at::kFloat), teacher_features.to(at::kFloat), at::Reduction::None).mean(-1);
    }
    const at::Tensor kept = decision.detach(), number = kept.sum();
    return (distance * kept).sum() / (count ? count(number) : number.clamp_min(1.0));
}

Loss make_distill_loss() {
    Loss loss{"distill", 0.5, "weight of the distance to the teacher's tokens"};
    loss.choice = {"distill_kind", "that distance: mean square, or KL divergence over the channels' softmax",
                   std::vector<std::string>{"mse", "kl"}};
    loss.compute = [](const LossInputs& in) {
        const TrainingOutput& student = in.student;
        const at::Tensor& features = in.teacher->features;  // (B, N, C)
        at::Tensor teacher = features, decision;
        if (student.kept.defined()) {  // all that are left count, but for a fused one, which the teacher has not
            const std::int64_t patches = features.size(1);
            teacher = gather_tokens(features, student.kept.clamp_max(patches - 1));
            decision = (student.kept < patches).to(at::kFloat);
        } else {  // of masked ones, those that the last stage kept
            decision = student.decisions.empty() ? at::ones_like(student.features.select(2, 0), at::kFloat)
                                                 : student.decisions.back();
        }
        return token_distillation_loss(student.features, teacher, decision,
                                       in.settings.choices.at("distill_kind") == "kl", in.token_count);
    };
    loss.needs_teacher = true;
    return loss;
}

}  // namespace dynvit
