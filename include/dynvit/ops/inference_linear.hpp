// A linear layer that is only ever run forward.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include "dynvit/ops/scaled_rows.hpp"

namespace dynvit {

/// @return whether this processor multiplies numbers of this precision faster than float32, or as fast: kFloat;
/// kBFloat16 and kHalf where oneDNN has products for them; kQInt8 with VNNI. Where it does not, bfloat16 and float16
/// work, slowly, and int8 does not work
bool fast_on_cpu(at::ScalarType precision);

/// @return the type of inputs and outputs of a layer of this precision: float32 for kQInt8, bfloat16 for
/// kFloat8_e4m3fn, else the precision itself
at::ScalarType activation_type(at::ScalarType precision);

/// Computes y = x W^T + b from a weight that it keeps as the product reads it fastest: on the processor in oneDNN's
/// blocked order, where LibTorch has oneDNN. On a GPU, in half precision, the product also computes what follows it.
/// One layer may be called from several threads at once.
class InferenceLinear {
  public:
    /// Copies a layer's parameters. Throws c10::Error where the device does not compute in this precision.
    /// @param weight (out, in), bias (out) or undefined; both on the device where the layer is to run
    /// @param precision of weights, input and output: kFloat, kBFloat16 or kHalf. kQInt8, where fast_on_cpu(kQInt8)
    /// only: weights of 8 bits with a scale for each output, an input of float32 that is rounded to 8 bits with one
    /// scale for all of it. kFloat8_e4m3fn, where why_no_float8() is empty only: weights of 8 bits with a scale for
    /// each output, an input of bfloat16 whose rows are rounded to 8 bits with a scale each; a layer with a size that
    /// is no multiple of 16 computes in bfloat16.
    InferenceLinear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType precision);

    /// @param x (..., in), of activation_type(precision) @return y, (..., out), of the same type
    at::Tensor operator()(const at::Tensor& x) const { return run(x, Then::kNothing, {}); }
    /// @return GELU(y), (..., out): the exact one (erf), but in half precision and float8 on a GPU its tanh
    /// approximation, which differs by less than these types can tell
    at::Tensor gelu(const at::Tensor& x) const { return run(x, Then::kGelu, {}); }
    /// @param residual (..., out), of the type of y @return y + residual
    at::Tensor add(const at::Tensor& x, const at::Tensor& residual) const { return run(x, Then::kAdd, residual); }

    /// @return whether the layer multiplies float8, so that the operation before it may hand over its result rounded
    /// already: see ops/scaled_rows.hpp
    bool takes_scaled_rows() const { return kind_ == Kind::kFloat8; }
    /// The same as above from an input of float8, (..., in), to bfloat16, (..., out). Throw c10::Error unless
    /// takes_scaled_rows().
    at::Tensor operator()(const ScaledRows& x) const { return run(x, {}); }
    at::Tensor add(const ScaledRows& x, const at::Tensor& residual) const { return run(x, residual); }

    /// Writes y + added into `out`. Throws c10::Error unless fused().
    /// @param out (B, n, out), rows contiguous: may be a part of a larger tensor
    /// @param x (B, n, in), rows contiguous; added (1, n, out); both of the layer's type
    void write_sum(const at::Tensor& out, const at::Tensor& x, const at::Tensor& added) const;

    /// @return whether a layer of this weight, (out, in), on the weight's device and in this precision would be fused()
    static bool fuses(const at::Tensor& weight, at::ScalarType precision);
    /// @return whether the layer runs on a GPU in half precision, where the product also adds the bias, computes GELU,
    /// or adds the residual
    bool fused() const { return kind_ == Kind::kFused; }
    /// @return the weight, (out, in), and the bias, (out) or undefined, that the layer was made of, in its type. They
    /// have no meaning unless fused(): other layers keep them in another form
    const at::Tensor& weight() const { return weight_; }
    const at::Tensor& bias() const { return bias_; }

  private:
    enum class Then { kNothing, kGelu, kAdd };
    at::Tensor run(const at::Tensor& x, Then then, const at::Tensor& residual) const;
    at::Tensor run(const ScaledRows& x, const at::Tensor& residual) const;  // the residual may be undefined

    enum class Kind { kPlain, kOneDnn, kInt8, kFused, kFloat8 };

    Kind kind_ = Kind::kPlain;
    std::int64_t outputs_;
    at::Tensor weight_, bias_;  // kOneDnn: the weight in blocked order
    at::Tensor scales_;         // kFloat8: of the weight's rows
    c10::IValue int8_;          // kInt8: weight and bias as LibTorch packs them
};

}  // namespace dynvit
