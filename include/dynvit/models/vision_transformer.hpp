// The dense backbone: a Vision Transformer as DeiT has it, under the parameter names of its published checkpoints.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// What goes on inside a block for one branch: nothing drawn (`scale` undefined), or stochastic depth's factor for each
/// image, (B, 1, 1): 0 where the branch is dropped, 1 / keep_probability elsewhere.
using BranchScale = at::Tensor;

/// The residual stream between two blocks. The last branch may still wait to be added, so that the norm that comes next
/// adds it in its own pass.
struct ResidualStream {
    at::Tensor x;            // (B, n, C)
    at::Tensor branch = {};  // to be added; undefined: nothing
    BranchScale scale = {};  // the branch's

    at::Tensor sum() const;
};

/// Multi-head self-attention.
class AttentionImpl : public torch::nn::Module {
  public:
    explicit AttentionImpl(const ModelSettings& settings);

    /// @param x (B, N, C)
    /// @param policy (B, N) for masked attention; undefined: every token sees every token
    at::Tensor forward(const at::Tensor& x, const at::Tensor& policy = {});

  private:
    std::int64_t num_heads_;
    torch::nn::Linear qkv_{nullptr}, proj_{nullptr};
};
TORCH_MODULE(Attention);

/// Two layers with an exact (erf) GELU between them.
class MlpImpl : public torch::nn::Module {
  public:
    explicit MlpImpl(const ModelSettings& settings);
    at::Tensor forward(const at::Tensor& x);

  private:
    torch::nn::Linear fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(Mlp);

/// x + attention(norm(x)), then x + mlp(norm(x)). Under autocast on a GPU norms and residual connections are one pass
/// over the tokens (see ops/residual_norm.hpp); x stays float32 as autocast would have it.
class BlockImpl : public torch::nn::Module {
  public:
    explicit BlockImpl(const ModelSettings& settings);
    at::Tensor forward(const at::Tensor& x, const at::Tensor& policy = {}, const BranchScale& attention_scale = {},
                       const BranchScale& mlp_scale = {}) {
        return run({x}, policy, attention_scale, mlp_scale).sum();
    }
    /// The same from and to streams.
    ResidualStream run(const ResidualStream& stream, const at::Tensor& policy, const BranchScale& attention_scale,
                       const BranchScale& mlp_scale);

  private:
    torch::nn::LayerNorm norm1_{nullptr};
    Attention attn_{nullptr};
    torch::nn::LayerNorm norm2_{nullptr};
    Mlp mlp_{nullptr};
};
TORCH_MODULE(Block);

/// Pictures to patch tokens: a convolution with the patch as kernel and stride.
class PatchEmbedImpl : public torch::nn::Module {
  public:
    explicit PatchEmbedImpl(const ModelSettings& settings);
    at::Tensor forward(const at::Tensor& images);  // (B, 3, H, W) -> (B, N, C), patches in rows from the top

  private:
    torch::nn::Conv2d proj_{nullptr};
};
TORCH_MODULE(PatchEmbed);

class VisionTransformerImpl : public torch::nn::Module {
  public:
    /// Weights are drawn as timm draws them: truncated normal of standard deviation 0.02, biases zero.
    /// @param generator draws the weights
    VisionTransformerImpl(const ModelSettings& settings, at::Generator generator);

    struct Output {
        at::Tensor logits;    // (B, classes)
        at::Tensor features;  // (B, N, C): the patch tokens after the final norm
    };

    /// Every token through every block. @param images (B, 3, H, W), normalized
    Output forward(const at::Tensor& images);

    /// Patch embedding, [CLS] in front, position embedding: (B, 3, H, W) -> (B, N + 1, C).
    at::Tensor embed(const at::Tensor& images);

    /// Block `index`, from 0.
    Block block(std::int64_t index) { return blocks_->ptr<BlockImpl>(index); }

    /// The final norm and the head.
    at::Tensor normalize(const at::Tensor& tokens) { return normalize(ResidualStream{tokens}); }
    at::Tensor normalize(const ResidualStream& tokens);
    at::Tensor classify(const at::Tensor& normalized_cls) { return head_(normalized_cls); }

    const ModelSettings& settings() const { return settings_; }

  protected:
    /// Draws the weights of every Linear below `module`.
    static void draw_weights(torch::nn::Module& module, at::Generator generator);

    ModelSettings settings_;

  private:
    at::Tensor cls_token_, pos_embed_;
    PatchEmbed patch_embed_{nullptr};
    torch::nn::ModuleList blocks_;
    torch::nn::LayerNorm norm_{nullptr};
    torch::nn::Linear head_{nullptr};
};
TORCH_MODULE(VisionTransformer);

/// Throws where images are not (B, 3, H, W) of the model's size.
void check_images(const at::Tensor& images, const ModelSettings& settings);

/// A position embedding for another grid: [CLS]'s place stays, the patches' are resampled (bicubic, antialiased), as
/// timm does.
/// @param pos_embed (1, 1 + from_height * from_width, C), any float type
/// @return (1, 1 + to_height * to_width, C)
at::Tensor resize_pos_embed(const at::Tensor& pos_embed, std::int64_t from_height, std::int64_t from_width,
                            std::int64_t to_height, std::int64_t to_width);

}  // namespace dynvit
