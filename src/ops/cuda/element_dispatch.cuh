// From an Element, known at run time, to the C++ type that a kernel is compiled for. CUDA code only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// Calls `work` with a null pointer to the element's type, which must not be float8. @return what `work` returns
template <class Work>
auto with_type(Element element, const Work& work) {
    switch (element) {
        case Element::kHalf:
            return work(static_cast<__half*>(nullptr));
        case Element::kBFloat16:
            return work(static_cast<__nv_bfloat16*>(nullptr));
        default:
            return work(static_cast<float*>(nullptr));
    }
}

/// Calls `work` with a null pointer to the element's type, which must be a half type. @return what `work` returns
template <class Work>
auto with_half_type(Element element, const Work& work) {
    return element == Element::kHalf ? work(static_cast<__half*>(nullptr)) : work(static_cast<__nv_bfloat16*>(nullptr));
}

}  // namespace dynvit::cuda
