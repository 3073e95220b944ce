// GELU (its tanh approximation), its gradient, and the sum of the gradient over the rows, in one pass that memory
// bounds.
#include "gelu_backward.cuh"

#include <algorithm>

#include "element_dispatch.cuh"
#include "gelu.cuh"
#include "launch_limits.cuh"
#include "sum_rows.cuh"
#include "vector_elements.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kVector = 8;      // columns of a thread
constexpr int kAcross = 32;     // threads along a row
constexpr int kDown = 8;        // rows that a block works on at once
constexpr int kBlocksEach = 8;  // of a multiprocessor

template <class T>
__global__ void __launch_bounds__(kAcross* kDown) gelu_backward(GeluBackward p) {
    __shared__ float parts[kDown][kAcross][kVector + 1];
    const int column = (blockIdx.y * kAcross + threadIdx.x) * kVector;
    float sums[kVector] = {};
    if (column < p.columns) {
#pragma unroll 2
        for (int row = blockIdx.x * kDown + threadIdx.y; row < p.rows; row += gridDim.x * kDown) {
            const long long at = static_cast<long long>(row) * p.columns + column;
            float x[kVector], gradient[kVector], y[kVector];
            load8(static_cast<const T*>(p.input) + at, x);
            load8(static_cast<const T*>(p.to_output) + at, gradient);
            for (int i = 0; i < kVector; ++i) {
                const float square = x[i] * x[i], t = tanh_of(kGeluScale * x[i] * (1 + kGeluCubic * square));
                y[i] = 0.5f * x[i] * (1 + t);
                gradient[i] *= 0.5f * (1 + t) + 0.5f * x[i] * (1 - t * t) * kGeluScale * (1 + 3 * kGeluCubic * square);
                sums[i] += gradient[i];
            }
            store8(static_cast<T*>(p.output) + at, y);
            store8(static_cast<T*>(p.to_input) + at, gradient);
        }
    }
    for (int i = 0; i < kVector; ++i) parts[threadIdx.y][threadIdx.x][i] = sums[i];
    __syncthreads();
    if (threadIdx.y > 0 || column >= p.columns) return;
    for (int i = 0; i < kVector; ++i) {
        float sum = 0;
        for (int r = 0; r < kDown; ++r) sum += parts[r][threadIdx.x][i];
        p.partial[static_cast<long long>(blockIdx.x) * p.columns + column + i] = sum;
    }
}

int blocks_across(int columns) {
    return (columns + kAcross * kVector - 1) / (kAcross * kVector);
}

}  // namespace

int gelu_backward_partials(int rows, int columns) {
    const int all = kBlocksEach * device_attribute(cudaDevAttrMultiProcessorCount);
    return std::max(1, std::min((rows + kDown - 1) / kDown, all / blocks_across(columns)));
}

cudaError_t gelu_backward(const GeluBackward& p, cudaStream_t stream) {
    const int partials = gelu_backward_partials(p.rows, p.columns);
    with_half_type(p.element, [&](auto* type) {
        gelu_backward<std::remove_pointer_t<decltype(type)>>
            <<<dim3(partials, blocks_across(p.columns)), dim3(kAcross, kDown), 0, stream>>>(p);
    });
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
    return sum_rows(p.partial, partials, p.columns, p.to_input_sums, stream);
}

}  // namespace dynvit::cuda
