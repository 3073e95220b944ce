// Rows to float8 with a scale each, GELU before it where asked, in one pass that memory bounds: a row stays in the
// registers of the one warp (of several, if it is wide) that works on it. The definition stands in ops/scaled_rows.cpp.
#include "scaled_rows.cuh"

#include <cuda_bf16.h>

#include "float8.cuh"
#include "gelu.cuh"
#include "overlap.cuh"
#include "vector_elements.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kSize = 8;    // neighbouring values of a chunk
constexpr int kChunks = 3;  // of a thread: 768 values a warp, which widths of models are multiples or halves of

template <int kRowWarps, bool kGelu>
__global__ void __launch_bounds__(kThreads) quantize_rows(QuantizeRows p) {
    constexpr int kRowThreads = 32 * kRowWarps;
    const int row = blockIdx.x * (kWarps / kRowWarps) + threadIdx.x / kRowThreads, lane = threadIdx.x % kRowThreads;
    const bool present = row < p.rows;  // else the warps only take part in row_max
    const long long start = static_cast<long long>(row) * p.channels;
    const auto column = [&](int chunk) { return (chunk * kRowThreads + lane) * kSize; };
    const auto held = [&](int chunk) { return present && column(chunk) < p.channels; };
    let_next_begin();
    wait_for_previous();

    float values[kChunks][kSize] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
        if (held(c)) load8(static_cast<const __nv_bfloat16*>(p.x) + start + column(c), values[c]);
    }
    float largest = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
        for (int i = 0; i < kSize; ++i) {
            if (kGelu) values[c][i] = gelu(values[c][i]);  // 0 of the 0 that stands where nothing is held
            largest = fmaxf(largest, fabsf(values[c][i]));
        }
    }
    const float scale = float8_scale(row_max<kRowWarps, kWarps>(largest)), factor = 1 / scale;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
        if (held(c)) store_float8(p.values, start + column(c), values[c], factor);
    }
    if (present && lane == 0) p.scales[row] = scale;
}

template <int kRowWarps>
cudaError_t launch(const QuantizeRows& p, cudaStream_t stream) {
    constexpr int kRows = kWarps / kRowWarps;
    return launch_overlapping(p.gelu ? quantize_rows<kRowWarps, true> : quantize_rows<kRowWarps, false>,
                              dim3((p.rows + kRows - 1) / kRows), kThreads, 0, stream, p);
}

}  // namespace

cudaError_t quantize_rows(const QuantizeRows& p, cudaStream_t stream) {
    constexpr int kOfWarp = 32 * kChunks * kSize;
    static_assert(kMaxScaledChannels == kWarps * kOfWarp);
    if (p.channels <= kOfWarp) return launch<1>(p, stream);
    if (p.channels <= 2 * kOfWarp) return launch<2>(p, stream);
    if (p.channels <= 4 * kOfWarp) return launch<4>(p, stream);
    return launch<8>(p, stream);
}

}  // namespace dynvit::cuda
