#include "dynvit/models/vit_parts.hpp"

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr double kPredictionNormEpsilon = 1e-5;  // the reference's

BlockPart block_part(const ModelSettings& s, std::int64_t index) {
    const std::int64_t c = s.embed_dim, hidden = s.hidden_dim();
    const std::string name = str("blocks.", index, '.');
    return {{name + "norm1", c, s.norm_epsilon},
            {{name + "attn.qkv", c, 3 * c, s.qkv_bias}, {name + "attn.proj", c, c}, s.num_heads},
            {name + "norm2", c, s.norm_epsilon},
            {{name + "mlp.fc1", c, hidden}, {name + "mlp.fc2", hidden, c}}};
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
    VitParts parts{{{"patch_embed.proj", 3 * s.patch_size * s.patch_size, c},
                    s.patch_size,
                    {},
                    "pos_embed",
                    s.patches() + (s.prefix_positions ? s.prefix_tokens() : 0),
                    s.prefix_positions},
                   {},
                   {"norm", c, s.norm_epsilon},
                   {"head", c, s.num_classes},
                   {}};
    if (s.class_token) parts.stem.prefix.push_back({"cls_token", 1});
    if (s.registers > 0) parts.stem.prefix.push_back({"reg_token", s.registers});
    for (std::int64_t i = 0; i < s.depth; ++i) parts.blocks.push_back(block_part(s, i));
    for (std::int64_t i = 0; s.predicts() && i < s.stages(); ++i) {
        parts.predictors.push_back(prediction_part(str("score_predictor.", i, '.'), c));
    }
    return parts;
}

std::vector<ParameterPart> backbone_parameters(const VitParts& parts) {
    const std::int64_t c = parts.norm.channels, patch = parts.stem.patch_size;
    ParameterList p;
    for (const PrefixPart& prefix : parts.stem.prefix) p.add(prefix.name, {1, prefix.count, c}, Start::kNormal);
    p.add(parts.stem.positions, {1, parts.stem.position_count, c}, Start::kNormal);
    p.add(parts.stem.patches, {c, 3, patch, patch});
    for (const BlockPart& block : parts.blocks) {
        p.add(block.norm1);
        p.add(block.attention.qkv);
        p.add(block.attention.proj);
        p.add(block.norm2);
        p.add(block.mlp.fc1);
        p.add(block.mlp.fc2);
    }
    p.add(parts.norm);
    p.add(parts.head);
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
