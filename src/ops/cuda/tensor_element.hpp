// From tensors' types to kernels'.
#pragma once

#include <c10/core/ScalarType.h>

#include "element.hpp"

namespace dynvit::cuda {

inline bool is_half(at::ScalarType type) {
    return type == at::kHalf || type == at::kBFloat16;
}

/// @param type float32, float16, bfloat16 or float8 (e4m3)
inline Element element_of(at::ScalarType type) {
    switch (type) {
        case at::kFloat:
            return Element::kFloat;
        case at::kHalf:
            return Element::kHalf;
        case at::kFloat8_e4m3fn:
            return Element::kFloat8;
        default:
            return Element::kBFloat16;
    }
}

}  // namespace dynvit::cuda
