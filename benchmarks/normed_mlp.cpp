// Times a block's second half by one kernel beside a kernel for each operation.
//     normed_mlp_bench [rows ...]
#include <cstdio>
#include <cstdlib>

#include "dynvit/ops/inference_linear.hpp"
#include "dynvit/ops/normed_mlp.hpp"
#include "dynvit/ops/residual_norm.hpp"
#include "gpu_timing.hpp"

namespace {

constexpr std::int64_t kChannels = 384, kHidden = 4 * kChannels;
constexpr double kEpsilon = 1e-6;

void compare(std::int64_t rows) {
    const auto half = at::device(at::kCUDA).dtype(at::kBFloat16);
    const at::Tensor x = at::randn({rows, kChannels}, half), weight = at::ones({kChannels}, half),
                     bias = at::zeros({kChannels}, half), fc1 = at::randn({kHidden, kChannels}, half) * 0.05,
                     fc1_bias = at::randn({kHidden}, half), fc2 = at::randn({kChannels, kHidden}, half) * 0.03,
                     fc2_bias = at::randn({kChannels}, half);
    const dynvit::NormedMlp whole({weight, bias, kEpsilon, fc1, fc1_bias, fc2, fc2_bias}, at::kBFloat16);
    const dynvit::InferenceLinear first(fc1, fc1_bias, at::kBFloat16), second(fc2, fc2_bias, at::kBFloat16);
    const std::vector<float> medians = dynvit::bench::median_milliseconds(
        {{"one kernel", 1, [&] { whole(x); }},
         {"one by one", 1, [&] {
              const at::Tensor normed = dynvit::residual_norm(x, {}, {}, weight, bias, kEpsilon, at::kBFloat16).normed;
              second.add(first.gelu(normed), x);
          }}});
    const double operations = 4.0 * static_cast<double>(rows * kChannels * kHidden);
    std::printf("%8ld rows: one kernel %8.4f ms, %4.0f TFLOP/s; one by one %8.4f ms; %.2f times as fast%s\n",
                static_cast<long>(rows), medians[0], operations / medians[0] * 1e-9, medians[1],
                medians[1] / medians[0], whole.pays(rows) ? "" : "; not taken");
}

}  // namespace

int main(int argc, char** argv) {
    if (!at::hasCUDA() || !dynvit::NormedMlp::supports(at::kCUDA, at::kBFloat16, kChannels, kHidden)) {
        std::fprintf(stderr, "normed_mlp_bench needs a GPU of compute capability 9.0 and CUDA kernels\n");
        return 1;
    }
    std::printf("%s, bfloat16, %ld channels\n", at::cuda::getCurrentDeviceProperties()->name,
                static_cast<long>(kChannels));
    if (argc > 1) {
        for (int i = 1; i < argc; ++i) compare(std::atoll(argv[i]));
        return 0;
    }
    for (const std::int64_t rows : {1374, 6304, 8352, 10000, 12672, 14000, 17664, 24832, 33792, 50432, 66816, 351744}) {
        compare(rows);
    }
    return 0;
}
