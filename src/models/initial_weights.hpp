// What weights are before training.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

namespace dynvit {

/// Fills the tensor with normal numbers of standard deviation 0.02. (They are cut at two units, not two standard
/// deviations, by what the field's trunc_normal_ does by default: so nothing ever is cut.)
inline void draw_normal(at::Tensor tensor, const at::Generator& generator) {
    const at::NoGradGuard no_grad;
    tensor.normal_(0.0, 0.02, generator);
}

}  // namespace dynvit
