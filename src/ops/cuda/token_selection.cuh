// Launchers of the kernels behind keep_top_tokens and top_places of ops/token_gather.hpp and keep_above of
// ops/packed_selection.hpp.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

/// A token is a row of `vectors` times 16 bytes; each image begins with `prefix` that always stay.
struct SelectionShape {
    int batch, prefix, tokens, count, vectors;
    int score_stride;     // from an image's scores to the next one's
    int position_stride;  // the same of positions; 0: all images have the same
};

/// The most patch tokens of an image that one thread block can rank or number.
inline constexpr int kMaxSelectionTokens = 4096;

/// x (B, prefix + n, C); scores and positions (B, n), strided -> kept_x (B, prefix + k, C); kept_positions (B, k).
cudaError_t keep_top_tokens(SelectionShape shape, const void* x, const float* scores, const long long* positions,
                            void* kept_x, long long* kept_positions, cudaStream_t stream);

/// scores (B, n), strided -> places (B, k). The shape's prefix and vectors must be 0.
cudaError_t top_places(SelectionShape shape, const float* scores, long long* places, cudaStream_t stream);

/// Sequences one after another, each with its prefix tokens first.
struct PackedSelection {
    int sequences;
    int prefix;          // tokens of each that always stay
    int longest;         // patch tokens of the longest one
    int vectors;         // of 16 bytes in a token
    float threshold;     // what is above it is kept
    const int* offsets;  // (B + 1): the first row of each sequence
    float* probability;  // (T - B prefix): of each patch token; written by count_above, read by gather_above
    int* kept_offsets;   // (B + 1): the same of what is kept, likewise
    const float* sizes;  // (T), or null
    float* kept_sizes;   // (T'): of what is kept, written by gather_above where there are sizes; 1 for prefix tokens
};

/// @param log_probability (T), of no meaning for a prefix token
cudaError_t count_above(const PackedSelection& selection, const float* log_probability, cudaStream_t stream);

/// x (T, C), positions (T - B prefix) -> kept_x (T', C), kept_positions (T' - B prefix), of the sizes that count_above
/// has found.
cudaError_t gather_above(const PackedSelection& selection, const void* x, const long long* positions, void* kept_x,
                         long long* kept_positions, cudaStream_t stream);

}  // namespace dynvit::cuda
