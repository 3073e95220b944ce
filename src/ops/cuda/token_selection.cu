#include "token_selection.cuh"

#include "overlap.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kFewImages = 64;  // fewer don't fill a GPU: several blocks then share an image's rows
constexpr int kBlocksOfFew = 8;

// Ranks each token among the image's by counting those before it, numbers the kept ones in the order of the grid, and
// copies their rows. Blocks of one image all rank; each copies its share.
__global__ void __launch_bounds__(kThreads)
    select(SelectionShape s, const uint4* x, const float* scores, const long long* positions, uint4* kept_x,
           long long* kept_positions) {
    extern __shared__ float score[];                              // (n)
    int* const place = reinterpret_cast<int*>(score + s.tokens);  // (k): where the kept tokens stand
    __shared__ int kept_before[kWarps];
    const long long b = blockIdx.x;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    let_next_begin();
    wait_for_previous();
    for (int i = threadIdx.x; i < s.tokens; i += kThreads) {
        const float value = scores[b * s.score_stride + i];
        score[i] = isnan(value) ? INFINITY : value;  // as sorting does
    }
    int done = 0;  // kept tokens in rounds before
    for (int first = 0; first < s.tokens; first += kThreads) {
        __syncthreads();
        const int i = first + threadIdx.x;
        bool kept = false;
        if (i < s.tokens) {
            const float own = score[i];
            int rank = 0;
            for (int j = 0; j < i; ++j) rank += score[j] >= own;
            for (int j = i + 1; j < s.tokens; ++j) rank += score[j] > own;
            kept = rank < s.count;
        }
        const unsigned votes = __ballot_sync(~0u, kept);
        if (lane == 0) kept_before[warp] = __popc(votes);
        __syncthreads();
        int at = done + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < kWarps; ++w) {
            if (w < warp) at += kept_before[w];
            done += kept_before[w];
        }
        if (kept) {
            place[at] = i;
            if (blockIdx.y == 0) kept_positions[b * s.count + at] = positions[b * s.tokens + i];
        }
    }
    __syncthreads();
    const uint4* const from = x + b * (s.tokens + 1) * s.vectors;
    uint4* const to = kept_x + b * (s.count + 1) * s.vectors;
    const int all = (s.count + 1) * s.vectors;
    for (int v = blockIdx.y * kThreads + threadIdx.x; v < all; v += gridDim.y * kThreads) {
        const int row = v / s.vectors;
        const int source = row == 0 ? 0 : place[row - 1] + 1;
        to[v] = from[source * s.vectors + v % s.vectors];
    }
}

}  // namespace

cudaError_t keep_top_tokens(SelectionShape shape, const void* x, const float* scores, const long long* positions,
                            void* kept_x, long long* kept_positions, cudaStream_t stream) {
    const dim3 grid(shape.batch, shape.batch < kFewImages ? kBlocksOfFew : 1);
    const std::size_t shared = sizeof(float) * shape.tokens + sizeof(int) * shape.count;
    return launch_overlapping(select, grid, kThreads, shared, stream, shape, static_cast<const uint4*>(x), scores,
                              positions, static_cast<uint4*>(kept_x), kept_positions);
}

}  // namespace dynvit::cuda
