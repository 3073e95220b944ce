#include "token_merge.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cfloat>

#include "element_dispatch.cuh"
#include "number_in_order.cuh"
#include "overlap.cuh"
#include "vector_elements.cuh"
#include "warp_sum.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kQueries = kWarps;  // of a block: a warp finds and loads one
constexpr float kLeastNorm = 1e-12f;

// Where one image's tokens lie.
struct ImageSpan {
    long long row, kept_row;      // its first row before and after, a prefix token's if it has any
    long long patch, kept_patch;  // the number of its first patch token among all images' patch tokens
    int tokens, kept;             // patch tokens
};

__device__ ImageSpan span_of(const ImageTokens& s, int image) {
    const long long b = image;
    if (!s.offsets) {
        return {b * (s.prefix + s.tokens), b * (s.prefix + s.kept), b * s.tokens, b * s.kept, s.tokens, s.kept};
    }
    const int row = s.offsets[b], kept_row = s.kept_offsets[b];
    return {row,
            kept_row,
            row - b * s.prefix,
            kept_row - b * s.prefix,
            s.offsets[b + 1] - row - s.prefix,
            s.kept_offsets[b + 1] - kept_row - s.prefix};
}

__global__ void __launch_bounds__(kThreads)
    find_places_kernel(ImageTokens s, const long long* names, const long long* kept_names, long long* places) {
    let_next_begin();
    wait_for_previous();
    const ImageSpan image = span_of(s, blockIdx.x);
    const int i = blockIdx.y * kThreads + threadIdx.x;
    if (i >= image.kept) return;
    const long long name = kept_names[image.kept_patch + i];
    int low = 0, high = image.tokens - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (names[image.patch + middle] < name) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    places[image.kept_patch + i] = low;
}

// A number that is the higher the higher the cosine is and, of equal ones, the lower the candidate; never 0.
__device__ unsigned long long rank_of(float cosine, int candidate) {
    const unsigned bits = __float_as_uint(cosine + 0.0f);  // -0 becomes 0
    const unsigned ordered = bits >> 31 ? ~bits : bits | 1u << 31;
    return static_cast<unsigned long long>(ordered) << 32 | ~static_cast<unsigned>(candidate);
}

__device__ float cosine_of(unsigned long long rank) {
    const unsigned ordered = static_cast<unsigned>(rank >> 32);
    return __uint_as_float(ordered >> 31 ? ordered ^ 1u << 31 : ~ordered);
}

// A warp's row, scaled to length 1. @param row null: zeros
template <class T>
__device__ void load_unit_row(const T* row, int depth, float* unit) {
    const int lane = threadIdx.x % 32;
    float values[kMaxMetricDepth / 32] = {}, square = 0;
#pragma unroll
    for (int c = 0; c < kMaxMetricDepth / 32; ++c) {
        const int i = 32 * c + lane;
        if (row && i < depth) values[c] = static_cast<float>(row[i]);
        square += values[c] * values[c];
    }
    const float factor = 1 / fmaxf(sqrtf(warp_sum(square)), kLeastNorm);
#pragma unroll
    for (int c = 0; c < kMaxMetricDepth / 32; ++c) unit[32 * c + lane] = values[c] * factor;
}

// The cosines of a thread's row with all of the block's queries.
template <class T>
__device__ void compare(const T* row, int depth, const float (*queries)[kMaxMetricDepth], float (&cosines)[kQueries]) {
    float square = 0;
    for (float& cosine : cosines) cosine = 0;
#pragma unroll 4
    for (int i = 0; i < depth; i += 8) {
        float values[8];
        load8(row + i, values);
#pragma unroll
        for (float value : values) square += value * value;
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
            float query[8];
            load8(queries[q] + i, query);
#pragma unroll
            for (int e = 0; e < 8; ++e) cosines[q] += query[e] * values[e];
        }
    }
    const float factor = 1 / fmaxf(sqrtf(square), kLeastNorm);
    for (float& cosine : cosines) cosine *= factor;
}

struct Nearest {
    int candidate;  // -1: there is none
    float cosine;
};

// The most similar candidate of the warp's query, of equal ones the first. All of the block's threads call it.
// @param rows the image's @param query the warp's row; below 0: it has none @param row_of a candidate's row
template <class T, class RowOf>
__device__ Nearest find_nearest(const T* rows, const Metric& m, int query, int candidates, const RowOf& row_of) {
    __shared__ alignas(16) float queries[kQueries][kMaxMetricDepth];
    __shared__ unsigned long long ranks[kQueries][kThreads];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    load_unit_row(query < 0 ? nullptr : rows + query * m.row_stride, m.depth, queries[warp]);
    __syncthreads();
    float highest[kQueries];
    int nearest[kQueries];
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
        highest[q] = -INFINITY;
        nearest[q] = -1;
    }
    for (int c = threadIdx.x; c < candidates; c += kThreads) {
        float cosines[kQueries];
        compare(rows + row_of(c) * m.row_stride, m.depth, queries, cosines);
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
            if (cosines[q] > highest[q]) {
                highest[q] = cosines[q];
                nearest[q] = c;
            }
        }
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) ranks[q][threadIdx.x] = nearest[q] < 0 ? 0 : rank_of(highest[q], nearest[q]);
    __syncthreads();
    unsigned long long first = 0;
    for (int t = lane; t < kThreads; t += 32) first = max(first, ranks[warp][t]);
    for (int offset = 16; offset > 0; offset /= 2) first = max(first, __shfl_xor_sync(~0u, first, offset));
    if (first == 0) return {-1, -INFINITY};
    return {static_cast<int>(~static_cast<unsigned>(first)), fminf(cosine_of(first), 1)};
}

// The place of the dropped token of this number: as many kept ones stand before it as have at most so many dropped ones
// before them. A warp calls it. @param place (kept), ascending
__device__ int place_of_dropped(int number, const long long* place, int kept) {
    int before = 0;
    for (int i = threadIdx.x % 32; i < kept; i += 32) before += place[i] - i <= number;
    return number + __reduce_add_sync(~0u, before);
}

// Blocks of one image share its dropped tokens.
template <class T>
__global__ void __launch_bounds__(kThreads)
    join_nearest_kernel(ImageTokens s, Metric m, const long long* places, float threshold, long long* slots) {
    let_next_begin();
    wait_for_previous();
    const ImageSpan image = span_of(s, blockIdx.x);
    const int first = blockIdx.y * kQueries, dropped = image.tokens - image.kept;
    const long long* const place = places + image.kept_patch;
    long long* const slot = slots + image.patch;
    if (blockIdx.y == 0) {
        for (int i = threadIdx.x; i < image.kept; i += kThreads) slot[place[i]] = i;
    }
    if (first >= dropped) return;
    const int number = first + threadIdx.x / 32;
    const int query = number < dropped ? place_of_dropped(number, place, image.kept) : -1;
    const T* const rows = static_cast<const T*>(m.rows) +
                          (s.offsets ? (image.row + s.prefix) * m.row_stride : blockIdx.x * m.image_stride);
    const Nearest nearest = find_nearest(rows, m, query, image.kept, [&](int c) { return place[c]; });
    if (threadIdx.x % 32 == 0 && query >= 0) slot[query] = nearest.cosine > threshold ? nearest.candidate : -1;
}

// Blocks of one image share its even tokens.
template <class T>
__global__ void __launch_bounds__(kThreads) draw_edges_kernel(Matching s, Metric m) {
    let_next_begin();
    wait_for_previous();
    const long long b = blockIdx.x;
    const int number = blockIdx.y * kQueries + threadIdx.x / 32;
    const int query = number < s.even ? s.first + 2 * number : -1;
    const T* const rows = static_cast<const T*>(m.rows) + b * m.image_stride;
    const Nearest nearest =
        find_nearest(rows, m, query, s.tokens - s.even, [&](int c) { return 1LL - s.first + 2 * c; });
    if (threadIdx.x % 32 != 0 || query < 0) return;
    s.cosines[b * s.even + number] = nearest.cosine;
    s.ends[b * s.even + number] = max(nearest.candidate, 0);
}

constexpr int kRankThreads = 512;

// A block an image: ranks the edges by counting, then numbers the tokens that join nothing.
__global__ void __launch_bounds__(kRankThreads)
    join_along_edges_kernel(Matching s, long long* places, long long* slots) {
    extern __shared__ float cosine[];  // (even)
    __shared__ int kept_before[kRankThreads / 32];
    const int joining = s.tokens - s.count, first_odd = s.even - joining;
    let_next_begin();
    wait_for_previous();
    const float* const cosines = s.cosines + static_cast<long long>(blockIdx.x) * s.even;
    const int* const ends = s.ends + static_cast<long long>(blockIdx.x) * s.even;
    places += static_cast<long long>(blockIdx.x) * s.count;
    slots += static_cast<long long>(blockIdx.x) * s.tokens;
    for (int i = threadIdx.x; i < s.even; i += kRankThreads) cosine[i] = cosines[i];
    for (int i = threadIdx.x; i < s.tokens - s.even; i += kRankThreads) {
        places[first_odd + i] = 2 * i + 1 - s.first;
        slots[2 * i + 1 - s.first] = first_odd + i;
    }
    int done = 0;
    for (int first = 0; first < s.even; first += kRankThreads) {
        __syncthreads();
        const int i = first + threadIdx.x, token = 2 * i + s.first;
        const int rank = i < s.even ? rank_among(cosine, s.even, i) : 0;
        const bool stays = i < s.even && rank >= joining;
        const int number = number_in_order<kRankThreads>(stays, done, kept_before);
        const int slot = s.sorted ? number : rank - joining;
        if (stays) places[slot] = token;
        if (i < s.even) slots[token] = stays ? slot : first_odd + ends[i];
    }
}

constexpr int kChunks = 3;  // vectors of a row that a lane sums at once

// sums += weight times the elements of a vector.
template <class T, int size>
__device__ void add_scaled(const uint4& vector, float weight, float (&sums)[size]) {
    const T* const elements = reinterpret_cast<const T*>(&vector);
#pragma unroll
    for (int i = 0; i < size; ++i) sums[i] += weight * static_cast<float>(elements[i]);
}

template <class T, int size>
__device__ uint4 divided(const float (&sums)[size], float total) {
    uint4 vector;
    T* const elements = reinterpret_cast<T*>(&vector);
#pragma unroll
    for (int i = 0; i < size; ++i) elements[i] = static_cast<T>(sums[i] / total);
    return vector;
}

// Calls work(i) for the tokens of a group in their order. All lanes of a warp take part in each.
template <class Work>
__device__ void for_each_member(const int* slot, int tokens, int group, const Work& work) {
    for (int first = 0; first < tokens; first += 32) {
        const int i = first + threadIdx.x % 32;
        for (unsigned votes = __ballot_sync(~0u, i < tokens && slot[i] == group); votes; votes &= votes - 1) {
            work(first + __ffs(votes) - 1);
        }
    }
}

// One group's mean by a warp. A token alone in its group is copied.
// @param slot (tokens), shared @param x the image's patch tokens @param sizes theirs, or null @return the group's size
template <class T>
__device__ float average(const int* slot, int tokens, int group, int vectors, const uint4* x, const float* sizes,
                         uint4* mean) {
    constexpr int kSize = sizeof(uint4) / sizeof(T);
    float total = 0;
    for (int start = threadIdx.x % 32; start - threadIdx.x % 32 < vectors; start += 32 * kChunks) {
        float sums[kChunks][kSize] = {};
        int members = 0, last = 0;
        total = 0;
        for_each_member(slot, tokens, group, [&](int i) {
            const uint4* const row = x + static_cast<long long>(i) * vectors;
            const float size = sizes ? sizes[i] : 1;
#pragma unroll
            for (int c = 0; c < kChunks; ++c) {
                if (start + 32 * c < vectors) add_scaled<T>(row[start + 32 * c], size, sums[c]);
            }
            total += size;
            last = i;
            ++members;
        });
        const uint4* const alone = x + static_cast<long long>(last) * vectors;
#pragma unroll
        for (int c = 0; c < kChunks; ++c) {
            const int v = start + 32 * c;
            if (v < vectors) mean[v] = members == 1 ? alone[v] : divided<T>(sums[c], total);
        }
    }
    return total;
}

// The names of the image's patch tokens.
__device__ const long long* names_of(const ImageTokens& s, const TokenNames& n, const ImageSpan& image) {
    return n.names + (s.offsets ? image.patch : blockIdx.x * n.image_stride);
}

// A warp a row of the result.
template <class T>
__global__ void __launch_bounds__(kThreads) average_groups_kernel(ImageTokens s, GroupRows g, TokenNames n) {
    extern __shared__ int slot[];  // (n)
    let_next_begin();
    wait_for_previous();
    const ImageSpan image = span_of(s, blockIdx.x);
    const int lane = threadIdx.x % 32, first = blockIdx.y * kWarps, row = first + threadIdx.x / 32;
    if (first >= s.prefix + image.kept) return;
    for (int i = threadIdx.x; i < image.tokens; i += kThreads) slot[i] = static_cast<int>(g.slots[image.patch + i]);
    __syncthreads();
    const uint4* const x = static_cast<const uint4*>(g.x) + image.row * g.vectors;
    uint4* const to = static_cast<uint4*>(g.means) + (image.kept_row + row) * g.vectors;
    const int group = row - s.prefix;
    if (group < 0) {
        for (int v = lane; v < g.vectors; v += 32) to[v] = x[row * g.vectors + v];
        if (lane == 0) g.mean_sizes[image.kept_row + row] = 1;
    } else if (group < image.kept) {
        const float size = average<T>(slot, image.tokens, group, g.vectors, x + s.prefix * g.vectors,
                                      g.sizes ? g.sizes + image.row + s.prefix : nullptr, to);
        if (lane != 0) return;
        g.mean_sizes[image.kept_row + row] = size;
        const long long to_name = image.kept_patch + group;
        if (n.names) n.kept_names[to_name] = names_of(s, n, image)[n.places[to_name]];
    }
}

constexpr int kLanes = 32;

// The weighted sum of the tokens of a group, `vectors` of it from `first` on, a lane a vector. The block's warps share
// the tokens.
// @param slot (tokens), shared @param x the image's patch tokens @param weights theirs
template <class T>
__device__ void sum_group(const int* slot, int tokens, int group, const FusedRows& f, int first, const uint4* x,
                          const float* weights, uint4* sum) {
    constexpr int kSize = sizeof(uint4) / sizeof(T);
    __shared__ float parts[kWarps][kSize][kLanes];
    const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, v = first + lane;
    const int share = (tokens + kWarps - 1) / kWarps, begin = min(warp * share, tokens);
    float sums[kSize] = {};
    for_each_member(slot + begin, min(share, tokens - begin), group, [&](int i) {
        const int token = begin + i;
        if (v < f.vectors) add_scaled<T>(x[static_cast<long long>(token) * f.vectors + v], weights[token], sums);
    });
    for (int e = 0; e < kSize; ++e) parts[warp][e][lane] = sums[e];
    __syncthreads();
    if (warp > 0) return;
    float total = 0;
    for (int i = lane; i < tokens && !f.are_shares; i += kLanes) total += weights[i];
    total = f.are_shares ? 1 : fmaxf(warp_sum(total), FLT_MIN);
    for (int w = 1; w < kWarps; ++w) {
        for (int e = 0; e < kSize; ++e) sums[e] += parts[w][e][lane];
    }
    if (v < f.vectors) sum[v] = divided<T>(sums, total);
}

// An image's first blocks each compute 32 vectors of its fused token; a warp of the others copies a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fuse_dropped_kernel(ImageTokens s, FusedRows f, TokenNames n, long long name, long long name_step) {
    extern __shared__ int slot[];  // (n)
    let_next_begin();
    wait_for_previous();
    const ImageSpan image = span_of(s, blockIdx.x);
    const long long b = blockIdx.x, to_row = f.offsets ? f.offsets[b] : image.kept_row + b;
    const uint4* const x = static_cast<const uint4*>(f.x) + image.row * f.vectors;
    uint4* const to = static_cast<uint4*>(f.fused) + to_row * f.vectors;
    const long long* const place = n.places + image.kept_patch;
    const int summing = (f.vectors + kLanes - 1) / kLanes, block = blockIdx.y;
    if (block >= summing) {
        const int row = (block - summing) * kWarps + threadIdx.x / 32;
        if (row >= s.prefix + image.kept) return;
        const long long source = row < s.prefix ? row : s.prefix + place[row - s.prefix];
        for (int v = threadIdx.x % 32; v < f.vectors; v += 32) to[row * f.vectors + v] = x[source * f.vectors + v];
        return;
    }
    for (int i = threadIdx.x; i < image.tokens; i += kThreads) slot[i] = image.kept;
    __syncthreads();
    for (int j = threadIdx.x; j < image.kept; j += kThreads) slot[place[j]] = j;
    __syncthreads();
    const bool fuses = image.kept < image.tokens;
    if (block == 0) {
        long long* const kept_names = n.kept_names + to_row - b * s.prefix;
        const long long* const names = names_of(s, n, image);
        for (int j = threadIdx.x; j < image.kept; j += kThreads) kept_names[j] = names[place[j]];
        if (fuses && threadIdx.x == 0) kept_names[image.kept] = name + b * name_step;
        for (int i = threadIdx.x; f.slots && i < image.tokens; i += kThreads) f.slots[image.patch + i] = slot[i];
    }
    if (!fuses) return;
    sum_group<T>(slot, image.tokens, image.kept, f, block * kLanes, x + s.prefix * f.vectors, f.weights + image.patch,
                 to + (s.prefix + image.kept) * f.vectors);
}

// A block of `rows` rows: enough of them for each of so many images.
dim3 grid_of(int images, int rows_of_image, int rows) {
    return dim3(images, max((rows_of_image + rows - 1) / rows, 1));
}

}  // namespace

cudaError_t find_places(const ImageTokens& images, const long long* names, const long long* kept_names,
                        long long* places, cudaStream_t stream) {
    return launch_overlapping(find_places_kernel, grid_of(images.images, images.kept, kThreads), kThreads, 0, stream,
                              images, names, kept_names, places);
}

cudaError_t join_nearest(const ImageTokens& images, const Metric& metric, const long long* places, float threshold,
                         long long* slots, cudaStream_t stream) {
    return with_type(metric.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(join_nearest_kernel<T>, grid_of(images.images, images.dropped, kQueries), kThreads, 0,
                                  stream, images, metric, places, threshold, slots);
    });
}

cudaError_t draw_edges(const Matching& matching, const Metric& metric, cudaStream_t stream) {
    return with_type(metric.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(draw_edges_kernel<T>, grid_of(matching.images, matching.even, kQueries), kThreads, 0,
                                  stream, matching, metric);
    });
}

cudaError_t join_along_edges(const Matching& matching, long long* places, long long* slots, cudaStream_t stream) {
    const std::size_t shared = sizeof(float) * matching.even;
    return launch_overlapping(join_along_edges_kernel, dim3(matching.images), kRankThreads, shared, stream, matching,
                              places, slots);
}

cudaError_t average_groups(const ImageTokens& images, const GroupRows& rows, const TokenNames& names,
                           cudaStream_t stream) {
    return with_type(rows.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(average_groups_kernel<T>, grid_of(images.images, images.prefix + images.kept, kWarps),
                                  kThreads, sizeof(int) * images.tokens, stream, images, rows, names);
    });
}

cudaError_t fuse_dropped(const ImageTokens& images, const FusedRows& rows, const TokenNames& names, long long name,
                         long long name_step, cudaStream_t stream) {
    dim3 grid = grid_of(images.images, images.prefix + images.kept, kWarps);
    grid.y += (rows.vectors + kLanes - 1) / kLanes;
    return with_type(rows.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(fuse_dropped_kernel<T>, grid, kThreads, sizeof(int) * images.tokens, stream, images,
                                  rows, names, name, name_step);
    });
}

}  // namespace dynvit::cuda
