#include "dynvit/ops/half_linear.hpp"

#include <ATen/ATen.h>

#ifdef DYNVIT_CUDA_KERNELS
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cuda/gelu_backward.hpp"
#include "cuda/matmul.hpp"
#endif

namespace dynvit {

#ifdef DYNVIT_CUDA_KERNELS
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

at::Tensor rows_of(const at::Tensor& x) {
    return x.reshape({-1, x.size(-1)}).contiguous();
}

at::Tensor like(const at::Tensor& x, std::int64_t last, at::ScalarType type) {
    std::vector<std::int64_t> shape = x.sizes().vec();
    shape.back() = last;
    return at::empty(shape, x.options().dtype(type));
}

// y = x W^T + b. @param x of a half type; weight and bias of any
at::Tensor forward_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    at::Tensor y = like(x, weight.size(0), x.scalar_type());
    cuda::matmul(rows_of(y), {.a = rows_of(x), .b = weight, .transpose_b = true, .bias = bias.to(x.scalar_type())});
    return y;
}

// dW = dy^T x, float32. @param to_y (R, out), x (R, in), contiguous
at::Tensor weight_gradient(const at::Tensor& to_y, const at::Tensor& x) {
    at::Tensor gradient = at::empty({to_y.size(1), x.size(1)}, x.options().dtype(at::kFloat));
    cuda::matmul(gradient, {.a = to_y, .b = x, .transpose_a = true});
    return gradient;
}

struct WeightGradients {
    at::Tensor weight, bias;  // float32
};

// dW = dy^T x and db, the sum of dy's rows, in one product. @param to_y (R, out), x (R, in), contiguous
WeightGradients weight_gradients(const at::Tensor& to_y, const at::Tensor& x) {
    const auto options = x.options().dtype(at::kFloat);
    WeightGradients gradients{at::empty({to_y.size(1), x.size(1)}, options), at::empty({to_y.size(1)}, options)};
    cuda::matmul(gradients.weight, {.a = to_y, .b = x, .transpose_a = true, .row_sums = gradients.bias});
    return gradients;
}

// dx = dy W. @param to_y (R, out) -> (R, in)
at::Tensor input_gradient(const at::Tensor& to_y, const at::Tensor& weight) {
    at::Tensor to_x = like(to_y, weight.size(1), to_y.scalar_type());
    cuda::matmul(to_x, {.a = to_y, .b = weight});
    return to_x;
}

struct HalfLinear : torch::autograd::Function<HalfLinear> {
    static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight, const Variable& bias) {
        const at::Tensor half = weight.to(x.scalar_type());
        context->save_for_backward({x, half});
        return forward_of(x, half, bias);
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &x = saved[0], &weight = saved[1];
        const at::Tensor to_y = rows_of(gradients[0]);
        variable_list inputs(3);
        if (context->needs_input_grad(0)) inputs[0] = input_gradient(to_y, weight).view(x.sizes());
        if (context->needs_input_grad(1) || context->needs_input_grad(2)) {
            const WeightGradients to_weights = weight_gradients(to_y, rows_of(x));
            inputs[1] = to_weights.weight;
            inputs[2] = to_weights.bias;
        }
        return inputs;
    }
};

struct HalfMlp : torch::autograd::Function<HalfMlp> {
    static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight1, const Variable& bias1,
                            const Variable& weight2, const Variable& bias2) {
        const at::Tensor half1 = weight1.to(x.scalar_type()), half2 = weight2.to(x.scalar_type());
        const at::Tensor hidden = like(x, half1.size(0), x.scalar_type()), active = at::empty_like(hidden);
        cuda::matmul(rows_of(active), {.a = rows_of(x),
                                       .b = half1,
                                       .transpose_b = true,
                                       .bias = bias1.to(x.scalar_type()),
                                       .gelu = true,
                                       .gelu_input = rows_of(hidden)});
        context->save_for_backward({x, hidden, half1, half2});
        return forward_of(active, half2, bias2);
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &x = saved[0], hidden = rows_of(saved[1]), &weight1 = saved[2], &weight2 = saved[3];
        const at::Tensor to_y = rows_of(gradients[0]);
        variable_list inputs(5);
        // GELU's output is computed anew: keeping it would take a third of the step's memory.
        const cuda::GeluGradients gelu = cuda::gelu_backward(hidden, input_gradient(to_y, weight2));
        if (context->needs_input_grad(3) || context->needs_input_grad(4)) {
            const WeightGradients to_weights = weight_gradients(to_y, gelu.output);
            inputs[3] = to_weights.weight;
            inputs[4] = to_weights.bias;
        }
        if (context->needs_input_grad(1)) inputs[1] = weight_gradient(gelu.to_input, rows_of(x));
        inputs[2] = gelu.to_input_sums;
        if (context->needs_input_grad(0)) inputs[0] = input_gradient(gelu.to_input, weight1).view(x.sizes());
        return inputs;
    }
};

// The type that autocast computes with, where the kernels serve it.
std::optional<at::ScalarType> half_type(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    if (!x.is_cuda() || !at::autocast::is_autocast_enabled(at::kCUDA) || x.numel() == 0 || !bias.defined()) return {};
    const at::ScalarType type = at::autocast::get_autocast_dtype(at::kCUDA);
    const bool masters = weight.scalar_type() == at::kFloat && bias.scalar_type() == at::kFloat;
    return masters && cuda::matmul_supports(weight, type) ? std::optional(type) : std::nullopt;
}

}  // namespace
#endif

at::Tensor half_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
#ifdef DYNVIT_CUDA_KERNELS
    if (const auto type = half_type(x, weight, bias)) return HalfLinear::apply(x.to(*type), weight, bias);
#endif
    return at::linear(x, weight, bias);
}

at::Tensor half_mlp(const at::Tensor& x, const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                    const at::Tensor& bias2) {
#ifdef DYNVIT_CUDA_KERNELS
    const auto type = half_type(x, weight1, bias1);
    if (type && half_type(x, weight2, bias2)) return HalfMlp::apply(x.to(*type), weight1, bias1, weight2, bias2);
#endif
    return at::linear(at::gelu(at::linear(x, weight1, bias1)), weight2, bias2);
}

}  // namespace dynvit
