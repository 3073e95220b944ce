// Launcher of the kernel behind keep_top_tokens of ops/token_gather.hpp.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

/// A token, and [CLS], is a row of `vectors` times 16 bytes.
struct SelectionShape {
    int batch, tokens, count, vectors;
    int score_stride;  // from an image's scores to the next one's
};

/// The most tokens that one thread block can rank.
inline constexpr int kMaxSelectionTokens = 4096;

/// x (B, 1 + n, C), [CLS] first; scores (B, n), strided; positions (B, n) -> kept_x (B, 1 + k, C); kept_positions (B,
/// k).
cudaError_t keep_top_tokens(SelectionShape shape, const void* x, const float* scores, const long long* positions,
                            void* kept_x, long long* kept_positions, cudaStream_t stream);

}  // namespace dynvit::cuda
