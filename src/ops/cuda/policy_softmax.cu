// The policy softmax of ops/masked_attention.hpp, one warp a row. The definition and its gradient stand in
// ops/masked_attention.cpp; the kernels follow their names.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "policy_softmax.cuh"

#include "dynvit/ops/constants.hpp"
#include "element_dispatch.cuh"
#include "warp_sum.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr auto kEpsilon = static_cast<float>(kPolicyEpsilon);

template <class T>
__device__ float load(const T* p) {
    return static_cast<float>(*p);
}
template <class T>
__device__ void store(T* p, float value) {
    *p = static_cast<T>(value);
}

// The greatest value of a row and the lowest column that has it.
__device__ void warp_max(float& value, int& column) {
    for (int offset = 16; offset > 0; offset /= 2) {
        const float other = __shfl_xor_sync(~0u, value, offset);
        const int at = __shfl_xor_sync(~0u, column, offset);
        if (other > value || (other == value && at < column)) {
            value = other;
            column = at;
        }
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward(PolicySoftmaxShape shape, const T* logits, const float* policy,
                                                    T* probabilities, float* row_max, float* row_sum) {
    const int n = shape.tokens;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long head = blockIdx.y;  // b * heads + h
    const float* visible = policy + head / shape.heads * n;

    for (int i = blockIdx.x * kRowsPerBlock + warp; i < min(n, (blockIdx.x + 1) * kRowsPerBlock); i += kWarps) {
        const long long row = head * n + i;
        const T* p = logits + row * n;
        float greatest = -INFINITY;
        int unused = 0;
        for (int j = lane; j < n; j += 32) greatest = fmaxf(greatest, load(p + j));
        warp_max(greatest, unused);
        float sum = 0;
        for (int j = lane; j < n; j += 32) sum += expf(load(p + j) - greatest) * (i == j ? 1.f : visible[j]);
        sum = warp_sum(sum) + kEpsilon;
        for (int j = lane; j < n; j += 32) {
            const float weight = expf(load(p + j) - greatest) * (i == j ? 1.f : visible[j]);
            store(probabilities + row * n + j, (weight + kEpsilon / n) / sum);
        }
        if (lane == 0) {
            row_max[row] = greatest;
            row_sum[row] = sum;
        }
    }
}

// Each warp adds up its own rows' share of the policy's gradient in shared memory, (kWarps, N); the block then writes
// one sum a column. Every sum has a fixed order, so the result is the same each time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward(PolicySoftmaxShape shape, const T* to_probabilities, const T* logits, const float* policy,
             const float* row_max, const float* row_sum, T* to_logits, float* policy_partial) {
    extern __shared__ float columns[];
    const int n = shape.tokens;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long head = blockIdx.y;
    const float* visible = policy + head / shape.heads * n;
    float* own = columns + warp * n;
    if (policy_partial) {
        for (int j = lane; j < n; j += 32) own[j] = 0;
    }

    for (int i = blockIdx.x * kRowsPerBlock + warp; i < min(n, (blockIdx.x + 1) * kRowsPerBlock); i += kWarps) {
        const long long row = head * n + i;
        const T *p = logits + row * n, *d = to_probabilities + row * n;
        const float greatest = row_max[row], sum = row_sum[row];
        float mean = 0;
        int peak = n;
        for (int j = lane; j < n; j += 32) {
            const float weight = expf(load(p + j) - greatest) * (i == j ? 1.f : visible[j]);
            mean += load(d + j) * (weight + kEpsilon / n);
            if (load(p + j) == greatest) peak = min(peak, j);
        }
        mean = warp_sum(mean) / sum;
        for (int offset = 16; offset > 0; offset /= 2) peak = min(peak, __shfl_xor_sync(~0u, peak, offset));

        float total = 0;  // of the row's gradient; goes to the maximum, with the other sign
        for (int j = lane; j < n; j += 32) {
            const float exponential = expf(load(p + j) - greatest);
            const float to_weight = (load(d + j) - mean) / sum;
            total += to_weight * exponential * (i == j ? 1.f : visible[j]);
            if (policy_partial && i != j) own[j] += to_weight * exponential;
        }
        total = warp_sum(total);
        for (int j = lane; j < n; j += 32) {
            const float weight = expf(load(p + j) - greatest) * (i == j ? 1.f : visible[j]);
            store(to_logits + row * n + j, (load(d + j) - mean) / sum * weight - (j == peak ? total : 0.f));
        }
    }
    if (!policy_partial) return;
    __syncthreads();
    for (int j = threadIdx.x; j < n; j += kThreads) {
        float value = 0;
        for (int w = 0; w < kWarps; ++w) value += columns[w * n + j];
        policy_partial[(head * gridDim.x + blockIdx.x) * n + j] = value;
    }
}

dim3 grid(const PolicySoftmaxShape& shape) {
    return dim3((shape.tokens + kRowsPerBlock - 1) / kRowsPerBlock, shape.batch * shape.heads);
}

}  // namespace

cudaError_t policy_softmax_forward(Element element, PolicySoftmaxShape shape, const void* logits, const float* policy,
                                   void* probabilities, float* row_max, float* row_sum, cudaStream_t stream) {
    with_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        forward<T><<<grid(shape), kThreads, 0, stream>>>(shape, static_cast<const T*>(logits), policy,
                                                         static_cast<T*>(probabilities), row_max, row_sum);
    });
    return cudaGetLastError();
}

cudaError_t policy_softmax_backward(Element element, PolicySoftmaxShape shape, const void* to_probabilities,
                                    const void* logits, const float* policy, const float* row_max, const float* row_sum,
                                    void* to_logits, float* policy_partial, cudaStream_t stream) {
    const std::size_t shared = policy_partial ? sizeof(float) * kWarps * shape.tokens : 0;
    with_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        backward<T><<<grid(shape), kThreads, shared, stream>>>(shape, static_cast<const T*>(to_probabilities),
                                                               static_cast<const T*>(logits), policy, row_max, row_sum,
                                                               static_cast<T*>(to_logits), policy_partial);
    });
    return cudaGetLastError();
}

}  // namespace dynvit::cuda
