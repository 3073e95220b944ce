// Fused masked attention: ops/masked_attention.hpp's softmax between its two products, without the (N, N) matrices ever
// leaving the chip. Online softmax after FlashAttention (Dao et al. 2022), on the tensor cores by mma.sync.
//
// With E_ij = exp(P_ij - m_i), lse_i = m_i + log(S_i), floor_i = eps / (N S_i), u_i = sum_j dA_ij A_ij = dO_i . O_i:
//     A_ij = exp(P_ij - lse_i) G_ij + floor_i                       O = A V
//     dP_ij = (dA_ij - u_i) exp(P_ij - lse_i) G_ij                  dA = dO V^T
//     dpolicy_j = sum_{i != j} (dA_ij - u_i) exp(P_ij - lse_i)      dV = A^T dO, dQ = scale dP K, dK = scale dP^T Q
// The definition also sends a term of the order of eps / S_i to the row's maximum. It is left out: it is below the
// rounding of half precision, except where a dropped token's weight is a thousand times all visible ones. Without a
// policy G is 1 and eps is 0.
//
// Attention among tokens of sizes s (ops/self_attention.hpp) is the plain one of P_ij + log(s_j): the products Q K^T
// begin from log(s_j) / scale instead of zero, so that no weight is above 1. Where the keys' gradients are added up,
// exp(P_ij - lse_i) is multiplied by s_j instead, which takes fewer registers.
//
// A warp owns 16 or 32 rows (queries, or keys where it adds up their gradients) and walks over the other side in tiles
// of 16; tiles past the last token are skipped. Nothing is added up in an order that changes: results repeat exactly.
#include <algorithm>
#include <type_traits>

#include "dynvit/ops/constants.hpp"
#include "flash_attention.cuh"
#include "overlap.cuh"
#include "tensor_cores.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kMaxWarps = 8;        // a block
constexpr int kMaxFusedWarps = 13;  // 208 tokens: the registers of a multiprocessor
constexpr int kKeys = 64;           // keys that are loaded at a time
constexpr int kAhead = 3;           // loads of queries under way
constexpr int kCopiesAtOnce = 4;    // of a thread, before it looks whether there are more: where registers allow it
constexpr auto kEpsilon = static_cast<float>(kPolicyEpsilon);

// What changes how much a key weighs: nothing, a policy, or the tokens' sizes.
enum class Keys { kPlain, kPolicy, kSized };

// What a token's size adds to q . k, before that is scaled.
__device__ float size_bias(float size, float scale) {
    return __logf(size) / scale;
}

// Whether element e (0 to 3) of a tile's half n stands on the tile's diagonal.
__device__ bool on_diagonal(int lane, int n, int e) {
    return n == e / 2 && lane / 4 == lane % 4 * 2 + e % 2;
}

// All threads: `rows` rows of head_dim elements into rows of kDim; zeros past `existing` rows and past head_dim.
template <int kDim, int kAtOnce = 1, class T>
__device__ void copy_rows(T* to, const T* from, long long stride, int rows, int existing, int head_dim) {
    constexpr int kPieces = kDim / 8;
    const int column = threadIdx.x % kPieces * 8, first = threadIdx.x / kPieces, step = blockDim.x / kPieces;
    if (column >= head_dim) existing = 0;
    unsigned target = shared_address(to + first * row_length(kDim) + column);
    const T* source = from + first * stride + column;
#pragma unroll 1
    for (int row = first; row < rows; row += kAtOnce * step) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            if (kAtOnce == 1 || row + i * step < rows) copy16(target, source, row + i * step < existing);
            target += step * row_length(kDim) * static_cast<int>(sizeof(T));
            source += step * stride;
        }
    }
}

// The head that a multiprocessor comes to `ahead` heads after this block's: into the L2 cache while this one computes.
struct HeadPosition {
    int image, head;
};
__device__ HeadPosition head_after(int ahead) {
    const int next = blockIdx.z * gridDim.y + blockIdx.y + ahead;
    return {static_cast<int>(next / gridDim.y), static_cast<int>(next % gridDim.y)};
}

// All threads: a hint that rows of at most 128 bytes will be read soon.
template <class T>
__device__ void prefetch_rows(const T* rows, long long stride, int count) {
    for (int row = threadIdx.x; row < count; row += blockDim.x) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(rows + row * stride));
    }
}

// The warp's 16 rows of sums, times `factor`, to rows of global memory, through its own rows of shared memory: 16 bytes
// a lane.
template <class T, int kDim>
__device__ void store_rows(const Sums (&sums)[kDim / 16], float factor_low, float factor_high, T* own, T* to,
                           long long stride, int existing, int head_dim) {
    constexpr int kPieces = kDim / 8;
    const int lane = threadIdx.x % 32;
    T* low = own + lane / 4 * row_length(kDim) + lane % 4 * 2;
    for (int d = 0; d < kDim / 16; ++d) {
        for (int n = 0; n < 2; ++n) {
            const float* x = sums[d].x[n];
            T* at = low + d * 16 + n * 8;
            *reinterpret_cast<unsigned*>(at) = pack<T>(x[0] * factor_low, x[1] * factor_low);
            *reinterpret_cast<unsigned*>(at + 8 * row_length(kDim)) = pack<T>(x[2] * factor_high, x[3] * factor_high);
        }
    }
    __syncwarp();
    constexpr int kStep = 32 / kPieces;  // rows that the warp writes at a time
    const int column = lane % kPieces * 8, first = lane / kPieces;
    if (column >= head_dim) existing = 0;
    const T* from = own + first * row_length(kDim) + column;
    to += first * stride + column;
#pragma unroll
    for (int row = 0; row < kTile; row += kStep) {
        if (first + row < existing) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from + row * row_length(kDim));
        }
        to += kStep * stride;
    }
    __syncwarp();
}

__host__ __device__ constexpr int round_up(int a, int b) {
    return (a + b - 1) / b * b;
}
// Of the kernel key_gradients: queries that are loaded at a time, and those that shared memory holds.
__host__ __device__ constexpr int queries_at_a_time(bool fused) {
    return fused ? 64 : 32;
}
__host__ __device__ constexpr int queries_held(bool fused) {
    return fused ? kMaxFusedWarps * kTile : (kAhead + 1) * queries_at_a_time(fused);
}

int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

// The keys and values of one head.
template <class T, Keys kKind>
struct KeySource {
    const T* k;
    long long to_v, stride;  // from a key to its value, and to the next key
    const float* per_key;    // their policy or sizes; or null
    int tokens, head_dim;
    float scale;
};

// An image's policy or sizes, if there are any. Arguments: FlashForward or FlashBackward.
template <Keys kKind, class Arguments>
__device__ __forceinline__ const float* per_key_of(const Arguments& p, int image, int tokens) {
    const float* all = kKind == Keys::kPolicy ? p.policy : p.sizes;
    return kKind == Keys::kPlain ? nullptr : all + static_cast<long long>(image) * tokens;
}

// Of the head whose keys begin `start` elements after p.k.
template <class T, Keys kKind, class Arguments>
__device__ __forceinline__ KeySource<T, kKind> key_source(const Arguments& p, long long start, const float* per_key,
                                                          int tokens) {
    return {static_cast<const T*>(p.k) + start,
            static_cast<const T*>(p.v) - static_cast<const T*>(p.k),
            p.strides.token,
            per_key,
            tokens,
            p.shape.head_dim,
            p.shape.scale};
}

// Every row of a tile of sums begins as the same 16 numbers.
__device__ __forceinline__ void fill_rows(Sums& sums, const float* row) {
    for (int n = 0; n < 2; ++n) {
        const float2 pair = *reinterpret_cast<const float2*>(row + n * 8 + threadIdx.x % 4 * 2);
        for (int e = 0; e < 4; ++e) sums.x[n][e] = e % 2 ? pair.y : pair.x;
    }
}

// Keys, values and the keys' policy or biases, kKeys at a time, in a ring of kCount buffers.
template <class T, int kDim>
struct KeyBuffers {
    static constexpr int kCount = kDim == 64 ? 3 : 2, kElements = kKeys * row_length(kDim);
    T *keys, *values;
    float* per_key;  // the policy; of sizes their size_bias()

    static constexpr std::size_t bytes() { return kCount * (2 * kElements * sizeof(T) + kKeys * sizeof(float)); }
    __device__ explicit KeyBuffers(T* memory)
        : keys(memory),
          values(memory + kCount * kElements),
          per_key(reinterpret_cast<float*>(memory + 2 * kCount * kElements)) {}

    // Where keys `first` to first + kKeys lie.
    __device__ int slot(int first) const { return first / kKeys % kCount * kKeys; }

    // Starts the copies of the first kCount - 1 buffers.
    template <Keys kKind>
    __device__ void begin(const KeySource<T, kKind>& from) const {
#pragma unroll 1
        for (int i = 0; i < kCount - 1; ++i) load(from, i * kKeys);
    }
    // Waits for keys `first` to first + kKeys and starts the copies that take the place of those before them.
    template <Keys kKind>
    __device__ void advance(const KeySource<T, kKind>& from, int first) const {
        wait_for_copies<kCount - 2>();
        if (kKind == Keys::kSized) make_biases(slot(first), from.scale);
        __syncthreads();
        load(from, first + (kCount - 1) * kKeys);
    }

  private:
    template <Keys kKind>
    __device__ void load(const KeySource<T, kKind>& from, int first) const {
        const int at = slot(first), existing = min(kKeys, from.tokens - first), rows = round_up(existing, kTile);
        if (existing > 0) {
            const T* k = from.k + first * from.stride;
            copy_rows<kDim, kCopiesAtOnce>(keys + at * row_length(kDim), k, from.stride, rows, existing, from.head_dim);
            copy_rows<kDim, kCopiesAtOnce>(values + at * row_length(kDim), k + from.to_v, from.stride, rows, existing,
                                           from.head_dim);
            if (from.per_key) {
                for (int i = threadIdx.x; i < rows; i += blockDim.x) {
                    copy4(per_key + at + i, from.per_key + (i < existing ? first + i : 0), i < existing);
                }
            }
        }
        commit_copies();
    }

    // Of the sizes that this thread copied itself: the others' may not be there yet.
    __device__ void make_biases(int at, float scale) const {
        for (int i = threadIdx.x; i < kKeys; i += blockDim.x) per_key[at + i] = size_bias(per_key[at + i], scale);
    }
};

// For rows whose visible weights nearly underflow: adds eps / N times the sum of all V, eps in the sums' units.
template <class T, int kDim, Keys kKind>
__device__ void add_floor(Sums (&sums)[kDim / 16], T* own, const KeySource<T, kKind>& from, float epsilon) {
    constexpr int kPieces = kDim / 8;
    const int lane = threadIdx.x % 32, column = lane % kPieces * 8;
    float total[8] = {};
    if (column < from.head_dim) {
#pragma unroll 4
        for (int row = lane / kPieces; row < from.tokens; row += 32 / kPieces) {
            const uint4 values = *reinterpret_cast<const uint4*>(from.k + from.to_v + row * from.stride + column);
            const unsigned pairs[4] = {values.x, values.y, values.z, values.w};
            for (int i = 0; i < 4; ++i) {
                const float2 pair = unpack<T>(pairs[i]);
                total[2 * i] += pair.x;
                total[2 * i + 1] += pair.y;
            }
        }
    }
    float* columns = reinterpret_cast<float*>(own);
    for (int i = 0; i < 8; ++i) {
        for (int other = kPieces; other < 32; other *= 2) total[i] += __shfl_xor_sync(kAll, total[i], other);
        if (lane < kPieces) columns[column + i] = total[i] * (epsilon / from.tokens);
    }
    __syncwarp();
    for (int d = 0; d < kDim / 16; ++d) {
        for (int n = 0; n < 2; ++n) {
            const float2 pair = *reinterpret_cast<const float2*>(columns + d * 16 + n * 8 + lane % 4 * 2);
            for (int e = 0; e < 4; ++e) sums[d].x[n][e] += e % 2 ? pair.y : pair.x;
        }
    }
    __syncwarp();
}

// Tiles of 16 queries that a warp of the forward pass has: keys once in registers serve them all.
template <int kDim>
constexpr int kQueryTiles = kDim == 64 ? 2 : 1;
constexpr int kForwardWarps = 4;
template <int kDim>
constexpr int kForwardBlocks = kDim == 64 ? 3 : 2;  // a multiprocessor

// The online softmax of a warp's queries, and its product with V: what stays from one load of keys to the next.
template <class T, int kDim, Keys kKind>
struct OnlineSoftmax {
    static constexpr bool kPolicy = kKind == Keys::kPolicy, kSized = kKind == Keys::kSized;
    static constexpr int kSteps = kDim / 16, kLength = row_length(kDim), kTiles = kQueryTiles<kDim>;
    static constexpr int kRows = kTiles * kTile, kKeyTiles = kKeys / kTile;
    // float16 has no room below 6e-5: weights are lifted, so that those far below a dropped token's keep their digits.
    static constexpr int kLift = kPolicy && std::is_same_v<T, __half> ? 12 : 0;
    static constexpr float kLifted = 1 << kLift;
    // The eps term is worth adding where it would be half a unit in the last place.
    static constexpr float kLeast = kLifted * kEpsilon * (std::is_same_v<T, __half> ? 4096 : 512);

    int row_first, tokens;  // row_first: the warp's first query
    float factor;           // makes a logit, as a power of two, of q . k
    unsigned queries;       // in shared memory, where the lane reads them
    Sums out[kTiles][kSteps];
    float greatest[kTiles][2], sum[kTiles][2];  // of rows lane / 4 and lane / 4 + 8; sum: this lane's part

    __device__ __forceinline__ OnlineSoftmax(const T* own, int row_first, int tokens, float scale)
        : row_first(row_first),
          tokens(tokens),
          factor(scale * kLog2e),
          queries(shared_address(own + tall_offset(threadIdx.x % 32, kLength))) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            for (int i = 0; i < 2; ++i) {
                greatest[t][i] = -INFINITY;
                sum[t][i] = 0;
            }
        }
    }

    // Takes in keys `first` to first + kKeys. All of them exist (kWhole), or some are missing.
    template <bool kWhole>
    __device__ __forceinline__ void attend(const KeyBuffers<T, kDim>& buffers, int first) {
        const int lane = threadIdx.x % 32, slot = buffers.slot(first);
        const unsigned keys = shared_address(buffers.keys + slot * kLength + wide_offset(lane, kLength));
        const unsigned values = shared_address(buffers.values + slot * kLength + tall_offset(lane, kLength));
        Sums logits[kTiles][kKeyTiles];
        multiply_keys<kWhole>(logits, keys, first, buffers.per_key + slot);
        float shift[kTiles][2];
#pragma unroll
        for (int t = 0; t < kTiles; ++t) raise_maximum<kWhole>(logits[t], shift[t], t, first);
#pragma unroll
        for (int j = 0; j < kKeyTiles; ++j) {
            if (!kWhole && first + j * kTile >= tokens) break;
            Fragment weights[kTiles];
            weigh(weights, logits, shift, j, first, buffers.per_key + slot);
            add_values(weights, values + 2 * j * kTile * kLength);
        }
    }

    // For tile t: the whole rows' sums, with the eps term where the visible weights nearly underflow.
    __device__ __forceinline__ void complete(int t, T* own, const KeySource<T, kKind>& source) {
        for (int i = 0; i < 2; ++i) sum[t][i] = row_sum(sum[t][i]);
        if (kPolicy && __any_sync(kAll, !(fminf(sum[t][0], sum[t][1]) > kLeast))) {
            add_floor<T, kDim>(out[t], own, source, kLifted * kEpsilon);
        }
    }

    // S of row lane / 4 + 8 i of tile t, once complete.
    __device__ __forceinline__ float total(int t, int i) const {
        return kPolicy ? sum[t][i] / kLifted + kEpsilon : sum[t][i];
    }

  private:
    // logits = Q K^T, and the biases if there are sizes; not yet scaled. biases: of key `first`.
    template <bool kWhole>
    __device__ __forceinline__ void multiply_keys(Sums (&logits)[kTiles][kKeyTiles], unsigned keys, int first,
                                                  const float* biases) const {
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            Fragment query[kTiles];
#pragma unroll
            for (int t = 0; t < kTiles; ++t) query[t] = load(queries + 2 * (t * kTile * kLength + d * 16));
#pragma unroll
            for (int j = 0; j < kKeyTiles; ++j) {
                if (!kWhole && first + j * kTile >= tokens) break;
                const Fragment key = load(keys + 2 * (j * kTile * kLength + d * 16));
#pragma unroll
                for (int t = 0; t < kTiles; ++t) {
                    if (kSized && d == 0) fill_rows(logits[t][j], biases + j * kTile);
                    multiply_add<T>(logits[t][j], query[t], key, !kSized && d == 0);
                }
            }
        }
    }

    // Takes tile t's logits into its rows' maximum, to which sums and outputs are scaled; those of missing keys are
    // made -infinity. shift: what is subtracted from a row's logits, in powers of two.
    template <bool kWhole>
    __device__ __forceinline__ void raise_maximum(Sums (&logits)[kKeyTiles], float (&shift)[2], int t, int first) {
        const int lane = threadIdx.x % 32;
        float highest[2] = {greatest[t][0], greatest[t][1]};
#pragma unroll
        for (int j = 0; j < kKeyTiles; ++j) {
            if (!kWhole && first + j * kTile >= tokens) break;
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    float& x = logits[j].x[n][e];
                    if (!kWhole && first + j * kTile + n * 8 + lane % 4 * 2 + e % 2 >= tokens) x = -INFINITY;
                    highest[e / 2] = fmaxf(highest[e / 2], x);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            highest[i] = row_max(highest[i]);
            const float shrink = exp2_fast((greatest[t][i] - highest[i]) * factor);
            greatest[t][i] = highest[i];
            shift[i] = highest[i] * factor - kLift;
            sum[t][i] *= shrink;
#pragma unroll
            for (int d = 0; d < kSteps; ++d) {
                for (int n = 0; n < 2; ++n) {
                    out[t][d].x[n][2 * i] *= shrink;
                    out[t][d].x[n][2 * i + 1] *= shrink;
                }
            }
        }
    }

    // weights = exp(logits - shift) G of keys first + 16 j to + 15, also added to the sums. policy: of key `first`.
    __device__ __forceinline__ void weigh(Fragment (&weights)[kTiles], Sums (&logits)[kTiles][kKeyTiles],
                                          const float (&shift)[kTiles][2], int j, int first, const float* policy) {
        const int lane = threadIdx.x % 32;
        float2 visible[2];
        for (int n = 0; n < 2; ++n) {
            const int column = j * kTile + n * 8 + lane % 4 * 2;
            if (kPolicy) visible[n] = *reinterpret_cast<const float2*>(policy + column);
        }
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            const bool diagonal = kPolicy && first + j * kTile == row_first + t * kTile;
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    float& x = logits[t][j].x[n][e];
                    x = exp2_fast(x * factor - shift[t][e / 2]);
                    if (kPolicy && !(diagonal && on_diagonal(lane, n, e))) x *= e % 2 ? visible[n].y : visible[n].x;
                    sum[t][e / 2] += x;
                }
            }
            weights[t] = pack<T>(logits[t][j]);
        }
    }

    // out += weights V, for 16 keys.
    __device__ __forceinline__ void add_values(const Fragment (&weights)[kTiles], unsigned values) {
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            const Fragment value = load_transposed(values + 2 * d * 16);
#pragma unroll
            for (int t = 0; t < kTiles; ++t) multiply_add<T>(out[t][d], weights[t], value);
        }
    }
};

// 1 / S of rows lane / 4 and lane / 4 + 8 of tile t, as the lifted sums of the output need it; the rows' lse and floor
// go to global memory, if they are wanted.
template <class T, int kDim, Keys kKind>
__device__ __forceinline__ void finish_rows(const FlashForward& p, const OnlineSoftmax<T, kDim, kKind>& softmax, int t,
                                            float (&inverse)[2]) {
    const int lane = threadIdx.x % 32, head = blockIdx.y, image = blockIdx.z, tokens = softmax.tokens;
    for (int i = 0; i < 2; ++i) {
        const float total = softmax.total(t, i);
        inverse[i] = 1 / (softmax.kLifted * total);
        const int row = softmax.row_first + t * kTile + lane / 4 + 8 * i;
        if (p.lse && lane % 4 == 0 && row < tokens) {
            const long long at = (static_cast<long long>(image) * p.shape.heads + head) * tokens + row;
            p.lse[at] = softmax.greatest[t][i] * p.shape.scale + logf(total);
            if (softmax.kPolicy) p.floor[at] = kEpsilon / (tokens * total);
        }
    }
}

// All threads: a hint that the queries, keys and values in a block's place of another head, of the same length, will be
// read soon.
template <class T>
__device__ __forceinline__ void prefetch_block(const FlashForward& p, HeadPosition position, int first, int count) {
    const long long stride = p.strides.token;
    const long long start = position.image * p.strides.batch + position.head * p.strides.head + first * stride;
    prefetch_rows(static_cast<const T*>(p.q) + start, stride, count);
    prefetch_rows(static_cast<const T*>(p.k) + start, stride, count);
    prefetch_rows(static_cast<const T*>(p.v) + start, stride, count);
}

template <class T, int kDim, Keys kKind>
__global__ void __launch_bounds__(32 * kForwardWarps, kForwardBlocks<kDim>) forward(FlashForward p, int ahead) {
    extern __shared__ uint4 shared[];
    using Softmax = OnlineSoftmax<T, kDim, kKind>;
    constexpr int kLength = row_length(kDim), kRows = Softmax::kRows;
    const int warp = threadIdx.x / 32, block_rows = blockDim.x / 32 * kRows;
    const int head = blockIdx.y, image = blockIdx.z, head_dim = p.shape.head_dim;
    let_next_begin();
    wait_for_previous();
    const int begin = p.offsets ? p.offsets[image] : 0;
    const int tokens = p.offsets ? p.offsets[image + 1] - begin : p.shape.tokens;
    const int block_first = blockIdx.x * block_rows, row_first = block_first + warp * kRows;
    if (block_first >= tokens) return;

    const long long stride = p.strides.token;
    const long long start = (p.offsets ? begin * stride : image * p.strides.batch) + head * p.strides.head;
    const T* q = static_cast<const T*>(p.q) + start;
    const float* per_key = kKind == Keys::kSized && p.offsets ? p.sizes + begin : per_key_of<kKind>(p, image, tokens);
    const KeySource<T, kKind> source = key_source<T, kKind>(p, start, per_key, tokens);
    T* queries = reinterpret_cast<T*>(shared);  // (block_rows, kLength); each warp's own rows serve its output later
    const KeyBuffers<T, kDim> buffers(queries + block_rows * kLength);
    copy_rows<kDim, kCopiesAtOnce>(queries, q + block_first * stride, stride, block_rows, tokens - block_first,
                                   head_dim);
    buffers.begin(source);
    const HeadPosition next = head_after(ahead);
    if (!p.offsets && next.image < p.shape.batch) {
        prefetch_block<T>(p, next, block_first, min(block_rows, tokens - block_first));
    }

    T* own = queries + warp * kRows * kLength;
    Softmax softmax(own, row_first, tokens, p.shape.scale);
    for (int first = 0; first < tokens; first += kKeys) {
        buffers.advance(source, first);
        if (row_first >= tokens) continue;
        if (first + kKeys <= tokens) {
            softmax.template attend<true>(buffers, first);
        } else {
            softmax.template attend<false>(buffers, first);
        }
    }

    const long long out_row = p.offsets ? begin : static_cast<long long>(image) * tokens;
    const long long out_stride = static_cast<long long>(p.shape.heads) * head_dim;
#pragma unroll
    for (int t = 0; t < Softmax::kTiles; ++t) {
        const int first = row_first + t * kTile;
        if (first >= tokens) return;
        T* rows = own + t * kTile * kLength;
        softmax.complete(t, rows, source);
        float inverse[2];
        finish_rows(p, softmax, t, inverse);
        T* to = static_cast<T*>(p.out) + (out_row + first) * out_stride + head * head_dim;
        store_rows<T, kDim>(softmax.out[t], inverse[0], inverse[1], rows, to, out_stride, tokens - first, head_dim);
    }
}

template <class T>
__device__ float dot(const uint4& a, const uint4& b) {
    const unsigned x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
        const float2 s = unpack<T>(x[i]), t = unpack<T>(y[i]);
        sum += s.x * t.x + s.y * t.y;
    }
    return sum;
}

// u_i = dO_i . O_i for the longer sequences; kDim / 8 lanes a row of (B, N, heads).
template <class T, int kDim>
__global__ void __launch_bounds__(256) row_dots(FlashBackward p) {
    constexpr int kPieces = kDim / 8;
    const FlashShape& s = p.shape;
    const long long rows = static_cast<long long>(s.batch) * s.tokens * s.heads;
    const long long row = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / kPieces;
    const int column = threadIdx.x % kPieces * 8;
    float sum = 0;
    if (row < rows && column < s.head_dim) {
        const long long at = row * s.head_dim + column;
        sum = dot<T>(*reinterpret_cast<const uint4*>(static_cast<const T*>(p.out) + at),
                     *reinterpret_cast<const uint4*>(static_cast<const T*>(p.grad_out) + at));
    }
    for (int other = 1; other < kPieces; other *= 2) sum += __shfl_xor_sync(kAll, sum, other);
    if (row < rows && column == 0) {
        const long long image = row / s.heads / s.tokens;
        p.row_dots[(image * s.heads + row % s.heads) * s.tokens + row / s.heads % s.tokens] = sum;
    }
}

// One head's rows in global memory, as the backward pass reads them.
template <class T>
struct HeadRows {
    const T *q, *k, *v, *out, *grad_out;
    long long stride, out_stride;  // of q, k, v; of out, grad_out
    int tokens, head_dim;
};
template <class T>
__device__ __forceinline__ HeadRows<T> head_rows(const FlashBackward& p, HeadPosition position) {
    const long long start = position.image * p.strides.batch + position.head * p.strides.head;
    const long long out_stride = static_cast<long long>(p.shape.heads) * p.shape.head_dim;
    const long long out_start =
        static_cast<long long>(position.image) * p.shape.tokens * out_stride + position.head * p.shape.head_dim;
    return {static_cast<const T*>(p.q) + start,
            static_cast<const T*>(p.k) + start,
            static_cast<const T*>(p.v) + start,
            static_cast<const T*>(p.out) + out_start,
            static_cast<const T*>(p.grad_out) + out_start,
            p.strides.token,
            out_stride,
            p.shape.tokens,
            p.shape.head_dim};
}

// All threads: a hint that all rows of a head will be read soon.
template <class T>
__device__ __forceinline__ void prefetch_head(const HeadRows<T>& head) {
    prefetch_rows(head.k, head.stride, head.tokens);
    prefetch_rows(head.v, head.stride, head.tokens);
    prefetch_rows(head.q, head.stride, head.tokens);
    prefetch_rows(head.out, head.out_stride, head.tokens);
    prefetch_rows(head.grad_out, head.out_stride, head.tokens);
}

// Shared memory of a block of key_gradients.
template <class T, int kDim, Keys kKind, bool kFused>
struct GradientBuffers {
    static constexpr int kLength = row_length(kDim), kPieces = kDim / 8;
    static constexpr int kQueries = queries_at_a_time(kFused);
    static constexpr int kHeld = queries_held(kFused);  // queries: all of them, or a ring

    float *lse, *dots, *floors;  // (kHeld)
    T *queries, *grads;          // (kHeld, kLength); grads: dO
    T *keys, *values;            // (block_rows, kLength)
    T* to_logits;                // dP^T, (block_rows, block_rows + 8), in the values' place when they are read
    int block_rows, logits_length;

    __device__ __forceinline__ GradientBuffers(void* memory, int block_rows)
        : lse(static_cast<float*>(memory)),
          dots(lse + kHeld),
          floors(dots + kHeld),
          queries(reinterpret_cast<T*>(floors + kHeld)),
          grads(queries + kHeld * kLength),
          keys(grads + kHeld * kLength),
          values(keys + block_rows * kLength),
          to_logits(values),
          block_rows(block_rows),
          logits_length(row_length(block_rows)) {}

    // All threads: starts the copies of the block's keys and values.
    __device__ __forceinline__ void load_keys(const HeadRows<T>& head, int block_first) const {
        const int existing = head.tokens - block_first;
        const long long start = block_first * head.stride;
        copy_rows<kDim>(keys, head.k + start, head.stride, block_rows, existing, head.head_dim);
        copy_rows<kDim>(values, head.v + start, head.stride, block_rows, existing, head.head_dim);
    }

    // All threads: starts the copies of queries kQueries * stage and those behind, with dO and what belongs to the
    // rows. head_row: where the head's rows begin in lse, floor and row_dots.
    __device__ __forceinline__ void load_queries(const FlashBackward& p, const HeadRows<T>& head, long long head_row,
                                                 int stage) const {
        const int first = stage * kQueries, slot = kFused ? first : first % kHeld;
        const int existing = min(kQueries, head.tokens - first), rows = round_up(existing, kTile);
        copy_rows<kDim>(queries + slot * kLength, head.q + first * head.stride, head.stride, rows, existing,
                        head.head_dim);
        copy_rows<kDim>(grads + slot * kLength, head.grad_out + first * head.out_stride, head.out_stride, rows,
                        existing, head.head_dim);
        if (threadIdx.x < rows) {
            const int i = threadIdx.x;
            const long long from = head_row + first + (i < existing ? i : 0);
            copy4(lse + slot + i, p.lse + from, i < existing);
            if (kKind == Keys::kPolicy) copy4(floors + slot + i, p.floor + from, i < existing);
            if (!kFused) copy4(dots + slot + i, p.row_dots + from, i < existing);
        }
    }

    // All threads: dots = u_i = dO_i . O_i of all rows; every warp has 4 times 32 / kPieces of them.
    __device__ __forceinline__ void compute_dots(const HeadRows<T>& head) const {
        constexpr int kRounds = kTile * kPieces / 32;
        uint4 o[kRounds] = {}, g[kRounds] = {};
        const int column = threadIdx.x % kPieces * 8, first = threadIdx.x / kPieces, step = blockDim.x / kPieces;
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
            const int row = first + i * step;
            if (row < head.tokens && column < head.head_dim) {
                const long long at = row * head.out_stride + column;
                o[i] = *reinterpret_cast<const uint4*>(head.out + at);
                g[i] = *reinterpret_cast<const uint4*>(head.grad_out + at);
            }
        }
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
            float sum = dot<T>(o[i], g[i]);
            for (int other = 1; other < kPieces; other *= 2) sum += __shfl_xor_sync(kAll, sum, other);
            if (column == 0) dots[first + i * step] = sum;
        }
    }
};

// A warp's 16 keys, from key_first on, and the sums of their gradients. Tiles are transposed, (key, query), so that the
// products A^T dO and dP^T Q take them from registers.
template <class T, int kDim, Keys kKind, bool kFused>
struct KeyGradients {
    using Buffers = GradientBuffers<T, kDim, kKind, kFused>;
    static constexpr bool kPolicy = kKind == Keys::kPolicy, kSized = kKind == Keys::kSized;
    static constexpr int kSteps = kDim / 16, kLength = row_length(kDim);
    static constexpr int kToGrads = 2 * Buffers::kHeld * kLength,
                         kHalf = 2 * 8 * kLength;  // bytes: to dO, to 8 rows on

    int key_first, tokens;
    float factor;      // makes a logit, as a power of two, of q . k
    unsigned queries;  // in shared memory, where the lane reads them
    Fragment key[kSteps], value[kSteps];
    Sums dk[kSteps], dv[kSteps];      // dk: not yet scaled
    float own[2], to_policy[2] = {};  // of keys lane / 4 and lane / 4 + 8: policy or size; this lane's part

    // per_key: the image's policy or sizes.
    __device__ __forceinline__ KeyGradients(const Buffers& buffers, const FlashShape& shape, const float* per_key,
                                            int key_first)
        : key_first(key_first),
          tokens(shape.tokens),
          factor(shape.scale * kLog2e),
          queries(shared_address(buffers.queries + narrow_offset(threadIdx.x % 32, kLength))) {
        const int lane = threadIdx.x % 32;
        for (int i = 0; i < 2; ++i) {
            const int key = key_first + lane / 4 + 8 * i;
            own[i] = kKind != Keys::kPlain && key < tokens ? per_key[key] : 0;
        }
    }

    // Takes the keys and values, whose copies are done, to registers.
    __device__ __forceinline__ void load_own(const Buffers& buffers) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            const int at = threadIdx.x / 32 * kTile * kLength + tall_offset(lane, kLength) + d * 16;
            key[d] = load(shared_address(buffers.keys + at));
            value[d] = load(shared_address(buffers.values + at));
        }
    }

    // Adds up what queries query_first to + 15 contribute, which lie in shared memory from row `slot` on. Eight at a
    // time: registers are scarce.
    __device__ __forceinline__ void attend(const Buffers& buffers, int query_first, int slot) {
        const unsigned address = queries + 2 * slot * kLength;
        Fragment a, dp;  // A^T and dP^T
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float weight[4], to_weight[4];
            multiply_keys(weight, to_weight, address + n * kHalf);
            differentiate(weight, to_weight, buffers, slot, kPolicy && query_first == key_first, n);
            for (int i = 0; i < 2; ++i) {
                a.x[2 * n + i] = pack<T>(weight[2 * i], weight[2 * i + 1]);
                dp.x[2 * n + i] = pack<T>(to_weight[2 * i], to_weight[2 * i + 1]);
            }
        }
        if (kFused) keep(dp, buffers, query_first);
#pragma unroll
        for (int d = 0; d < kSteps; d += 2) {
            multiply_add<T>(dv[d], dv[d + 1], a, load_transposed(address + kToGrads + 32 * d),
                            load_transposed(address + kToGrads + kHalf + 32 * d));
            multiply_add<T>(dk[d], dk[d + 1], dp, load_transposed(address + 32 * d),
                            load_transposed(address + kHalf + 32 * d));
        }
    }

    // The policy's gradient by this head. to: of the head's first key.
    __device__ __forceinline__ void store_policy(float* to) const {
        const int lane = threadIdx.x % 32;
        for (int i = 0; i < 2; ++i) {
            const float sum = row_sum(to_policy[i]);
            const int key = key_first + lane / 4 + 8 * i;
            if (key < tokens && lane % 4 == 0) to[key] = sum;
        }
    }

    // kFused: dQ, not yet scaled, of the warp's 16 tokens as queries, when all warps have kept their dP.
    __device__ __forceinline__ void multiply_kept(Sums (&dq)[kSteps], const Buffers& buffers) const {
        const int lane = threadIdx.x % 32, length = buffers.logits_length;
        const unsigned logits = shared_address(buffers.to_logits + key_first + wide_offset(lane, length));
        const unsigned keys = shared_address(buffers.keys + tall_offset(lane, kLength));
#pragma unroll 2
        for (int j = 0; j < buffers.block_rows; j += kTile) {
            const Fragment dp = load_transposed(logits + 2 * j * length);
#pragma unroll
            for (int d = 0; d < kSteps; ++d) {
                multiply_add<T>(dq[d], dp, load_transposed(keys + 2 * (j * kLength + d * 16)));
            }
        }
    }

  private:
    // weight = K Q^T, not yet scaled, and to_weight = V dO^T, for 8 queries.
    __device__ __forceinline__ void multiply_keys(float (&weight)[4], float (&to_weight)[4], unsigned address) const {
#pragma unroll
        for (int d = 0; d < kSteps; d += 2) {
            const Fragment x = load(address + 32 * d);
            multiply_add<T>(weight, key[d], x.x[0], x.x[1], d == 0);
            multiply_add<T>(weight, key[d + 1], x.x[2], x.x[3]);
            const Fragment y = load(address + kToGrads + 32 * d);
            multiply_add<T>(to_weight, value[d], y.x[0], y.x[1], d == 0);
            multiply_add<T>(to_weight, value[d + 1], y.x[2], y.x[3]);
        }
    }

    // Of multiply_keys' products makes A^T and dP^T, and adds the policy's gradient up. n: which 8 of the 16 queries.
    __device__ __forceinline__ void differentiate(float (&weight)[4], float (&to_weight)[4], const Buffers& buffers,
                                                  int slot, bool diagonal, int n) {
        const int lane = threadIdx.x % 32, at = slot + n * 8 + lane % 4 * 2;
        const float2 l = *reinterpret_cast<const float2*>(buffers.lse + at),
                     u = *reinterpret_cast<const float2*>(buffers.dots + at);
        float2 floor = {};
        if (kPolicy) floor = *reinterpret_cast<const float2*>(buffers.floors + at);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            weight[e] = exp2_fast(weight[e] * factor - (e % 2 ? l.y : l.x) * kLog2e);
            if (kSized) weight[e] *= own[e / 2];
            to_weight[e] = (to_weight[e] - (e % 2 ? u.y : u.x)) * weight[e];
            if (kPolicy) {
                const bool same = diagonal && on_diagonal(lane, n, e);
                if (!same) to_policy[e / 2] += to_weight[e];
                const float gain = same ? 1 : own[e / 2];
                weight[e] = weight[e] * gain + (e % 2 ? floor.y : floor.x);
                to_weight[e] *= gain;
            }
        }
    }

    // Writes dP^T of the 16 queries to shared memory, where dQ needs it; zeros for keys past the last one.
    __device__ __forceinline__ void keep(Fragment& dp, const Buffers& buffers, int query_first) const {
        const int lane = threadIdx.x % 32;
        if (key_first + kTile > tokens) {  // rows past the last key may hold anything
            for (int i = 0; i < 4; ++i) dp.x[i] = key_first + lane / 4 + i % 2 * 8 < tokens ? dp.x[i] : 0;
        }
        const int length = buffers.logits_length;
        T* at = buffers.to_logits + (threadIdx.x / 32 * kTile + lane / 4) * length + query_first + lane % 4 * 2;
        for (int i = 0; i < 4; ++i) *reinterpret_cast<unsigned*>(at + i % 2 * 8 * length + i / 2 * 8) = dp.x[i];
    }
};

// dK, dV and the policy's gradient: a warp owns 16 keys and walks over the queries.
// kFused, for short sequences: one block has all keys of a head, keeps all queries, and dP in shared memory too; at the
// end it has what dQ needs. Otherwise query_gradients computes dP again.
template <class T, int kDim, Keys kKind, bool kFused>
__global__ void __launch_bounds__(32 * (kFused ? kMaxFusedWarps : kMaxWarps), 1)
    key_gradients(FlashBackward p, int ahead) {
    extern __shared__ uint4 shared[];
    using Gradients = KeyGradients<T, kDim, kKind, kFused>;
    using Buffers = GradientBuffers<T, kDim, kKind, kFused>;
    constexpr int kQueries = Buffers::kQueries;
    const int warp = threadIdx.x / 32, block_rows = blockDim.x / 32 * kTile;
    const int head = blockIdx.y, image = blockIdx.z, head_dim = p.shape.head_dim, tokens = p.shape.tokens;
    const int block_first = blockIdx.x * block_rows, key_first = block_first + warp * kTile;
    const HeadRows<T> rows = head_rows<T>(p, {image, head});
    const long long head_row = (static_cast<long long>(image) * p.shape.heads + head) * tokens;
    const Buffers buffers(shared, block_rows);

    const int stages = (tokens + kQueries - 1) / kQueries;
    buffers.load_keys(rows, block_first);
    for (int stage = 0; stage < (kFused ? stages : kAhead); ++stage) {
        if (stage < stages) buffers.load_queries(p, rows, head_row, stage);
        commit_copies();
    }
    const HeadPosition next = head_after(ahead);
    if (kFused && next.image < p.shape.batch) prefetch_head(head_rows<T>(p, next));
    if (kFused) buffers.compute_dots(rows);

    Gradients gradients(buffers, p.shape, per_key_of<kKind>(p, image, tokens), key_first);
    wait_for_copies(kFused ? stages - 1 : kAhead - 1);
    __syncthreads();
    gradients.load_own(buffers);
    for (int first = 0; first < tokens; first += kTile) {
        if (first % kQueries == 0) {
            const int stage = first / kQueries;
            wait_for_copies(kFused ? stages - 1 - stage : kAhead - 1);
            __syncthreads();  // the first time also: all have read the values, where dP goes
            if (!kFused) {
                if (stage + kAhead < stages) buffers.load_queries(p, rows, head_row, stage + kAhead);
                commit_copies();
            }
        }
        if (kFused || key_first < tokens) gradients.attend(buffers, first, kFused ? first : first % Buffers::kHeld);
    }
    __syncthreads();
    if (key_first >= tokens) return;

    if (Gradients::kPolicy && p.policy_partial) gradients.store_policy(p.policy_partial + head_row);
    const float scale = p.shape.scale;
    const long long stride = p.grad_strides.token;
    const long long start = image * p.grad_strides.batch + key_first * stride + head * p.grad_strides.head;
    const int existing = tokens - key_first;
    T* own = buffers.queries + warp * kTile * row_length(kDim);  // nobody needs the queries now
    store_rows<T, kDim>(gradients.dv, 1, 1, own, static_cast<T*>(p.dv) + start, stride, existing, head_dim);
    store_rows<T, kDim>(gradients.dk, scale, scale, own, static_cast<T*>(p.dk) + start, stride, existing, head_dim);
    if (kFused) {  // the warp's 16 tokens again, now as queries
        Sums dq[kDim / 16];
        gradients.multiply_kept(dq, buffers);
        store_rows<T, kDim>(dq, scale, scale, own, static_cast<T*>(p.dq) + start, stride, existing, head_dim);
    }
}

// A warp's 16 queries, from row_first on, and the sums of their gradients.
template <class T, int kDim, Keys kKind>
struct QueryGradients {
    static constexpr bool kPolicy = kKind == Keys::kPolicy, kSized = kKind == Keys::kSized;
    static constexpr int kSteps = kDim / 16, kLength = row_length(kDim);

    int row_first, tokens;
    float factor;                       // makes a logit, as a power of two, of q . k
    float shift[2] = {}, mean[2] = {};  // lse, in powers of two, and u of rows lane / 4 and lane / 4 + 8
    Fragment query[kSteps], grad[kSteps];
    Sums dq[kSteps];  // not yet scaled

    // head_row: where the head's rows begin in lse and row_dots.
    __device__ __forceinline__ QueryGradients(const FlashBackward& p, long long head_row, int row_first)
        : row_first(row_first), tokens(p.shape.tokens), factor(p.shape.scale * kLog2e) {
        const int lane = threadIdx.x % 32;
        for (int i = 0; i < 2; ++i) {
            const int row = row_first + lane / 4 + 8 * i;
            if (row < tokens) {
                shift[i] = p.lse[head_row + row] * kLog2e;
                mean[i] = p.row_dots[head_row + row];
            }
        }
    }

    // Takes the block's queries and dO, whose copies are done, to registers: the warp's own rows.
    __device__ __forceinline__ void load_own(const T* queries, const T* grads) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            const int at = warp * kTile * kLength + tall_offset(lane, kLength) + d * 16;
            query[d] = load(shared_address(queries + at));
            grad[d] = load(shared_address(grads + at));
        }
    }

    // Adds up what keys key_first to + 15 contribute, which lie in shared memory from row `slot` on.
    __device__ __forceinline__ void attend(const KeyBuffers<T, kDim>& buffers, int key_first, int slot) {
        const int lane = threadIdx.x % 32;
        const unsigned wide = 2 * (slot * kLength + wide_offset(lane, kLength));
        const unsigned tall = 2 * (slot * kLength + tall_offset(lane, kLength));
        const unsigned keys = shared_address(buffers.keys), values = shared_address(buffers.values);
        Sums weights, to_weights;
        if (kSized) fill_rows(weights, buffers.per_key + slot);
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            multiply_add<T>(weights, query[d], load(keys + wide + 32 * d), !kSized && d == 0);
            multiply_add<T>(to_weights, grad[d], load(values + wide + 32 * d), d == 0);
        }
        differentiate(weights, to_weights, buffers, key_first, slot);
        const Fragment dp = pack<T>(to_weights);
#pragma unroll
        for (int d = 0; d < kSteps; ++d) multiply_add<T>(dq[d], dp, load_transposed(keys + tall + 32 * d));
    }

  private:
    // to_weights: dA becomes dP. weights: Q K^T, and the biases if there are sizes, not yet scaled.
    __device__ __forceinline__ void differentiate(const Sums& weights, Sums& to_weights,
                                                  const KeyBuffers<T, kDim>& buffers, int key_first, int slot) const {
        const int lane = threadIdx.x % 32;
        const bool diagonal = kPolicy && key_first == row_first, ragged = key_first + kTile > tokens;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const int column = n * 8 + lane % 4 * 2;
            float2 visible = {1, 1};
            if (kPolicy) visible = *reinterpret_cast<const float2*>(buffers.per_key + slot + column);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float weight = exp2_fast(weights.x[n][e] * factor - shift[e / 2]);
                if (ragged && key_first + column + e % 2 >= tokens) weight = 0;
                if (kPolicy && !(diagonal && on_diagonal(lane, n, e))) weight *= e % 2 ? visible.y : visible.x;
                to_weights.x[n][e] = (to_weights.x[n][e] - mean[e / 2]) * weight;
            }
        }
    }
};

// dQ of the longer sequences: a warp owns 16 queries and walks over the keys.
template <class T, int kDim, Keys kKind>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) query_gradients(FlashBackward p) {
    extern __shared__ uint4 shared[];
    constexpr int kLength = row_length(kDim);
    const int warp = threadIdx.x / 32, block_rows = blockDim.x / 32 * kTile;
    const int head = blockIdx.y, image = blockIdx.z, head_dim = p.shape.head_dim, tokens = p.shape.tokens;
    const int block_first = blockIdx.x * block_rows, row_first = block_first + warp * kTile;
    const long long stride = p.strides.token, start = image * p.strides.batch + head * p.strides.head;
    const T* q = static_cast<const T*>(p.q) + start;
    const KeySource<T, kKind> source = key_source<T, kKind>(p, start, per_key_of<kKind>(p, image, tokens), tokens);
    const long long out_stride = static_cast<long long>(p.shape.heads) * head_dim;
    const T* grad_out = static_cast<const T*>(p.grad_out) +
                        (static_cast<long long>(image) * tokens + block_first) * out_stride + head * head_dim;
    T* queries = reinterpret_cast<T*>(shared);  // (block_rows, kLength)
    T* grads = queries + block_rows * kLength;  // (block_rows, kLength): dO
    const KeyBuffers<T, kDim> buffers(grads + block_rows * kLength);
    copy_rows<kDim>(queries, q + block_first * stride, stride, block_rows, tokens - block_first, head_dim);
    copy_rows<kDim>(grads, grad_out, out_stride, block_rows, tokens - block_first, head_dim);
    buffers.begin(source);

    const long long head_row = (static_cast<long long>(image) * p.shape.heads + head) * tokens;
    QueryGradients<T, kDim, kKind> gradients(p, head_row, row_first);
    for (int first = 0; first < tokens; first += kKeys) {
        buffers.advance(source, first);
        if (row_first >= tokens) continue;
        if (first == 0) gradients.load_own(queries, grads);
        for (int i = 0; i < kKeys && first + i < tokens; i += kTile) {
            gradients.attend(buffers, first + i, buffers.slot(first) + i);
        }
    }
    if (row_first >= tokens) return;
    T* own = queries + warp * kTile * kLength;
    T* to = static_cast<T*>(p.dq) + image * p.grad_strides.batch + row_first * p.grad_strides.token +
            head * p.grad_strides.head;
    store_rows<T, kDim>(gradients.dq, p.shape.scale, p.shape.scale, own, to, p.grad_strides.token, tokens - row_first,
                        head_dim);
}

// Blocks along the sequence and warps of each, as even as they come.
struct Split {
    int blocks, warps;
};
Split split(int tokens, int warp_rows, int most_warps) {
    const int warps = divide_up(tokens, warp_rows), blocks = divide_up(warps, most_warps);
    return {blocks, divide_up(warps, blocks)};
}

dim3 grid_of(const FlashShape& shape, Split split) {
    return dim3(split.blocks, shape.heads, shape.batch);
}

template <class Kernel, class... Arguments>
void launch(Kernel kernel, const FlashShape& shape, Split split, std::size_t bytes, cudaStream_t stream,
            const Arguments&... arguments) {
    allow_shared_memory(kernel, bytes);
    kernel<<<grid_of(shape, split), 32 * split.warps, bytes, stream>>>(arguments...);
}

template <int kDim>
std::size_t key_gradients_bytes(int warps, bool fused) {
    const std::size_t rows = warps * kTile, held = queries_held(fused), row = row_length(kDim) * 2;
    const std::size_t last = fused ? row_length(warps * kTile) * 2 : 0;
    return held * (3 * sizeof(float) + 2 * row) + rows * row + rows * std::max(row, last);
}

template <class T, int kDim, Keys kKind>
void backward(const FlashBackward& p, cudaStream_t stream) {
    const FlashShape& s = p.shape;
    if constexpr (kDim == 64) {
        const int warps = divide_up(s.tokens, kTile);
        const std::size_t bytes = key_gradients_bytes<kDim>(warps, true);
        const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
        if (warps <= kMaxFusedWarps && bytes <= static_cast<std::size_t>(most)) {
            launch(key_gradients<T, kDim, kKind, true>, s, {1, warps}, bytes, stream, p,
                   device_attribute(cudaDevAttrMultiProcessorCount));
            return;
        }
    }
    constexpr int kPieces = kDim / 8, kThreads = 256;
    const long long threads = static_cast<long long>(s.batch) * s.tokens * s.heads * kPieces;
    row_dots<T, kDim><<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0, stream>>>(p);
    const Split parts = split(s.tokens, kTile, kMaxWarps);
    const std::size_t own = static_cast<std::size_t>(parts.warps) * kTile * row_length(kDim) * 2;
    launch(query_gradients<T, kDim, kKind>, s, parts, 2 * own + KeyBuffers<T, kDim>::bytes(), stream, p);
    launch(key_gradients<T, kDim, kKind, false>, s, parts, key_gradients_bytes<kDim>(parts.warps, false), stream, p, 0);
}

template <Keys kKind>
using KindOfKeys = std::integral_constant<Keys, kKind>;

// Calls `work(null pointer of the element's type, padded head_dim, the kind of keys)`. Arguments: FlashForward or
// FlashBackward.
template <class Arguments, class Work>
cudaError_t with_kind(const Arguments& p, const Work& work) {
    const auto with_keys = [&](auto* type, auto dim) {
        if (p.policy) return work(type, dim, KindOfKeys<Keys::kPolicy>());
        if (p.sizes) return work(type, dim, KindOfKeys<Keys::kSized>());
        work(type, dim, KindOfKeys<Keys::kPlain>());
    };
    const auto with_dim = [&](auto* type) {
        p.shape.head_dim <= 64 ? with_keys(type, std::integral_constant<int, 64>())
                               : with_keys(type, std::integral_constant<int, 128>());
    };
    p.element == Element::kHalf ? with_dim(static_cast<__half*>(nullptr))
                                : with_dim(static_cast<__nv_bfloat16*>(nullptr));
    return cudaGetLastError();
}

}  // namespace

cudaError_t flash_forward(const FlashForward& arguments, cudaStream_t stream) {
    return with_kind(arguments, [&](auto* type, auto dim, auto keys) {
        using T = std::remove_pointer_t<decltype(type)>;
        constexpr int kDim = decltype(dim)::value;
        constexpr int kRows = kQueryTiles<kDim> * kTile;
        const Split parts = split(arguments.shape.tokens, kRows, kForwardWarps);
        const std::size_t own = static_cast<std::size_t>(parts.warps) * kRows * row_length(kDim) * sizeof(T);
        const int ahead = kForwardBlocks<kDim> * device_attribute(cudaDevAttrMultiProcessorCount) / parts.blocks;
        launch_overlapping(forward<T, kDim, decltype(keys)::value>, grid_of(arguments.shape, parts), 32 * parts.warps,
                           own + KeyBuffers<T, kDim>::bytes(), stream, arguments, ahead);
    });
}

cudaError_t flash_backward(const FlashBackward& arguments, cudaStream_t stream) {
    return with_kind(arguments, [&](auto* type, auto dim, auto keys) {
        backward<std::remove_pointer_t<decltype(type)>, decltype(dim)::value, decltype(keys)::value>(arguments, stream);
    });
}

}  // namespace dynvit::cuda
