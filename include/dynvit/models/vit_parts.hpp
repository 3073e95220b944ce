// The parts of a Vision Transformer under the names of published checkpoints: what its settings come to.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/models/model_settings.hpp"
#include "dynvit/ops/activation.hpp"
#include "dynvit/ops/rotary.hpp"

namespace dynvit {

/// A layer norm over the channels: NAME.weight and NAME.bias, (channels) each.
struct NormPart {
    std::string name;
    std::int64_t channels;
    double epsilon;
};

/// y = x W^T + b: NAME.weight, (outputs, inputs), and NAME.bias, (outputs).
struct LinearPart {
    std::string name;
    std::int64_t inputs, outputs;
    bool bias = true;
    std::string gamma = {};  // LayerScale: the name of a factor for each output, (outputs); empty: none

    std::int64_t macs() const { return inputs * outputs; }  // of one token
};

/// Multi-head self-attention: queries, keys and values in one layer, then the projection.
struct AttentionPart {
    LinearPart qkv, proj;
    std::int64_t heads;
    std::optional<NormPart> q_norm, k_norm;  // of each head's queries and keys, (d)
    std::optional<RotaryLayout> rotary;      // how queries and keys are turned
    std::optional<NormPart> norm;            // of what the projection reads

    std::int64_t head_dim() const { return proj.inputs / heads; }
};

/// Two layers and an activation between them. The first of SwiGLU has both halves in its outputs.
struct MlpPart {
    LinearPart fc1, fc2;
    Activation activation;
    std::optional<NormPart> norm;  // of what the second layer reads
};

struct BlockPart {
    NormPart norm1;
    AttentionPart attention;
    NormPart norm2;
    MlpPart mlp;
};

/// Tokens that every picture begins with: NAME, (1, count, C).
struct PrefixPart {
    std::string name;
    std::int64_t count;
};

/// From pictures to tokens. The patches' layer is a convolution, as wide as its steps: its weight is stored as
/// (C, 3, patch_size, patch_size).
struct StemPart {
    LinearPart patches;
    std::int64_t patch_size;
    std::vector<PrefixPart> prefix;
    std::string
        positions;  // the position embedding's name: (1, position_count, C), added to the last tokens; empty: none
    std::int64_t position_count;
    bool prefix_positions;         // it counts the prefix tokens too
    std::optional<NormPart> norm;  // of the tokens that the first block gets
};

/// Attention pooling: a learnt query looks at all tokens; a block's MLP follows (timm's AttentionPoolLatent).
struct PoolPart {
    std::string latent;  // what the query is made of: (1, 1, C)
    LinearPart q, kv, proj;
    std::int64_t heads;
    NormPart norm;
    MlpPart mlp;
};

/// DynamicViT's prediction module of a stage (see prediction_module.hpp).
struct PredictionPart {
    NormPart norm;
    LinearPart in;
    std::array<LinearPart, 3> out;
};

struct VitParts {
    StemPart stem;
    std::vector<BlockPart> blocks;
    std::optional<NormPart> norm;            // of the tokens behind the last block, or of their mean
    std::optional<PoolPart> pool;            // where attention pools
    std::vector<LinearPart> heads;           // none; one; or of [CLS] and of the distillation token
    std::vector<PredictionPart> predictors;  // a stage; none where stages choose without them
};

/// @param settings without a fault (see find_fault)
VitParts vit_parts(const ModelSettings& settings);

/// A prediction module's parts. @param prefix of their names, with the dot
PredictionPart prediction_part(const std::string& prefix, std::int64_t channels);

/// What a parameter is before training.
enum class Start { kNormal, kZeros, kOnes, kSmall };  // kNormal: of standard deviation 0.02; kSmall: 1e-5

struct ParameterPart {
    std::string name;
    std::vector<std::int64_t> shape;
    Start start;
};

/// Every parameter of the backbone in the order of published checkpoints, which is the order that weights are drawn in.
std::vector<ParameterPart> backbone_parameters(const VitParts& parts);

/// The same of a prediction module.
std::vector<ParameterPart> prediction_parameters(const PredictionPart& part);

}  // namespace dynvit
