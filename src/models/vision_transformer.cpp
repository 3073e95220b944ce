#include "dynvit/models/vision_transformer.hpp"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include <cmath>

#include "dynvit/ops/masked_attention.hpp"

namespace dynvit {
namespace {

constexpr double kInitStd = 0.02;

torch::nn::LayerNorm layer_norm(std::int64_t channels) {
    return torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels}).eps(kNormEpsilon));
}

// Normal numbers cut at two units (not two standard deviations), which is what the field's trunc_normal_ does by
// default; with a deviation of 0.02 nothing is ever cut.
void draw_normal(at::Tensor tensor, const at::Generator& generator) {
    const torch::NoGradGuard no_grad;
    tensor.normal_(0.0, kInitStd, generator);
}

at::Tensor add_branch(const at::Tensor& x, const at::Tensor& branch, const BranchScale& scale) {
    return scale.defined() ? x + branch * scale.to(branch.scalar_type()) : x + branch;
}

}  // namespace

AttentionImpl::AttentionImpl(const ModelSettings& s)
    : num_heads_(s.num_heads),
      qkv_(register_module("qkv",
                           torch::nn::Linear(torch::nn::LinearOptions(s.embed_dim, 3 * s.embed_dim).bias(s.qkv_bias)))),
      proj_(register_module("proj", torch::nn::Linear(s.embed_dim, s.embed_dim))) {}

at::Tensor AttentionImpl::forward(const at::Tensor& x, const at::Tensor& policy) {
    const std::int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2), head_dim = channels / num_heads_;
    const at::Tensor qkv = qkv_(x).view({batch, tokens, 3, num_heads_, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor q = qkv[0], k = qkv[1], v = qkv[2];  // (B, h, N, d)
    const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
    const at::Tensor attended = policy.defined() ? masked_attention(q, k, v, policy, scale)
                                                 : at::scaled_dot_product_attention(q, k, v, {}, 0.0, false, scale);
    return proj_(attended.transpose(1, 2).reshape({batch, tokens, channels}));
}

at::Tensor AttentionImpl::cls_intake(const at::Tensor& x) {
    const std::int64_t batch = x.size(0), tokens = x.size(1), head_dim = x.size(2) / num_heads_;
    const at::Tensor qkv = qkv_(x).view({batch, tokens, 3, num_heads_, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor cls = qkv[0].slice(2, 0, 1) / std::sqrt(static_cast<double>(head_dim));  // (B, h, 1, d)
    const at::Tensor attention = at::softmax(at::matmul(cls, qkv[1].transpose(-2, -1)), -1, at::kFloat);
    const at::Tensor norms = at::linalg_vector_norm(qkv[2], 2, at::IntArrayRef{-1}, false, at::kFloat);  // (B, h, N)
    return (attention.select(2, 0) * norms).slice(2, 1).mean(1);
}

MlpImpl::MlpImpl(const ModelSettings& s)
    : fc1_(register_module("fc1", torch::nn::Linear(s.embed_dim, s.hidden_dim()))),
      fc2_(register_module("fc2", torch::nn::Linear(s.hidden_dim(), s.embed_dim))) {}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
    return fc2_(at::gelu(fc1_(x)));
}

BlockImpl::BlockImpl(const ModelSettings& s)
    : norm1_(register_module("norm1", layer_norm(s.embed_dim))),
      attn_(register_module("attn", Attention(s))),
      norm2_(register_module("norm2", layer_norm(s.embed_dim))),
      mlp_(register_module("mlp", Mlp(s))) {}

at::Tensor BlockImpl::forward(const at::Tensor& x, const at::Tensor& policy, const BranchScale& attention_scale,
                              const BranchScale& mlp_scale) {
    const at::Tensor attended = add_branch(x, attn_(norm1_(x), policy), attention_scale);
    return add_branch(attended, mlp_(norm2_(attended)), mlp_scale);
}

PatchEmbedImpl::PatchEmbedImpl(const ModelSettings& s)
    : proj_(register_module(
          "proj", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, s.embed_dim, s.patch_size).stride(s.patch_size)))) {}

at::Tensor PatchEmbedImpl::forward(const at::Tensor& images) {
    return proj_(images).flatten(2).transpose(1, 2);  // (B, C, H/P, W/P) -> (B, N, C)
}

VisionTransformerImpl::VisionTransformerImpl(const ModelSettings& s, at::Generator generator) : settings_(s) {
    const std::string fault = find_fault(s);
    TORCH_CHECK(fault.empty(), fault);
    cls_token_ = register_parameter("cls_token", at::empty({1, 1, s.embed_dim}));
    pos_embed_ = register_parameter("pos_embed", at::empty({1, 1 + s.patches(), s.embed_dim}));
    patch_embed_ = register_module("patch_embed", PatchEmbed(s));
    for (std::int64_t i = 0; i < s.depth; ++i) blocks_->push_back(Block(s));
    register_module("blocks", blocks_);
    norm_ = register_module("norm", layer_norm(s.embed_dim));
    head_ = register_module("head", torch::nn::Linear(s.embed_dim, s.num_classes));
    draw_normal(cls_token_, generator);
    draw_normal(pos_embed_, generator);
    draw_weights(*this, generator);
}

void VisionTransformerImpl::draw_weights(torch::nn::Module& module, at::Generator generator) {
    const torch::NoGradGuard no_grad;
    for (const auto& child : module.modules(/*include_self=*/false)) {
        if (auto* linear = child->as<torch::nn::Linear>()) {
            draw_normal(linear->weight, generator);
            if (linear->bias.defined()) linear->bias.zero_();
        } else if (auto* convolution = child->as<torch::nn::Conv2d>()) {
            draw_normal(convolution->weight, generator);
            convolution->bias.zero_();
        }
    }
}

void check_images(const at::Tensor& images, const ModelSettings& settings) {
    TORCH_CHECK(images.dim() == 4 && images.size(1) == 3 && images.size(2) == settings.image_height() &&
                    images.size(3) == settings.image_width(),
                "images must be (B, 3, ", settings.image_height(), ", ", settings.image_width(), "), found ",
                images.sizes());
}

at::Tensor VisionTransformerImpl::embed(const at::Tensor& images) {
    check_images(images, settings_);
    const at::Tensor patches = patch_embed_(images);
    const at::Tensor cls = cls_token_.expand({images.size(0), -1, -1}).to(patches.scalar_type());
    return at::cat({cls, patches}, 1) + pos_embed_;
}

VisionTransformerImpl::Output VisionTransformerImpl::forward(const at::Tensor& images,
                                                             const std::vector<std::int64_t>& stages) {
    Output output;
    at::Tensor x = embed(images);
    for (std::int64_t i = 0; i < settings_.depth; ++i) {
        if (output.saliency.size() < stages.size() && stages[output.saliency.size()] == i) {
            output.saliency.push_back(at::zeros({x.size(0), x.size(1) - 1}, x.options().dtype(at::kFloat)));
        }
        if (!output.saliency.empty()) {
            const at::Tensor intake = block(i)->cls_intake(x);
            for (at::Tensor& sum : output.saliency) sum = sum + intake;
        }
        x = block(i)(x);
    }
    for (std::size_t s = 0; s < output.saliency.size(); ++s) {
        output.saliency[s] = output.saliency[s] / static_cast<double>(settings_.depth - stages[s]);
    }
    x = normalize(x);
    output.logits = classify(x.select(1, 0));
    output.features = x.slice(1, 1);
    return output;
}

at::Tensor resize_pos_embed(const at::Tensor& pos_embed, std::int64_t from_height, std::int64_t from_width,
                            std::int64_t to_height, std::int64_t to_width) {
    TORCH_CHECK(pos_embed.dim() == 3 && pos_embed.size(1) == 1 + from_height * from_width, "pos_embed must be (1, 1 + ",
                from_height * from_width, ", C), found ", pos_embed.sizes());
    const std::int64_t channels = pos_embed.size(2);
    const at::Tensor grid = pos_embed.slice(1, 1).to(at::kFloat).reshape({1, from_height, from_width, channels});
    const at::Tensor resized = at::_upsample_bicubic2d_aa(grid.permute({0, 3, 1, 2}), {to_height, to_width}, false);
    const at::Tensor patches = resized.permute({0, 2, 3, 1}).reshape({1, to_height * to_width, channels});
    return at::cat({pos_embed.slice(1, 0, 1), patches.to(pos_embed.scalar_type())}, 1);
}

}  // namespace dynvit
