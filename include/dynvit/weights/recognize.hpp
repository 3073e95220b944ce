// Which model weights are of, by their names, their shapes and the config.json that came with them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dynvit/models/model_settings.hpp"
#include "dynvit/weights/canonical_weights.hpp"
#include "dynvit/weights/model_config.hpp"

namespace dynvit {

/// What the user knows and a file may not say.
struct KnownParts {
    std::int64_t num_heads = 0;   // 0: the file's, or assumed
    std::string activation = {};  // of the MLP; empty: likewise
    bool normalization_known =
        false;  // that pictures are scaled ImageNet's way needs no word where nothing else is said
};

struct RecognizedModel {
    ModelSettings settings;
    std::optional<Preprocessing> preprocessing;  // of its pictures; none: nothing says it
    std::string description;                     // "vit 384 wide, 12 blocks, ..."
    std::vector<std::string> notes;              // what was assumed, a line each
    bool heads_known = true;                     // otherwise their number was assumed, or is 1 and incomplete says why
    std::string incomplete;  // what of the settings nobody knows, as an error says it; empty: nothing
};

/// Takes from the weights what the model they are of does not have under those names: a position of [CLS] alone is
/// added to cls_token, a token for distillation without a head of its own is a register.
/// @param file what errors name
/// @param config that of the same model, if there is one (see describes)
/// @param of_openai whether the file is of a kind that OpenAI alone writes: its activation is known then
/// Throws Error naming the file for a model that dynvit has no parts for.
RecognizedModel recognize(CanonicalWeights& weights, const std::optional<ModelConfig>& config, const KnownParts& known,
                          bool of_openai, const std::string& file);

/// What a config says otherwise than the weights: "hidden_size 768, the weights' 384"; empty where it fits them.
std::string disagreement(const ModelConfig& config, const CanonicalWeights& weights);

/// In what `settings` are no zoo model's of that name ("embed_dim 384, deit_tiny's is 192"); empty where they are, the
/// number of classes, the size of pictures, stages and the norms' epsilon left aside.
std::string difference_from_zoo(const ModelSettings& settings, const std::string& name);

}  // namespace dynvit
