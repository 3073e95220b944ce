// Times masked_self_attention on the GPU beside LibTorch's attention and the unfused path, in bfloat16.
//     attention_bench [batch] [heads] [tokens] [head_dim]
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/ops/masked_attention.hpp"

namespace {

constexpr int kRounds = 15, kRepeats = 20;

struct Contender {
    std::string name;
    double products;  // of 2 N^2 head_dim operations a head: 2 forward, 5 backward
    std::function<void()> run;
    std::vector<float> milliseconds = {};
};

float median(std::vector<float> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

// Milliseconds of one run, of kRepeats that follow each other without a pause.
float time_once(const std::function<void()>& run, cudaEvent_t begin, cudaEvent_t end) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    C10_CUDA_CHECK(cudaEventRecord(begin, stream));
    for (int i = 0; i < kRepeats; ++i) run();
    C10_CUDA_CHECK(cudaEventRecord(end, stream));
    C10_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    return milliseconds / kRepeats;
}

}  // namespace

int main(int argc, char** argv) {
    const auto argument = [&](int i, std::int64_t otherwise) { return i < argc ? std::atoll(argv[i]) : otherwise; };
    const std::int64_t batch = argument(1, 256), heads = argument(2, 6), tokens = argument(3, 197),
                       head_dim = argument(4, 64), channels = heads * head_dim;
    if (!at::hasCUDA()) {
        std::fprintf(stderr, "attention_bench needs a GPU\n");
        return 1;
    }
    const auto options = at::device(at::kCUDA).dtype(at::kBFloat16);
    const at::Tensor qkv = at::randn({batch, tokens, 3 * channels}, options).requires_grad_();
    const at::Tensor grad_out = at::randn({batch, tokens, channels}, options);
    at::Tensor policy = (at::rand({batch, tokens}, options.dtype(at::kFloat)) < 0.5).to(at::kFloat);
    policy.select(1, 0).fill_(1);
    policy.requires_grad_();
    const at::Tensor mask = at::zeros({batch, 1, tokens, tokens}, options).requires_grad_();
    const double scale = 1 / std::sqrt(static_cast<double>(head_dim));

    const auto parts = [&] { return qkv.view({batch, tokens, 3, heads, head_dim}).permute({2, 0, 3, 1, 4}); };
    const auto merge = [&](const at::Tensor& x) { return x.transpose(1, 2).reshape({batch, tokens, channels}); };
    const auto ours = [&](const at::Tensor& visible) { return dynvit::masked_self_attention(qkv, visible, heads); };
    const auto theirs = [&](const std::optional<at::Tensor>& bias) {
        const at::Tensor p = parts();
        return merge(at::scaled_dot_product_attention(p[0], p[1], p[2], bias));
    };
    at::Tensor q, k, v;  // leaves of their own: no gradient to gather
    {
        const at::NoGradGuard no_grad;
        const at::Tensor p = parts();
        q = p[0].transpose(1, 2).contiguous().transpose(1, 2).detach().requires_grad_();
        k = p[1].transpose(1, 2).contiguous().transpose(1, 2).detach().requires_grad_();
        v = p[2].transpose(1, 2).contiguous().transpose(1, 2).detach().requires_grad_();
    }
    const auto learn = [&](const at::Tensor& out) {
        out.backward(grad_out);
        for (const auto* x : std::initializer_list<const at::Tensor*>{&qkv, &policy, &mask, &q, &k, &v})
            x->mutable_grad() = at::Tensor();
    };
    const auto infer = [](auto run) {
        return [run] {
            const at::NoGradGuard no_grad;
            run();
        };
    };

    std::vector<Contender> contenders;
    contenders.push_back({"1 ours, plain, forward", 2, infer([&] { ours({}); })});
    contenders.push_back({"2 LibTorch, plain, forward", 2, infer([&] { theirs(std::nullopt); })});
    contenders.push_back({"3 ours, policy, forward", 2, infer([&] { ours(policy); })});
    contenders.push_back({"4 ours, policy, forward + backward", 7, [&] { learn(ours(policy)); }});
    contenders.push_back({"  ours, plain, forward + backward", 7, [&] { learn(ours({})); }});
    contenders.push_back({"5 LibTorch, plain, forward + backward", 7, [&] { learn(theirs(std::nullopt)); }});
    contenders.push_back(
        {"  the same, q, k, v apart", 7, [&] { learn(merge(at::scaled_dot_product_attention(q, k, v))); }});
    contenders.push_back({"6 LibTorch, mask, forward + backward", 7, [&] { learn(theirs(mask)); }});
    contenders.push_back({"7 unfused, policy, forward + backward", 7, [&] {
                              const at::Tensor p = parts();
                              learn(merge(dynvit::masked_attention(p[0], p[1], p[2], policy, scale)));
                          }});

    cudaEvent_t begin = nullptr, end = nullptr;
    C10_CUDA_CHECK(cudaEventCreate(&begin));
    C10_CUDA_CHECK(cudaEventCreate(&end));
    for (int round = -2; round < kRounds; ++round) {  // the first two warm up
        for (Contender& contender : contenders) {
            const float milliseconds = time_once(contender.run, begin, end);
            if (round >= 0) contender.milliseconds.push_back(milliseconds);
        }
    }
    std::printf("%s, bfloat16, (%ld, %ld, %ld, %ld)\n", at::cuda::getCurrentDeviceProperties()->name,
                static_cast<long>(batch), static_cast<long>(heads), static_cast<long>(tokens),
                static_cast<long>(head_dim));
    std::printf("%-40s %8s %8s %10s\n", "", "ms", "TFLOP/s", "ms / LibTorch's");
    const float forward = median(contenders[1].milliseconds), both = median(contenders[5].milliseconds);
    for (const Contender& contender : contenders) {
        const float ms = median(contender.milliseconds);
        const double operations = contender.products * 2.0 * tokens * tokens * head_dim * heads * batch;
        std::printf("%-40s %8.3f %8.1f %10.2f\n", contender.name.c_str(), ms, operations / ms * 1e-9,
                    ms / (contender.products == 2 ? forward : both));
    }
    return 0;
}
