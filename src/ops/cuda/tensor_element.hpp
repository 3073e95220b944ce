// From tensors' types to kernels'.
#pragma once

#include <c10/core/ScalarType.h>

#include "element.hpp"

namespace dynvit::cuda {

inline bool is_half(at::ScalarType type) {
    return type == at::kHalf || type == at::kBFloat16;
}

/// @param type float32, float16 or bfloat16
inline Element element_of(at::ScalarType type) {
    return type == at::kFloat ? Element::kFloat : type == at::kHalf ? Element::kHalf : Element::kBFloat16;
}

}  // namespace dynvit::cuda
