// The parts of a Vision Transformer under the names of published checkpoints: what its settings come to.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "dynvit/models/model_settings.hpp"

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

    std::int64_t macs() const { return inputs * outputs; }  // of one token
};

/// Multi-head self-attention: queries, keys and values in one layer, then the projection.
struct AttentionPart {
    LinearPart qkv, proj;
    std::int64_t heads;
};

/// Two layers with an exact (erf) GELU between them.
struct MlpPart {
    LinearPart fc1, fc2;
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
    std::string positions;  // the position embedding's name: (1, position_count, C), added to the last tokens
    std::int64_t position_count;
    bool prefix_positions;  // it counts the prefix tokens too
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
    NormPart norm;
    LinearPart head;
    std::vector<PredictionPart> predictors;  // a stage; none where stages choose without them
};

/// @param settings without a fault (see find_fault)
VitParts vit_parts(const ModelSettings& settings);

/// A prediction module's parts. @param prefix of their names, with the dot
PredictionPart prediction_part(const std::string& prefix, std::int64_t channels);

/// What a parameter is before training.
enum class Start { kNormal, kZeros, kOnes };  // kNormal: of standard deviation 0.02

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
