// What a Vision Transformer with prediction modules is made of, and the names that the field gives to common sizes.
#pragma once

#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"

namespace dynvit {

/// The whole description of a model: whatever runs, counts or writes it reads this, through vit_parts(). A part that a
/// kernel does not know makes its settings unequal to those that the kernel takes, so that it is never left out.
struct ModelSettings {
    std::string name = "deit_small";               // of the zoo below; "custom": every field is given
    std::vector<std::int64_t> image_size = {224};  // height, width; one number: a square
    std::int64_t patch_size = 16;
    std::int64_t num_classes = 1000;  // 0: no head; the outputs are the embedding that one would read
    std::int64_t embed_dim = 384;
    std::int64_t depth = 12;
    std::int64_t num_heads = 6;
    double mlp_ratio = 4.0;
    std::string mlp = "gelu";  // its activation: "gelu", "gelu_tanh", "quick_gelu", or "swiglu" of two layers
    bool qkv_bias = true;
    bool qk_norm = false;             // layer norms of each head's queries and keys
    bool attention_norm = false;      // a layer norm before attention's projection
    bool mlp_norm = false;            // a layer norm before the MLP's second layer
    bool layer_scale = false;         // a learnt factor a channel on what a block adds
    double norm_epsilon = 1e-6;       // of the backbone's layer norms
    bool norm_before_blocks = false;  // a layer norm behind the embedding too
    bool patch_bias = true;           // of the patch embedding
    bool class_token = true;          // [CLS], the first prefix token
    bool distillation_token = false;  // behind [CLS], with a head of its own
    std::int64_t registers = 0;       // further prefix tokens, behind those
    bool absolute_positions = true;   // there is a pos_embed
    bool prefix_positions = true;     // it has places for the prefix tokens
    std::string position_resampling =
        "antialiased";                // for pictures of another size: "antialiased", "bicubic", "offset", "aligned"
    std::string rope = "none";        // rotary positions of patch tokens, as "dinov3" or "eva02" has them
    std::int64_t rope_grid = 16;      // eva02: patches along a side of the grid that the angles were made for
    bool rope_bfloat16 = false;       // dinov3: the periods are rounded, as in DINOv3's own files
    std::string pooling = "token";    // what the head reads: "token" ([CLS]), "mean" (of the patch tokens),
                                      // "token_mean" (both, side by side), "map" (attention pooling over all tokens)
    bool final_norm = true;           // there is a norm behind the last block
    bool norm_after_pooling = false;  // it is of the patches' mean
    bool head_bias = true;
    bool projection = false;  // the head's outputs are an embedding (CLIP), not classes
    double drop_path = 0.0;
    std::vector<std::int64_t> pruning_loc = {3, 6, 9};
    std::string stage_place = "before_block";  // a stage stands before its block, or in it "after_attention"
    std::string reduction = "delete";          // what becomes of tokens that a stage does not keep:
                                               // "delete", "merge", "fuse"; "tome": stages match similar tokens
    double merge_threshold = 0.0;              // merge: cosine above which a token joins a kept one; others are deleted

    void fields(FieldVisitor& visitor);
    bool operator==(const ModelSettings&) const = default;

    std::int64_t image_height() const { return image_size.front(); }
    std::int64_t image_width() const { return image_size.back(); }
    std::int64_t grid_height() const { return image_height() / patch_size; }
    std::int64_t grid_width() const { return image_width() / patch_size; }
    std::int64_t patches() const { return grid_height() * grid_width(); }  // N
    std::int64_t stages() const { return static_cast<std::int64_t>(pruning_loc.size()); }
    bool stages_in_blocks() const { return stage_place == "after_attention"; }
    bool deletes() const { return reduction == "delete"; }
    bool merges() const { return reduction == "merge"; }
    bool fuses() const { return reduction == "fuse"; }
    bool matches() const { return reduction == "tome"; }
    /// Whether stages compare the tokens' keys, and average tokens, which then stand for several patches.
    bool averages() const { return merges() || matches(); }
    /// Whether each stage has a prediction module.
    bool predicts() const { return !matches(); }
    /// Patch tokens behind a stage that keeps `count` of `tokens`: those, and one that the others were fused into.
    std::int64_t tokens_behind(std::int64_t tokens, std::int64_t count) const {
        return count + (fuses() && count < tokens ? 1 : 0);
    }
    /// Tokens before the patches, never pruned.
    std::int64_t prefix_tokens() const { return (class_token ? 1 : 0) + (distillation_token ? 1 : 0) + registers; }
    bool reads_class_token_alone() const { return pooling == "token" && !distillation_token; }
    std::int64_t head_dim() const { return embed_dim / num_heads; }
    /// Channels between the MLP's layers.
    std::int64_t hidden_dim() const;
    /// Channels of what the head reads.
    std::int64_t embedding_dim() const { return pooling == "token_mean" ? 2 * embed_dim : embed_dim; }
    /// Numbers that the model gives for a picture.
    std::int64_t outputs() const { return num_classes > 0 ? num_classes : embedding_dim(); }
    /// Whether those are of classes, and no embedding.
    bool classifies() const { return num_classes > 0 && !projection; }
};

/// The zoo's names, in order of size.
const std::vector<std::string>& model_names();

/// A zoo model's settings. Throws Error listing the names if there is no such model.
ModelSettings model_settings(const std::string& name);

/// What is wrong with the settings together ("image_size 100 is no multiple of patch_size 16"); empty if nothing is.
std::string find_fault(const ModelSettings& settings);

}  // namespace dynvit
