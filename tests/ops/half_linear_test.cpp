// Linear layers of mixed-precision training against the definition in float64, values and gradients.
#include "dynvit/ops/half_linear.hpp"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <functional>

#include "dynvit/ops/device_graphs.hpp"
#include "dynvit/train/autocast.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

using Tensors = std::vector<at::Tensor>;

// The layer's output and the gradients of all its inputs. @param weighing the output's elements in the loss
template <class Layer>
Tensors run(const Layer& layer, const Tensors& inputs, const at::Tensor& weighing) {
    Tensors leaves;
    for (const at::Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_());
    const at::Tensor output = layer(leaves);
    (output * weighing.to(output.options())).sum().backward();
    Tensors results = {output.detach()};
    for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
    return results;
}

at::Tensor linear_layer(const Tensors& t) {
    return half_linear(t[0], t[1], t[2]);
}
at::Tensor mlp_layer(const Tensors& t) {
    return half_mlp(t[0], t[1], t[2], t[3], t[4]);
}

Tensors mapped(const Tensors& tensors, const std::function<at::Tensor(const at::Tensor&)>& change) {
    Tensors result;
    for (const at::Tensor& tensor : tensors) result.push_back(change(tensor));
    return result;
}

// Rounded to the half type first where both read it so; weights are float32 masters that the layer rounds itself.
template <class Layer>
void expect_on_gpu(const Layer& layer, Tensors inputs, std::int64_t outputs, at::ScalarType type) {
    std::vector<std::int64_t> shape = inputs[0].sizes().vec();
    shape.back() = outputs;
    const at::Tensor weighing = at::randn(shape, test::generator(9)).to(type).to(at::kFloat);
    inputs = mapped(inputs, [&](const at::Tensor& t) { return t.to(type).to(at::kFloat); });
    const Tensors expected =
        run(layer, mapped(inputs, [](const at::Tensor& t) { return t.to(at::kDouble); }), weighing.to(at::kDouble));
    Tensors found;
    {
        const Autocast autocast(at::kCUDA, type);
        found = run(layer, mapped(inputs, [](const at::Tensor& t) { return t.cuda(); }), weighing.cuda());
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(found[i].scalar_type(), i == 0 ? type : at::kFloat);
        // Half a dozen roundings of intermediate results, relative to the largest value.
        EXPECT_CLOSE(found[i], expected[i], type == at::kHalf ? 2e-3 : 1.6e-2) << "result " << i << ' ' << shape;
    }
}

TEST(HalfLinear, ElsewhereItIsLinear) {
    const at::Tensor x = at::randn({2, 3, 8}, test::generator(1)), w1 = at::randn({16, 8}, test::generator(2)),
                     b1 = at::randn({16}, test::generator(3)), w2 = at::randn({8, 16}, test::generator(4)),
                     b2 = at::randn({8}, test::generator(5));
    EXPECT_TRUE(half_linear(x, w1, b1).equal(at::linear(x, w1, b1)));
    EXPECT_TRUE(half_linear(x, w1, {}).equal(at::linear(x, w1)));
    EXPECT_TRUE(half_mlp(x, w1, b1, w2, b2).equal(at::linear(at::gelu(at::linear(x, w1, b1)), w2, b2)));
}

TEST(HalfLinear, OnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
        for (const auto& [rows, in, out] : std::vector<std::array<std::int64_t, 3>>{
                 {1, 8, 8}, {197, 192, 576}, {788, 384, 384}, {50, 20, 12}, {4000, 768, 192}}) {
            const double scale = 1 / std::sqrt(static_cast<double>(in));
            const at::Tensor x = at::randn({2, rows, in}, test::generator(1));
            const at::Tensor w1 = at::randn({out, in}, test::generator(2)) * scale,
                             b1 = at::randn({out}, test::generator(3));
            const at::Tensor w2 = at::randn({in, out}, test::generator(4)) / std::sqrt(static_cast<double>(out)),
                             b2 = at::randn({in}, test::generator(5));
            expect_on_gpu(linear_layer, {x, w1, b1}, out, type);
            expect_on_gpu(mlp_layer, {x, w1, b1, w2, b2}, in, type);
        }
    }
}

TEST(HalfLinear, FrozenWeightsAndInputsOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor x = at::randn({4, 16}, at::kCUDA), weight = at::randn({8, 16}, at::kCUDA),
                     bias = at::randn({8}, at::kCUDA);
    const Autocast autocast(at::kCUDA, at::kBFloat16);
    at::Tensor leaf = x.clone().requires_grad_();
    half_linear(leaf, weight, bias).sum().backward();
    EXPECT_CLOSE(leaf.grad(), weight.sum(0).expand({4, 16}), 2e-2);
    at::Tensor learnt = bias.clone().requires_grad_();
    half_linear(x, weight, learnt).sum().backward();
    EXPECT_CLOSE(learnt.grad(), at::full({8}, 4.0), 1e-6);
}

// The gradient of a weight sums over many rows, in another order with each of cuBLASLt's algorithms. A recording times
// nothing and takes the first one.
TEST(HalfLinear, TimingChoosesAmongEqualResultsOnTheGpu) {
    if (!DeviceGraphs::supported(at::hasCUDA() ? at::kCUDA : at::kCPU)) GTEST_SKIP() << "needs a GPU and its kernels";
    const Autocast autocast(at::kCUDA, at::kHalf);
    DeviceGraphs graphs(at::Device(at::kCUDA, 0));
    for (const auto& [rows, in, out] :
         std::vector<std::array<std::int64_t, 3>>{{25216, 384, 1152}, {50176, 192, 96}, {12345, 768, 64}}) {
        const at::Tensor x = at::randn({rows, in}, at::kCUDA), weighing = at::randn({rows, out}, at::kCUDA);
        const auto gradients = [&] {
            at::Tensor weight = at::zeros({out, in}, x.options()).requires_grad_();
            at::Tensor bias = at::zeros({out}, x.options()).requires_grad_();
            (half_linear(x, weight, bias) * weighing).sum().backward();
            return Tensors{weight.grad(), bias.grad()};
        };
        Tensors recorded;
        const std::size_t graph = graphs.record([&] { recorded = gradients(); });
        graphs.run(
            graph, [] {}, [] {});
        const Tensors timed = gradients();
        for (std::size_t i = 0; i < timed.size(); ++i) EXPECT_TRUE(timed[i].equal(recorded[i])) << i << ' ' << rows;
    }
}

}  // namespace
}  // namespace dynvit
