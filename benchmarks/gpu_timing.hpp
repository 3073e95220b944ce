// How the benchmark programs time kernels.
#pragma once

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace dynvit::bench {

/// One of several ways to compute something.
struct Contender {
    std::string name;
    double work;  // of a run, in what the program counts: bytes, operations
    std::function<void()> run;
};

/// Times all of them in turn, round after round, by the GPU's own clock.
/// @return each one's median, milliseconds a run
inline std::vector<float> median_milliseconds(const std::vector<Contender>& contenders) {
    constexpr int kWarmUp = 2, kRounds = 15, kRepeats = 20;
    // A large product keeps the GPU busy until the processor has queued all repeats.
    const at::Tensor delay = at::randn({8192, 8192}, at::device(at::kCUDA).dtype(at::kBFloat16));
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    cudaEvent_t begin = nullptr, end = nullptr;
    C10_CUDA_CHECK(cudaEventCreate(&begin));
    C10_CUDA_CHECK(cudaEventCreate(&end));
    std::vector<std::vector<float>> times(contenders.size());
    for (int round = -kWarmUp; round < kRounds; ++round) {
        for (std::size_t c = 0; c < contenders.size(); ++c) {
            for (int i = 0; i < 3; ++i) at::matmul(delay, delay);
            C10_CUDA_CHECK(cudaEventRecord(begin, stream));
            for (int i = 0; i < kRepeats; ++i) contenders[c].run();
            C10_CUDA_CHECK(cudaEventRecord(end, stream));
            C10_CUDA_CHECK(cudaEventSynchronize(end));
            float milliseconds = 0;
            C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
            if (round >= 0) times[c].push_back(milliseconds / kRepeats);
        }
    }
    C10_CUDA_CHECK(cudaEventDestroy(begin));
    C10_CUDA_CHECK(cudaEventDestroy(end));
    std::vector<float> medians;
    for (std::vector<float>& values : times) {
        std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
        medians.push_back(values[kRounds / 2]);
    }
    return medians;
}

}  // namespace dynvit::bench
