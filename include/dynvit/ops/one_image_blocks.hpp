// Consecutive transformer blocks of one image by one kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace dynvit {

/// The blocks of a DeiT-S for a single image. One such block is so little work that starting and ending its kernels
/// costs more than its products; here the multiprocessors stay in one kernel and hand each other what the next layer
/// needs. GELU is its tanh approximation, sums are float32, the residual connections in a run are float32 too, and
/// equal inputs give equal bits.
///
/// Not for several threads at once, nor may two runs overlap on a GPU: they hand over their words in the same memory.
class OneImageBlocks {
  public:
    /// Weights are (out, in); the biases of the four linear layers may be undefined.
    struct Block {
        at::Tensor norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias;
        at::Tensor norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias;
    };
    struct Sizes {
        std::int64_t embed_dim, heads, hidden_dim;
    };

    /// Whether there is a kernel: a build with CUDA kernels, a GPU of compute capability 9.0, bfloat16 or float16, 384
    /// channels, 6 heads and 1536 hidden values, and no more tokens than its multiprocessors take (512 on an H100).
    static bool supports(const at::Device& device, at::ScalarType type, const Sizes& sizes, std::int64_t tokens);

    /// @param blocks of a device, sizes and `type` that are supported; copied
    OneImageBlocks(const std::vector<Block>& blocks, at::ScalarType type, double norm_epsilon);
    ~OneImageBlocks();
    OneImageBlocks(const OneImageBlocks&) = delete;
    OneImageBlocks& operator=(const OneImageBlocks&) = delete;

    /// Makes what runs of so many tokens need. They do it themselves where they are not being recorded.
    void prepare(std::int64_t tokens);

    /// Blocks first, ..., last - 1: (1, n, C) -> (1, n, C).
    at::Tensor run(std::int64_t first, std::int64_t last, const at::Tensor& x);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace dynvit
