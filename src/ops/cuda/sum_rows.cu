#include "sum_rows.cuh"

namespace dynvit::cuda {
namespace {

// Blocks of 32 x 32 threads, a column for each x.
__global__ void __launch_bounds__(1024) add_up(const float* partial, int rows, int columns, float* sums) {
    __shared__ float parts[32][33];
    const int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (column < columns) {
#pragma unroll 8
        for (int r = threadIdx.y; r < rows; r += 32) sum += partial[static_cast<long long>(r) * columns + column];
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = parts[threadIdx.x][threadIdx.y];  // now a column for each warp
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    const int own = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && own < columns) sums[own] = sum;
}

}  // namespace

cudaError_t sum_rows(const float* partial, int rows, int columns, float* sums, cudaStream_t stream) {
    add_up<<<(columns + 31) / 32, dim3(32, 32), 0, stream>>>(partial, rows, columns, sums);
    return cudaGetLastError();
}

}  // namespace dynvit::cuda
