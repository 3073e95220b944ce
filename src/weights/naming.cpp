#include "dynvit/weights/naming.hpp"

#include <algorithm>

namespace dynvit {
namespace {

// What a renaming may lead to beside the names of parameters: pieces that canonical_weights() puts together.
//
//     blocks.*.attn.{q,k,v}.{weight,bias}, attn.{q,k,v}_bias     queries, keys and values that stand apart
//     blocks.*.attn.qkv.bias_mask                                0 where a bias does not count
//     blocks.*.mlp.{gate,up}                                     the halves of SwiGLU's first layer
//     attn_pool.in_proj_{weight,bias}                            queries, keys and values of attention pooling
//     projection                                                 a head's weight, transposed

// timm's VisionTransformer, and who kept its names: DeiT, MAE, DINOv2 and DINOv3 with what is their own in it; timm's
// Eva class.
constexpr Renaming kTimm[] = {
    {"cls_token", "cls_token"},
    {"dist_token", "dist_token"},
    {"reg_token", "reg_token"},
    {"register_tokens", "reg_token"},
    {"storage_tokens", "reg_token"},
    {"pos_embed", "pos_embed"},
    {"patch_embed.proj", "patch_embed.proj"},
    {"norm_pre", "norm_pre"},
    {"blocks.*.norm1", "blocks.*.norm1"},
    {"blocks.*.norm2", "blocks.*.norm2"},
    {"blocks.*.attn.qkv", "blocks.*.attn.qkv"},
    {"blocks.*.attn.q_proj", "blocks.*.attn.q"},
    {"blocks.*.attn.k_proj", "blocks.*.attn.k"},
    {"blocks.*.attn.v_proj", "blocks.*.attn.v"},
    {"blocks.*.attn.q_bias", "blocks.*.attn.q_bias"},
    {"blocks.*.attn.k_bias", "blocks.*.attn.k_bias"},
    {"blocks.*.attn.v_bias", "blocks.*.attn.v_bias"},
    {"blocks.*.attn.q_norm", "blocks.*.attn.q_norm"},
    {"blocks.*.attn.k_norm", "blocks.*.attn.k_norm"},
    {"blocks.*.attn.norm", "blocks.*.attn.norm"},
    {"blocks.*.attn.inner_attn_ln", "blocks.*.attn.norm"},
    {"blocks.*.attn.proj", "blocks.*.attn.proj"},
    {"blocks.*.mlp.fc1", "blocks.*.mlp.fc1"},
    {"blocks.*.mlp.w12", "blocks.*.mlp.fc1"},
    {"blocks.*.mlp.w1", "blocks.*.mlp.gate"},
    {"blocks.*.mlp.fc1_g", "blocks.*.mlp.gate"},
    {"blocks.*.mlp.w2", "blocks.*.mlp.up"},
    {"blocks.*.mlp.fc1_x", "blocks.*.mlp.up"},
    {"blocks.*.mlp.norm", "blocks.*.mlp.norm"},
    {"blocks.*.mlp.ffn_ln", "blocks.*.mlp.norm"},
    {"blocks.*.mlp.fc2", "blocks.*.mlp.fc2"},
    {"blocks.*.mlp.w3", "blocks.*.mlp.fc2"},
    {"blocks.*.ls1.gamma", "blocks.*.ls1.gamma"},
    {"blocks.*.ls2.gamma", "blocks.*.ls2.gamma"},
    {"blocks.*.gamma_1", "blocks.*.ls1.gamma"},
    {"blocks.*.gamma_2", "blocks.*.ls2.gamma"},
    {"norm", "norm"},
    {"fc_norm", "fc_norm"},
    {"attn_pool.latent", "attn_pool.latent"},
    {"attn_pool.q", "attn_pool.q"},
    {"attn_pool.kv", "attn_pool.kv"},
    {"attn_pool.proj", "attn_pool.proj"},
    {"attn_pool.norm", "attn_pool.norm"},
    {"attn_pool.mlp", "attn_pool.mlp"},
    {"rope_embed.periods", "rope.periods"},
    {"score_predictor", "score_predictor"},
};

// transformers: ViT, DeiT, DINOv2. DINOv3 has names of its own there.
constexpr Renaming kTransformersVit[] = {
    {"embeddings.cls_token", "cls_token"},
    {"embeddings.distillation_token", "dist_token"},
    {"embeddings.register_tokens", "reg_token"},
    {"embeddings.mask_token", ""},
    {"embeddings.position_ids", ""},
    {"embeddings.position_embeddings", "pos_embed"},
    {"embeddings.patch_embeddings.projection", "patch_embed.proj"},
    {"encoder.layer.*.layernorm_before", "blocks.*.norm1"},
    {"encoder.layer.*.norm1", "blocks.*.norm1"},
    {"encoder.layer.*.attention.attention.query", "blocks.*.attn.q"},
    {"encoder.layer.*.attention.attention.key", "blocks.*.attn.k"},
    {"encoder.layer.*.attention.attention.value", "blocks.*.attn.v"},
    {"encoder.layer.*.attention.output.dense", "blocks.*.attn.proj"},
    {"encoder.layer.*.layer_scale1.lambda1", "blocks.*.ls1.gamma"},
    {"encoder.layer.*.layernorm_after", "blocks.*.norm2"},
    {"encoder.layer.*.norm2", "blocks.*.norm2"},
    {"encoder.layer.*.intermediate.dense", "blocks.*.mlp.fc1"},
    {"encoder.layer.*.mlp.fc1", "blocks.*.mlp.fc1"},
    {"encoder.layer.*.mlp.weights_in", "blocks.*.mlp.fc1"},
    {"encoder.layer.*.output.dense", "blocks.*.mlp.fc2"},
    {"encoder.layer.*.mlp.fc2", "blocks.*.mlp.fc2"},
    {"encoder.layer.*.mlp.weights_out", "blocks.*.mlp.fc2"},
    {"encoder.layer.*.layer_scale2.lambda1", "blocks.*.ls2.gamma"},
    {"layernorm", "norm"},
};

constexpr Renaming kTransformersDinov3[] = {
    {"embeddings.cls_token", "cls_token"},
    {"embeddings.register_tokens", "reg_token"},
    {"embeddings.mask_token", ""},
    {"embeddings.patch_embeddings", "patch_embed.proj"},
    {"layer.*.norm1", "blocks.*.norm1"},
    {"layer.*.attention.q_proj", "blocks.*.attn.q"},
    {"layer.*.attention.k_proj", "blocks.*.attn.k"},
    {"layer.*.attention.v_proj", "blocks.*.attn.v"},
    {"layer.*.attention.o_proj", "blocks.*.attn.proj"},
    {"layer.*.layer_scale1.lambda1", "blocks.*.ls1.gamma"},
    {"layer.*.norm2", "blocks.*.norm2"},
    {"layer.*.mlp.gate_proj", "blocks.*.mlp.gate"},
    {"layer.*.mlp.up_proj", "blocks.*.mlp.up"},  // without gate_proj: the first of two layers
    {"layer.*.mlp.down_proj", "blocks.*.mlp.fc2"},
    {"layer.*.layer_scale2.lambda1", "blocks.*.ls2.gamma"},
    {"norm", "norm"},
};

// transformers: the vision towers of CLIP and SigLIP.
constexpr Renaming kTransformersClip[] = {
    {"embeddings.class_embedding", "cls_token"},
    {"embeddings.position_embedding.weight", "pos_embed"},
    {"embeddings.position_ids", ""},
    {"embeddings.patch_embedding", "patch_embed.proj"},
    {"pre_layrnorm", "norm_pre"},  // so spelt
    {"encoder.layers.*.layer_norm1", "blocks.*.norm1"},
    {"encoder.layers.*.self_attn.q_proj", "blocks.*.attn.q"},
    {"encoder.layers.*.self_attn.k_proj", "blocks.*.attn.k"},
    {"encoder.layers.*.self_attn.v_proj", "blocks.*.attn.v"},
    {"encoder.layers.*.self_attn.out_proj", "blocks.*.attn.proj"},
    {"encoder.layers.*.layer_norm2", "blocks.*.norm2"},
    {"encoder.layers.*.mlp.fc1", "blocks.*.mlp.fc1"},
    {"encoder.layers.*.mlp.fc2", "blocks.*.mlp.fc2"},
    {"post_layernorm", "norm"},
    {"head.probe", "attn_pool.latent"},
    {"head.attention.in_proj_weight", "attn_pool.in_proj_weight"},
    {"head.attention.in_proj_bias", "attn_pool.in_proj_bias"},
    {"head.attention.out_proj", "attn_pool.proj"},
    {"head.layernorm", "attn_pool.norm"},
    {"head.mlp", "attn_pool.mlp"},
};

// OpenAI's CLIP and open_clip.
constexpr Renaming kOpenAi[] = {
    {"class_embedding", "cls_token"},
    {"positional_embedding", "pos_embed"},
    {"conv1", "patch_embed.proj"},
    {"ln_pre", "norm_pre"},
    {"transformer.resblocks.*.ln_1", "blocks.*.norm1"},
    {"transformer.resblocks.*.attn.in_proj_weight", "blocks.*.attn.qkv.weight"},
    {"transformer.resblocks.*.attn.in_proj_bias", "blocks.*.attn.qkv.bias"},
    {"transformer.resblocks.*.attn.out_proj", "blocks.*.attn.proj"},
    {"transformer.resblocks.*.ls_1.gamma", "blocks.*.ls1.gamma"},
    {"transformer.resblocks.*.ln_2", "blocks.*.norm2"},
    {"transformer.resblocks.*.mlp.c_fc", "blocks.*.mlp.fc1"},
    {"transformer.resblocks.*.mlp.c_proj", "blocks.*.mlp.fc2"},
    {"transformer.resblocks.*.ls_2.gamma", "blocks.*.ls2.gamma"},
    {"ln_post", "norm"},
    {"proj", "projection"},
};

// torchvision's VisionTransformer.
constexpr Renaming kTorchvision[] = {
    {"class_token", "cls_token"},
    {"encoder.pos_embedding", "pos_embed"},
    {"conv_proj", "patch_embed.proj"},
    {"encoder.layers.encoder_layer_*.ln_1", "blocks.*.norm1"},
    {"encoder.layers.encoder_layer_*.self_attention.in_proj_weight", "blocks.*.attn.qkv.weight"},
    {"encoder.layers.encoder_layer_*.self_attention.in_proj_bias", "blocks.*.attn.qkv.bias"},
    {"encoder.layers.encoder_layer_*.self_attention.out_proj", "blocks.*.attn.proj"},
    {"encoder.layers.encoder_layer_*.ln_2", "blocks.*.norm2"},
    {"encoder.layers.encoder_layer_*.mlp.0", "blocks.*.mlp.fc1"},
    {"encoder.layers.encoder_layer_*.mlp.3", "blocks.*.mlp.fc2"},
    {"encoder.layers.encoder_layer_*.mlp.linear_1", "blocks.*.mlp.fc1"},
    {"encoder.layers.encoder_layer_*.mlp.linear_2", "blocks.*.mlp.fc2"},
    {"encoder.ln", "norm"},
    {"heads.head", "head"},
};

constexpr Renaming kHeads[] = {
    {"head.weight", "head.weight"},
    {"head.bias", "head.bias"},
    {"head_dist", "head_dist"},
    {"head.proj", "head"},  // open_clip's, beside a tower of timm's
    {"linear_head", "head"},
    {"classifier.weight", "head.weight"},
    {"classifier.bias", "head.bias"},
    {"cls_classifier", "head"},
    {"distillation_classifier", "head_dist"},
    {"visual_projection", "head"},
};

bool is_digit(char letter) {
    return letter >= '0' && letter <= '9';
}

// What stands behind `pattern` in `name`, and the number that "*" is; nothing where the name does not start so.
struct Match {
    std::string_view number, rest;
};

std::optional<Match> match(std::string_view name, std::string_view pattern) {
    Match found;
    std::size_t at = 0;
    for (const char letter : pattern) {
        if (letter != '*') {
            if (at >= name.size() || name[at] != letter) return std::nullopt;
            ++at;
            continue;
        }
        const std::size_t begin = at;
        while (at < name.size() && is_digit(name[at])) ++at;
        if (at == begin) return std::nullopt;
        found.number = name.substr(begin, at - begin);
    }
    found.rest = name.substr(at);
    if (!found.rest.empty() && found.rest.front() != '.') return std::nullopt;
    return found;
}

}  // namespace

const std::vector<Naming>& namings() {
    static const std::vector<Naming> all = {
        {"timm",
         {"patch_embed.proj.weight"},
         kTimm,
         {"blocks.", "patch_embed.", "attn_pool.", "rel_pos", "rope.freqs"}},
        {"transformers",
         {"embeddings.patch_embeddings.projection.weight"},
         kTransformersVit,
         {"encoder.", "embeddings."}},
        {"transformers", {"embeddings.patch_embeddings.weight"}, kTransformersDinov3, {"layer.", "embeddings."}},
        {"transformers",
         {"embeddings.patch_embedding.weight"},
         kTransformersClip,
         {"encoder.", "embeddings.", "head."}},
        {"OpenAI",
         {"conv1.weight", "class_embedding", "positional_embedding"},
         kOpenAi,
         {"transformer.resblocks.", "attn_pool."}},
        {"torchvision", {"conv_proj.weight", "class_token"}, kTorchvision, {"encoder.", "heads."}},
    };
    return all;
}

std::optional<std::string> renamed(std::string_view name, std::span<const Renaming> renamings) {
    for (const Renaming& renaming : renamings) {
        const std::optional<Match> found = match(name, renaming.from);
        if (!found) continue;
        if (renaming.to.empty()) return "";
        std::string result(renaming.to);
        if (const std::size_t star = result.find('*'); star != std::string::npos)
            result.replace(star, 1, found->number);
        return result.append(found->rest);
    }
    return std::nullopt;
}

std::span<const Renaming> head_names() {
    return kHeads;
}

std::vector<NamedBackbone> find_backbones(const TensorMap& tensors) {
    std::vector<NamedBackbone> found;
    const auto stands_at = [&](const std::string& prefix, std::string_view anchor) {
        return tensors.contains(prefix + std::string(anchor));
    };
    for (const Naming& naming : namings()) {
        for (const auto& [name, tensor] : tensors) {
            if (!name.ends_with(naming.anchors.front())) continue;
            const std::string prefix = name.substr(0, name.size() - naming.anchors.front().size());
            if (!prefix.empty() && prefix.back() != '.') continue;
            const auto stands = [&](std::string_view anchor) { return stands_at(prefix, anchor); };
            if (std::ranges::all_of(naming.anchors, stands)) found.push_back({&naming, prefix});
        }
    }
    return found;
}

}  // namespace dynvit
