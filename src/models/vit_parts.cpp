#include "dynvit/models/vit_parts.hpp"

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr double kPredictionNormEpsilon = 1e-5;  // the reference's

Activation activation_named(const std::string& name) {
    if (name == "gelu_tanh") return Activation::kGeluTanh;
    if (name == "quick_gelu") return Activation::kQuickGelu;
    return name == "swiglu" ? Activation::kSwiGlu : Activation::kGelu;
}

// @param prefix of the layers' names, with the dot
MlpPart mlp_part(const ModelSettings& s, const std::string& prefix) {
    const std::int64_t c = s.embed_dim, hidden = s.hidden_dim();
    const Activation activation = activation_named(s.mlp);
    return {{prefix + "fc1", c, activation == Activation::kSwiGlu ? 2 * hidden : hidden},
            {prefix + "fc2", hidden, c},
            activation,
            {}};
}

BlockPart block_part(const ModelSettings& s, std::int64_t index) {
    const std::int64_t c = s.embed_dim;
    const std::string name = str("blocks.", index, '.');
    BlockPart block{
        {name + "norm1", c, s.norm_epsilon},
        {{name + "attn.qkv", c, 3 * c, s.qkv_bias}, {name + "attn.proj", c, c}, s.num_heads, {}, {}, {}, {}},
        {name + "norm2", c, s.norm_epsilon},
        mlp_part(s, name + "mlp.")};
    if (s.qk_norm) {
        block.attention.q_norm = {name + "attn.q_norm", s.head_dim(), s.norm_epsilon};
        block.attention.k_norm = {name + "attn.k_norm", s.head_dim(), s.norm_epsilon};
    }
    if (s.rope != "none") block.attention.rotary = s.rope == "dinov3" ? RotaryLayout::kHalves : RotaryLayout::kPairs;
    if (s.attention_norm) block.attention.norm = {name + "attn.norm", c, s.norm_epsilon};
    if (s.mlp_norm) block.mlp.norm = {name + "mlp.norm", s.hidden_dim(), s.norm_epsilon};
    if (s.layer_scale) {
        block.attention.proj.gamma = name + "ls1.gamma";
        block.mlp.fc2.gamma = name + "ls2.gamma";
    }
    return block;
}

PoolPart pool_part(const ModelSettings& s) {
    const std::int64_t c = s.embed_dim;
    const std::string name = "attn_pool.";
    return {name + "latent",           {name + "q", c, c}, {name + "kv", c, 2 * c},
            {name + "proj", c, c},     s.num_heads,        {name + "norm", c, s.norm_epsilon},
            mlp_part(s, name + "mlp.")};
}

// Lists parameters in order.
class ParameterList {
  public:
    void add(std::string name, std::vector<std::int64_t> shape, Start start) {
        list.push_back({std::move(name), std::move(shape), start});
    }
    void add(const NormPart& norm) {
        add(norm.name + ".weight", {norm.channels}, Start::kOnes);
        add(norm.name + ".bias", {norm.channels}, Start::kZeros);
    }
    void add(const LinearPart& linear) { add(linear, {linear.outputs, linear.inputs}); }
    void add(const LinearPart& linear, std::vector<std::int64_t> shape) {
        add(linear.name + ".weight", std::move(shape), Start::kNormal);
        if (linear.bias) add(linear.name + ".bias", {linear.outputs}, Start::kZeros);
        if (!linear.gamma.empty()) add(linear.gamma, {linear.outputs}, Start::kSmall);
    }
    void add(const MlpPart& mlp) {
        add(mlp.fc1);
        if (mlp.norm) add(*mlp.norm);
        add(mlp.fc2);
    }

    std::vector<ParameterPart> list;
};

}  // namespace

PredictionPart prediction_part(const std::string& prefix, std::int64_t c) {
    return {{prefix + "in_conv.0", c, kPredictionNormEpsilon},
            {prefix + "in_conv.1", c, c},
            {{{prefix + "out_conv.0", c, c / 2},
              {prefix + "out_conv.2", c / 2, c / 4},
              {prefix + "out_conv.4", c / 4, 2}}}};
}

VitParts vit_parts(const ModelSettings& s) {
    const std::int64_t c = s.embed_dim;
    VitParts parts{{{"patch_embed.proj", 3 * s.patch_size * s.patch_size, c, s.patch_bias},
                    s.patch_size,
                    {},
                    s.absolute_positions ? "pos_embed" : "",
                    s.patches() + (s.prefix_positions ? s.prefix_tokens() : 0),
                    s.prefix_positions,
                    {}},
                   {},
                   {},
                   {},
                   {},
                   {}};
    if (s.class_token) parts.stem.prefix.push_back({"cls_token", 1});
    if (s.distillation_token) parts.stem.prefix.push_back({"dist_token", 1});
    if (s.registers > 0) parts.stem.prefix.push_back({"reg_token", s.registers});
    if (s.norm_before_blocks) parts.stem.norm = {"norm_pre", c, s.norm_epsilon};
    for (std::int64_t i = 0; i < s.depth; ++i) parts.blocks.push_back(block_part(s, i));
    if (s.final_norm) parts.norm = {s.norm_after_pooling ? "fc_norm" : "norm", c, s.norm_epsilon};
    if (s.pooling == "map") parts.pool = pool_part(s);
    if (s.num_classes > 0) {
        parts.heads.push_back({"head", s.embedding_dim(), s.num_classes, s.head_bias});
        if (s.distillation_token) parts.heads.push_back({"head_dist", c, s.num_classes, s.head_bias});
    }
    for (std::int64_t i = 0; s.predicts() && i < s.stages(); ++i) {
        parts.predictors.push_back(prediction_part(str("score_predictor.", i, '.'), c));
    }
    return parts;
}

std::vector<ParameterPart> backbone_parameters(const VitParts& parts) {
    const std::int64_t c = parts.stem.patches.outputs, patch = parts.stem.patch_size;
    ParameterList p;
    for (const PrefixPart& prefix : parts.stem.prefix) p.add(prefix.name, {1, prefix.count, c}, Start::kNormal);
    if (!parts.stem.positions.empty()) {
        p.add(parts.stem.positions, {1, parts.stem.position_count, c}, Start::kNormal);
    }
    p.add(parts.stem.patches, {c, 3, patch, patch});
    if (parts.stem.norm) p.add(*parts.stem.norm);
    for (const BlockPart& block : parts.blocks) {
        p.add(block.norm1);
        p.add(block.attention.qkv);
        if (block.attention.q_norm) p.add(*block.attention.q_norm);
        if (block.attention.k_norm) p.add(*block.attention.k_norm);
        if (block.attention.norm) p.add(*block.attention.norm);
        p.add(block.attention.proj);
        p.add(block.norm2);
        p.add(block.mlp);
    }
    if (parts.norm) p.add(*parts.norm);
    if (parts.pool) {
        p.add(parts.pool->latent, {1, 1, c}, Start::kNormal);
        for (const LinearPart& layer : {parts.pool->q, parts.pool->kv, parts.pool->proj}) p.add(layer);
        p.add(parts.pool->norm);
        p.add(parts.pool->mlp);
    }
    for (const LinearPart& head : parts.heads) p.add(head);
    return std::move(p.list);
}

std::vector<ParameterPart> prediction_parameters(const PredictionPart& part) {
    ParameterList p;
    p.add(part.norm);
    p.add(part.in);
    for (const LinearPart& layer : part.out) p.add(layer);
    return std::move(p.list);
}

}  // namespace dynvit
