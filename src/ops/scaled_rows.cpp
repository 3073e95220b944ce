#include "dynvit/ops/scaled_rows.hpp"

#include <ATen/ATen.h>

#include "dynvit/ops/constants.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/residual_norm.hpp"
#include "cuda/scaled_rows.hpp"
#endif

namespace dynvit {

ScaledRows quantize_rows_plain(const at::Tensor& x, bool gelu) {
    const at::Tensor given = x.to(at::kFloat), exact = gelu ? at::gelu(given, "tanh") : given;
    const at::Tensor scales =
        exact.abs().amax(-1, /*keepdim=*/true).clamp_min(kLeastRowMagnitude).mul(1 / kLargestFloat8);
    return {exact.mul(scales.reciprocal()).to(at::kFloat8_e4m3fn), scales.flatten()};
}

ScaledRows quantize_rows(const at::Tensor& x, bool gelu) {
#ifdef DYNVIT_CUDA_KERNELS
    if (ScaledRows rows = cuda::quantize_rows(x, gelu); rows.values.defined()) return rows;
#endif
    return quantize_rows_plain(x, gelu);
}

ScaledRows quantize_normed_rows_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                      double epsilon) {
    return quantize_rows_plain(
        at::layer_norm(x.to(at::kFloat), weight.sizes(), weight.to(at::kFloat), bias.to(at::kFloat), epsilon));
}

ScaledRows quantize_normed_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double epsilon) {
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::residual_norm_supports(x, {}, {}, weight, bias, at::kFloat8_e4m3fn)) {
        const auto result = cuda::residual_norm_forward(x, {}, {}, weight, bias, epsilon, at::kFloat8_e4m3fn, false);
        return {result.normed, result.row_scales};
    }
#endif
    return quantize_normed_rows_plain(x, weight, bias, epsilon);
}

}  // namespace dynvit
