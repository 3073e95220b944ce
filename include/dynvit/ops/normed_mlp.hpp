// A transformer block's second half in one kernel.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Computes x + fc2(gelu(fc1(norm(x)))) without writing the normed rows or the hidden values to memory, which separate
/// kernels move most of the time. GELU is its tanh approximation, sums are float32. An object may be used by several
/// threads at once.
class NormedMlp {
  public:
    /// Weights (out, in); the layers' biases may be undefined. hidden is 4 C.
    struct Parameters {
        at::Tensor norm_weight, norm_bias;  // (C)
        double norm_epsilon;                // added to the variance
        at::Tensor fc1_weight, fc1_bias;    // (hidden, C), (hidden)
        at::Tensor fc2_weight, fc2_bias;    // (C, hidden), (C)
    };

    /// @return whether there is a kernel: it needs a build with CUDA kernels, a GPU of compute capability 9.0, bfloat16
    /// or float16, 384 channels and 1536 hidden values
    static bool supports(const at::Device& device, at::ScalarType type, std::int64_t channels, std::int64_t hidden);

    /// Copies the parameters, with the norm's as part of fc1's. Throws c10::Error unless they are supported.
    /// @param parameters on the GPU, of a precision that is rounded to `type` once
    NormedMlp(const Parameters& parameters, at::ScalarType type);

    /// @return whether the kernel is faster than one for each operation, for so many rows: its multiprocessors take
    /// rows in rounds, and the last round lasts as long as the others, however few its rows are
    bool pays(std::int64_t rows) const;

    /// @param x (..., C), of the type that was given @return the same shape and type
    at::Tensor operator()(const at::Tensor& x) const;

  private:
    at::Tensor fc1_weight_, fc1_sums_, fc1_bias_, fc2_weight_, fc2_bias_;  // as cuda/normed_mlp.cuh has them
    double epsilon_;
};

}  // namespace dynvit
