#include "prediction_head.cuh"

#include "element_dispatch.cuh"
#include "overlap.cuh"
#include "vector_elements.cuh"
#include "warp_sum.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 8;                  // vectors of eight channels that a block of share_mean takes
constexpr int kLines = kThreads / kColumns;  // rows that it reads at once
constexpr int kWarps = kThreads / 32;

template <class T>
__global__ void __launch_bounds__(kThreads) share_mean(PredictionShape s, const int* offsets, T* h) {
    __shared__ float sums[kLines][kColumns][8];
    const int column = threadIdx.x % kColumns, line = threadIdx.x / kColumns;
    let_next_begin();
    wait_for_previous();
    const int begin = (offsets ? offsets[blockIdx.x] : blockIdx.x * s.rows) + s.skipped;
    const int end = offsets ? offsets[blockIdx.x + 1] : (blockIdx.x + 1) * s.rows;
    const int channel = s.channels / 2 + (blockIdx.y * kColumns + column) * 8;
    const bool inside = channel < s.channels;

    float sum[8] = {};
    for (int row = begin + line; inside && row < end; row += kLines) {
        float values[8];
        load8(h + static_cast<long long>(row) * s.channels + channel, values);
        for (int i = 0; i < 8; ++i) sum[i] += values[i];
    }
    for (int i = 0; i < 8; ++i) sums[line][column][i] = sum[i];
    for (int other = kLines / 2; other > 0; other /= 2) {
        __syncthreads();
        if (line < other) {
            for (int i = 0; i < 8; ++i) sums[line][column][i] += sums[line + other][column][i];
        }
    }
    __syncthreads();
    float mean[8];
    for (int i = 0; i < 8; ++i) mean[i] = sums[0][column][i] / max(end - begin, 1);
    // The skipped rows too, for every row that later products read to be finite.
    for (int row = begin - s.skipped + line; inside && row < end; row += kLines) {
        store8(h + static_cast<long long>(row) * s.channels + channel, mean);
    }
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    keep_log_probability(int rows, int channels, const T* z, const T* weight, const T* bias, float* result) {
    const int row = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
    let_next_begin();
    wait_for_previous();
    if (row >= rows) return;
    float keep = 0, drop = 0;
    for (int c = lane * 8; c < channels; c += 32 * 8) {
        float values[8], to_keep[8], to_drop[8];
        load8(z + static_cast<long long>(row) * channels + c, values);
        load8(weight + c, to_keep);
        load8(weight + channels + c, to_drop);
        for (int i = 0; i < 8; ++i) {
            keep += values[i] * to_keep[i];
            drop += values[i] * to_drop[i];
        }
    }
    keep = warp_sum(keep);
    drop = warp_sum(drop);
    if (lane > 0) return;
    keep += static_cast<float>(bias[0]);
    drop += static_cast<float>(bias[1]);
    const float greatest = fmaxf(keep, drop);
    result[row] = keep - greatest - logf(expf(keep - greatest) + expf(drop - greatest));
}

}  // namespace

cudaError_t share_mean(Element element, PredictionShape shape, const int* offsets, void* h, cudaStream_t stream) {
    const dim3 grid(shape.sequences, (shape.channels / 16 + kColumns - 1) / kColumns);
    return with_half_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(share_mean<T>, grid, kThreads, 0, stream, shape, offsets, static_cast<T*>(h));
    });
}

cudaError_t keep_log_probability(Element element, int rows, int channels, const void* z, const void* weight,
                                 const void* bias, float* result, cudaStream_t stream) {
    const dim3 grid((rows + kWarps - 1) / kWarps);
    return with_half_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return launch_overlapping(keep_log_probability<T>, grid, kThreads, 0, stream, rows, channels,
                                  static_cast<const T*>(z), static_cast<const T*>(weight), static_cast<const T*>(bias),
                                  result);
    });
}

}  // namespace dynvit::cuda
