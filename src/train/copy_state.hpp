// State that a run left, put back into tensors of the same names.
#pragma once

#include <string>

#include "dynvit/io/safetensors.hpp"

namespace dynvit {

/// Copies each of the tensors `to` from the one of the same name. Throws Error for the first that is missing or of
/// another shape. @param file what the error calls the source
void copy_state(const TensorMap& from, const TensorMap& to, const std::string& file);

}  // namespace dynvit
