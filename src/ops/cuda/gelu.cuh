// GELU by its tanh approximation. CUDA code only.
#pragma once

namespace dynvit::cuda {

__device__ inline float tanh_of(float x) {
    constexpr float kLog2e = 1.4426950408889634f;
    return 1 - __fdividef(2, 1 + exp2f(2 * kLog2e * x));
}

constexpr float kGeluScale = 0.7978845608f, kGeluCubic = 0.044715f;  // sqrt(2 / pi)

__device__ inline float gelu(float x) {
    return 0.5f * x * (1 + tanh_of(kGeluScale * x * (1 + kGeluCubic * x * x)));
}

// tanh by one instruction: its error, 2^-11, is no larger than the half types'.
__device__ inline float gelu_fast(float x) {
    const float half = 0.5f * x;
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x * (kGeluScale + kGeluScale * kGeluCubic * x * x)));
    return half + half * t;
}

}  // namespace dynvit::cuda
