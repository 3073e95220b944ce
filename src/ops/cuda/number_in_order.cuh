// Ranks a row's values, and numbers in the row's order what a thread block keeps of it. CUDA code only.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

/// Returns how many values come before that of number `own`: greater ones, and of equal ones those in front of it.
__device__ inline int rank_among(const float* values, int count, int own) {
    const float value = values[own];
    int rank = 0;
    for (int j = 0; j < own; ++j) rank += values[j] >= value;
    for (int j = own + 1; j < count; ++j) rank += values[j] > value;
    return rank;
}

/// Numbers the block's kept tokens of a round, a thread a token, in their order. All threads call it.
/// @param done those of rounds before; this round's are added
/// @param kept_before (threads / 32), shared; free again when all threads have passed another __syncthreads()
/// @return the number of the thread's token, of meaning if it is kept
template <int threads>
__device__ int number_in_order(bool kept, int& done, int* kept_before) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned votes = __ballot_sync(~0u, kept);
    if (lane == 0) kept_before[warp] = __popc(votes);
    __syncthreads();
    int number = done + __popc(votes & ((1u << lane) - 1));
    for (int w = 0; w < threads / 32; ++w) {
        if (w < warp) number += kept_before[w];
        done += kept_before[w];
    }
    return number;
}

}  // namespace dynvit::cuda
