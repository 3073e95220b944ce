#include "dynvit/models/vision_transformer.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "dynvit/models/rotary_positions.hpp"
#include "dynvit/ops/attention_heads.hpp"
#include "dynvit/ops/half_linear.hpp"
#include "dynvit/ops/masked_attention.hpp"
#include "dynvit/ops/patch_rows.hpp"
#include "dynvit/ops/self_attention.hpp"
#include "dynvit/ops/token_merge.hpp"
#include "mixed_precision.hpp"
#include "parameter_tree.hpp"

namespace dynvit {
at::Tensor ResidualStream::sum() const {
    if (!branch.defined()) return x;
    return x + (scale.defined() ? branch * scale.to(branch.scalar_type()) : branch);
}

// Operations that autograd differentiates.
struct VisionTransformerImpl::Ops {
    const std::unordered_map<std::string, at::Tensor>& parameters;
    BlockInputs inputs = {};
    std::int64_t prefix = 0;  // where the head reads: prefix tokens,
    at::Tensor kept = {};     // and for each patch token what a mean counts it as, see read_out

    const at::Tensor& parameter(const std::string& name) const { return parameters.at(name); }
    // LayerScale is a factor of the weights, which are far fewer than what they give.
    at::Tensor weight(const LinearPart& part) const {
        const at::Tensor& weight = parameter(part.name + ".weight");
        return part.gamma.empty() ? weight : weight * parameter(part.gamma).unsqueeze(1);
    }
    at::Tensor bias(const LinearPart& part) const {
        if (!part.bias) return {};
        const at::Tensor& bias = parameter(part.name + ".bias");
        return part.gamma.empty() ? bias : bias * parameter(part.gamma);
    }

    at::Tensor patches(const at::Tensor& images, const StemPart& stem) const {
        const std::int64_t size = stem.patch_size;
        if (const std::optional<at::ScalarType> half = autocast_on_gpu(images)) {
            const std::int64_t count = images.size(2) / size * (images.size(3) / size);
            const std::int64_t width = patch_row_width(size);
            const at::Tensor rows = at::empty({images.size(0), count, width}, images.options().dtype(half));
            write_patch_rows(rows, images, size);
            const at::Tensor columns = weight(stem.patches).flatten(1);
            return half_linear(rows, at::constant_pad_nd(columns, {0, width - columns.size(1)}), bias(stem.patches));
        }
        const at::Tensor grid = at::conv2d(images, weight(stem.patches), bias(stem.patches), size);
        return grid.flatten(2).transpose(1, 2);  // (B, C, H/P, W/P) -> (B, N, C)
    }
    at::Tensor prepend(const std::vector<PrefixPart>& prefix, const at::Tensor& x) const {
        std::vector<at::Tensor> rows;
        for (const PrefixPart& part : prefix) {
            rows.push_back(parameter(part.name).expand({x.size(0), -1, -1}).to(x.scalar_type()));
        }
        rows.push_back(x);
        return at::cat(rows, 1);
    }
    at::Tensor plus(const at::Tensor& x, const std::string& name) const { return x + parameter(name); }

    NormedResidual sum_and_norm(const ResidualStream& x, const NormPart& part, at::ScalarType output) const {
        return norm_of(x, {parameter(part.name + ".weight"), parameter(part.name + ".bias"), part.epsilon}, output);
    }
    at::Tensor norm(ResidualStream& x, const NormPart& part) const {
        const auto [sum, normed] = sum_and_norm(x, part, autocast_on_gpu(x.x).value_or(x.x.scalar_type()));
        x = {sum};
        return normed;
    }
    at::Tensor norm(const at::Tensor& x, const NormPart& part) const {
        return sum_and_norm({x}, part, x.scalar_type()).normed;
    }
    at::Tensor linear(const at::Tensor& x, const LinearPart& part) const {
        return half_linear(x, weight(part), bias(part));
    }
    at::Tensor norm_heads(const at::Tensor& qkv, const AttentionPart& part) const {
        return norm_queries_keys(qkv, head_norm(*part.q_norm), head_norm(*part.k_norm));
    }
    at::Tensor rotate(const at::Tensor& qkv, const AttentionPart& part) const {
        return rotate_queries_keys(qkv, inputs.context.rotation, *part.rotary);
    }
    at::Tensor norm_rows(const at::Tensor& x, const NormPart& part) const { return norm(x, part); }
    HeadNorm head_norm(const NormPart& norm) const {
        return {parameter(norm.name + ".weight"), parameter(norm.name + ".bias"), norm.epsilon};
    }
    at::Tensor attention(const at::Tensor& qkv, const AttentionPart& part) const {
        if (inputs.context.sizes.defined()) return sized_self_attention(qkv, part.heads, inputs.context.sizes);
        return masked_self_attention(qkv, inputs.policy, part.heads);
    }
    void add_linear(ResidualStream& x, const at::Tensor& h, const LinearPart& part) const {
        add(x, linear(h, part), 0);
    }
    void add_mlp(ResidualStream& x, const at::Tensor& normed, const MlpPart& part) const {
        if (part.activation == Activation::kGelu && !part.norm) {
            add(x, half_mlp(normed, weight(part.fc1), bias(part.fc1), weight(part.fc2), bias(part.fc2)), 1);
        } else {
            const at::Tensor h = activate(linear(normed, part.fc1), part.activation);
            add(x, linear(part.norm ? norm(h, *part.norm) : h, part.fc2), 1);
        }
    }
    at::Tensor activate(const at::Tensor& x, Activation activation) const { return dynvit::activate(x, activation); }
    at::Tensor prefix_token(const at::Tensor& x, std::int64_t index) const { return x.select(1, index); }
    at::Tensor patch_mean(const at::Tensor& x) const { return counted_mean(x.slice(1, prefix), kept); }
    at::Tensor beside(const at::Tensor& x, const at::Tensor& y) const { return at::cat({x, y}, 1); }
    at::Tensor mean_of(const at::Tensor& x, const at::Tensor& y) const { return (x + y) / 2; }
    at::Tensor sum(const at::Tensor& x, const at::Tensor& y) const { return x + y; }
    at::Tensor latent(const std::string& name) const { return parameter(name).select(1, 0); }  // (1, C)
    at::Tensor pool(const at::Tensor& query, const at::Tensor& kv, const PoolPart& part) const {
        const at::Tensor counts = kept.defined() ? at::constant_pad_nd(kept, {prefix, 0}, 1) : kept;
        return pooled_attention(query, kv, part.heads, counts);
    }

  private:
    void add(ResidualStream& x, const at::Tensor& branch, std::int64_t number) const {
        x.branch = branch;
        if (inputs.drop_path.defined()) x.scale = inputs.drop_path[number];
    }
};

VisionTransformerImpl::VisionTransformerImpl(const ModelSettings& s, at::Generator generator)
    : settings_(s), parts_(vit_parts(s)) {
    const std::string fault = find_fault(s);
    TORCH_CHECK(fault.empty(), fault);
    register_parameters(*this, backbone_parameters(parts_), generator);
    for (const auto& item : named_parameters()) parameters_by_name_.emplace(item.key(), item.value());
}

at::Tensor counted_mean(const at::Tensor& patches, const at::Tensor& counts) {
    if (!counts.defined()) return patches.size(1) > 0 ? patches.mean(1) : patches.sum(1);
    const at::Tensor counted = counts.unsqueeze(-1);  // (B, n, 1)
    return (patches * counted).sum(1) / counted.sum(1).clamp_min(1);
}

void check_images(const at::Tensor& images, const ModelSettings& settings) {
    TORCH_CHECK(images.dim() == 4 && images.size(1) == 3 && images.size(2) == settings.image_height() &&
                    images.size(3) == settings.image_width(),
                "images must be (B, 3, ", settings.image_height(), ", ", settings.image_width(), "), found ",
                images.sizes());
}

at::Tensor VisionTransformerImpl::embed(const at::Tensor& images) {
    check_images(images, settings_);
    const Ops ops{parameters_by_name_};
    return dynvit::embed(ops, parts_.stem, images);
}

const at::Tensor& VisionTransformerImpl::rotary_table(const at::Device& device) {
    const bool there = rotary_table_.defined() && rotary_table_.device() == device;
    if (!there && settings_.rope != "none") rotary_table_ = dynvit::rotary_table(settings_).to(device);
    return rotary_table_;
}

at::Tensor VisionTransformerImpl::rotation_of_all(const at::Device& device) {
    return dynvit::rotation_of_all(rotary_table(device), settings_.prefix_tokens());
}

at::Tensor VisionTransformerImpl::run_block(std::int64_t index, const at::Tensor& x, const at::Tensor& positions) {
    const at::Tensor rotation = positions.defined()
                                    ? rotation_at(rotary_table(x.device()), positions, settings_.prefix_tokens())
                                    : rotation_of_all(x.device());
    return run_block(index, ResidualStream{x}, {.context = {.rotation = rotation}}).sum();
}

ResidualStream VisionTransformerImpl::run_block(std::int64_t index, ResidualStream stream, const BlockInputs& inputs,
                                                BlockPiece piece) {
    const Ops ops{parameters_by_name_, inputs};
    dynvit::run_block(ops, parts_.blocks[static_cast<std::size_t>(index)], stream, piece);
    return stream;
}

at::Tensor VisionTransformerImpl::mean_keys(std::int64_t index, const at::Tensor& x) {
    const at::NoGradGuard no_grad;
    const Ops ops{parameters_by_name_};
    const BlockPart& block = parts_.blocks[static_cast<std::size_t>(index)];
    const AttentionPart& attention = block.attention;
    const at::Tensor weight = ops.weight(attention.qkv), bias = ops.bias(attention.qkv);
    ResidualStream stream{x};
    const at::Tensor normed = ops.norm(stream, block.norm1);
    if (attention.k_norm) {
        const auto of_keys = [](const at::Tensor& rows) { return rows.defined() ? rows.chunk(3)[1] : rows; };
        const at::Tensor keys = half_linear(normed, of_keys(weight), of_keys(bias));
        return mean_normed_keys(keys, ops.head_norm(*attention.k_norm));
    }
    const auto [mean_weight, mean_bias] = mean_key_layer(weight, bias, attention.heads);
    return half_linear(normed, mean_weight, mean_bias);
}

VisionTransformerImpl::Output VisionTransformerImpl::read_out(const ResidualStream& tokens, const at::Tensor& kept) {
    const std::int64_t prefix = settings_.prefix_tokens();
    const Ops ops{parameters_by_name_, {}, prefix, kept};
    if (!parts_.norm) {
        at::Tensor x = tokens.sum().to(at::kFloat);
        return {classify(ops, settings_, parts_, x), x.slice(1, prefix)};
    }
    auto [sum, normed] = ops.sum_and_norm(tokens, *parts_.norm, at::kFloat);
    const at::Tensor logits = settings_.norm_after_pooling ? classify(ops, settings_, parts_, sum)
                                                           : classify_normed(ops, settings_, parts_, normed);
    return {logits, normed.slice(1, prefix)};
}

namespace {

// A grid's values, (1, C, h, w). DINOv2 scales by a tenth of a patch more than what it wants, which moves where it
// reads.
at::Tensor resample(const at::Tensor& grid, std::int64_t height, std::int64_t width, const std::string& resampling) {
    if (resampling == "antialiased") return at::_upsample_bicubic2d_aa(grid, {height, width}, false);
    if (resampling == "bicubic") return at::upsample_bicubic2d(grid, {height, width}, false);
    if (resampling == "aligned") return at::upsample_bicubic2d(grid, {height, width}, /*align_corners=*/true);
    constexpr double kOffset = 0.1;
    const auto scale = [](std::int64_t to, std::int64_t from) {
        return (static_cast<double>(to) + kOffset) / static_cast<double>(from);
    };
    return at::upsample_bicubic2d(grid, {height, width}, false, scale(height, grid.size(2)),
                                  scale(width, grid.size(3)));
}

}  // namespace

at::Tensor resize_pos_embed(const at::Tensor& pos_embed, std::int64_t from_height, std::int64_t from_width,
                            std::int64_t to_height, std::int64_t to_width, std::int64_t prefix,
                            const std::string& resampling) {
    TORCH_CHECK(pos_embed.dim() == 3 && pos_embed.size(1) == prefix + from_height * from_width,
                "pos_embed must be (1, ", prefix, " + ", from_height * from_width, ", C), found ", pos_embed.sizes());
    const std::int64_t channels = pos_embed.size(2);
    const at::Tensor grid = pos_embed.slice(1, prefix).to(at::kFloat).reshape({1, from_height, from_width, channels});
    const at::Tensor resized = resample(grid.permute({0, 3, 1, 2}), to_height, to_width, resampling);
    const at::Tensor patches = resized.permute({0, 2, 3, 1}).reshape({1, to_height * to_width, channels});
    return at::cat({pos_embed.slice(1, 0, prefix), patches.to(pos_embed.scalar_type())}, 1);
}

}  // namespace dynvit
