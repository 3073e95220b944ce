// Loads and stores of eight neighbouring values at once. CUDA code only.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

/// Reads eight neighbouring values of a half type as float, in one access of 16 bytes. @param from aligned to 16 bytes
template <class T>
__device__ inline void load8(const T* from, float (&values)[8]) {
    static_assert(sizeof(T) == 2);
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const T* const parts = reinterpret_cast<const T*>(&raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = static_cast<float>(parts[i]);
}

/// Reads eight neighbouring values in two accesses of 16 bytes. @param from aligned to 16 bytes
__device__ inline void load8(const float* from, float (&values)[8]) {
    *reinterpret_cast<float4*>(values) = reinterpret_cast<const float4*>(from)[0];
    *reinterpret_cast<float4*>(values + 4) = reinterpret_cast<const float4*>(from)[1];
}

/// Reads eight neighbouring bytes as float, in one access. @param from aligned to 8 bytes
__device__ inline void load8(const unsigned char* from, float (&values)[8]) {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    const unsigned char* const parts = reinterpret_cast<const unsigned char*>(&raw);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = parts[i];
}

/// Rounds eight values to a half type and writes them in one access of 16 bytes. @param to aligned to 16 bytes
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
