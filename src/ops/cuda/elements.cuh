// Numbers of the types that kernels take, in CUDA code only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "element.hpp"

namespace dynvit::cuda {

/// Calls `work` with a null pointer of the element's type, which is not float8.
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

/// The same of the half types alone.
template <class Work>
auto with_half_type(Element element, const Work& work) {
    return element == Element::kHalf ? work(static_cast<__half*>(nullptr)) : work(static_cast<__nv_bfloat16*>(nullptr));
}

/// The sum over a warp's lanes, in each of them.
__device__ inline float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

/// Eight neighbouring values at once, in one access of 16 bytes where they are of a half type.

template <class T>
__device__ inline void load8(const T* from, float (&values)[8]) {
    static_assert(sizeof(T) == 2);
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const T* const parts = reinterpret_cast<const T*>(&raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = static_cast<float>(parts[i]);
}

__device__ inline void load8(const float* from, float (&values)[8]) {
    *reinterpret_cast<float4*>(values) = reinterpret_cast<const float4*>(from)[0];
    *reinterpret_cast<float4*>(values + 4) = reinterpret_cast<const float4*>(from)[1];
}

__device__ inline void load8(const unsigned char* from, float (&values)[8]) {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    const unsigned char* const parts = reinterpret_cast<const unsigned char*>(&raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = parts[i];
}

template <class T>
__device__ inline void store8(T* to, const float (&values)[8]) {
    static_assert(sizeof(T) == 2);
    uint4 raw;
    T* const parts = reinterpret_cast<T*>(&raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) parts[i] = static_cast<T>(values[i]);
    *reinterpret_cast<uint4*>(to) = raw;
}

}  // namespace dynvit::cuda
