#include "dynvit/train/loss_scaler.hpp"

#include <ATen/ATen.h>

#include "copy_state.hpp"

namespace dynvit {
namespace {

constexpr double kFirstScale = 65536, kGrowth = 2.0, kBackoff = 0.5;
constexpr std::int64_t kGrowthInterval = 2000;

}  // namespace

LossScaler::LossScaler(const at::Device& device, bool active)
    : active_(active),
      scale_(at::full({1}, active ? kFirstScale : 1.0, at::device(device).dtype(at::kFloat))),
      growth_(at::zeros({1}, at::device(device).dtype(at::kInt))) {}

at::Tensor LossScaler::unscale(const std::vector<at::Tensor>& gradients) const {
    at::Tensor found = at::zeros_like(scale_);
    if (!gradients.empty()) at::_amp_foreach_non_finite_check_and_unscale_(gradients, found, scale_.reciprocal());
    return found;
}

void LossScaler::update(const at::Tensor& skipped) {
    if (active_) at::_amp_update_scale_(scale_, growth_, skipped, kGrowth, kBackoff, kGrowthInterval);
}

TensorMap LossScaler::state() const {
    if (!active_) return {};
    return {{"scaler.scale", scale_}, {"scaler.growth", growth_}};
}

// NOLINTNEXTLINE(readability-make-member-function-const): what the tensors hold changes
void LossScaler::load_state(const TensorMap& state, const std::string& file) {
    copy_state(state, this->state(), file);
}

}  // namespace dynvit
