// CUDA code only.
#pragma once

namespace dynvit::cuda {

/// Adds up the values of a warp's 32 lanes, all of which must call. @return the sum, the same in each lane
__device__ inline float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

}  // namespace dynvit::cuda
