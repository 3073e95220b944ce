// All transformer blocks of one image by one kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <vector>

namespace dynvit {

/// The blocks and prediction modules of a DeiT-S for a single image. One such block is so little work that starting and
/// ending its kernels costs more than its products; here the multiprocessors stay in one kernel and hand each other
/// what the next layer needs. GELU is its tanh approximation, sums and residual connections are float32, and equal
/// inputs give equal bits.
///
/// Dropped tokens are no keys of attention any more. They keep their places, as nothing would be gained by moving the
/// others together: a block takes as long for 68 tokens as for 197.
///
/// Not for several threads at once, nor may two runs overlap on a GPU: they hand over their words in the same memory.
class OneImageBlocks {
  public:
    static constexpr std::size_t kMostStages = 12;

    /// Weights are (out, in); the biases of the four linear layers may be undefined.
    struct Block {
        at::Tensor norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias;
        at::Tensor norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias;
    };
    struct Linear {
        at::Tensor weight, bias;
    };
    struct Predictor {
        std::int64_t block;  // it stands before this one
        at::Tensor norm_weight, norm_bias;
        std::array<Linear, 4> layers;  // (C, C), (C / 2, C), (C / 4, C / 2), (2, C / 4)
    };
    struct Epsilons {
        double norm, predictor_norm;
    };
    struct Sizes {
        std::int64_t embed_dim, heads, hidden_dim;
    };

    /// Whether there is a kernel: a build with CUDA kernels, a GPU of compute capability 9.0, bfloat16 or float16, 384
    /// channels, 6 heads and 1536 hidden values, and no more tokens than its multiprocessors take (512 on an H100).
    static bool supports(const at::Device& device, at::ScalarType type, const Sizes& sizes, std::int64_t tokens);

    /// @param blocks of a device, sizes and `type` that are supported; copied
    /// @param predictors at most kMostStages, in the order of the blocks; copied
    OneImageBlocks(const std::vector<Block>& blocks, const std::vector<Predictor>& predictors, at::ScalarType type,
                   const Epsilons& epsilons);
    ~OneImageBlocks();
    OneImageBlocks(const OneImageBlocks&) = delete;
    OneImageBlocks& operator=(const OneImageBlocks&) = delete;

    /// Makes what runs of so many tokens need. They do it themselves where they are not being recorded.
    void prepare(std::int64_t tokens);

    struct Output {
        at::Tensor x;                  // (1, n, C); of no meaning for dropped tokens
        std::vector<at::Tensor> kept;  // a stage: (1, k) int64, places on the grid, ascending
    };

    /// Runs all blocks. @param x (1, n, C), [CLS] first
    /// @param tokens patch tokens that go on, a count a stage, not growing; empty: all, and no module decides
    Output run(const at::Tensor& x, const std::vector<std::int64_t>& tokens);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace dynvit
