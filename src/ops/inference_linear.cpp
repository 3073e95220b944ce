#include "dynvit/ops/inference_linear.hpp"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <mutex>
#include <string>
#include <vector>

#include "dynvit/ops/gpu_kernels.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/matmul.hpp"
#endif

namespace dynvit {
namespace {

// These operators have no C++ function of their own: LibTorch's compilers call them by name.
c10::OperatorHandle find_operator(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

c10::IValue call(const c10::OperatorHandle& op, torch::jit::Stack arguments) {
    op.callBoxed(&arguments);
    return std::move(arguments.front());
}

bool says_yes(const char* name) {
    return call(find_operator(name), {}).toBool();
}

// Who packs 8-bit weights is a setting of the whole process.
class OneDnnEngine {
  public:
    OneDnnEngine() : lock_(mutex()), before_(at::globalContext().qEngine()) {
        at::globalContext().setQEngine(at::QEngine::ONEDNN);
    }
    ~OneDnnEngine() { at::globalContext().setQEngine(before_); }
    OneDnnEngine(const OneDnnEngine&) = delete;
    OneDnnEngine& operator=(const OneDnnEngine&) = delete;

  private:
    static std::mutex& mutex() {
        static std::mutex one;
        return one;
    }
    std::lock_guard<std::mutex> lock_;
    at::QEngine before_;
};

// Whether a layer multiplies float8: asked for, and of sizes that the products take.
bool multiplies_float8([[maybe_unused]] const at::Tensor& weight, at::ScalarType precision) {
    if (precision != at::kFloat8_e4m3fn) return false;
    const std::string reason = why_no_float8(weight.device());
    TORCH_CHECK(reason.empty(), "float8 needs a GPU of compute capability 9.0: ", reason);
#ifdef DYNVIT_CUDA_KERNELS
    return cuda::float8_matmul_supports(weight);
#else
    return false;
#endif
}

// Rows of a matrix, whatever the dimensions before the last.
[[maybe_unused]] at::Tensor rows(const at::Tensor& tensor) {
    return tensor.reshape({-1, tensor.size(-1)});
}

c10::IValue pack_int8(const at::Tensor& weight, const at::Tensor& bias) {
    constexpr double kLargest = 127;
    const at::Tensor scales = (weight.abs().amax(1) / kLargest).clamp_min(1e-12);
    const at::Tensor quantized =
        at::quantize_per_channel(weight, scales.to(at::kDouble), at::zeros({weight.size(0)}, at::kLong), 0, at::kQInt8);
    static const c10::OperatorHandle prepack = find_operator("quantized::linear_prepack");
    const OneDnnEngine engine;
    return call(prepack, {quantized, bias.defined() ? c10::IValue(bias) : c10::IValue()});
}

}  // namespace

bool fast_on_cpu(at::ScalarType precision) {
    switch (precision) {
        case at::kFloat:
            return true;
        case at::kBFloat16:
            return at::hasMKLDNN() && says_yes("mkldnn::_is_mkldnn_bf16_supported");
        case at::kHalf:
            return at::hasMKLDNN() && says_yes("mkldnn::_is_mkldnn_fp16_supported");
        case at::kQInt8:
#if defined(__x86_64__)
            return at::hasMKLDNN() && (__builtin_cpu_supports("avx512vnni") || __builtin_cpu_supports("avxvnni"));
#else
            return false;
#endif
        default:
            return false;
    }
}

at::ScalarType activation_type(at::ScalarType precision) {
    if (precision == at::kQInt8) return at::kFloat;
    return precision == at::kFloat8_e4m3fn ? at::kBFloat16 : precision;
}

bool InferenceLinear::fuses([[maybe_unused]] const at::Tensor& weight, [[maybe_unused]] at::ScalarType precision) {
#ifdef DYNVIT_CUDA_KERNELS
    return cuda::matmul_supports(weight, precision);
#else
    return false;
#endif
}

InferenceLinear::InferenceLinear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType precision)
    : outputs_(weight.size(0)) {
    const at::ScalarType type = activation_type(precision);
    const auto copied = [&](const at::Tensor& from) {
        return from.to(type, /*non_blocking=*/false, /*copy=*/true).contiguous();
    };
    if (bias.defined()) bias_ = copied(bias);
    if (multiplies_float8(weight, precision)) {
        kind_ = Kind::kFloat8;
        const ScaledRows quantized = quantize_rows_plain(weight.contiguous());
        weight_ = quantized.values;
        scales_ = quantized.scales;
        return;
    }
    weight_ = copied(weight);
    if (precision == at::kQInt8) {
        TORCH_CHECK(weight.is_cpu() && fast_on_cpu(precision), "int8 needs a processor with VNNI");
        kind_ = Kind::kInt8;
        int8_ = pack_int8(weight_, bias_);
        weight_ = at::Tensor();
        return;
    }
    if (fuses(weight_, type)) {
        kind_ = Kind::kFused;
        return;
    }
    if (!weight.is_cpu() || !at::hasMKLDNN() || !fast_on_cpu(type)) return;
    kind_ = Kind::kOneDnn;
    weight_ = call(find_operator("mkldnn::_reorder_linear_weight"), {weight_, c10::IValue()}).toTensor();
}

at::Tensor InferenceLinear::run(const at::Tensor& x, Then then, const at::Tensor& residual) const {
    std::vector<std::int64_t> shape = x.sizes().vec();
    shape.back() = outputs_;
    if (x.numel() == 0) return at::empty(shape, x.options());
    if (kind_ == Kind::kFloat8) {
        at::Tensor y = run(quantize_rows(x), then == Then::kAdd ? residual : at::Tensor());
        return then == Then::kGelu ? at::gelu_(y, "tanh") : y;
    }
#ifdef DYNVIT_CUDA_KERNELS
    if (kind_ == Kind::kFused) {
        at::Tensor y = at::empty(shape, x.options());
        cuda::matmul(rows(y), {.a = rows(x),
                               .b = weight_,
                               .transpose_b = true,
                               .bias = bias_,
                               .gelu = then == Then::kGelu,
                               .residual = then == Then::kAdd ? rows(residual) : at::Tensor()});
        return y;
    }
#endif
    at::Tensor y;
    if (kind_ == Kind::kOneDnn) {
        static const c10::OperatorHandle linear = find_operator("mkldnn::_linear_pointwise");
        y = call(linear, {x, weight_, bias_.defined() ? c10::IValue(bias_) : c10::IValue(),
                          then == Then::kGelu ? "gelu" : "none", c10::List<std::optional<at::Scalar>>(), "none"})
                .toTensor();
        return then == Then::kAdd ? y.add_(residual) : y;
    }
    if (kind_ == Kind::kInt8) {
        static const c10::OperatorHandle linear = find_operator("quantized::linear_dynamic");
        y = call(linear, {x, int8_, /*reduce_range=*/false}).toTensor();
    } else {
        y = at::linear(x, weight_, bias_);
    }
    switch (then) {
        case Then::kGelu:
            return at::gelu_(y);
        case Then::kAdd:
            return y.add_(residual);
        default:
            return y;
    }
}

at::Tensor InferenceLinear::run(const ScaledRows& x, [[maybe_unused]] const at::Tensor& residual) const {
    TORCH_CHECK(takes_scaled_rows(), "this layer does not multiply float8");
    std::vector<std::int64_t> shape = x.values.sizes().vec();
    shape.back() = outputs_;
    at::Tensor y = at::empty(shape, x.values.options().dtype(at::kBFloat16));
#ifdef DYNVIT_CUDA_KERNELS
    if (y.numel() == 0) return y;
    cuda::matmul(rows(y), {.a = rows(x.values),
                           .b = weight_,
                           .transpose_b = true,
                           .bias = bias_,
                           .residual = residual.defined() ? rows(residual) : residual,
                           .a_scales = x.scales,
                           .b_scales = scales_});
#endif
    return y;
}

void InferenceLinear::write_sum(const at::Tensor& out, const at::Tensor& x, const at::Tensor& added) const {
#ifdef DYNVIT_CUDA_KERNELS
    TORCH_CHECK(fused(), "write_sum is for fused layers only");
    cuda::matmul(out, {.a = x, .b = weight_, .transpose_b = true, .bias = bias_, .residual = added.expand_as(out)});
#else
    TORCH_CHECK(false, "write_sum(", out.sizes(), ", ", x.sizes(), ", ", added.sizes(), ") needs CUDA kernels");
#endif
}

}  // namespace dynvit
