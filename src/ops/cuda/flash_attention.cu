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
// A warp owns 16 or 32 rows (queries, or keys where it adds up their gradients) and walks over the other side in tiles
// of 16; tiles past the last token are skipped. Nothing is added up in an order that changes: results repeat exactly.
#include <algorithm>
#include <type_traits>

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
constexpr float kEpsilon = 1e-6f;

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

// The keys and values of one head, and their policy (or null).
template <class T>
struct KeySource {
    const T* k;
    long long to_v, stride;  // from a key to its value, and to the next key
    const float* policy;
    int tokens, head_dim;
};

// Keys, values and the keys' policy, kKeys at a time, in a ring of kCount buffers.
template <class T, int kDim>
struct KeyBuffers {
    static constexpr int kCount = kDim == 64 ? 3 : 2, kElements = kKeys * row_length(kDim);
    T *keys, *values;
    float* visible;

    static constexpr std::size_t bytes() { return kCount * (2 * kElements * sizeof(T) + kKeys * sizeof(float)); }
    __device__ explicit KeyBuffers(T* memory)
        : keys(memory),
          values(memory + kCount * kElements),
          visible(reinterpret_cast<float*>(memory + 2 * kCount * kElements)) {}

    // Where keys `first` to first + kKeys lie.
    __device__ int slot(int first) const { return first / kKeys % kCount * kKeys; }

    // Starts the copies of the first kCount - 1 buffers.
    __device__ void begin(const KeySource<T>& from) const {
#pragma unroll 1
        for (int i = 0; i < kCount - 1; ++i) load(from, i * kKeys);
    }
    // Waits for keys `first` to first + kKeys and starts the copies that take the place of those before them.
    __device__ void advance(const KeySource<T>& from, int first) const {
        wait_for_copies<kCount - 2>();
        __syncthreads();
        load(from, first + (kCount - 1) * kKeys);
    }

  private:
    __device__ void load(const KeySource<T>& from, int first) const {
        const int at = slot(first), existing = min(kKeys, from.tokens - first), rows = round_up(existing, kTile);
        if (existing > 0) {
            const T* k = from.k + first * from.stride;
            copy_rows<kDim, kCopiesAtOnce>(keys + at * row_length(kDim), k, from.stride, rows, existing, from.head_dim);
            copy_rows<kDim, kCopiesAtOnce>(values + at * row_length(kDim), k + from.to_v, from.stride, rows, existing,
                                           from.head_dim);
            if (from.policy) {
                for (int i = threadIdx.x; i < rows; i += blockDim.x) {
                    copy4(visible + at + i, from.policy + (i < existing ? first + i : 0), i < existing);
                }
            }
        }
        commit_copies();
    }
};

// For rows whose visible weights nearly underflow: adds eps / N times the sum of all V, eps in the sums' units.
template <class T, int kDim>
__device__ void add_floor(Sums (&sums)[kDim / 16], T* own, const KeySource<T>& from, float epsilon) {
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

template <class T, int kDim, bool kPolicy>
__global__ void __launch_bounds__(32 * kForwardWarps, kForwardBlocks<kDim>) forward(FlashForward p, int ahead) {
    extern __shared__ uint4 shared[];
    constexpr int kSteps = kDim / 16, kLength = row_length(kDim), kTiles = kQueryTiles<kDim>, kRows = kTiles * kTile;
    // float16 has no room below 6e-5: weights are lifted, so that those far below a dropped token's keep their digits.
    constexpr int kLift = kPolicy && std::is_same_v<T, __half> ? 12 : 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, block_rows = blockDim.x / 32 * kRows;
    const int head = blockIdx.y, image = blockIdx.z, head_dim = p.shape.head_dim;
    let_next_begin();
    wait_for_previous();
    const int begin = p.offsets ? p.offsets[image] : 0;
    const int tokens = p.offsets ? p.offsets[image + 1] - begin : p.shape.tokens;
    const int block_first = blockIdx.x * block_rows;
    if (block_first >= tokens) return;

    const long long stride = p.strides.token;
    const long long start = (p.offsets ? begin * stride : image * p.strides.batch) + head * p.strides.head;
    const T* q = static_cast<const T*>(p.q) + start;
    const KeySource<T> source = {static_cast<const T*>(p.k) + start,
                                 static_cast<const T*>(p.v) - static_cast<const T*>(p.k),
                                 stride,
                                 kPolicy ? p.policy + static_cast<long long>(image) * tokens : nullptr,
                                 tokens,
                                 head_dim};
    T* queries = reinterpret_cast<T*>(shared);  // (block_rows, kLength); each warp's own rows serve its output later
    const KeyBuffers<T, kDim> buffers(queries + block_rows * kLength);

    copy_rows<kDim, kCopiesAtOnce>(queries, q + block_first * stride, stride, block_rows, tokens - block_first,
                                   head_dim);
    buffers.begin(source);
    const HeadPosition next = head_after(ahead);
    if (!p.offsets && next.image < p.shape.batch) {
        const long long later = next.image * p.strides.batch + next.head * p.strides.head + block_first * stride;
        const int count = min(block_rows, tokens - block_first);
        prefetch_rows(static_cast<const T*>(p.q) + later, stride, count);
        prefetch_rows(static_cast<const T*>(p.k) + later, stride, count);
        prefetch_rows(static_cast<const T*>(p.v) + later, stride, count);
    }

    T* own = queries + warp * kRows * kLength;
    const int row_first = block_first + warp * kRows;
    const float factor = p.shape.scale * kLog2e;
    const unsigned query_address = shared_address(own + tall_offset(lane, kLength));
    Sums out[kTiles][kSteps];
    float greatest[kTiles][2], sum[kTiles][2];  // of rows lane / 4 and lane / 4 + 8; sum: this lane's part
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
        for (int i = 0; i < 2; ++i) {
            greatest[t][i] = -INFINITY;
            sum[t][i] = 0;
        }
    }

    // Keys first to first + kKeys. All of them exist, or some are missing.
    const auto attend = [&](int first, auto whole) {
        constexpr bool kWhole = decltype(whole)::value;
        const int slot = buffers.slot(first);
        const unsigned key_address = shared_address(buffers.keys + slot * kLength + wide_offset(lane, kLength));
        const unsigned value_address = shared_address(buffers.values + slot * kLength + tall_offset(lane, kLength));
        Sums logits[kTiles][kKeys / kTile];
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            Fragment query[kTiles];
#pragma unroll
            for (int t = 0; t < kTiles; ++t) query[t] = load(query_address + 2 * (t * kTile * kLength + d * 16));
#pragma unroll
            for (int j = 0; j < kKeys / kTile; ++j) {
                if (!kWhole && first + j * kTile >= tokens) break;
                const Fragment key = load(key_address + 2 * (j * kTile * kLength + d * 16));
#pragma unroll
                for (int t = 0; t < kTiles; ++t) multiply_add<T>(logits[t][j], query[t], key, d == 0);
            }
        }
        float shift[kTiles][2];
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
            float highest[2] = {greatest[t][0], greatest[t][1]};
#pragma unroll
            for (int j = 0; j < kKeys / kTile; ++j) {
                if (!kWhole && first + j * kTile >= tokens) break;
#pragma unroll
                for (int n = 0; n < 2; ++n) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        float& x = logits[t][j].x[n][e];
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
                shift[t][i] = highest[i] * factor - kLift;
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
#pragma unroll
        for (int j = 0; j < kKeys / kTile; ++j) {
            if (!kWhole && first + j * kTile >= tokens) break;
            float2 visible[2];
            for (int n = 0; n < 2; ++n) {
                const int column = slot + j * kTile + n * 8 + lane % 4 * 2;
                if (kPolicy) visible[n] = *reinterpret_cast<const float2*>(buffers.visible + column);
            }
            Fragment weights[kTiles];
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
#pragma unroll
            for (int d = 0; d < kSteps; ++d) {
                const Fragment value = load_transposed(value_address + 2 * (j * kTile * kLength + d * 16));
#pragma unroll
                for (int t = 0; t < kTiles; ++t) multiply_add<T>(out[t][d], weights[t], value);
            }
        }
    };

    for (int first = 0; first < tokens; first += kKeys) {
        buffers.advance(source, first);
        if (row_first >= tokens) continue;
        if (first + kKeys <= tokens) {
            attend(first, std::true_type());
        } else {
            attend(first, std::false_type());
        }
    }

    const long long out_row = p.offsets ? begin : static_cast<long long>(image) * tokens;
    const long long out_stride = static_cast<long long>(p.shape.heads) * head_dim;
    constexpr float kLifted = 1 << kLift;
    // The eps term is worth adding where it would be half a unit in the last place.
    constexpr float kLeast = kLifted * kEpsilon * (std::is_same_v<T, __half> ? 4096 : 512);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
        const int first = row_first + t * kTile;
        if (first >= tokens) return;
        T* rows = own + t * kTile * kLength;
        for (int i = 0; i < 2; ++i) sum[t][i] = row_sum(sum[t][i]);
        if (kPolicy && __any_sync(kAll, !(fminf(sum[t][0], sum[t][1]) > kLeast))) {
            add_floor<T, kDim>(out[t], rows, source, kLifted * kEpsilon);
        }
        float inverse[2];
        for (int i = 0; i < 2; ++i) {
            const float total = kPolicy ? sum[t][i] / kLifted + kEpsilon : sum[t][i];
            inverse[i] = 1 / (kLifted * total);
            const int row = first + lane / 4 + 8 * i;
            if (p.lse && lane % 4 == 0 && row < tokens) {
                const long long at = (static_cast<long long>(image) * p.shape.heads + head) * tokens + row;
                p.lse[at] = greatest[t][i] * p.shape.scale + logf(total);
                if (kPolicy) p.floor[at] = kEpsilon / (tokens * total);
            }
        }
        T* to = static_cast<T*>(p.out) + (out_row + first) * out_stride + head * head_dim;
        store_rows<T, kDim>(out[t], inverse[0], inverse[1], rows, to, out_stride, tokens - first, head_dim);
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

// dK, dV and the policy's gradient: a warp owns 16 keys and walks over the queries. Its tiles are transposed, (key,
// query), so that the products A^T dO and dP^T Q take them from registers.
// kFused, for short sequences: one block has all keys of a head, keeps all queries, and dP in shared memory too; at the
// end it has what dQ needs. Otherwise query_gradients computes dP again.
template <class T, int kDim, bool kPolicy, bool kFused>
__global__ void __launch_bounds__(32 * (kFused ? kMaxFusedWarps : kMaxWarps), 1)
    key_gradients(FlashBackward p, int ahead) {
    extern __shared__ uint4 shared[];
    constexpr int kSteps = kDim / 16, kLength = row_length(kDim), kPieces = kDim / 8;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, block_rows = blockDim.x / 32 * kTile;
    const int head = blockIdx.y, image = blockIdx.z, head_dim = p.shape.head_dim, tokens = p.shape.tokens;
    const int block_first = blockIdx.x * block_rows, key_first = block_first + warp * kTile;
    const long long stride = p.strides.token, start = image * p.strides.batch + head * p.strides.head;
    const T *q = static_cast<const T*>(p.q) + start, *k = static_cast<const T*>(p.k) + start,
            *v = static_cast<const T*>(p.v) + start;
    const long long out_stride = static_cast<long long>(p.shape.heads) * head_dim;
    const long long out_start = static_cast<long long>(image) * tokens * out_stride + head * head_dim;
    const T* grad_out = static_cast<const T*>(p.grad_out) + out_start;
    const long long head_row = (static_cast<long long>(image) * p.shape.heads + head) * tokens;

    constexpr int kQueries = queries_at_a_time(kFused);
    constexpr int kHeld = queries_held(kFused);     // queries in shared memory: all of them, or a ring
    float* lse = reinterpret_cast<float*>(shared);  // (kHeld)
    float *dots = lse + kHeld, *floors = dots + kHeld;
    T* queries = reinterpret_cast<T*>(floors + kHeld);  // (kHeld, kLength)
    T* grads = queries + kHeld * kLength;               // (kHeld, kLength): dO
    T* keys = grads + kHeld * kLength;                  // (block_rows, kLength)
    T* values = keys + block_rows * kLength;            // (block_rows, kLength)
    T* to_logits = values;                              // dP^T, (block_rows, block_rows + 8), when the values are read
    const int logits_length = row_length(block_rows);

    const auto load_queries = [&](int stage) {
        const int first = stage * kQueries, slot = kFused ? first : first % kHeld;
        const int existing = min(kQueries, tokens - first), rows = round_up(existing, kTile);
        copy_rows<kDim>(queries + slot * kLength, q + first * stride, stride, rows, existing, head_dim);
        copy_rows<kDim>(grads + slot * kLength, grad_out + first * out_stride, out_stride, rows, existing, head_dim);
        if (threadIdx.x < rows) {
            const int i = threadIdx.x;
            const long long from = head_row + first + (i < existing ? i : 0);
            copy4(lse + slot + i, p.lse + from, i < existing);
            if (kPolicy) copy4(floors + slot + i, p.floor + from, i < existing);
            if (!kFused) copy4(dots + slot + i, p.row_dots + from, i < existing);
        }
    };

    const int stages = (tokens + kQueries - 1) / kQueries;
    copy_rows<kDim>(keys, k + block_first * stride, stride, block_rows, tokens - block_first, head_dim);
    copy_rows<kDim>(values, v + block_first * stride, stride, block_rows, tokens - block_first, head_dim);
    for (int stage = 0; stage < (kFused ? stages : kAhead); ++stage) {
        if (stage < stages) load_queries(stage);
        commit_copies();
    }
    const HeadPosition next = head_after(ahead);
    if (kFused && next.image < p.shape.batch) {
        const long long in = next.image * p.strides.batch + next.head * p.strides.head;
        const long long later = static_cast<long long>(next.image) * tokens * out_stride + next.head * head_dim;
        prefetch_rows(static_cast<const T*>(p.k) + in, stride, tokens);
        prefetch_rows(static_cast<const T*>(p.v) + in, stride, tokens);
        prefetch_rows(static_cast<const T*>(p.q) + in, stride, tokens);
        prefetch_rows(static_cast<const T*>(p.out) + later, out_stride, tokens);
        prefetch_rows(static_cast<const T*>(p.grad_out) + later, out_stride, tokens);
    }
    if (kFused) {  // u: every warp has 4 times 32 / kPieces rows
        constexpr int kRounds = kTile * kPieces / 32;
        uint4 o[kRounds] = {}, g[kRounds] = {};
        const int column = lane % kPieces * 8, first_row = threadIdx.x / kPieces, step = blockDim.x / kPieces;
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
            const int row = first_row + i * step;
            if (row < tokens && column < head_dim) {
                const long long at = row * out_stride + column;
                o[i] = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.out) + out_start + at);
                g[i] = *reinterpret_cast<const uint4*>(grad_out + at);
            }
        }
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
            float sum = dot<T>(o[i], g[i]);
            for (int other = 1; other < kPieces; other *= 2) sum += __shfl_xor_sync(kAll, sum, other);
            if (column == 0) dots[first_row + i * step] = sum;
        }
    }

    const float factor = p.shape.scale * kLog2e;
    float visible[2] = {1, 1}, to_policy[2] = {};  // of keys lane / 4 and lane / 4 + 8
    for (int i = 0; i < 2; ++i) {
        const int key = key_first + lane / 4 + 8 * i;
        if (kPolicy) visible[i] = key < tokens ? p.policy[static_cast<long long>(image) * tokens + key] : 0;
    }
    const bool ragged = key_first + kTile > tokens;
    Fragment key[kSteps], value[kSteps];
    Sums dk[kSteps], dv[kSteps];

    // Queries query_first to + 15, which lie in shared memory from row `slot` on. Eight at a time: registers are
    // scarce.
    const unsigned narrow = shared_address(queries + narrow_offset(lane, kLength));
    constexpr int kToGrads = 2 * kHeld * kLength, kHalf = 2 * 8 * kLength;
    const auto walk = [&](int query_first, int slot) {
        const unsigned address = narrow + 2 * slot * kLength;
        const bool diagonal = kPolicy && query_first == key_first;
        Fragment a, dp;  // A^T and dP^T
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float weight[4], to_weight[4];
#pragma unroll
            for (int d = 0; d < kSteps; d += 2) {
                const Fragment x = load(address + n * kHalf + 32 * d);
                multiply_add<T>(weight, key[d], x.x[0], x.x[1], d == 0);
                multiply_add<T>(weight, key[d + 1], x.x[2], x.x[3]);
                const Fragment y = load(address + kToGrads + n * kHalf + 32 * d);
                multiply_add<T>(to_weight, value[d], y.x[0], y.x[1], d == 0);
                multiply_add<T>(to_weight, value[d + 1], y.x[2], y.x[3]);
            }
            const int at = slot + n * 8 + lane % 4 * 2;
            const float2 l = *reinterpret_cast<const float2*>(lse + at),
                         u = *reinterpret_cast<const float2*>(dots + at);
            float2 floor = {};
            if (kPolicy) floor = *reinterpret_cast<const float2*>(floors + at);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                weight[e] = exp2_fast(weight[e] * factor - (e % 2 ? l.y : l.x) * kLog2e);
                to_weight[e] = (to_weight[e] - (e % 2 ? u.y : u.x)) * weight[e];
                if (kPolicy) {
                    const bool same = diagonal && on_diagonal(lane, n, e);
                    if (!same) to_policy[e / 2] += to_weight[e];
                    const float gain = same ? 1 : visible[e / 2];
                    weight[e] = weight[e] * gain + (e % 2 ? floor.y : floor.x);
                    to_weight[e] *= gain;
                }
            }
            for (int i = 0; i < 2; ++i) {
                a.x[2 * n + i] = pack<T>(weight[2 * i], weight[2 * i + 1]);
                dp.x[2 * n + i] = pack<T>(to_weight[2 * i], to_weight[2 * i + 1]);
            }
        }
        if (kFused) {
            if (ragged) {  // rows past the last key may hold anything
                for (int i = 0; i < 4; ++i) dp.x[i] = key_first + lane / 4 + i % 2 * 8 < tokens ? dp.x[i] : 0;
            }
            T* at = to_logits + (warp * kTile + lane / 4) * logits_length + query_first + lane % 4 * 2;
            for (int i = 0; i < 4; ++i) {
                *reinterpret_cast<unsigned*>(at + i % 2 * 8 * logits_length + i / 2 * 8) = dp.x[i];
            }
        }
#pragma unroll
        for (int d = 0; d < kSteps; d += 2) {
            multiply_add<T>(dv[d], dv[d + 1], a, load_transposed(address + kToGrads + 32 * d),
                            load_transposed(address + kToGrads + kHalf + 32 * d));
            multiply_add<T>(dk[d], dk[d + 1], dp, load_transposed(address + 32 * d),
                            load_transposed(address + kHalf + 32 * d));
        }
    };

    wait_for_copies(kFused ? stages - 1 : kAhead - 1);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kSteps; ++d) {
        const int at = warp * kTile * kLength + tall_offset(lane, kLength) + d * 16;
        key[d] = load(shared_address(keys + at));
        value[d] = load(shared_address(values + at));
    }
    for (int first = 0; first < tokens; first += kTile) {
        if (first % kQueries == 0) {
            const int stage = first / kQueries;
            wait_for_copies(kFused ? stages - 1 - stage : kAhead - 1);
            __syncthreads();  // the first time also: all have read the values, where dP goes
            if (!kFused) {
                if (stage + kAhead < stages) load_queries(stage + kAhead);
                commit_copies();
            }
        }
        if (kFused || key_first < tokens) walk(first, kFused ? first : first % kHeld);
    }
    __syncthreads();
    if (key_first >= tokens) return;

    if (kPolicy && p.policy_partial) {
        for (int i = 0; i < 2; ++i) {
            const float sum = row_sum(to_policy[i]);
            const int key = key_first + lane / 4 + 8 * i;
            if (key < tokens && lane % 4 == 0) p.policy_partial[head_row + key] = sum;
        }
    }
    const long long grad_stride = p.grad_strides.token;
    const long long grad_start = image * p.grad_strides.batch + key_first * grad_stride + head * p.grad_strides.head;
    const int existing = tokens - key_first;
    T* own = queries + warp * kTile * kLength;  // nobody needs the queries now
    store_rows<T, kDim>(dv, 1, 1, own, static_cast<T*>(p.dv) + grad_start, grad_stride, existing, head_dim);
    store_rows<T, kDim>(dk, p.shape.scale, p.shape.scale, own, static_cast<T*>(p.dk) + grad_start, grad_stride,
                        existing, head_dim);
    if (kFused) {  // the warp's 16 tokens again, now as queries
        Sums dq[kSteps];
        const unsigned logits_address = shared_address(to_logits + key_first + wide_offset(lane, logits_length));
        const unsigned key_address = shared_address(keys + tall_offset(lane, kLength));
#pragma unroll 2
        for (int j = 0; j < block_rows; j += kTile) {
            const Fragment dp = load_transposed(logits_address + 2 * j * logits_length);
#pragma unroll
            for (int d = 0; d < kSteps; ++d) {
                multiply_add<T>(dq[d], dp, load_transposed(key_address + 2 * (j * kLength + d * 16)));
            }
        }
        store_rows<T, kDim>(dq, p.shape.scale, p.shape.scale, own, static_cast<T*>(p.dq) + grad_start, grad_stride,
                            existing, head_dim);
    }
}

// dQ of the longer sequences: a warp owns 16 queries and walks over the keys.
template <class T, int kDim, bool kPolicy>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) query_gradients(FlashBackward p) {
    extern __shared__ uint4 shared[];
    constexpr int kSteps = kDim / 16, kLength = row_length(kDim);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, block_rows = blockDim.x / 32 * kTile;
    const int head = blockIdx.y, image = blockIdx.z, head_dim = p.shape.head_dim, tokens = p.shape.tokens;
    const int block_first = blockIdx.x * block_rows, row_first = block_first + warp * kTile;
    const long long stride = p.strides.token, start = image * p.strides.batch + head * p.strides.head;
    const T* q = static_cast<const T*>(p.q) + start;
    const KeySource<T> source = {static_cast<const T*>(p.k) + start,
                                 static_cast<const T*>(p.v) - static_cast<const T*>(p.k),
                                 stride,
                                 kPolicy ? p.policy + static_cast<long long>(image) * tokens : nullptr,
                                 tokens,
                                 head_dim};
    const long long out_stride = static_cast<long long>(p.shape.heads) * head_dim;
    const T* grad_out = static_cast<const T*>(p.grad_out) +
                        (static_cast<long long>(image) * tokens + block_first) * out_stride + head * head_dim;

    T* queries = reinterpret_cast<T*>(shared);  // (block_rows, kLength)
    T* grads = queries + block_rows * kLength;  // (block_rows, kLength): dO
    const KeyBuffers<T, kDim> buffers(grads + block_rows * kLength);
    copy_rows<kDim>(queries, q + block_first * stride, stride, block_rows, tokens - block_first, head_dim);
    copy_rows<kDim>(grads, grad_out, out_stride, block_rows, tokens - block_first, head_dim);
    buffers.begin(source);

    const float factor = p.shape.scale * kLog2e;
    float shift[2] = {}, mean[2] = {};  // lse, in powers of two, and u of rows lane / 4 and lane / 4 + 8
    for (int i = 0; i < 2; ++i) {
        const int row = row_first + lane / 4 + 8 * i;
        if (row < tokens) {
            const long long at = (static_cast<long long>(image) * p.shape.heads + head) * tokens + row;
            shift[i] = p.lse[at] * kLog2e;
            mean[i] = p.row_dots[at];
        }
    }
    Fragment query[kSteps], grad[kSteps];
    Sums dq[kSteps];
    T* own = queries + warp * kTile * kLength;

    // 16 keys, which lie in shared memory from row `slot` on.
    const auto walk = [&](int key_first, int slot) {
        const unsigned wide = 2 * (slot * kLength + wide_offset(lane, kLength));
        const unsigned tall = 2 * (slot * kLength + tall_offset(lane, kLength));
        const unsigned key_address = shared_address(buffers.keys), value_address = shared_address(buffers.values);
        Sums weights, to_weights;  // to_weights: dP in the end
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            multiply_add<T>(weights, query[d], load(key_address + wide + 32 * d), d == 0);
            multiply_add<T>(to_weights, grad[d], load(value_address + wide + 32 * d), d == 0);
        }
        const bool diagonal = kPolicy && key_first == row_first, ragged = key_first + kTile > tokens;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const int column = n * 8 + lane % 4 * 2;
            float2 visible = {1, 1};
            if (kPolicy) visible = *reinterpret_cast<const float2*>(buffers.visible + slot + column);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float weight = exp2_fast(weights.x[n][e] * factor - shift[e / 2]);
                if (ragged && key_first + column + e % 2 >= tokens) weight = 0;
                if (kPolicy && !(diagonal && on_diagonal(lane, n, e))) weight *= e % 2 ? visible.y : visible.x;
                to_weights.x[n][e] = (to_weights.x[n][e] - mean[e / 2]) * weight;
            }
        }
        const Fragment dp = pack<T>(to_weights);
#pragma unroll
        for (int d = 0; d < kSteps; ++d) {
            multiply_add<T>(dq[d], dp, load_transposed(key_address + tall + 32 * d));
        }
    };

    for (int first = 0; first < tokens; first += kKeys) {
        buffers.advance(source, first);
        if (row_first >= tokens) continue;
        if (first == 0) {
#pragma unroll
            for (int d = 0; d < kSteps; ++d) {
                const int at = warp * kTile * kLength + tall_offset(lane, kLength) + d * 16;
                query[d] = load(shared_address(queries + at));
                grad[d] = load(shared_address(grads + at));
            }
        }
        for (int i = 0; i < kKeys && first + i < tokens; i += kTile) walk(first + i, buffers.slot(first) + i);
    }
    if (row_first >= tokens) return;
    T* to = static_cast<T*>(p.dq) + image * p.grad_strides.batch + row_first * p.grad_strides.token +
            head * p.grad_strides.head;
    store_rows<T, kDim>(dq, p.shape.scale, p.shape.scale, own, to, p.grad_strides.token, tokens - row_first, head_dim);
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

template <class T, int kDim, bool kPolicy>
void backward(const FlashBackward& p, cudaStream_t stream) {
    const FlashShape& s = p.shape;
    if constexpr (kDim == 64) {
        const int warps = divide_up(s.tokens, kTile);
        const std::size_t bytes = key_gradients_bytes<kDim>(warps, true);
        const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
        if (warps <= kMaxFusedWarps && bytes <= static_cast<std::size_t>(most)) {
            launch(key_gradients<T, kDim, kPolicy, true>, s, {1, warps}, bytes, stream, p,
                   device_attribute(cudaDevAttrMultiProcessorCount));
            return;
        }
    }
    constexpr int kPieces = kDim / 8, kThreads = 256;
    const long long threads = static_cast<long long>(s.batch) * s.tokens * s.heads * kPieces;
    row_dots<T, kDim><<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0, stream>>>(p);
    const Split parts = split(s.tokens, kTile, kMaxWarps);
    const std::size_t own = static_cast<std::size_t>(parts.warps) * kTile * row_length(kDim) * 2;
    launch(query_gradients<T, kDim, kPolicy>, s, parts, 2 * own + KeyBuffers<T, kDim>::bytes(), stream, p);
    launch(key_gradients<T, kDim, kPolicy, false>, s, parts, key_gradients_bytes<kDim>(parts.warps, false), stream, p,
           0);
}

// Calls `work(null pointer of the element's type, padded head_dim, whether there is a policy)`.
template <class Work>
cudaError_t with_kind(Element element, const FlashShape& shape, const float* policy, const Work& work) {
    const auto with_policy = [&](auto* type, auto dim) {
        policy ? work(type, dim, std::true_type()) : work(type, dim, std::false_type());
    };
    const auto with_dim = [&](auto* type) {
        shape.head_dim <= 64 ? with_policy(type, std::integral_constant<int, 64>())
                             : with_policy(type, std::integral_constant<int, 128>());
    };
    element == Element::kHalf ? with_dim(static_cast<__half*>(nullptr))
                              : with_dim(static_cast<__nv_bfloat16*>(nullptr));
    return cudaGetLastError();
}

}  // namespace

cudaError_t flash_forward(const FlashForward& arguments, cudaStream_t stream) {
    return with_kind(arguments.element, arguments.shape, arguments.policy, [&](auto* type, auto dim, auto policy) {
        using T = std::remove_pointer_t<decltype(type)>;
        constexpr int kDim = decltype(dim)::value;
        constexpr int kRows = kQueryTiles<kDim> * kTile;
        const Split parts = split(arguments.shape.tokens, kRows, kForwardWarps);
        const std::size_t own = static_cast<std::size_t>(parts.warps) * kRows * row_length(kDim) * sizeof(T);
        const int ahead = kForwardBlocks<kDim> * device_attribute(cudaDevAttrMultiProcessorCount) / parts.blocks;
        launch_overlapping(forward<T, kDim, decltype(policy)::value>, grid_of(arguments.shape, parts), 32 * parts.warps,
                           own + KeyBuffers<T, kDim>::bytes(), stream, arguments, ahead);
    });
}

cudaError_t flash_backward(const FlashBackward& arguments, cudaStream_t stream) {
    return with_kind(arguments.element, arguments.shape, arguments.policy, [&](auto* type, auto dim, auto policy) {
        backward<std::remove_pointer_t<decltype(type)>, decltype(dim)::value, decltype(policy)::value>(arguments,
                                                                                                       stream);
    });
}

}  // namespace dynvit::cuda
