// How far the prediction modules' scores are from the teacher's use of the tokens.
#include <ATen/ATen.h>

#include "dynvit/train/losses.hpp"

namespace dynvit {
namespace {

// The teacher's use of the tokens that a stage has to choose from, (B, n) as its log_probs: of a merged or fused one
// that of all patches in it; 0 for masked ones.
at::Tensor saliency_of(const TrainingOutput& student, const std::vector<at::Tensor>& saliency, std::size_t stage) {
    if (student.positions.empty()) {
        return stage == 0 ? saliency[0] : saliency[stage] * student.decisions[stage - 1].detach();
    }
    const at::Tensor &owners = student.owners[stage], &positions = student.positions[stage];
    if (!owners.defined()) return saliency[stage].gather(1, positions);
    const at::Tensor tokens = at::arange(positions.size(1), owners.options()).unsqueeze(1);
    const at::Tensor parts = (owners.unsqueeze(1) == tokens).to(at::kFloat);  // (B, n, N)
    return (parts * saliency[stage].unsqueeze(1)).sum(2);  // no matrix product, which autocast would round
}

at::Tensor mean_over_stages(const LossInputs& in) {
    const std::vector<at::Tensor>& log_probs = in.student.log_probs;
    at::Tensor sum;
    for (std::size_t s = 0; s < log_probs.size(); ++s) {
        const at::Tensor distance = saliency_loss(log_probs[s], saliency_of(in.student, in.teacher->saliency, s));
        sum = sum.defined() ? sum + distance : distance;
    }
    return sum.defined() ? sum / static_cast<double>(log_probs.size()) : sum;
}

}  // namespace

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

Loss make_saliency_loss() {
    Loss loss{"saliency", 0.0,
              "weight of the distance between the modules' scores of the tokens and the teacher's use of them"};
    loss.compute = mean_over_stages;
    loss.needs_teacher = loss.needs_saliency = true;
    return loss;
}

}  // namespace dynvit
