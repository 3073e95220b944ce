#include "dynvit/models/model_settings.hpp"

#include <algorithm>
#include <cmath>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

struct ZooEntry {
    const char* name;
    std::int64_t image_size, embed_dim, num_heads;
};

// DeiT (Touvron et al., 2021) and the two widths that the DynamicViT article adds; patch 16, 12 blocks, MLP ratio 4.
constexpr ZooEntry kZoo[] = {
    {"deit_tiny", 224, 192, 3},  {"deit_256", 224, 256, 4},   {"deit_320", 224, 320, 5},
    {"deit_small", 224, 384, 6}, {"deit_base", 224, 768, 12}, {"deit_base_384", 384, 768, 12},
};

constexpr const char* kCustom = "custom";

// The settings field and the fault, if any.
std::pair<std::string, std::string> fault(const ModelSettings& s) {
    if (s.image_size.empty() || s.image_size.size() > 2) {
        return {"image_size", str("found ", s.image_size.size(), " numbers, expected one, or height and width")};
    }
    for (const std::int64_t side : s.image_size) {
        if (side % s.patch_size != 0) {
            return {"image_size", str("found ", side, ", expected a multiple of patch_size ", s.patch_size)};
        }
    }
    if (s.embed_dim % s.num_heads != 0) {
        return {"num_heads", str("found ", s.num_heads, ", expected a divisor of embed_dim ", s.embed_dim)};
    }
    if (s.pooling.starts_with("token") && !s.class_token) {
        return {"pooling", str("found ", s.pooling, ", expected mean or map where class_token is false")};
    }
    if (s.rope != "none" && s.head_dim() % 4 != 0) {
        return {"num_heads",
                str("found heads of ", s.head_dim(), " channels, expected a multiple of 4 for rotary positions")};
    }
    if (s.norm_after_pooling && !s.final_norm) {
        return {"norm_after_pooling", "found true, expected false where final_norm is false"};
    }
    if (s.norm_after_pooling && s.pooling != "mean") {
        return {"norm_after_pooling", str("found true with the pooling ", s.pooling, ", expected mean")};
    }
    if (s.distillation_token && !(s.pooling == "token" && s.num_classes > 0)) {
        return {"distillation_token", "found true, expected a head that reads [CLS] beside it"};
    }
    for (std::size_t i = 0; i < s.pruning_loc.size(); ++i) {
        const std::int64_t block = s.pruning_loc[i];
        if (block < 0 || block >= s.depth) {
            return {"pruning_loc", str("found a stage at block ", block, " of ", s.depth,
                                       ", expected blocks counted from 0, at most ", s.depth - 1)};
        }
        if (i > 0 && block <= s.pruning_loc[i - 1]) {
            return {"pruning_loc",
                    str("found block ", block, " after ", s.pruning_loc[i - 1], ", expected ascending blocks")};
        }
    }
    if (s.stages() > 0 && s.predicts() && s.embed_dim % 4 != 0) {
        return {"embed_dim", str("found ", s.embed_dim, ", expected a multiple of 4 for the prediction modules")};
    }
    return {};
}

}  // namespace

void ModelSettings::fields(FieldVisitor& v) {
    std::vector<std::string> names = model_names();
    names.push_back(kCustom);
    v.field("name", name, "sizes of the zoo; fields below override them", names);
    if (v.reads() && name != kCustom) *this = model_settings(name);
    v.field("image_size", image_size, "pixels: one number, or [height, width]", at_least(1));
    v.field("patch_size", patch_size, "pixels", at_least(1));
    v.field("num_classes", num_classes,
            "outputs of the head; 0: none, the outputs are the embedding; where a file does not say it, as many as the "
            "training "
            "data has classes",
            at_least(0));
    v.field("embed_dim", embed_dim, "channels of a token", at_least(1));
    v.field("depth", depth, "blocks", at_least(1));
    v.field("num_heads", num_heads, "attention heads", at_least(1));
    v.field("mlp_ratio", mlp_ratio, "width of the MLP, in embed_dim", above(0));
    v.field("mlp", mlp, "its activation; swiglu: silu(a) b of a first layer twice as wide",
            std::vector<std::string>{"gelu", "gelu_tanh", "quick_gelu", "swiglu"});
    v.field("qkv_bias", qkv_bias, "queries, keys and values have a bias");
    v.field("qk_norm", qk_norm, "layer norms of each head's queries and keys");
    v.field("attention_norm", attention_norm, "a layer norm before attention's projection (EVA-02)");
    v.field("mlp_norm", mlp_norm, "a layer norm before the MLP's second layer (EVA-02)");
    v.field("layer_scale", layer_scale, "a learnt factor a channel on what attention and MLP add");
    v.field("norm_epsilon", norm_epsilon, "added to the variance in the backbone's layer norms", above(0));
    v.field("norm_before_blocks", norm_before_blocks, "a layer norm behind the embedding (CLIP)");
    v.field("patch_bias", patch_bias, "the patch embedding has a bias");
    v.field("class_token", class_token, "a [CLS] token before the patches; never pruned");
    v.field("distillation_token", distillation_token,
            "one more behind [CLS]; its head's logits and [CLS]'s are averaged");
    v.field("registers", registers, "further tokens between those and the patches; never pruned", at_least(0));
    v.field("absolute_positions", absolute_positions, "there is a pos_embed, which is added to the tokens");
    v.field("prefix_positions", prefix_positions, "pos_embed has places for the tokens before the patches");
    v.field(
        "position_resampling", position_resampling,
        "pos_embed for pictures of another size: bicubic and antialiased (timm), not antialiased (transformers, DeiT), "
        "that scaled by a tenth of a patch more (offset: DINOv2), or corner on corner (aligned: torchvision)",
        std::vector<std::string>{"antialiased", "bicubic", "offset", "aligned"});
    v.field("rope", rope, "rotary positions of the patch tokens", std::vector<std::string>{"none", "dinov3", "eva02"});
    v.field("rope_grid", rope_grid, "eva02: patches along a side of the grid that the angles were made for",
            at_least(1));
    v.field("rope_bfloat16", rope_bfloat16, "dinov3: the periods are rounded, as in DINOv3's own files");
    v.field("pooling", pooling,
            "what the head reads: [CLS], the mean of the patch tokens, both side by side, or attention pooling (map)",
            std::vector<std::string>{"token", "mean", "token_mean", "map"});
    v.field("final_norm", final_norm, "a layer norm behind the last block");
    v.field("norm_after_pooling", norm_after_pooling, "that norm is of the patches' mean, not of each token");
    v.field("head_bias", head_bias, "the head has a bias");
    v.field("projection", projection, "the head's outputs are an embedding (CLIP), not classes");
    v.field("drop_path", drop_path, "stochastic depth of the last block, linear from 0", between(0, 0.99));
    v.field("pruning_loc", pruning_loc,
            "a stage (with a prediction module, but for tome) at each of these blocks, from 0; []: dense");
    v.field("stage_place", stage_place, "where a stage stands: before its block, or between its attention and its MLP",
            std::vector<std::string>{"before_block", "after_attention"});
    v.field("reduction", reduction,
            "what becomes of tokens that a stage does not keep: deleted, averaged into the kept one that resembles "
            "them most (merge), or all into one more token (fuse: EViT); tome: no choice, similar tokens are averaged",
            std::vector<std::string>{"delete", "merge", "fuse", "tome"});
    v.field("merge_threshold", merge_threshold,
            "merge: cosine of their keys above which two tokens are averaged; others are deleted", between(-1, 1));
    if (const auto [key, text] = fault(*this); !key.empty()) v.reject(key, text);
}

std::int64_t ModelSettings::hidden_dim() const {
    constexpr double kRoundings = 1e-6;  // a product that is whole but for its last bits counts as whole
    return static_cast<std::int64_t>(std::floor(mlp_ratio * static_cast<double>(embed_dim) + kRoundings));
}

const std::vector<std::string>& model_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> made;
        for (const ZooEntry& entry : kZoo) made.emplace_back(entry.name);
        return made;
    }();
    return names;
}

ModelSettings model_settings(const std::string& name) {
    for (const ZooEntry& entry : kZoo) {
        if (name != entry.name) continue;
        ModelSettings settings;
        settings.name = name;
        settings.image_size = {entry.image_size};
        settings.embed_dim = entry.embed_dim;
        settings.num_heads = entry.num_heads;
        return settings;
    }
    throw Error("model", "unknown model '", name, "'; expected one of ", join(model_names(), ", "));
}

std::string find_fault(const ModelSettings& settings) {
    const auto [key, text] = fault(settings);
    return key.empty() ? key : key + ": " + text;
}

}  // namespace dynvit
