#include "resize_windows.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksOfAPass = 64;

__device__ unsigned char rounded(int sum) {
    return static_cast<unsigned char>(min(max(sum >> kPassFractionBits, 0), 255));
}

// A thread makes a pixel, and neighbours read neighbours: the bytes that several of them need come from the cache.
__global__ void __launch_bounds__(kThreads) run(const ResizePass* passes) {
    constexpr int kHalf = 1 << (kPassFractionBits - 1);
    const ResizePass pass = passes[blockIdx.y];
    const int pixels = pass.out_width * pass.out_height;
    const int step = pass.columns ? 3 : pass.in_stride;  // from an input to the next
    for (int pixel = blockIdx.x * kThreads + threadIdx.x; pixel < pixels; pixel += kBlocksOfAPass * kThreads) {
        const int y = pixel / pass.out_width, x = pixel - y * pass.out_width;
        const int position = pass.columns ? x : y;
        const int2 span = pass.spans[position];
        const int* const weights = pass.weights + position * pass.taps;
        const unsigned char* from =
            pass.in + (pass.columns ? y * pass.in_stride : 3 * x) + static_cast<long long>(span.x) * step;
        int red = kHalf, green = kHalf, blue = kHalf;
        for (int i = 0; i < span.y; ++i, from += step) {
            const int weight = weights[i];
            red += from[0] * weight;
            green += from[1] * weight;
            blue += from[2] * weight;
        }
        unsigned char* const to = pass.out + 3LL * pixel;
        to[0] = rounded(red);
        to[1] = rounded(green);
        to[2] = rounded(blue);
    }
}

}  // namespace

cudaError_t run_passes(const ResizePass* passes, int count, cudaStream_t stream) {
    run<<<dim3(kBlocksOfAPass, count), kThreads, 0, stream>>>(passes);
    return cudaGetLastError();
}

}  // namespace dynvit::cuda
