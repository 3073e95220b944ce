// Rounding rows to float8 e4m3 with a scale each, as ops/scaled_rows.cpp defines it. CUDA code only.
#pragma once

#include <cuda_fp8.h>

#include "dynvit/ops/constants.hpp"

namespace dynvit::cuda {

/// The largest of a row's values over its kRowWarps warps, in each of their threads; with several, all threads of a
/// block of kWarps must call, once.
template <int kRowWarps, int kWarps>
__device__ float row_max(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
    if constexpr (kRowWarps > 1) {
        __shared__ float parts[kWarps];
        const int warp = threadIdx.x / 32;
        if (threadIdx.x % 32 == 0) parts[warp] = value;
        __syncthreads();
        for (int w = 0; w < kRowWarps; ++w) value = fmaxf(value, parts[warp / kRowWarps * kRowWarps + w]);
    }
    return value;
}

/// What a row's rounded values are multiplied by. @param largest magnitude in the row
__device__ inline float float8_scale(float largest) {
    constexpr auto kLargest = static_cast<float>(kLargestFloat8), kLeast = static_cast<float>(kLeastRowMagnitude);
    return fmaxf(largest, kLeast) * (1 / kLargest);
}

/// Writes `values`, each times `factor`, from `to` + index on: four or eight at once.
template <int kSize>
__device__ void store_float8(void* to, long long index, const float (&values)[kSize], float factor) {
    struct alignas(kSize) Packed {
        __nv_fp8x2_storage_t pairs[kSize / 2];
    } packed;
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i) {
        const float2 pair = make_float2(values[2 * i] * factor, values[2 * i + 1] * factor);
        packed.pairs[i] = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
    }
    *reinterpret_cast<Packed*>(static_cast<unsigned char*>(to) + index) = packed;
}

}  // namespace dynvit::cuda
