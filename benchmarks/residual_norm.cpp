// Times residual_norm on the GPU beside the tensor operations that it stands for.
//     residual_norm_bench [batch] [tokens]
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "dynvit/ops/residual_norm.hpp"

namespace {

constexpr int kRounds = 15, kRepeats = 20;
constexpr double kEpsilon = 1e-6;

struct Contender {
    std::string name;
    double bytes;  // that must be read or written
    std::function<void()> run;
    std::vector<float> milliseconds = {};
};

class Clock {
  public:
    Clock() {
        C10_CUDA_CHECK(cudaEventCreate(&begin_));
        C10_CUDA_CHECK(cudaEventCreate(&end_));
    }

    // Milliseconds of one run, of kRepeats that follow each other without a pause: a large product keeps the GPU busy
    // until the processor has queued them.
    float time(const std::function<void()>& run) const {
        const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
        for (int i = 0; i < 3; ++i) at::matmul(delay_, delay_);
        C10_CUDA_CHECK(cudaEventRecord(begin_, stream));
        for (int i = 0; i < kRepeats; ++i) run();
        C10_CUDA_CHECK(cudaEventRecord(end_, stream));
        C10_CUDA_CHECK(cudaEventSynchronize(end_));
        float milliseconds = 0;
        C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
        return milliseconds / kRepeats;
    }

  private:
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
    at::Tensor delay_ = at::randn({8192, 8192}, at::device(at::kCUDA).dtype(at::kBFloat16));
};

float median(std::vector<float> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

// `stream`: the type of the residual stream and of the norm's weights; branch and norm are bfloat16.
void compare(const Clock& clock, std::int64_t batch, std::int64_t tokens, std::int64_t channels, at::ScalarType stream,
             bool training) {
    const auto options = at::device(at::kCUDA).dtype(stream), half = options.dtype(at::kBFloat16);
    const auto leaf = [&](const at::Tensor& tensor) { return tensor.requires_grad_(training); };
    const at::Tensor x = leaf(at::randn({batch, tokens, channels}, options)), branch = leaf(at::randn(x.sizes(), half)),
                     weight = leaf(at::randn({channels}, options)), bias = leaf(at::randn({channels}, options)),
                     to_sum = at::randn(x.sizes(), options), to_normed = at::randn(x.sizes(), half);
    at::Tensor scale;
    if (training) scale = (at::rand({batch, 1, 1}, options.dtype(at::kFloat)) < 0.9).to(at::kFloat) / 0.9;

    const double values = static_cast<double>(x.numel()), of_stream = values * x.element_size(), of_half = values * 2;
    std::vector<Contender> contenders;
    using Norm = decltype(&dynvit::residual_norm);
    for (const auto& [name, norm] : std::vector<std::pair<std::string, Norm>>{
             {"residual_norm", dynvit::residual_norm}, {"tensor operations", dynvit::residual_norm_plain}}) {
        const auto forward = [=, norm = norm] { return norm(x, branch, scale, weight, bias, kEpsilon, at::kBFloat16); };
        contenders.push_back({name + ", forward", 2 * of_stream + 2 * of_half, [=] { forward(); }});
        if (!training) continue;
        const auto result = forward();
        contenders.push_back({name + ", backward", 3 * of_stream + 2 * of_half, [=] {
                                  torch::autograd::grad({result.sum, result.normed}, {x, branch, weight, bias},
                                                        {to_sum, to_normed}, true);
                              }});
    }
    for (int round = -2; round < kRounds; ++round) {  // the first two warm up
        for (Contender& contender : contenders) {
            const float milliseconds = clock.time(contender.run);
            if (round >= 0) contender.milliseconds.push_back(milliseconds);
        }
    }
    std::printf("(%ld, %ld, %ld), stream %s%s\n", static_cast<long>(batch), static_cast<long>(tokens),
                static_cast<long>(channels), c10::toString(stream), training ? ", with a scale and gradients" : "");
    for (const Contender& contender : contenders) {
        const float ms = median(contender.milliseconds);
        std::printf("    %-30s %8.3f ms %7.0f GB/s\n", contender.name.c_str(), ms, contender.bytes / ms * 1e-6);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (!at::hasCUDA()) {
        std::fprintf(stderr, "residual_norm_bench needs a GPU\n");
        return 1;
    }
    const auto argument = [&](int i, std::int64_t otherwise) { return i < argc ? std::atoll(argv[i]) : otherwise; };
    const std::int64_t batch = argument(1, 256), tokens = argument(2, 197);
    std::printf("%s; GB/s of the bytes that one pass must move\n", at::cuda::getCurrentDeviceProperties()->name);
    const Clock clock;
    for (const std::int64_t channels : {192, 384, 768}) {
        compare(clock, batch, tokens, channels, at::kFloat, true);
        compare(clock, batch, tokens, channels, at::kBFloat16, false);
    }
    return 0;
}
