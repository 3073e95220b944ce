// Launcher of a block's second half in one kernel: raw device pointers, no tensors.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// The only sizes that the kernel is written for: those of ViT-S.
constexpr int kNormedMlpChannels = 384, kNormedMlpHidden = 4 * kNormedMlpChannels;

/// out = x + fc2(gelu(fc1(norm(x)))), of matrices whose rows are contiguous and begin at multiples of 16 bytes.
struct NormedMlpRun {
    Element element;  // of the matrices: a half type
    int rows;
    const void* x;           // (rows, channels)
    const void* fc1_weight;  // (hidden, channels): each input times its norm's weight
    const float* fc1_sums;   // (hidden): of each row of that
    const float* fc1_bias;   // (hidden): with fc1's product of the norm's bias
    const void* fc2_weight;  // (channels, hidden)
    const float* fc2_bias;   // (channels)
    float epsilon;           // of the norm
    void* out;               // (rows, channels)
};

/// @return the most rows that take the current device as long as so many
int normed_mlp_capacity(int rows);
/// For compute capability 9.0.
cudaError_t normed_mlp(const NormedMlpRun& run, cudaStream_t stream);

}  // namespace dynvit::cuda
