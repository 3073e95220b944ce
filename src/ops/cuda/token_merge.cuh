// Launchers of the kernels behind ops/token_merge.hpp and ops/packed_merge.hpp.
#pragma once

#include <cuda_runtime_api.h>

#include "element_type.hpp"

namespace dynvit::cuda {

/// The widest row that the kernels compare, and the step that its width is a multiple of.
inline constexpr int kMaxMetricDepth = 128, kMetricDepthStep = 8;

/// Where the tokens of images lie before and after a merge. A batch has as many in each image. Sequences of different
/// lengths lie one after another, each with its prefix tokens first, where the offsets say; the numbers are then the
/// greatest that any sequence has.
struct ImageTokens {
    int images, prefix;
    int tokens, kept, dropped;          // patch tokens of an image: before, after, the difference
    const int* offsets = nullptr;       // (B + 1): the first row of each sequence; null: a batch
    const int* kept_offsets = nullptr;  // (B + 1): the same of what is kept
};

/// Rows to compare, a row for each patch token. A row begins at a multiple of 16 bytes.
struct Metric {
    const void* rows;
    Element element;
    long long image_stride, row_stride;  // in elements; of sequences the second alone, and prefix tokens have rows too
    int depth;                           // a multiple of kMetricDepthStep, at most kMaxMetricDepth
};

/// names (T - B prefix), ascending in each sequence; kept_names (T' - B prefix), some of them, in the same order ->
/// places (T' - B prefix): where each kept one stands among its sequence's. For sequences alone.
cudaError_t find_places(const ImageTokens& images, const long long* names, const long long* kept_names,
                        long long* places, cudaStream_t stream);

/// places (B, k), ascending, -> slots (B, n); of sequences (T' - B prefix) and (T - B prefix).
cudaError_t join_nearest(const ImageTokens& images, const Metric& metric, const long long* places, float threshold,
                         long long* slots, cudaStream_t stream);

/// The two halves of the patch tokens: of `even` at first, first + 2, ... each joins one of the others, if any.
struct Matching {
    int images, tokens, count;  // patch tokens of an image before and after
    int even, first;
    bool sorted;     // those of `even` that stay keep their order; else their edges' falling one
    float* cosines;  // (B, even): of the edge that each draws; written by draw_edges, read by join_along_edges
    int* ends;       // (B, even): the number of the edge's end among the others, likewise
};

cudaError_t draw_edges(const Matching& matching, const Metric& metric, cudaStream_t stream);

/// -> places (B, count), those of `even` before the others; slots (B, n).
cudaError_t join_along_edges(const Matching& matching, long long* places, long long* slots, cudaStream_t stream);

/// What the means are taken of. A token is a row of `vectors` times 16 bytes.
struct GroupRows {
    Element element;
    int vectors;
    const void* x;           // (B, prefix + n, C)
    const float* sizes;      // (B, prefix + n), or null: 1 each
    const long long* slots;  // (B, n)
    void* means;             // (B, prefix + k, C)
    float* mean_sizes;       // (B, prefix + k): 1 for prefix tokens
};

/// Names of tokens, of which those that go on are written.
struct TokenNames {
    const long long* names = nullptr;   // (B, n); null: there are none
    long long image_stride = 0;         // of a batch: from an image's names to the next one's
    const long long* places = nullptr;  // (B, k): the tokens that go on
    long long* kept_names = nullptr;    // (B, k)
};

cudaError_t average_groups(const ImageTokens& images, const GroupRows& rows, const TokenNames& names,
                           cudaStream_t stream);

/// What is fused: of each image that keeps fewer tokens than it has, the others.
struct FusedRows {
    Element element;
    int vectors;
    const void* x;         // (B, prefix + n, C)
    const float* weights;  // (B, n)
    bool are_shares;       // or a weight is divided by the sum of the image's
    void* fused;           // (B, prefix + k + 1, C)
    const int* offsets;    // (B + 1): the first row in `fused` of each sequence; null: a batch
    long long* slots;      // (B, n), or null
};

/// places (B, k), ascending, -> fused, names and slots. @param names kept_names is (B, k + 1) here @param name of the
/// first image's fused token @param name_step from it to the next image's
cudaError_t fuse_dropped(const ImageTokens& images, const FusedRows& rows, const TokenNames& names, long long name,
                         long long name_step, cudaStream_t stream);

}  // namespace dynvit::cuda
