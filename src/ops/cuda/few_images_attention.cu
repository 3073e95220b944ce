// Self-attention for so few images that their heads don't fill a GPU: a block has 16 queries of a head, its warps share
// out the keys, and what they found is put together at the end.
#include "few_images_attention.cuh"

#include <algorithm>

#include "element_dispatch.cuh"
#include "overlap.cuh"
#include "tensor_cores.cuh"
#include "vector_elements.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kDim = 64, kSteps = kDim / kTile, kLength = row_length(kDim);
constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kVector = 8;                  // elements of 16 bytes
constexpr int kOutLength = kDim + kVector;  // a row of a warp's sums: its 8 lines fall on different banks

__host__ __device__ constexpr int round_up(int a, int b) {
    return (a + b - 1) / b * b;
}

// What a warp found about a query: the greatest logit, times log2(e), and the sum of the keys' weights.
struct Found {
    float greatest, sum;
};

// Starts the copies of `count` rows; zeros past the `existing` ones and past head_dim.
template <class T>
__device__ void copy_rows(T* to, const T* from, long long stride, int count, int existing, int head_dim) {
    constexpr int kPieces = kDim / kVector;
    const int column = threadIdx.x % kPieces * kVector;
    if (column >= head_dim) existing = 0;
#pragma unroll 4
    for (int row = threadIdx.x / kPieces; row < count; row += kThreads / kPieces) {
        const bool exists = row < existing;
        copy16(shared_address(to + row * kLength + column), exists ? from + row * stride + column : from, exists);
    }
}

// Where a token's size lies in shared memory: behind its key, in what a row is longer.
template <class T>
__device__ __forceinline__ float* size_of(T* keys, int row) {
    static_assert((kLength - kDim) * sizeof(T) >= sizeof(float));
    return reinterpret_cast<float*>(keys + row * kLength + kDim);
}

// Starts the copies of `count` sizes; zeros past the `existing` ones.
template <class T>
__device__ void copy_sizes(T* keys, const float* from, int count, int existing) {
    for (int row = threadIdx.x; row < count; row += kThreads) {
        const bool exists = row < existing;
        copy4(size_of(keys, row), exists ? from + row : from, exists);
    }
}

// A warp's online softmax of the block's 16 queries, over the keys that the warp has had.
template <class T, bool kSized>
struct WarpSoftmax {
    Sums out[kSteps];
    float greatest[2] = {-INFINITY, -INFINITY}, sum[2] = {};  // of rows lane / 4 and lane / 4 + 8; sum: a lane's part

    // Takes in keys `first` to first + 15 of `tokens`; factor makes a logit, times log2(e), of q . k.
    __device__ __forceinline__ void attend(const Fragment (&query)[kSteps], T* keys, const T* values, int first,
                                           int tokens, float factor) {
        const int lane = threadIdx.x % 32;
        Sums logits;
        const unsigned key = shared_address(keys + first * kLength + wide_offset(lane, kLength));
        for (int d = 0; d < kSteps; ++d) multiply_add<T>(logits, query[d], load(key + 2 * d * kTile), d == 0);
        raise_maximum(logits, keys, first, tokens, factor);
        for (int n = 0; n < 2; ++n) {
            for (int e = 0; e < 4; ++e) {
                float& x = logits.x[n][e];
                x = exp2_fast(x - greatest[e / 2]);
                sum[e / 2] += x;
            }
        }
        const Fragment weights = pack<T>(logits);
        const unsigned value = shared_address(values + first * kLength + tall_offset(lane, kLength));
        for (int d = 0; d < kSteps; ++d) multiply_add<T>(out[d], weights, load_transposed(value + 2 * d * kTile));
    }

    // Writes the sums to `outs`, (kTile, kOutLength), and what was found about each query.
    __device__ __forceinline__ void hand_over(float* outs, Found (&found)[kTile]) const {
        const int lane = threadIdx.x % 32;
        float* const own = outs + lane / 4 * kOutLength + lane % 4 * 2;
        for (int d = 0; d < kSteps; ++d) {
            for (int n = 0; n < 2; ++n) {
                const float* const x = out[d].x[n];
                float* const at = own + d * kTile + n * 8;
                *reinterpret_cast<float2*>(at) = make_float2(x[0], x[1]);
                *reinterpret_cast<float2*>(at + 8 * kOutLength) = make_float2(x[2], x[3]);
            }
        }
        for (int i = 0; i < 2; ++i) {
            const float all = row_sum(sum[i]);
            if (lane % 4 == 0) found[lane / 4 + 8 * i] = {greatest[i], all};
        }
    }

  private:
    // Scales the logits, adds what the sizes do, and takes them into their rows' maximum, to which sums and outputs are
    // scaled; those of missing keys are made -infinity.
    __device__ __forceinline__ void raise_maximum(Sums& logits, T* keys, int first, int tokens, float factor) {
        const int lane = threadIdx.x % 32;
        float highest[2] = {greatest[0], greatest[1]};
        for (int n = 0; n < 2; ++n) {
            for (int e = 0; e < 4; ++e) {
                const int key = first + n * 8 + lane % 4 * 2 + e % 2;
                float& x = logits.x[n][e];
                float logit = x * factor;
                if (kSized) logit += __log2f(*size_of(keys, key));
                x = key < tokens ? logit : -INFINITY;
                highest[e / 2] = fmaxf(highest[e / 2], x);
            }
        }
        for (int i = 0; i < 2; ++i) {
            highest[i] = row_max(highest[i]);
            const float shrink = exp2_fast(greatest[i] - highest[i]);
            greatest[i] = highest[i];
            sum[i] *= shrink;
            for (int d = 0; d < kSteps; ++d) {
                for (int n = 0; n < 2; ++n) {
                    out[d].x[n][2 * i] *= shrink;
                    out[d].x[n][2 * i + 1] *= shrink;
                }
            }
        }
    }
};

// result = what all warps found about a query, put together: 8 values of its output from `column` on.
// outs: (kWarps, kTile, kOutLength).
__device__ __forceinline__ void put_together(const float* outs, const Found (&found)[kWarps][kTile], int row,
                                             int column, float (&result)[kVector]) {
    float highest = -INFINITY, total = 0;
    for (int i = 0; i < kVector; ++i) result[i] = 0;
    for (int w = 0; w < kWarps; ++w) highest = fmaxf(highest, found[w][row].greatest);
    for (int w = 0; w < kWarps; ++w) {
        const float share = exp2_fast(found[w][row].greatest - highest);
        total += share * found[w][row].sum;
        const float* const from = outs + (w * kTile + row) * kOutLength + column;
        for (int i = 0; i < kVector; ++i) result[i] += share * from[i];
    }
    for (int i = 0; i < kVector; ++i) result[i] /= total;
}

template <class T, bool kSized>
__global__ void __launch_bounds__(kThreads) few_images_attention(FewImagesAttention p) {
    extern __shared__ uint4 shared[];
    __shared__ Found found[kWarps][kTile];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, keys_held = round_up(p.tokens, kTile);
    T* const queries = reinterpret_cast<T*>(shared);  // (kTile, kLength)
    T* const keys = queries + kTile * kLength;        // (keys_held, kLength)
    T* const values = keys + keys_held * kLength;
    float* const outs = reinterpret_cast<float*>(shared);  // (kWarps, kTile, kOutLength), in their place at the end
    const int first_query = blockIdx.x * kTile, channels = p.heads * p.head_dim;
    const long long stride = 3ll * channels;
    const T* const k =
        static_cast<const T*>(p.qkv) + blockIdx.z * p.tokens * stride + channels + blockIdx.y * p.head_dim;

    wait_for_previous();
    copy_rows(queries, k - channels + first_query * stride, stride, kTile, p.tokens - first_query, p.head_dim);
    copy_rows(keys, k, stride, keys_held, p.tokens, p.head_dim);
    copy_rows(values, k + channels, stride, keys_held, p.tokens, p.head_dim);
    if (kSized) copy_sizes(keys, p.sizes + blockIdx.z * p.tokens, keys_held, p.tokens);
    commit_copies();
    wait_for_copies<0>();
    let_next_begin();
    __syncthreads();

    Fragment query[kSteps];
    for (int d = 0; d < kSteps; ++d) query[d] = load(shared_address(queries + tall_offset(lane, kLength) + d * kTile));
    const float factor = p.scale * kLog2e;
    WarpSoftmax<T, kSized> softmax;
    for (int first = warp * kTile; first < p.tokens; first += kWarps * kTile) {
        softmax.attend(query, keys, values, first, p.tokens, factor);
    }
    __syncthreads();
    softmax.hand_over(outs + warp * kTile * kOutLength, found[warp]);
    __syncthreads();

    constexpr int kPieces = kDim / kVector;
    const int row = threadIdx.x / kPieces, column = threadIdx.x % kPieces * kVector;
    if (row >= kTile || first_query + row >= p.tokens || column >= p.head_dim) return;
    float result[kVector];
    put_together(outs, found, row, column, result);
    store8(static_cast<T*>(p.out) + (static_cast<long long>(blockIdx.z) * p.tokens + first_query + row) * channels +
               blockIdx.y * p.head_dim + column,
           result);
}

std::size_t shared_bytes(int tokens) {
    const std::size_t operands = (kTile + 2 * static_cast<std::size_t>(round_up(tokens, kTile))) * kLength * 2;
    return std::max(operands, sizeof(float) * kWarps * kTile * kOutLength);
}

}  // namespace

bool few_images_attention_fits(int tokens, int head_dim) {
    return head_dim <= kDim && head_dim % kVector == 0 &&
           shared_bytes(tokens) <= static_cast<std::size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

cudaError_t few_images_attention(const FewImagesAttention& p, cudaStream_t stream) {
    const dim3 grid((p.tokens + kTile - 1) / kTile, p.heads, p.batch);
    return with_half_type(p.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(p.sizes ? few_images_attention<T, true> : few_images_attention<T, false>, grid,
                                  kThreads, shared_bytes(p.tokens), stream, p);
    });
}

}  // namespace dynvit::cuda
