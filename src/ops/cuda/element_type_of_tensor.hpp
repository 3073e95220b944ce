// From the type of a tensor's elements to the kernels' name for it.
#pragma once

#include <c10/core/ScalarType.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// @return whether a type is one of the two half types: float16 or bfloat16.
inline bool is_half(at::ScalarType type) {
    return type == at::kHalf || type == at::kBFloat16;
}

/// The kernels' name of a type. @param type float32, float16, bfloat16 or float8 (e4m3); no other is noticed
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
