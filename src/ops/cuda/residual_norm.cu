// x + scale * branch and its layer norm, and the gradients, each in one pass. The definition stands in
// ops/residual_norm.cpp. A row stays in the registers of the one warp (of several, if it is wide) that works on it;
// the backward pass walks through the rows in steps of the grid, to sum the weights' gradients on the way.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "residual_norm.cuh"

#include "element_dispatch.cuh"
#include "float8.cuh"
#include "overlap.cuh"
#include "sum_rows.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

// How a row is spread over threads: each thread of kRowWarps warps holds kChunks chunks of kSize neighbouring values
// of the residual stream's type X.
template <class Stream, int kValues, int kCount, int kWarpsOfRow>
struct Layout {
    using X = Stream;
    static constexpr int kSize = kValues, kChunks = kCount, kRowWarps = kWarpsOfRow;
    static constexpr int kRowThreads = 32 * kRowWarps;
    static constexpr int kRows = kThreads / kRowThreads;  // that a block works on at a time
    static constexpr int kCapacity = kRowThreads * kChunks * kSize;
    // Thread blocks of the backward pass that share a multiprocessor's registers, by how many of them each thread needs
    // for the weights' sums, the stream and its gradient. A third block where two fit makes each load less at a time.
    static constexpr int kHeld = kChunks * kSize * (2 + sizeof(X) / 2);
    static constexpr int kBackwardBlocks = kHeld <= 36 ? 3 : 2;

    static __device__ int row_in_block() { return threadIdx.x / kRowThreads; }
    static __device__ int column(int chunk) { return (chunk * kRowThreads + threadIdx.x % kRowThreads) * kSize; }
};

template <class T, int kSize>
struct alignas(kSize * sizeof(T) > 16 ? 16 : kSize * sizeof(T)) Pack {
    T values[kSize];
    __device__ float operator[](int i) const { return static_cast<float>(values[i]); }
};

template <class T, int kSize>
__device__ void load(Pack<T, kSize>& pack, const void* from, long long index) {
    pack = *reinterpret_cast<const Pack<T, kSize>*>(static_cast<const T*>(from) + index);
}

template <class T, int kSize>
__device__ void store_as(void* to, long long index, const float (&values)[kSize]) {
    Pack<T, kSize> pack;
    for (int i = 0; i < kSize; ++i) pack.values[i] = static_cast<T>(values[i]);
    *reinterpret_cast<Pack<T, kSize>*>(static_cast<T*>(to) + index) = pack;
}

// The types of stores are chosen as the kernel runs: unlike a load, a store lets nothing wait.
template <int kSize>
__device__ void store(Element type, void* to, long long index, const float (&values)[kSize]) {
    if (type == Element::kFloat) store_as<float>(to, index, values);
    if (type == Element::kHalf) store_as<__half>(to, index, values);
    if (type == Element::kBFloat16) store_as<__nv_bfloat16>(to, index, values);
}

// The sum over the kRowWarps warps of a row, for each of its threads. With several, all threads of the block must call.
template <int kRowWarps>
__device__ float2 row_sum(float2 value) {
    for (int offset = 16; offset > 0; offset /= 2) {
        value.x += __shfl_xor_sync(~0u, value.x, offset);
        value.y += __shfl_xor_sync(~0u, value.y, offset);
    }
    if constexpr (kRowWarps > 1) {
        __shared__ float2 parts[kWarps];
        const int warp = threadIdx.x / 32;
        __syncthreads();  // the parts of the call before have been read
        if (threadIdx.x % 32 == 0) parts[warp] = value;
        __syncthreads();
        value = make_float2(0, 0);
        for (int w = 0; w < kRowWarps; ++w) {
            const float2 part = parts[warp / kRowWarps * kRowWarps + w];
            value.x += part.x;
            value.y += part.y;
        }
    }
    return value;
}

template <int kRowWarps>
__device__ float row_sum(float value) {
    return row_sum<kRowWarps>(make_float2(value, 0)).x;
}

template <class L, class B, class W>
__global__ void __launch_bounds__(kThreads)
    forward(ResidualNormShape shape, ResidualNormForward tensors, Element normed_type) {
    using X = typename L::X;
    constexpr int kSize = L::kSize, kChunks = L::kChunks;
    let_next_begin();
    wait_for_previous();  // before the weights are read, too: in training they change
    Pack<W, kSize> weight[kChunks] = {}, bias[kChunks] = {};
    for (int c = 0; c < kChunks; ++c) {
        if (L::column(c) >= shape.channels) continue;
        load(weight[c], tensors.weight, L::column(c));
        load(bias[c], tensors.bias, L::column(c));
    }
    const int row = blockIdx.x * L::kRows + L::row_in_block();
    const bool present = row < shape.rows;  // else the warps only take part in row_sum
    const long long start = static_cast<long long>(row) * shape.channels;
    const auto held = [&](int chunk) { return present && L::column(chunk) < shape.channels; };

    Pack<X, kSize> stream[kChunks] = {};
    Pack<B, kSize> branch[kChunks] = {};
    for (int c = 0; c < kChunks; ++c) {
        if (held(c)) load(stream[c], tensors.x, start + L::column(c));
    }
    float scale = 1;
    if (tensors.branch) {
        for (int c = 0; c < kChunks; ++c) {
            if (held(c)) load(branch[c], tensors.branch, start + L::column(c));
        }
        if (tensors.scale && present) scale = tensors.scale[row / shape.rows_per_image];
    }

    float values[kChunks][kSize];
    float total = 0;
    for (int c = 0; c < kChunks; ++c) {
        for (int i = 0; i < kSize; ++i) {  // the norm is that of the rounded sum, which the backward pass reads
            values[c][i] = static_cast<float>(static_cast<X>(stream[c][i] + scale * branch[c][i]));
            total += values[c][i];
        }
        if (tensors.branch && held(c)) store_as<X>(tensors.sum, start + L::column(c), values[c]);
    }
    const float mean = row_sum<L::kRowWarps>(total) / shape.channels;
    float squares = 0;
    for (int c = 0; c < kChunks; ++c) {
        for (int i = 0; i < kSize; ++i) {
            values[c][i] -= mean;
            if (held(c)) squares += values[c][i] * values[c][i];
        }
    }
    const float inverse = rsqrtf(row_sum<L::kRowWarps>(squares) / shape.channels + tensors.epsilon);
    float largest = 0;
    for (int c = 0; c < kChunks; ++c) {
        if (!held(c)) continue;
        for (int i = 0; i < kSize; ++i) {
            values[c][i] = values[c][i] * inverse * weight[c][i] + bias[c][i];
            largest = fmaxf(largest, fabsf(values[c][i]));
        }
        store(normed_type, tensors.normed, start + L::column(c), values[c]);
    }
    if (normed_type == Element::kFloat8) {
        const float row_scale = float8_scale(row_max<L::kRowWarps, kWarps>(largest)), factor = 1 / row_scale;
        for (int c = 0; c < kChunks; ++c) {
            if (held(c)) store_float8(tensors.normed, start + L::column(c), values[c], factor);
        }
        if (present && threadIdx.x % L::kRowThreads == 0) tensors.row_scales[row] = row_scale;
    }
    if (tensors.statistics && present && threadIdx.x % L::kRowThreads == 0) {
        tensors.statistics[row] = make_float2(mean, inverse);
    }
}

// Adds up what the block's rows hold for each channel, in a fixed order, and writes it to `to`, (C).
template <class L>
__device__ void write_column_sums(const float (&values)[L::kChunks][L::kSize], float (&rows)[L::kRows][L::kCapacity],
                                  int channels, float* to) {
    for (int c = 0; c < L::kChunks; ++c) store_as<float>(rows[L::row_in_block()], L::column(c), values[c]);
    __syncthreads();
    for (int j = threadIdx.x; j < channels; j += kThreads) {
        float sum = 0;
        for (int r = 0; r < L::kRows; ++r) sum += rows[r][j];
        to[j] = sum;
    }
    __syncthreads();
}

// With y the normalized row, g = to_normed * weight and means over the channels:
//     to_x = to_sum + (g - mean(g) - y mean(g y)) / deviation,  to_branch = scale to_x,
//     to_weight = sum over the rows of to_normed y,  to_bias = sum over the rows of to_normed.
template <class L, class D>
__global__ void __launch_bounds__(kThreads, L::kBackwardBlocks)
    backward(ResidualNormShape shape, ResidualNormBackward tensors, Element weight_type, Element branch_type) {
    using X = typename L::X;
    constexpr int kSize = L::kSize, kChunks = L::kChunks;
    __shared__ alignas(16) float weight[L::kCapacity];
    for (int j = threadIdx.x; j < shape.channels; j += kThreads) {
        weight[j] = weight_type == Element::kFloat ? static_cast<const float*>(tensors.weight)[j]
                                                   : static_cast<float>(static_cast<const X*>(tensors.weight)[j]);
    }
    __syncthreads();

    float to_weight[kChunks][kSize] = {}, to_bias[kChunks][kSize] = {};
    for (int first = blockIdx.x * L::kRows; first < shape.rows; first += gridDim.x * L::kRows) {
        const int row = first + L::row_in_block();
        const bool present = row < shape.rows;
        if (L::kRowWarps == 1 && !present) break;
        const long long start = static_cast<long long>(row) * shape.channels;
        const auto held = [&](int chunk) { return present && L::column(chunk) < shape.channels; };

        Pack<D, kSize> to_normed[kChunks] = {};
        Pack<X, kSize> sum[kChunks] = {}, to_sum[kChunks] = {};
        for (int c = 0; c < kChunks; ++c) {
            if (!held(c)) continue;
            load(to_normed[c], tensors.to_normed, start + L::column(c));
            load(sum[c], tensors.sum, start + L::column(c));
            if (tensors.to_sum) load(to_sum[c], tensors.to_sum, start + L::column(c));
        }
        const float2 statistics = present ? tensors.statistics[row] : make_float2(0, 0);
        const float scale = tensors.scale && present ? tensors.scale[row / shape.rows_per_image] : 1;

        const auto normalized = [&](int c, int i) { return (sum[c][i] - statistics.x) * statistics.y; };
        float2 means = make_float2(0, 0);
        for (int c = 0; c < kChunks; ++c) {
            if (!held(c)) continue;
            Pack<float, kSize> gain;
            load(gain, weight, L::column(c));
            for (int i = 0; i < kSize; ++i) {
                const float gradient = to_normed[c][i], y = normalized(c, i);
                means.x += gradient * gain[i];
                means.y += gradient * gain[i] * y;
                to_weight[c][i] += gradient * y;
                to_bias[c][i] += gradient;
            }
        }
        means = row_sum<L::kRowWarps>(means);
        means.x /= shape.channels;
        means.y /= shape.channels;
        for (int c = 0; c < kChunks; ++c) {
            if (!held(c)) continue;
            Pack<float, kSize> gain;
            load(gain, weight, L::column(c));
            float values[kSize];
            for (int i = 0; i < kSize; ++i) {
                const float centred = to_normed[c][i] * gain[i] - means.x - normalized(c, i) * means.y;
                values[i] = to_sum[c][i] + statistics.y * centred;
            }
            if (tensors.to_x) store_as<X>(tensors.to_x, start + L::column(c), values);
            if (!tensors.to_branch) continue;
            for (int i = 0; i < kSize; ++i) values[i] *= scale;
            store(branch_type, tensors.to_branch, start + L::column(c), values);
        }
    }
    if (!tensors.partial) return;
    __shared__ alignas(16) float rows[L::kRows][L::kCapacity];
    float* to = tensors.partial + 2ll * blockIdx.x * shape.channels;
    write_column_sums<L>(to_weight, rows, shape.channels, to);
    write_column_sums<L>(to_bias, rows, shape.channels, to + shape.channels);
}

// Calls `work` with the layout for rows of `channels` values of type X.
template <class X, class Work>
auto with_layout(int channels, const Work& work) {
    constexpr int kWide = 16 / sizeof(X);  // values in 16 bytes
    if (channels <= 256) return work(Layout<X, kWide, 8 / kWide, 1>());
    if (channels <= 384) return work(Layout<X, 4, 3, 1>());
    if (channels <= 512) return work(Layout<X, kWide, 16 / kWide, 1>());
    if (channels <= 768) return work(Layout<X, 4, 3, 2>());
    if (channels <= 1024) return work(Layout<X, kWide, 16 / kWide, 2>());
    return work(Layout<X, kWide, 16 / kWide, 4>());
}

// Blocks that give each row its warps.
template <class L>
int blocks_for(ResidualNormShape shape) {
    return (shape.rows + L::kRows - 1) / L::kRows;
}

}  // namespace

cudaError_t residual_norm_forward(ResidualNormTypes types, ResidualNormShape shape, const ResidualNormForward& tensors,
                                  cudaStream_t stream) {
    with_type(types.x, [&](auto* x) {
        using X = std::remove_pointer_t<decltype(x)>;
        with_layout<X>(shape.channels, [&](auto layout) {
            using L = decltype(layout);
            const auto launch = [&](auto* branch, auto* weight) {
                launch_overlapping(
                    forward<L, std::remove_pointer_t<decltype(branch)>, std::remove_pointer_t<decltype(weight)>>,
                    dim3(blocks_for<L>(shape)), kThreads, 0, stream, shape, tensors, types.normed);
            };
            if constexpr (std::is_same_v<X, float>) {
                with_type(types.branch, [&](auto* branch) { launch(branch, x); });
            } else if (types.weight == Element::kFloat) {
                launch(x, static_cast<float*>(nullptr));
            } else {
                launch(x, x);
            }
        });
    });
    return cudaGetLastError();
}

cudaError_t residual_norm_backward(ResidualNormTypes types, ResidualNormShape shape,
                                   const ResidualNormBackward& tensors, cudaStream_t stream) {
    const int partials = residual_norm_partials(types, shape);
    with_type(types.x, [&](auto* x) {
        with_layout<std::remove_pointer_t<decltype(x)>>(shape.channels, [&](auto layout) {
            with_type(types.normed, [&](auto* normed) {
                backward<decltype(layout), std::remove_pointer_t<decltype(normed)>>
                    <<<partials, kThreads, 0, stream>>>(shape, tensors, types.weight, types.branch);
            });
        });
    });
    if (tensors.partial) {
        return sum_rows(tensors.partial, partials, 2 * shape.channels, tensors.to_weight_and_bias, stream);
    }
    return cudaGetLastError();
}

int residual_norm_partials(ResidualNormTypes types, ResidualNormShape shape) {
    const int multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
    return with_type(types.x, [&](auto* x) {
        return with_layout<std::remove_pointer_t<decltype(x)>>(shape.channels, [&](auto layout) {
            using L = decltype(layout);
            return std::min(blocks_for<L>(shape), multiprocessors * L::kBackwardBlocks);
        });
    });
}

}  // namespace dynvit::cuda
