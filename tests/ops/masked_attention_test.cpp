#include "dynvit/ops/masked_attention.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include "support.hpp"
#include "tensor_support.hpp"

namespace dynvit {
namespace {

struct Gradients {
    at::Tensor output, logits, policy;
};

template <class Softmax>
Gradients run(const Softmax& softmax, const at::Tensor& logits, const at::Tensor& policy, const at::Tensor& weights) {
    const at::Tensor l = logits.detach().clone().requires_grad_(), p = policy.detach().clone().requires_grad_();
    const at::Tensor output = softmax(l, p);
    (output * weights).sum().backward();
    return {output, l.grad(), p.grad()};
}

at::Tensor random_policy(std::int64_t batch, std::int64_t tokens, const at::Generator& generator) {
    at::Tensor policy = (at::rand({batch, tokens}, generator) < 0.5).to(at::kFloat);
    policy.select(1, 0).fill_(1);
    return policy;
}

TEST(MaskedAttention, AgreesWithTheReference) {  // golden: values and gradients in float64; image 2 keeps [CLS] only
    const TensorMap golden = read_safetensors(test::golden("model/policy_attention.safetensors")).tensors;
    const at::Tensor q = golden.at("q").requires_grad_(), k = golden.at("k").requires_grad_(),
                     v = golden.at("v").requires_grad_(), policy = golden.at("policy").requires_grad_();
    const double scale = 1 / std::sqrt(16.0);
    const at::Tensor probabilities = policy_softmax(at::matmul(q * scale, k.transpose(-2, -1)), policy);
    EXPECT_CLOSE(probabilities, golden.at("probs"), 2e-6);

    const at::Tensor out = masked_attention(q, k, v, policy, scale);
    EXPECT_CLOSE(out, golden.at("out"), 2e-6);
    (out * golden.at("grad_out")).sum().backward();
    EXPECT_CLOSE(q.grad(), golden.at("grad_q"), 5e-6);
    EXPECT_CLOSE(k.grad(), golden.at("grad_k"), 5e-6);
    EXPECT_CLOSE(v.grad(), golden.at("grad_v"), 5e-6);
    EXPECT_CLOSE(policy.grad(), golden.at("grad_policy"), 5e-6);
}

TEST(MaskedAttention, FastPathEqualsTheDefinitionWithGradients) {  // against autograd, in float64
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
    for (const auto& [batch, heads, tokens] :
         std::vector<std::tuple<int, int, int>>{{1, 1, 1}, {1, 2, 2}, {3, 2, 17}, {2, 3, 50}}) {
        const at::Tensor logits = at::randn({batch, heads, tokens, tokens}, generator, at::kDouble) * 3;
        const at::Tensor weights = at::randn(logits.sizes(), generator, at::kDouble);
        const at::Tensor policy = random_policy(batch, tokens, generator).to(at::kDouble);
        const Gradients fast = run(policy_softmax, logits, policy, weights);
        const Gradients plain = run(policy_softmax_plain, logits, policy, weights);
        EXPECT_CLOSE(fast.output, plain.output, 1e-12);
        EXPECT_CLOSE(fast.logits, plain.logits, 1e-11);
        EXPECT_CLOSE(fast.policy, plain.policy, 1e-11);
    }
}

TEST(MaskedAttention, ProcessorLoopsEqualTheDefinitionWithGradients) {  // float32 against float64
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
    for (const int tokens : {1, 2, 7, 8, 9, 33, 145, 197}) {
        const at::Tensor logits = at::randn({2, 3, tokens, tokens}, generator) * 3;
        const at::Tensor weights = at::randn(logits.sizes(), generator);
        const at::Tensor policy = random_policy(2, tokens, generator);
        const Gradients fast = run(policy_softmax, logits, policy, weights);
        const Gradients plain =
            run(policy_softmax_plain, logits.to(at::kDouble), policy.to(at::kDouble), weights.to(at::kDouble));
        EXPECT_CLOSE(fast.output, plain.output, 2e-6) << tokens;
        EXPECT_CLOSE(fast.logits, plain.logits, 1e-5) << tokens;
        EXPECT_CLOSE(fast.policy, plain.policy, 1e-5) << tokens;
    }
}

TEST(MaskedAttention, AllKeptIsOrdinaryAttention) {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(4);
    const at::Tensor q = at::randn({2, 3, 10, 8}, generator), k = at::randn({2, 3, 10, 8}, generator),
                     v = at::randn({2, 3, 10, 8}, generator);
    const at::Tensor plain = at::matmul(at::softmax(at::matmul(q, k.transpose(-2, -1)) * 0.3, -1), v);
    EXPECT_CLOSE(masked_attention(q, k, v, at::ones({2, 10}), 0.3), plain, 1e-5);
}

TEST(MaskedAttention, KeptTokensSeeWhatTheyWouldSeeIfTheOthersWereRemoved) {
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(5);
    const at::Tensor q = at::randn({1, 2, 12, 8}, generator), k = at::randn({1, 2, 12, 8}, generator),
                     v = at::randn({1, 2, 12, 8}, generator);
    const at::Tensor policy = random_policy(1, 12, generator);
    const at::Tensor kept = policy[0].nonzero().flatten();
    const at::Tensor masked = masked_attention(q, k, v, policy, 0.35).index_select(2, kept);
    const at::Tensor removed = masked_attention(q.index_select(2, kept), k.index_select(2, kept),
                                                v.index_select(2, kept), at::ones({1, kept.size(0)}), 0.35);
    EXPECT_CLOSE(masked, removed, 1e-5);
}

TEST(MaskedAttention, FiniteWhereEveryVisibleWeightUnderflows) {
    at::Tensor logits = at::full({1, 1, 3, 3}, -200.0f);
    logits.select(3, 2).fill_(200.0f);  // all look at the dropped token
    const Gradients fast =
        run(policy_softmax, logits, at::tensor({1.0f, 1.0f, 0.0f}).view({1, 3}), at::randn({1, 1, 3, 3}));
    EXPECT_TRUE(fast.output.isfinite().all().item<bool>());
    EXPECT_TRUE(fast.logits.isfinite().all().item<bool>());
    EXPECT_TRUE(fast.policy.isfinite().all().item<bool>());
}

TEST(MaskedAttention, NanStaysInItsRowAndTouchesNothingElse) {  // under AddressSanitizer: no write beside the rows
    at::Tensor logits = at::randn({1, 1, 5, 5}, at::make_generator<at::CPUGeneratorImpl>(8));
    logits[0][0][4].fill_(std::numeric_limits<float>::quiet_NaN());
    const Gradients fast = run(policy_softmax, logits, at::ones({1, 5}), at::ones({1, 1, 5, 5}));
    EXPECT_TRUE(fast.logits[0][0].slice(0, 0, 4).isfinite().all().item<bool>());
    EXPECT_TRUE(fast.logits[0][0][4].isnan().all().item<bool>());
}

TEST(MaskedAttention, CudaKernelEqualsTheDefinition) {  // float32 to 1e-5, half types to their rounding, many shapes
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(6);
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
        const double tolerance = type == at::kFloat ? 1e-5 : type == at::kHalf ? 2e-3 : 1.6e-2;
        for (const int tokens : {1, 2, 31, 32, 33, 64, 145, 197, 577, 1025, 1600}) {
            const int batch = tokens > 500 ? 1 : 3, heads = 2;
            const at::Tensor logits = (at::randn({batch, heads, tokens, tokens}, generator) * 3).to(type);
            const at::Tensor weights = at::randn(logits.sizes(), generator).to(type);
            const at::Tensor policy = random_policy(batch, tokens, generator);
            const Gradients fast = run(policy_softmax, logits.cuda(), policy.cuda(), weights.cuda());
            const Gradients plain = run(policy_softmax_plain, logits.to(at::kFloat), policy, weights.to(at::kFloat));
            EXPECT_CLOSE(fast.output, plain.output, tolerance) << type << ' ' << tokens;
            EXPECT_CLOSE(fast.logits, plain.logits, tolerance) << type << ' ' << tokens;
            EXPECT_CLOSE(fast.policy, plain.policy, tolerance) << type << ' ' << tokens;
        }
    }
}

}  // namespace
}  // namespace dynvit
