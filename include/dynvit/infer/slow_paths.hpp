// What a device does without dynvit's own kernels.
#pragma once

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// What of this model a GPU does by LibTorch's kernels, more slowly, in place of dynvit's own, and why, a line each;
/// none for a processor. Logged by every command that runs a model.
std::vector<std::string> slow_paths(const ModelSettings& settings, const at::Device& device);

}  // namespace dynvit
