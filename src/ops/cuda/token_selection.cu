#include "token_selection.cuh"

#include "number_in_order.cuh"
#include "overlap.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kFewImages = 64;  // fewer don't fill a GPU: several blocks then share an image's rows
constexpr int kBlocksOfFew = 8;

// Copies an image's prefix tokens and its kept ones; blocks of one image share the work.
// @param place (kept), shared: where the kept tokens stand among its patch tokens
__device__ void copy_rows(int kept, int prefix, int vectors, const int* place, const uint4* from, uint4* to) {
    const int all = (kept + prefix) * vectors;
    for (int v = blockIdx.y * kThreads + threadIdx.x; v < all; v += gridDim.y * kThreads) {
        const int row = v / vectors;
        const int source = row < prefix ? row : place[row - prefix] + prefix;
        to[v] = from[source * vectors + v % vectors];
    }
}

// Ranks each token among the image's by counting those before it, numbers the kept ones in the order of the grid, and
// copies their rows. Blocks of one image all rank; each copies its share.
// @param positions the tokens' names; null: their places
__global__ void __launch_bounds__(kThreads)
    select(SelectionShape s, const uint4* x, const float* scores, const long long* positions, uint4* kept_x,
           long long* kept_positions) {
    extern __shared__ float score[];                              // (n)
    int* const place = reinterpret_cast<int*>(score + s.tokens);  // (k): where the kept tokens stand
    __shared__ int kept_before[kWarps];
    const long long b = blockIdx.x;
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
        const bool kept = i < s.tokens && rank_among(score, s.tokens, i) < s.count;
        const int at = number_in_order<kThreads>(kept, done, kept_before);
        if (kept) {
            place[at] = i;
            if (blockIdx.y == 0)
                kept_positions[b * s.count + at] = positions ? positions[b * s.position_stride + i] : i;
        }
    }
    __syncthreads();
    copy_rows(s.count, s.prefix, s.vectors, place, x + b * (s.tokens + s.prefix) * s.vectors,
              kept_x + b * (s.count + s.prefix) * s.vectors);
}

constexpr int kScanThreads = 1024;

// A block a sequence: its tokens' probabilities, and how many rows it keeps, in kept_offsets[b + 1].
__global__ void __launch_bounds__(kThreads) count_rows(PackedSelection s, const float* log_probability) {
    const int b = blockIdx.x;
    let_next_begin();
    wait_for_previous();
    const int begin = s.offsets[b] + s.prefix, end = s.offsets[b + 1];
    const int prefix_rows = (b + 1) * s.prefix;  // up to there
    int rows = s.prefix;
    for (int first = begin; first < end; first += kThreads) {
        const int row = first + threadIdx.x;
        bool kept = false;
        if (row < end) {
            const float probability = expf(log_probability[row]);
            s.probability[row - prefix_rows] = probability;
            kept = probability > s.threshold;
        }
        rows += __syncthreads_count(kept);
    }
    if (threadIdx.x == 0) s.kept_offsets[b + 1] = rows;
}

// One block: kept_offsets' running sum, in place, from 0.
__global__ void __launch_bounds__(kScanThreads) add_up(PackedSelection s) {
    __shared__ int sums[kScanThreads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    let_next_begin();
    wait_for_previous();
    int done = 0;  // rows of rounds before
    for (int first = 0; first < s.sequences; first += kScanThreads) {
        const int b = first + threadIdx.x;
        int sum = b < s.sequences ? s.kept_offsets[b + 1] : 0;
        for (int step = 1; step < 32; step *= 2) {
            const int before = __shfl_up_sync(~0u, sum, step);
            if (lane >= step) sum += before;
        }
        if (lane == 31) sums[warp] = sum;
        __syncthreads();
        sum += done;
        for (int w = 0; w < kScanThreads / 32; ++w) {
            if (w < warp) sum += sums[w];
            done += sums[w];
        }
        if (b < s.sequences) s.kept_offsets[b + 1] = sum;
        __syncthreads();
    }
    if (threadIdx.x == 0) s.kept_offsets[0] = 0;
}

// Blocks of one sequence all number its kept tokens; each copies its share.
__global__ void __launch_bounds__(kThreads) gather_rows(PackedSelection s, const uint4* x, const long long* positions,
                                                        uint4* kept_x, long long* kept_positions) {
    extern __shared__ int kept_place[];  // (kept): where the kept tokens stand
    __shared__ int kept_before[kWarps];
    const int b = blockIdx.x;
    let_next_begin();
    wait_for_previous();
    const int begin = s.offsets[b], tokens = s.offsets[b + 1] - begin - s.prefix, kept_begin = s.kept_offsets[b];
    const int prefix_rows = b * s.prefix;  // before this sequence
    const int patch = begin - prefix_rows, kept_patch = kept_begin - prefix_rows;
    int done = 0;  // kept tokens in rounds before
    for (int first = 0; first < tokens; first += kThreads) {
        __syncthreads();
        const int i = first + threadIdx.x;
        const bool kept = i < tokens && s.probability[patch + i] > s.threshold;
        const int at = number_in_order<kThreads>(kept, done, kept_before);
        if (kept) {
            kept_place[at] = i;
            if (blockIdx.y == 0) {
                kept_positions[kept_patch + at] = positions[patch + i];
                if (s.sizes) s.kept_sizes[kept_begin + s.prefix + at] = s.sizes[begin + s.prefix + i];
            }
        }
    }
    if (s.sizes && blockIdx.y == 0 && threadIdx.x < s.prefix) s.kept_sizes[kept_begin + threadIdx.x] = 1;
    __syncthreads();
    copy_rows(done, s.prefix, s.vectors, kept_place, x + static_cast<long long>(begin) * s.vectors,
              kept_x + static_cast<long long>(kept_begin) * s.vectors);
}

dim3 grid_of(int images) {
    return dim3(images, images < kFewImages ? kBlocksOfFew : 1);
}

std::size_t shared_of(const SelectionShape& shape) {
    return sizeof(float) * shape.tokens + sizeof(int) * shape.count;
}

}  // namespace

cudaError_t keep_top_tokens(SelectionShape shape, const void* x, const float* scores, const long long* positions,
                            void* kept_x, long long* kept_positions, cudaStream_t stream) {
    return launch_overlapping(select, grid_of(shape.batch), kThreads, shared_of(shape), stream, shape,
                              static_cast<const uint4*>(x), scores, positions, static_cast<uint4*>(kept_x),
                              kept_positions);
}

cudaError_t top_places(SelectionShape shape, const float* scores, long long* places, cudaStream_t stream) {
    return launch_overlapping(select, dim3(shape.batch), kThreads, shared_of(shape), stream, shape, nullptr, scores,
                              nullptr, nullptr, places);
}

cudaError_t count_above(const PackedSelection& selection, const float* log_probability, cudaStream_t stream) {
    const cudaError_t error =
        launch_overlapping(count_rows, dim3(selection.sequences), kThreads, 0, stream, selection, log_probability);
    if (error != cudaSuccess) return error;
    return launch_overlapping(add_up, dim3(1), kScanThreads, 0, stream, selection);
}

cudaError_t gather_above(const PackedSelection& selection, const void* x, const long long* positions, void* kept_x,
                         long long* kept_positions, cudaStream_t stream) {
    return launch_overlapping(gather_rows, grid_of(selection.sequences), kThreads, sizeof(int) * selection.longest,
                              stream, selection, static_cast<const uint4*>(x), positions, static_cast<uint4*>(kept_x),
                              kept_positions);
}

}  // namespace dynvit::cuda
