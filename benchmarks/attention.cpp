// Times masked_self_attention and sized_self_attention on the GPU beside LibTorch's attention and the unfused path, in
// bfloat16. `1 6 137 64`, `32 6 137 64` and `256 6 137 64` show what sizes cost in inference, lines 8 and 9.
//     attention_bench [batch] [heads] [tokens] [head_dim]
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "dynvit/ops/masked_attention.hpp"
#include "dynvit/ops/self_attention.hpp"
#include "gpu_timing.hpp"

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
    const at::Tensor sizes = at::randint(1, 10, {batch, tokens}, options.dtype(at::kFloat));
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

    // Products of 2 N^2 head_dim operations a head: two forward, five backward.
    const double product = 2.0 * static_cast<double>(tokens * tokens * head_dim * heads * batch);
    const double once = 2 * product, both_ways = 7 * product;
    std::vector<dynvit::bench::Contender> contenders;
    contenders.push_back({"1 ours, plain, forward", once, infer([&] { ours({}); })});
    contenders.push_back({"2 LibTorch, plain, forward", once, infer([&] { theirs(std::nullopt); })});
    contenders.push_back({"3 ours, policy, forward", once, infer([&] { ours(policy); })});
    contenders.push_back({"4 ours, policy, forward + backward", both_ways, [&] { learn(ours(policy)); }});
    contenders.push_back({"  ours, plain, forward + backward", both_ways, [&] { learn(ours({})); }});
    contenders.push_back({"5 LibTorch, plain, forward + backward", both_ways, [&] { learn(theirs(std::nullopt)); }});
    contenders.push_back(
        {"  the same, q, k, v apart", both_ways, [&] { learn(merge(at::scaled_dot_product_attention(q, k, v))); }});
    contenders.push_back({"6 LibTorch, mask, forward + backward", both_ways, [&] { learn(theirs(mask)); }});
    contenders.push_back({"7 unfused, policy, forward + backward", both_ways, [&] {
                              const at::Tensor p = parts();
                              learn(merge(dynvit::masked_attention(p[0], p[1], p[2], policy, scale)));
                          }});
    contenders.push_back({"8 ours, inference, plain", once, infer([&] { dynvit::self_attention(qkv, heads); })});
    contenders.push_back(
        {"9 ours, inference, sizes", once, infer([&] { dynvit::sized_self_attention(qkv, heads, sizes); })});
    contenders.push_back({"  ours, sizes, forward + backward", both_ways,
                          [&] { learn(dynvit::sized_self_attention(qkv, heads, sizes)); }});

    const std::vector<float> medians = dynvit::bench::median_milliseconds(contenders);
    std::printf("%s, bfloat16, (%ld, %ld, %ld, %ld)\n", at::cuda::getCurrentDeviceProperties()->name,
                static_cast<long>(batch), static_cast<long>(heads), static_cast<long>(tokens),
                static_cast<long>(head_dim));
    std::printf("%-40s %8s %8s %10s\n", "", "ms", "TFLOP/s", "ms / LibTorch's");
    const float forward = medians[1], both = medians[5];
    for (std::size_t i = 0; i < contenders.size(); ++i) {
        std::printf("%-40s %8.3f %8.1f %10.2f\n", contenders[i].name.c_str(), medians[i],
                    contenders[i].work / medians[i] * 1e-9, medians[i] / (contenders[i].work == once ? forward : both));
    }
    return 0;
}
