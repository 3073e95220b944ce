// All transformer blocks of one image by one kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <vector>

namespace dynvit {

/// Runs the blocks and prediction modules of a ViT-S for a single image. One such block is so little work that
/// starting and ending its kernels costs more than its products; here the multiprocessors stay in one kernel and hand
/// each other what the next layer needs. GELU is its tanh approximation, sums and residual connections are float32, and
/// equal inputs give equal bits.
///
/// Dropped tokens are no keys of attention any more. They keep their places, as nothing would be gained by moving the
/// others together: a block takes as long for 68 tokens as for 197.
///
/// An object must not be used by several threads at once, nor may two of its runs overlap on the GPU: the
/// multiprocessors exchange values in memory that the object owns.
class OneImageBlocks {
  public:
    /// The most prediction modules that one object takes.
    static constexpr std::size_t kMostStages = 12;

    /// A block's parameters: weights (out, in); the biases of the four linear layers may be undefined.
    struct Block {
        at::Tensor norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias;
        at::Tensor norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias;
    };
    /// weight (out, in); bias (out), may be undefined.
    struct Linear {
        at::Tensor weight, bias;
    };
    /// A prediction module's parameters.
    struct Predictor {
        std::int64_t block;  // index of the block that the module stands before
        at::Tensor norm_weight, norm_bias;
        std::array<Linear, 4> layers;  // (C, C), (C / 2, C), (C / 4, C / 2), (2, C / 4)
    };
    /// What is added to the variance in layer norms.
    struct Epsilons {
        double norm, predictor_norm;  // of the blocks, of the prediction modules
    };
    struct Sizes {
        std::int64_t embed_dim, heads, hidden_dim;
    };

    /// @param tokens of the image, with those before its patches
    /// @return whether there is a kernel: it needs a build with CUDA kernels, a GPU of compute capability 9.0, bfloat16
    /// or float16, 384 channels, 6 heads and 1536 hidden values, and no more tokens than the GPU's multiprocessors take
    /// (512 on an H100). The kernel knows the parts listed in Block and Predictor: whether the model has others is for
    /// the caller to see
    static bool supports(const at::Device& device, at::ScalarType type, const Sizes& sizes, std::int64_t tokens);

    /// Copies the parameters. Throws c10::Error where this build has no kernel, a parameter has another size, or the
    /// predictors are too many or out of order.
    /// @param blocks at least one, all on the device where they are to run; device, `type` and sizes are supported
    /// @param predictors at most kMostStages, in the order of the blocks that they stand before
    /// @param prefix tokens before the patches, [CLS] and registers, which are never dropped: at least one
    OneImageBlocks(const std::vector<Block>& blocks, const std::vector<Predictor>& predictors, at::ScalarType type,
                   const Epsilons& epsilons, std::int64_t prefix = 1);
    ~OneImageBlocks();
    OneImageBlocks(const OneImageBlocks&) = delete;
    OneImageBlocks& operator=(const OneImageBlocks&) = delete;

    /// Allocates the memory in which runs of so many tokens exchange values. A run does so itself, unless it is being
    /// recorded (see DeviceGraphs): then prepare() must have been called before, or run() throws c10::Error. So does
    /// this function for more tokens than are supported.
    /// @param tokens of the image, with those before its patches
    void prepare(std::int64_t tokens);

    struct Output {
        at::Tensor x;                  // (1, n, C); of no meaning for dropped tokens
        std::vector<at::Tensor> kept;  // for each stage (1, k) int64: the kept patches' places on the grid, ascending
    };

    /// Runs all blocks. Throws c10::Error for inputs of another shape, type or device, or counts that grow.
    /// @param x (1, n, C), the prefix first, of the blocks' type
    /// @param tokens for each stage the number of patch tokens that go on, none greater than the one before it; empty:
    /// all tokens go through all blocks, and no prediction module runs
    Output run(const at::Tensor& x, const std::vector<std::int64_t>& tokens);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace dynvit
