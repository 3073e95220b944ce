#include "dynvit/ops/rotary.hpp"

#include <ATen/ATen.h>

namespace dynvit {

at::Tensor rotate_queries_keys(const at::Tensor& qkv, const at::Tensor& rotation, RotaryLayout layout) {
    const std::int64_t half = rotation.size(-1), channels = qkv.size(-1) / 3;
    const bool halves = layout == RotaryLayout::kHalves;
    const std::int64_t axis = halves ? -2 : -1;  // of the two channels that are turned together
    const at::Tensor turned = qkv.slice(-1, 0, 2 * channels)
                                  .unflatten(-1, halves ? at::IntArrayRef{-1, 2, half} : at::IntArrayRef{-1, half, 2});
    const at::Tensor first = turned.select(axis, 0), second = turned.select(axis, 1);  // (..., 2 h, d / 2)
    const at::Tensor cosines = rotation.select(-2, 0).unsqueeze(-2), sines = rotation.select(-2, 1).unsqueeze(-2);
    const at::Tensor both = at::stack({first * cosines - second * sines, second * cosines + first * sines}, axis);
    return at::cat({both.flatten(-3).to(qkv.scalar_type()), qkv.slice(-1, 2 * channels)}, -1);
}

}  // namespace dynvit
