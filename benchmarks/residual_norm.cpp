// Times residual_norm on the GPU beside the tensor operations that it stands for.
//     residual_norm_bench [batch] [tokens]
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <cstdlib>

#include "dynvit/ops/residual_norm.hpp"
#include "gpu_timing.hpp"

namespace {

constexpr double kEpsilon = 1e-6;

// `stream`: the type of the residual stream and of the norm's weights; branch and norm are bfloat16.
void compare(std::int64_t batch, std::int64_t tokens, std::int64_t channels, at::ScalarType stream, bool training) {
    const auto options = at::device(at::kCUDA).dtype(stream), half = options.dtype(at::kBFloat16);
    const auto leaf = [&](const at::Tensor& tensor) { return tensor.requires_grad_(training); };
    const at::Tensor x = leaf(at::randn({batch, tokens, channels}, options)), branch = leaf(at::randn(x.sizes(), half)),
                     weight = leaf(at::randn({channels}, options)), bias = leaf(at::randn({channels}, options)),
                     to_sum = at::randn(x.sizes(), options), to_normed = at::randn(x.sizes(), half);
    at::Tensor scale;
    if (training) scale = (at::rand({batch, 1, 1}, options.dtype(at::kFloat)) < 0.9).to(at::kFloat) / 0.9;

    const double values = static_cast<double>(x.numel()), of_stream = values * x.element_size(), of_half = values * 2;
    std::vector<dynvit::bench::Contender> contenders;  // their work: bytes that must be read or written
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
    const std::vector<float> medians = dynvit::bench::median_milliseconds(contenders);
    std::printf("(%ld, %ld, %ld), stream %s%s\n", static_cast<long>(batch), static_cast<long>(tokens),
                static_cast<long>(channels), c10::toString(stream), training ? ", with a scale and gradients" : "");
    for (std::size_t i = 0; i < contenders.size(); ++i) {
        std::printf("    %-30s %8.3f ms %7.0f GB/s\n", contenders[i].name.c_str(), medians[i],
                    contenders[i].work / medians[i] * 1e-6);
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
    for (const std::int64_t channels : {192, 384, 768}) {
        compare(batch, tokens, channels, at::kFloat, true);
        compare(batch, tokens, channels, at::kBFloat16, false);
    }
    return 0;
}
