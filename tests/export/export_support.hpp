// Small models to export, and what they should give.
#pragma once

#include "dynvit/export/export_model.hpp"
#include "dynvit/weights/model_file.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"
#include "support.hpp"

namespace dynvit::test {

/// 96 x 160 pixels in patches of 8, two stages, seven classes: nothing is as it is in a published model.
inline ModelSettings oblong_settings() {
    ModelSettings settings;
    settings.name = "custom";
    settings.image_size = {96, 160};
    settings.patch_size = 8;
    settings.num_classes = 7;
    settings.embed_dim = 36;
    settings.depth = 5;
    settings.num_heads = 3;
    settings.mlp_ratio = 2.5;
    settings.qkv_bias = false;
    settings.pruning_loc = {0, 3};
    return settings;
}

/// The same with other parts than a DeiT's: [CLS] and three registers without places in the position embedding; no
/// prefix token at all, where the head reads the patches' mean; what else blocks and heads may have; and each of these
/// with all that stages can do.
inline std::vector<ModelSettings> settings_of_other_parts() {
    ModelSettings registers = oblong_settings();
    registers.registers = 3;
    registers.prefix_positions = false;
    registers.norm_epsilon = 1e-5;
    ModelSettings no_prefix = oblong_settings();
    no_prefix.class_token = false;
    no_prefix.pooling = "mean";
    no_prefix.norm_after_pooling = true;
    ModelSettings distilled = oblong_settings();
    distilled.distillation_token = true;
    distilled.layer_scale = true;
    distilled.mlp = "quick_gelu";
    distilled.norm_before_blocks = true;
    ModelSettings pooled = oblong_settings();
    pooled.class_token = false;
    pooled.pooling = "map";
    pooled.mlp = "gelu_tanh";
    pooled.head_bias = false;
    ModelSettings both = registers;
    both.pooling = "token_mean";
    both.mlp = "swiglu";
    both.qk_norm = true;
    both.patch_bias = false;
    both.num_classes = 0;
    ModelSettings halves = registers;
    halves.rope = "dinov3";
    halves.pooling = "mean";
    halves.final_norm = false;
    halves.absolute_positions = false;
    ModelSettings pairs = oblong_settings();
    pairs.rope = "eva02";
    pairs.attention_norm = true;
    pairs.mlp_norm = true;
    pairs.mlp = "swiglu";
    std::vector<ModelSettings> all = {registers, no_prefix, oblong_settings(), distilled, pooled, both, halves, pairs};
    const std::size_t deleting = all.size();
    for (const char* reduction : {"merge", "fuse", "tome"}) {
        for (std::size_t i = 0; i < deleting; ++i) {
            all.push_back(all[i]);
            all.back().reduction = reduction;
            all.back().merge_threshold = 0.2;
            if (i == 1) all.back().stage_place = "after_attention";
        }
    }
    return all;
}

/// Random weights and biases, large enough that classes and scores lie apart.
inline DynamicVit random_model(const ModelSettings& settings, std::uint64_t seed) {
    DynamicVit model(settings, generator(seed));
    const torch::NoGradGuard no_grad;
    at::Generator random = generator(seed + 1);
    for (at::Tensor& parameter : model->parameters()) parameter.add_(at::randn(parameter.sizes(), random), 0.1);
    return model;
}

/// Small models of other libraries, with a stage whose scores lie apart: [CLS] beside the mean, registers, attention
/// pooling, QuickGELU behind a norm, a distillation token.
inline std::vector<DynamicVit> models_of_other_libraries() {
    std::vector<DynamicVit> models;
    for (const char* name : {"hf_dinov2", "vit_reg4", "siglip_timm", "timm_clip_quickgelu", "timm_deit_distilled"}) {
        const ModelFile file = read_model_file(golden(str("backbones/", name)));
        ModelSettings settings = *file.settings;
        settings.pruning_loc = {1};
        DynamicVit model(settings, generator(1));
        load_weights(*model, file, Fit::kEvaluate);
        const torch::NoGradGuard no_grad;
        at::Generator random = generator(2);
        for (const auto& item : model->named_parameters()) {
            if (!is_of_prediction_module(item.key())) continue;
            at::Tensor parameter = item.value();
            parameter.add_(at::randn(parameter.sizes(), random), 0.3);
        }
        models.push_back(model);
    }
    return models;
}

inline at::Tensor random_images(const ModelSettings& settings, std::int64_t batch, std::uint64_t seed = 7) {
    return at::randn({batch, 3, settings.image_height(), settings.image_width()}, generator(seed), at::kFloat);
}

/// The model's own plan that keeps so many tokens.
inline PruningPlan plan_of(const DynamicVit& model, std::vector<std::int64_t> tokens) {
    return {.policy = own_policy(model->settings()), .tokens = std::move(tokens)};
}

inline PrunedOutput expected_output(const DynamicVit& model, const at::Tensor& images,
                                    const std::vector<std::int64_t>& tokens) {
    return prune(model, images, tokens);
}

}  // namespace dynvit::test
