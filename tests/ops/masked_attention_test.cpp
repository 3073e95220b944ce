#include "dynvit/ops/masked_attention.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "dynvit/ops/self_attention.hpp"
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

bool has_fused() {
#ifdef DYNVIT_CUDA_KERNELS
    return at::hasCUDA();
#else
    return false;
#endif
}

// The definition for the whole projection, (B, N, 3 C) -> (B, N, C); an undefined policy is plain attention. The row's
// maximum takes no gradient: the fused kernels leave out that term, which is of the order of eps.
at::Tensor plain_self_attention(const at::Tensor& qkv, const at::Tensor& policy, std::int64_t heads) {
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), head_dim = qkv.size(2) / (3 * heads);
    const at::Tensor parts = qkv.view({batch, tokens, 3, heads, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor logits = at::matmul(parts[0], parts[1].transpose(-2, -1)) / std::sqrt(head_dim);
    const at::Tensor exponentials = (logits - logits.detach().amax(-1, true)).exp();
    at::Tensor weights = exponentials, eps = at::zeros({}, qkv.options());
    if (policy.defined()) {
        const at::Tensor eye = at::eye(tokens, qkv.options());
        weights = exponentials * (eye + (1 - eye) * policy.view({batch, 1, 1, tokens}));
        eps.fill_(kPolicyEpsilon);
    }
    const at::Tensor probabilities = (weights + eps / tokens) / (weights.sum(-1, true) + eps);
    return at::matmul(probabilities, parts[2]).transpose(1, 2).reshape({batch, tokens, heads * head_dim});
}

struct AttentionResult {
    at::Tensor out, qkv, policy;  // the latter two: gradients
};

template <class Attention>
AttentionResult attend(const Attention& attention, const at::Tensor& qkv, const at::Tensor& policy,
                       const at::Tensor& grad_out, std::int64_t heads) {
    const at::Tensor x = qkv.detach().clone().requires_grad_();
    const at::Tensor visible = policy.defined() ? policy.detach().clone().requires_grad_() : at::Tensor();
    const at::Tensor out = attention(x, visible, heads);
    out.backward(grad_out);
    return {out.detach(), x.grad(), visible.defined() ? visible.grad() : at::Tensor()};
}

// The largest difference against the largest magnitude, and the norm of the difference against the norm.
void expect_close_in_units(const at::Tensor& found, const at::Tensor& expected, double unit, double units,
                           const std::string& setting, const char* what) {
    const at::Tensor difference = found.to(at::kDouble) - expected;
    const double scale = std::max(expected.abs().max().item<double>(), 1e-30);
    const double norm = std::max(expected.norm().item<double>(), 1e-30);
    EXPECT_LE(difference.abs().max().item<double>() / scale / unit, units) << setting << ": " << what << ", largest";
    EXPECT_LE(difference.norm().item<double>() / norm / unit, units) << setting << ": " << what << ", norm";
}

enum class Policy { kNone, kAll, kRandom, kClsOnly };

at::Tensor make_policy(Policy kind, std::int64_t batch, std::int64_t tokens, const at::Generator& generator) {
    if (kind == Policy::kNone) return {};
    if (kind == Policy::kAll) return at::ones({batch, tokens});
    if (kind == Policy::kRandom) return random_policy(batch, tokens, generator);
    at::Tensor policy = at::zeros({batch, tokens});
    policy.select(1, 0).fill_(1);
    return policy;
}

constexpr double unit_of(at::ScalarType type) {  // the distance from 1 to the next number
    return type == at::kHalf ? 0x1p-10 : 0x1p-7;
}

// Against the definition in float64 from the same rounded inputs. The probabilities and their gradients are rounded
// once (half a unit), the result once more; the gradients also see the rounded output, in u. That u is taken from
// numbers that are nearly the same where one or two tokens are seen.
TEST(MaskedAttention, FusedHalfPrecisionEqualsTheDefinition) {
    if (!has_fused()) GTEST_SKIP() << "needs a GPU and the CUDA kernels";
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(9);
    const std::vector<std::int64_t> head_counts = {1, 3, 6}, batches = {1, 3};
    std::size_t turn = 0;
    for (const std::int64_t tokens :
         {1, 2, 15, 16, 17, 31, 63, 64, 65, 138, 196, 197, 198, 208, 209, 256, 257, 577, 1025}) {
        for (const std::int64_t head_dim : {16, 32, 64, 80, 128}) {
            for (const Policy kind : {Policy::kNone, Policy::kAll, Policy::kRandom, Policy::kClsOnly}) {
                for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
                    const std::int64_t heads = head_counts[turn % 3], batch = batches[turn / 2 % 2];
                    ++turn;
                    const at::Tensor qkv =
                        (at::randn({batch, tokens, 3 * heads * head_dim}, generator) * 1.5).to(at::kCUDA, type);
                    const at::Tensor grad_out =
                        at::randn({batch, tokens, heads * head_dim}, generator).to(at::kCUDA, type);
                    at::Tensor policy = make_policy(kind, batch, tokens, generator);
                    if (policy.defined()) policy = policy.cuda();
                    const AttentionResult fused = attend(masked_self_attention, qkv, policy, grad_out, heads);
                    const AttentionResult plain =
                        attend(plain_self_attention, qkv.to(at::kDouble),
                               policy.defined() ? policy.to(at::kDouble) : policy, grad_out.to(at::kDouble), heads);
                    const std::string what = c10::str(type, " batch ", batch, " heads ", heads, " tokens ", tokens,
                                                      " dim ", head_dim, " policy ", static_cast<int>(kind));
                    const double unit = unit_of(type), units = tokens <= 2 || kind == Policy::kClsOnly ? 8 : 2;
                    EXPECT_EQ(fused.out.scalar_type(), type);
                    expect_close_in_units(fused.out, plain.out, unit, 1, what, "out");
                    // One token: softmax is constant, the gradients of q and k are rounding alone.
                    const at::Tensor found = tokens > 1 ? fused.qkv : fused.qkv.slice(2, 2 * heads * head_dim);
                    const at::Tensor expected = tokens > 1 ? plain.qkv : plain.qkv.slice(2, 2 * heads * head_dim);
                    expect_close_in_units(found, expected, unit, units, what, "gradient of qkv");
                    if (policy.defined()) {
                        expect_close_in_units(fused.policy, plain.policy, unit, units, what, "gradient of the policy");
                        EXPECT_EQ(fused.policy.scalar_type(), at::kFloat);
                    }
                    const at::NoGradGuard no_grad;
                    EXPECT_TRUE(masked_self_attention(qkv, policy, heads).equal(fused.out)) << what;
                }
            }
        }
    }
}

TEST(MaskedAttention, FusedResultsRepeatExactly) {
    if (!has_fused()) GTEST_SKIP() << "needs a GPU and the CUDA kernels";
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(10);
    for (const std::int64_t tokens : {197, 577}) {
        const at::Tensor qkv = at::randn({4, tokens, 3 * 6 * 64}, generator).to(at::kCUDA, at::kBFloat16);
        const at::Tensor grad_out = at::randn({4, tokens, 6 * 64}, generator).to(at::kCUDA, at::kBFloat16);
        const at::Tensor policy = random_policy(4, tokens, generator).cuda();
        const AttentionResult first = attend(masked_self_attention, qkv, policy, grad_out, 6);
        const AttentionResult second = attend(masked_self_attention, qkv, policy, grad_out, 6);
        EXPECT_TRUE(first.out.equal(second.out) && first.qkv.equal(second.qkv) && first.policy.equal(second.policy));
    }
}

TEST(MaskedAttention, FusedPackedSequencesEqualEachAlone) {
    if (!has_fused()) GTEST_SKIP() << "needs a GPU and the CUDA kernels";
    const std::vector<std::int64_t> lengths = {138, 1, 0, 197, 16, 17, 300, 64};
    const PackedLayout layout(lengths, at::kCUDA);
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
        for (const std::int64_t head_dim : {32, 64, 128}) {
            const at::Tensor qkv =
                at::randn({layout.rows(), 3 * 3 * head_dim}, at::make_generator<at::CPUGeneratorImpl>(13))
                    .to(at::kCUDA, type);
            const at::Tensor packed = self_attention(qkv, 3, layout);
            std::int64_t first = 0;
            for (const std::int64_t length : lengths) {
                if (length == 0) continue;
                const at::Tensor alone = masked_self_attention(qkv.narrow(0, first, length).unsqueeze(0), {}, 3);
                EXPECT_TRUE(packed.narrow(0, first, length).equal(alone[0]))
                    << type << ' ' << head_dim << ' ' << length;
                first += length;
            }
        }
    }
}

TEST(MaskedAttention, FusedIsFiniteWhereEveryVisibleWeightUnderflows) {  // logits -200, and 200 for a dropped token
    if (!has_fused()) GTEST_SKIP() << "needs a GPU and the CUDA kernels";
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
        for (const std::int64_t tokens : {3, 70, 197, 300}) {
            at::Tensor qkv = at::randn({1, tokens, 3 * 64}, at::make_generator<at::CPUGeneratorImpl>(11));
            qkv.slice(2, 0, 64).fill_(5);
            qkv.slice(2, 64, 128).fill_(-5);  // 64 x 25 / 8 = 200
            qkv.select(1, tokens / 2).slice(0, 64, 128).fill_(5);
            at::Tensor policy = at::ones({1, tokens});
            policy.select(1, tokens / 2).fill_(0);
            qkv = qkv.to(at::kCUDA, type);
            const at::Tensor grad_out =
                at::randn({1, tokens, 64}, at::make_generator<at::CPUGeneratorImpl>(12)).to(at::kCUDA, type);
            const AttentionResult fused = attend(masked_self_attention, qkv, policy.cuda(), grad_out, 1);
            const AttentionResult plain = attend(plain_self_attention, qkv.to(at::kDouble),
                                                 policy.to(at::kCUDA, at::kDouble), grad_out.to(at::kDouble), 1);
            const std::string what = c10::str(type, " tokens ", tokens);
            EXPECT_TRUE(fused.qkv.isfinite().all().item<bool>()) << what;
            EXPECT_TRUE(fused.policy.isfinite().all().item<bool>()) << what;
            expect_close_in_units(fused.out, plain.out, unit_of(type), 1, what, "out");
        }
    }
}

}  // namespace
}  // namespace dynvit
