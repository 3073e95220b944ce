// The dense backbone as it is trained: a Vision Transformer under the parameter names of published checkpoints.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <string>
#include <unordered_map>

#include "dynvit/models/token_stages.hpp"
#include "dynvit/models/vit_forward.hpp"

namespace dynvit {

/// The residual stream between two blocks. The last branch may still wait to be added, so that the norm that comes next
/// adds it in its own pass.
struct ResidualStream {
    at::Tensor x;            // (B, n, C)
    at::Tensor branch = {};  // to be added; undefined: nothing
    at::Tensor scale = {};   // the branch's factor for each image, (B, 1, 1): stochastic depth's; undefined: 1

    at::Tensor sum() const;
};

/// What a block reads beside the tokens.
struct BlockInputs {
    at::Tensor policy = {};     // (B, n) for masked attention; undefined: every token sees every token
    at::Tensor drop_path = {};  // (2, B, 1, 1): stochastic depth's factors of the two branches, 0 where one is dropped,
                                // 1 / keep_probability elsewhere; undefined: 1
    AttentionContext context = {};  // without a policy, its sizes too
};

class VisionTransformerImpl : public torch::nn::Module {
  public:
    /// Weights are drawn as timm draws them: truncated normal of standard deviation 0.02, biases zero.
    /// @param generator draws the weights
    VisionTransformerImpl(const ModelSettings& settings, at::Generator generator);

    /// Patch embedding, prefix tokens in front, position embedding: (B, 3, H, W) -> (B, prefix + N, C).
    at::Tensor embed(const at::Tensor& images);

    /// Block `index`, from 0. Under autocast on a GPU norms and residual connections are one pass over the tokens (see
    /// ops/residual_norm.hpp); the stream stays float32 as autocast would have it.
    ResidualStream run_block(std::int64_t index, ResidualStream stream, const BlockInputs& inputs,
                             BlockPiece piece = BlockPiece::kWhole);
    /// The same, unmasked. @param positions (B, n) of the patch tokens in x; undefined: all are there
    at::Tensor run_block(std::int64_t index, const at::Tensor& x, const at::Tensor& positions = {});

    /// The model's rotary table, see rotary_positions.hpp. @return on that device; undefined where there is none
    const at::Tensor& rotary_table(const at::Device& device);
    /// What it says of the prefix tokens and all patches, for attention: (1, prefix + N, 2, d / 2).
    at::Tensor rotation_of_all(const at::Device& device);

    /// What a stage that merges tokens compares: the keys of block `index`, the mean over the heads, without gradients.
    /// @param x (B, n, C) @return (B, n, d)
    at::Tensor mean_keys(std::int64_t index, const at::Tensor& x);

    struct Output {
        at::Tensor logits;    // (B, outputs), see ModelSettings
        at::Tensor features;  // (B, n, C): the patch tokens after the final norm, where there is one
    };

    /// The final norm and the head. @param tokens (B, prefix + n, C), behind the last block
    /// @param kept (B, n): which patch tokens a mean covers, 1 or 0, or how many patches each stands for; undefined:
    /// all
    Output read_out(const ResidualStream& tokens, const at::Tensor& kept = {});

    const ModelSettings& settings() const { return settings_; }

  private:
    struct Ops;

    ModelSettings settings_;
    VitParts parts_;
    std::unordered_map<std::string, at::Tensor> parameters_by_name_;
    at::Tensor rotary_table_;  // where it was asked for last
};
TORCH_MODULE(VisionTransformer);

/// The mean of patch tokens, each counted so many times; zero where none is. @param patches (B, n, C)
/// @param counts (B, n), 0 or at least 1; undefined: 1 each @return (B, C)
at::Tensor counted_mean(const at::Tensor& patches, const at::Tensor& counts);

/// Throws where images are not (B, 3, H, W) of the model's size.
void check_images(const at::Tensor& images, const ModelSettings& settings);

/// A position embedding for another grid: the prefix tokens' places stay, the patches' are resampled: bicubic, as
/// ModelSettings::position_resampling says.
/// @param pos_embed (1, prefix + from_height * from_width, C), any float type
/// @param prefix places of prefix tokens, in front
/// @return (1, prefix + to_height * to_width, C)
at::Tensor resize_pos_embed(const at::Tensor& pos_embed, std::int64_t from_height, std::int64_t from_width,
                            std::int64_t to_height, std::int64_t to_width, std::int64_t prefix = 1,
                            const std::string& resampling = "antialiased");

}  // namespace dynvit
