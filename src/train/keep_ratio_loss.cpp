// How far the drawn decisions are from the shares that they should keep.
#include <ATen/ATen.h>

#include "dynvit/train/losses.hpp"

namespace dynvit {

at::Tensor keep_ratio_loss(const std::vector<at::Tensor>& decisions, const std::vector<double>& targets) {
    TORCH_CHECK(!decisions.empty() && decisions.size() == targets.size(), "one target a stage is needed");
    at::Tensor sum;
    for (std::size_t s = 0; s < decisions.size(); ++s) {
        const at::Tensor distance = (decisions[s].mean(1) - targets[s]).square().mean();
        sum = sum.defined() ? sum + distance : distance;
    }
    return sum / static_cast<double>(decisions.size());
}

Loss make_ratio_loss() {
    Loss loss{"ratio", 2.0, "weight of the squared distance to the target keep ratios"};
    loss.compute = [](const LossInputs& in) {
        return in.student.decisions.empty() ? at::Tensor() : keep_ratio_loss(in.student.decisions, in.keep_ratios);
    };
    loss.needs_draws = true;
    return loss;
}

}  // namespace dynvit
