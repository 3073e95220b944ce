// A linear layer that is only ever run forward.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include "dynvit/ops/scaled_rows.hpp"

namespace dynvit {

/// Whether this processor multiplies such numbers faster than float32: kBFloat16 and kHalf where oneDNN has
/// products for them, kQInt8 with VNNI. Elsewhere bfloat16 and float16 work, slowly; int8 does not.
bool fast_on_cpu(at::ScalarType precision);

/// The type of inputs and outputs of a layer of such a precision: float32 for kQInt8, bfloat16 for kFloat8_e4m3fn, else
/// the same.
at::ScalarType activation_type(at::ScalarType precision);

/// y = x W^T + b with weights stored once as the products read them fastest: on the processor in oneDNN's blocked
/// order, where LibTorch has oneDNN; on a GPU, in half precision, with what follows done inside the product. May be
/// called from several threads at once.
class InferenceLinear {
  public:
    /// @param weight (out, in), bias (out) or undefined; both on the device where the layer runs; copied
    /// @param precision kFloat, kBFloat16 or kHalf: of weights, input and output. kQInt8, on the CPU only: weights of 8
    /// bits with a scale for each output, an input of float32 that is rounded to 8 bits with one scale for all of it.
    /// kFloat8_e4m3fn, where why_no_float8() is empty only: weights of 8 bits with a scale for each output, an input of
    /// bfloat16 whose rows are rounded to 8 bits with a scale each; bfloat16 if a size is no multiple of 16
    InferenceLinear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType precision);

    at::Tensor operator()(const at::Tensor& x) const { return run(x, Then::kNothing, {}); }  // (..., in) -> (..., out)
    /// With GELU behind it: the exact one (erf), but on a GPU in half precision its tanh approximation, which differs
    /// by less than these types can tell.
    at::Tensor gelu(const at::Tensor& x) const { return run(x, Then::kGelu, {}); }
    /// With a residual connection behind it. @param residual as the result
    at::Tensor add(const at::Tensor& x, const at::Tensor& residual) const { return run(x, Then::kAdd, residual); }

    /// Whether the layer multiplies float8. What makes its input may then round it on the way: see ops/scaled_rows.hpp.
    bool takes_scaled_rows() const { return kind_ == Kind::kFloat8; }
    at::Tensor operator()(const ScaledRows& x) const { return run(x, {}); }
    at::Tensor add(const ScaledRows& x, const at::Tensor& residual) const { return run(x, residual); }

    /// The layer's outputs of x, (B, n, in), plus `added`, (1, n, out); where fused() only.
    /// @param out (B, n, out), rows contiguous: may be a part of a larger tensor
    void write_sum(const at::Tensor& out, const at::Tensor& x, const at::Tensor& added) const;

    /// Whether a layer of such a weight, where it lies, runs on a GPU with what follows done inside the product.
    static bool fuses(const at::Tensor& weight, at::ScalarType precision);
    /// Whether this one does.
    bool fused() const { return kind_ == Kind::kFused; }
    /// As they were given, in the layer's type; the bias may be undefined. Where fused() only.
    const at::Tensor& weight() const { return weight_; }
    const at::Tensor& bias() const { return bias_; }

  private:
    enum class Then { kNothing, kGelu, kAdd };
    at::Tensor run(const at::Tensor& x, Then then, const at::Tensor& residual) const;
    at::Tensor run(const ScaledRows& x, const at::Tensor& residual) const;  // which may be undefined

    enum class Kind { kPlain, kOneDnn, kInt8, kFused, kFloat8 };

    Kind kind_ = Kind::kPlain;
    std::int64_t outputs_;
    at::Tensor weight_, bias_;  // kOneDnn: the weight in blocked order
    at::Tensor scales_;         // kFloat8: of the weight's rows
    c10::IValue int8_;          // kInt8: weight and bias as LibTorch packs them
};

}  // namespace dynvit
