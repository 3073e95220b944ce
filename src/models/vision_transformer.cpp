#include "dynvit/models/vision_transformer.hpp"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include "dynvit/ops/half_linear.hpp"
#include "dynvit/ops/masked_attention.hpp"
#include "dynvit/ops/patch_rows.hpp"
#include "mixed_precision.hpp"

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

}  // namespace

at::Tensor ResidualStream::sum() const {
    if (!branch.defined()) return x;
    return x + (scale.defined() ? branch * scale.to(branch.scalar_type()) : branch);
}

AttentionImpl::AttentionImpl(const ModelSettings& s)
    : num_heads_(s.num_heads),
      qkv_(register_module("qkv",
                           torch::nn::Linear(torch::nn::LinearOptions(s.embed_dim, 3 * s.embed_dim).bias(s.qkv_bias)))),
      proj_(register_module("proj", torch::nn::Linear(s.embed_dim, s.embed_dim))) {}

at::Tensor AttentionImpl::forward(const at::Tensor& x, const at::Tensor& policy) {
    const at::Tensor qkv = half_linear(x, qkv_->weight, qkv_->bias);
    return half_linear(masked_self_attention(qkv, policy, num_heads_), proj_->weight, proj_->bias);
}

MlpImpl::MlpImpl(const ModelSettings& s)
    : fc1_(register_module("fc1", torch::nn::Linear(s.embed_dim, s.hidden_dim()))),
      fc2_(register_module("fc2", torch::nn::Linear(s.hidden_dim(), s.embed_dim))) {}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
    return half_mlp(x, fc1_->weight, fc1_->bias, fc2_->weight, fc2_->bias);
}

BlockImpl::BlockImpl(const ModelSettings& s)
    : norm1_(register_module("norm1", layer_norm(s.embed_dim))),
      attn_(register_module("attn", Attention(s))),
      norm2_(register_module("norm2", layer_norm(s.embed_dim))),
      mlp_(register_module("mlp", Mlp(s))) {}

ResidualStream BlockImpl::run(const ResidualStream& stream, const at::Tensor& policy,
                              const BranchScale& attention_scale, const BranchScale& mlp_scale) {
    if (const std::optional<at::ScalarType> half = autocast_on_gpu(stream.x)) {
        const NormedResidual before = norm_of(stream, norm1_, *half);
        const NormedResidual attended =
            norm_of({before.sum, attn_(before.normed, policy), attention_scale}, norm2_, *half);
        return {attended.sum, mlp_(attended.normed), mlp_scale};
    }
    const at::Tensor x = stream.sum();
    const at::Tensor attended = ResidualStream{x, attn_(norm1_(x), policy), attention_scale}.sum();
    return {ResidualStream{attended, mlp_(norm2_(attended)), mlp_scale}.sum()};
}

PatchEmbedImpl::PatchEmbedImpl(const ModelSettings& s)
    : proj_(register_module(
          "proj", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, s.embed_dim, s.patch_size).stride(s.patch_size)))) {}

at::Tensor PatchEmbedImpl::forward(const at::Tensor& images) {
    if (const std::optional<at::ScalarType> half = autocast_on_gpu(images)) {
        const std::int64_t size = proj_->weight.size(2), patches = images.size(2) / size * (images.size(3) / size);
        const at::Tensor rows = at::empty({images.size(0), patches, 3 * size * size}, images.options().dtype(*half));
        write_patch_rows(rows, images, size);
        return half_linear(rows, proj_->weight.flatten(1), proj_->bias);
    }
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

at::Tensor VisionTransformerImpl::normalize(const ResidualStream& tokens) {
    return norm_of(tokens, norm_, at::kFloat).normed;
}

VisionTransformerImpl::Output VisionTransformerImpl::forward(const at::Tensor& images) {
    at::Tensor x = embed(images);
    for (std::int64_t i = 0; i < settings_.depth; ++i) x = block(i)(x);
    x = normalize(x);
    return {classify(x.select(1, 0)), x.slice(1, 1)};
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
