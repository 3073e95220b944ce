#include "dynvit/weights/recognize.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "dynvit/core/error.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kHeadWidth = 64;  // of nearly all published models

// The published ones whose heads have another width, by the width of their tokens.
struct HeadsOfWidth {
    std::int64_t embed_dim, num_heads;
};

constexpr HeadsOfWidth kOtherHeads[] = {
    {1152, 16},  // SO400M
    {1280, 16},  // ViT-H
    {1408, 16},  // ViT-g, EVA
    {1664, 16},  // ViT-G
};

constexpr std::int64_t kRotarySize = 224;  // pixels, where nothing tells

constexpr std::int64_t kGiantOptWidth = 1536, kGiantOptHeads = 16;  // SigLIP's giant; DINOv2's has heads of 64

// timm's architectures that have these names and do something else with them.
struct OtherArchitecture {
    std::string_view part, what;
};

constexpr OtherArchitecture kOtherArchitectures[] = {
    {"_rpn_", "norms behind attention and MLP"},
    {"_rope_", "a rotary position embedding"},
    {"vit_pe_", "a rotary position embedding"},
    {"naflexvit", "pictures of any aspect ratio"},
};

class Recognizer {
  public:
    Recognizer(CanonicalWeights& weights, const std::optional<ModelConfig>& config, const KnownParts& known,
               bool of_openai, const std::string& file)
        : weights_(weights), t_(weights.tensors), config_(config), known_(known), of_openai_(of_openai), file_(file) {}

    RecognizedModel recognize() {
        refuse_other_architectures();
        s_.name = "custom";
        s_.pruning_loc = {};
        read_stem();
        read_blocks();
        read_rotary_positions();
        read_positions();
        read_numerics();
        read_head();
        read_heads_of_attention();
        read_stages();
        if (const std::string fault = find_fault(s_); !fault.empty()) fail(fault);
        read_preprocessing();
        s_.name = zoo_name();
        result_.settings = s_;
        result_.description = description();
        return std::move(result_);
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw Error("weights", file_, ": ", parts...);
    }

    template <class... Parts>
    void note(const Parts&... parts) {
        result_.notes.push_back(str(parts...));
    }

    bool has(const std::string& name) const { return t_.contains(name); }

    const at::Tensor& tensor(const std::string& name) const {
        const auto found = t_.find(name);
        if (found == t_.end()) fail("has no ", name, " (", whose_names(), " read as timm's)");
        return found->second;
    }

    const at::Tensor& tensor(const std::string& name, std::int64_t dimensions) const {
        const at::Tensor& found = tensor(name);
        if (found.dim() != dimensions) {
            fail(name, ": found ", shape_text(found.sizes()), ", expected ", dimensions, " dimensions");
        }
        return found;
    }

    std::string architecture() const { return config_ ? config_->architecture : ""; }
    bool is_timm() const { return weights_.naming->library == "timm"; }
    bool is_clip() const { return has("norm_pre.weight"); }

    void refuse_other_architectures() const {
        if (!config_ || config_->library != "timm") return;
        for (const OtherArchitecture& other : kOtherArchitectures) {
            if (architecture().find(other.part) == std::string::npos) continue;
            fail("is ", architecture(), ", which has ", other.what, ", expected a model without");
        }
    }

    // ---- From pictures to tokens ----

    void read_stem() {
        at::Tensor& patches = t_.at("patch_embed.proj.weight");
        if (patches.dim() == 2 && is_timm()) patches = as_convolution(patches);
        if (patches.dim() != 4 || patches.size(1) != 3 || patches.size(2) != patches.size(3)) {
            fail("patch_embed.proj.weight: found ", shape_text(patches.sizes()),
                 ", expected (channels, 3, patch size, patch size)");
        }
        s_.embed_dim = patches.size(0);
        s_.patch_size = patches.size(2);
        s_.patch_bias = has("patch_embed.proj.bias");
        s_.norm_before_blocks = has("norm_pre.weight");
        s_.class_token = has("cls_token");
        read_distillation_token();
        if (has("reg_token")) s_.registers = tensor("reg_token", 3).size(1);
    }

    // timm's oldest files have rows of a patch's numbers, colour by colour.
    at::Tensor as_convolution(const at::Tensor& rows) const {
        const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(rows.size(1)) / 3)));
        return 3 * side * side == rows.size(1) ? rows.reshape({rows.size(0), 3, side, side}) : rows;
    }

    // Without a head of its own the token is one more that nobody reads: a register.
    void read_distillation_token() {
        s_.distillation_token = has("dist_token") && has("head_dist.weight");
        if (!has("dist_token") || s_.distillation_token) return;
        at::Tensor token = t_.extract("dist_token").mapped();
        if (has("reg_token")) fail("has a distillation token without a head, and registers, expected one of them");
        t_.emplace("reg_token", std::move(token));
        if (is_timm()) note("the distillation token has no head: the output is [CLS]'s alone");
    }

    // ---- Blocks ----

    void read_blocks() {
        for (s_.depth = 0; has(str("blocks.", s_.depth, ".norm1.weight")); ++s_.depth) {
        }
        if (s_.depth == 0) fail("has a patch embedding, but no blocks of a Vision Transformer");
        const std::int64_t inputs = tensor("blocks.0.mlp.fc2.weight", 2).size(1);
        const std::int64_t outputs = tensor("blocks.0.mlp.fc1.weight", 2).size(0);
        const bool gated = outputs == 2 * inputs;
        if (!gated && outputs != inputs) {
            fail("blocks.0.mlp: its first layer has ", outputs, " outputs, its second ", inputs, " inputs");
        }
        s_.mlp_ratio = static_cast<double>(inputs) / static_cast<double>(s_.embed_dim);
        if (gated) s_.mlp = "swiglu";
        s_.qkv_bias = has("blocks.0.attn.qkv.bias");
        s_.qk_norm = has("blocks.0.attn.q_norm.weight");
        s_.layer_scale = has("blocks.0.ls1.gamma");
        s_.attention_norm = has("blocks.0.attn.norm.weight");
        s_.mlp_norm = has("blocks.0.mlp.norm.weight");
    }

    // DINOv3 has rotary positions alone; EVA-02 has them beside pos_embed, which only its blocks tell.
    void read_rotary_positions() {
        const bool dinov3 = has("rope.periods") || !has("pos_embed");
        const bool eva02 = architecture().starts_with("eva02") || s_.attention_norm || s_.mlp_norm ||
                           (is_timm() && weights_.queries_apart && s_.mlp == "swiglu");
        if (!dinov3 && !eva02) return;
        s_.rope = dinov3 ? "dinov3" : "eva02";
        s_.absolute_positions = !dinov3;
        if (eva02 && !dinov3 && config_ && config_->rope_grid) s_.rope_grid = *config_->rope_grid;
        if (dinov3) read_periods();
    }

    // DINOv3's own files have its periods, 100^(k / n), rounded to bfloat16; other libraries' compute them.
    void read_periods() {
        const auto found = t_.find("rope.periods");
        if (found == t_.end()) return;
        const at::Tensor periods = found->second.to(at::kDouble).flatten();
        const at::Tensor computed =
            at::pow(100, at::arange(periods.numel(), at::kDouble) / static_cast<double>(periods.numel()));
        s_.rope_bfloat16 = at::equal(periods, computed.to(at::kBFloat16).to(at::kDouble));
        constexpr double kFloatRounding = 1e-5;
        if (!s_.rope_bfloat16 && !at::allclose(periods, computed, kFloatRounding)) {
            fail("rope_embed.periods: found others than DINOv3's, 100^(k / ", periods.numel(), "), expected those");
        }
        t_.erase(found);
    }

    // ---- Positions ----

    // How many of the rows of pos_embed belong to prefix tokens, and the patches' grid.
    struct Places {
        std::int64_t own, height, width;
    };

    // A square, or what the config says.
    std::optional<Places> places_with(std::int64_t own, std::int64_t rows) const {
        const std::int64_t patches = rows - own;
        if (config_ && !config_->image_size.empty()) {
            const Places said{own, config_->image_size.front() / s_.patch_size,
                              config_->image_size.back() / s_.patch_size};
            if (said.height * said.width == patches) return said;
        }
        const auto side =
            static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(std::max<std::int64_t>(patches, 0)))));
        if (side < 1 || side * side != patches) return std::nullopt;
        return Places{own, side, side};
    }

    Places find_places(std::int64_t rows) const {
        const std::int64_t prefix = s_.prefix_tokens();
        std::vector<std::int64_t> candidates = {prefix, 0, 1,
                                                2};  // of all prefix tokens, of none, of those before registers
        for (const std::int64_t own : candidates) {
            if (own > prefix) continue;
            if (const auto found = places_with(own, rows)) return *found;
        }
        fail("pos_embed: found ", rows, " places, expected those of a square of patches, with or without ", prefix,
             " for the tokens before them");
    }

    void read_positions() {
        if (!s_.absolute_positions) {
            s_.image_size = config_ && !config_->image_size.empty() ? config_->image_size : std::vector{kRotarySize};
            if (s_.image_size.front() == s_.image_size.back()) s_.image_size.resize(1);
            if (!config_ || config_->image_size.empty()) {
                note("pictures of any size are taken: assumed ", kRotarySize, " pixels (--image-size)");
            }
            return;
        }
        const at::Tensor& positions = tensor("pos_embed", 3);
        if (positions.size(0) != 1 || positions.size(2) != s_.embed_dim) {
            fail("pos_embed: found ", shape_text(positions.sizes()), ", expected (1, tokens, ", s_.embed_dim, ')');
        }
        const Places places = find_places(positions.size(1));
        s_.image_size = {places.height * s_.patch_size, places.width * s_.patch_size};
        if (places.height == places.width) s_.image_size.resize(1);
        s_.prefix_positions = places.own == s_.prefix_tokens();
        if (!s_.prefix_positions && places.own > 0) fold_positions(places.own);
        s_.position_resampling = resampling();
    }

    // Places of the first prefix tokens alone: added to these tokens once, they are needed no more.
    void fold_positions(std::int64_t own) {
        at::Tensor& positions = t_.at("pos_embed");
        std::int64_t at = 0;
        for (const char* name : {"cls_token", "dist_token"}) {
            if (at < own && has(name)) {
                at::Tensor& token = t_.at(name);
                const at::Tensor sum = token.to(at::kFloat) + positions.slice(1, at, at + 1).to(at::kFloat);
                token = sum.to(at::promote_types(token.scalar_type(), positions.scalar_type()));
                ++at;
            }
        }
        if (at < own) fail("pos_embed has ", own, " places for prefix tokens, expected one for each of them or none");
        positions = positions.slice(1, own).contiguous();
    }

    // As the library that the weights are of resamples positions.
    std::string resampling() const {
        if (weights_.naming->library == "transformers") {
            return s_.registers > 0 && s_.layer_scale ? "antialiased" : "bicubic";
        }
        if (is_timm() && weights_.has_decoder) return "bicubic";  // MAE
        if (weights_.naming->library == "torchvision") return "aligned";
        const bool dinov2 = is_timm() && weights_.has_mask_token && s_.layer_scale;
        return dinov2 && s_.registers == 0 ? "offset" : "antialiased";
    }

    // ---- What no shape tells ----

    void read_numerics() {
        if (s_.mlp != "swiglu") s_.mlp = activation();
        s_.norm_epsilon = config_ && config_->norm_epsilon ? *config_->norm_epsilon : epsilon();
    }

    double epsilon() const {
        if (is_clip() || s_.rope == "dinov3") return 1e-5;
        const bool hugging_face_vit = weights_.naming->library == "transformers" && s_.class_token && !s_.layer_scale;
        return hugging_face_vit ? 1e-12 : 1e-6;
    }

    std::string activation() {
        if (!known_.activation.empty()) return known_.activation;
        if (of_openai_ && weights_.naming->library == "OpenAI") return "quick_gelu";
        if (config_ && !config_->mlp.empty()) return config_->mlp;
        const bool transformers = weights_.naming->library == "transformers";
        if (transformers && has("attn_pool.latent")) return "gelu_tanh";  // SigLIP
        if (transformers && is_clip()) return assumed("quick_gelu", "OpenAI's models have it there");
        if (is_clip()) return assumed("gelu", "OpenAI's CLIP has quick_gelu");
        if (has("attn_pool.latent")) return assumed("gelu", "a few of SigLIP's have gelu_tanh");
        return "gelu";
    }

    std::string assumed(const std::string& name, const std::string& reason) {
        note("no config.json says which activation the MLPs have: assumed ", name, " (", reason,
             "); --activation changes it");
        return name;
    }

    void read_heads_of_attention() {
        if (known_.num_heads > 0) {
            s_.num_heads = known_.num_heads;
        } else if (s_.qk_norm) {
            const std::int64_t width = tensor("blocks.0.attn.q_norm.weight").numel();
            if (width > 0) s_.num_heads = s_.embed_dim / width;
            if (config_ && config_->num_heads && *config_->num_heads != s_.num_heads) {
                fail("blocks.0.attn.q_norm is ", width, " wide, expected ", s_.embed_dim / *config_->num_heads,
                     ", for the ", *config_->num_heads, " heads of its config.json");
            }
        } else if (config_ && config_->num_heads) {
            s_.num_heads = *config_->num_heads;
        } else {
            s_.num_heads = heads_assumed();
            result_.heads_known = false;
        }
        if (s_.num_heads < 1 || s_.embed_dim % s_.num_heads != 0) {
            fail("num_heads: found ", s_.num_heads, ", expected a divisor of the ", s_.embed_dim, " channels");
        }
    }

    std::int64_t heads_assumed() {
        for (const HeadsOfWidth& other : kOtherHeads) {
            if (other.embed_dim == s_.embed_dim) return other.num_heads;
        }
        if (s_.embed_dim == kGiantOptWidth && s_.pooling == "map") return kGiantOptHeads;
        if (s_.embed_dim % kHeadWidth == 0) return s_.embed_dim / kHeadWidth;
        result_.incomplete =
            str("the number of heads is in no tensor's shape, and ", s_.embed_dim, " channels are no multiple of ",
                kHeadWidth, ", expected config.json beside the weights, or --num-heads");
        return 1;
    }

    // ---- The head ----

    void read_head() {
        read_pooling();
        const bool head = has("head.weight");
        if (!head && has("head.bias")) fail("has head.bias, but no head.weight");
        s_.num_classes = head ? tensor("head.weight", 2).size(0) : 0;
        s_.head_bias = !head || has("head.bias");
        if (!head) return;
        const std::int64_t inputs = t_.at("head.weight").size(1);
        if (inputs == 2 * s_.embed_dim && s_.pooling == "token" && !s_.distillation_token) s_.pooling = "token_mean";
        if (inputs == 5 * s_.embed_dim && s_.layer_scale) {
            fail(
                "head.weight: reads [CLS] behind each of the last four blocks, expected DINOv2's head of one layer "
                "(its hub's layers=1)");
        }
        if (inputs != s_.embedding_dim()) {
            fail("head.weight: found ", shape_text(t_.at("head.weight").sizes()), ", expected ", s_.embedding_dim(),
                 " inputs", s_.pooling == "token" ? str(" or ", 2 * s_.embed_dim) : "");
        }
        s_.projection = is_projection();
    }

    // CLIP's projection stands where a head does, and gives an embedding.
    bool is_projection() const {
        const bool tower = is_clip() || architecture().find("_clip_") != std::string::npos ||
                           weights_.prefix.ends_with("trunk.");  // open_clip's name of a model of timm's
        const bool without_bias =
            !has("head.bias") || (is_timm() && t_.at("head.bias").eq(0).all().item<bool>());  // timm adds one of zeros
        return tower && without_bias;
    }

    void read_pooling() {
        const std::string said = config_ && is_timm() ? config_->pooling : "";
        const bool norm = has("norm.weight"), fc_norm = has("fc_norm.weight");
        if (said == "avgmax" || said == "max") fail("pools by ", said, ", expected token, avg or map");
        if (norm && fc_norm) fail("has norm and fc_norm, expected one of them: which the head reads is not known");
        if (!norm && !fc_norm) fail("has no norm.weight (", whose_names(), " read as timm's)");
        if (has("attn_pool.latent")) return read_attention_pooling();
        if (is_image_classifier_of_clip()) return read_pooling_of_clip_classifier();
        const bool mean = said == "avg" || (said != "token" && (fc_norm || !s_.class_token));
        s_.pooling = mean ? "mean" : "token";
        s_.norm_after_pooling = mean && fc_norm;
        if (!mean && fc_norm) {  // of [CLS] alone, which is the same as of every token
            for (const std::string kind : {".weight", ".bias"})
                t_.emplace("norm" + kind, t_.extract("fc_norm" + kind).mapped());
        }
    }

    void read_attention_pooling() {
        // transformers' SiglipForImageClassification reads the patches' mean, whatever pooling lies beside.
        if (weights_.naming->library == "transformers" && has("head.weight")) {
            std::erase_if(t_, [](const auto& item) { return item.first.starts_with("attn_pool."); });
            s_.pooling = "mean";
            return;
        }
        if (s_.prefix_tokens() > 0)
            fail("has attention pooling beside ", s_.prefix_tokens(), " prefix tokens, expected none");
        if (tensor("attn_pool.latent").numel() != s_.embed_dim) {
            fail("attn_pool.latent: found ", shape_text(t_.at("attn_pool.latent").sizes()), ", expected one query");
        }
        s_.pooling = "map";
    }

    // transformers' CLIPForImageClassification reads the mean of the patches as the last block leaves them, whatever
    // norm lies beside.
    void read_pooling_of_clip_classifier() {
        for (const char* name : {"norm.weight", "norm.bias"}) t_.erase(name);
        weights_.notes.emplace_back(
            "post_layernorm is passed over: CLIPForImageClassification reads the last block's tokens without it");
        s_.pooling = "mean";
        s_.final_norm = false;
    }

    bool is_image_classifier_of_clip() const {
        return weights_.naming->library == "transformers" && is_clip() && has("head.bias");
    }

    // ---- Prediction modules ----

    void read_stages() {
        std::int64_t stages = 0;
        while (has(str("score_predictor.", stages, ".in_conv.0.weight"))) ++stages;
        for (std::int64_t i = 1; i <= stages; ++i) s_.pruning_loc.push_back(s_.depth * i / (stages + 1));
    }

    // ---- Pictures ----

    void read_preprocessing() {
        if (config_ && config_->preprocessing) {
            result_.preprocessing = config_->preprocessing;
            if (config_->picture_size > 0 && s_.image_size != std::vector{config_->picture_size}) {
                weights_.notes.push_back(str("pictures are made ", join(s_.image_size, " x "),
                                             " pixels large, as pos_embed has them; its preprocessor makes them ",
                                             config_->picture_size, " (--image-size)"));
            }
            return;
        }
        const std::string_view library = weights_.naming->library;
        const bool deit = weights_.prefix.ends_with("deit.");
        if (is_clip()) {
            result_.preprocessing = {.mean = kClipMean, .std = kClipStd, .crop_pct = 1};
        } else if (library == "torchvision") {
            result_.preprocessing = {.interpolation = "bilinear"};
        } else if (!deit && (s_.pooling == "map" || (library == "transformers" && !s_.layer_scale))) {
            result_.preprocessing = {.mean = {0.5, 0.5, 0.5}, .std = {0.5, 0.5, 0.5}, .crop = kSquash};
            assume_normalization("0.5", "as SigLIP and transformers' ViTs have it", "ImageNet's", "0.485,0.456,0.406",
                                 "0.229,0.224,0.225");
        } else if (deit || is_surely_of_imagenet()) {
            result_.preprocessing.emplace();
        } else if (!known_.normalization_known) {
            assume_normalization("ImageNet's", "as DeiT, DINO and MAE have it", "0.5, as most of timm's ViTs have it",
                                 "0.5", "0.5");
        }
    }

    // Kinds of models that nobody trained otherwise: DINOv2, DeiT-III, distilled DeiT, MAE.
    bool is_surely_of_imagenet() const {
        const bool deit3 = s_.layer_scale && s_.class_token && s_.registers == 0;
        return deit3 || s_.distillation_token || weights_.has_mask_token || weights_.has_decoder || s_.stages() > 0;
    }

    void assume_normalization(const char* taken, const char* reason, const char* others, const char* mean,
                              const char* std) {
        note("nothing says how pictures are normalized; without --mean and --std it is by ", taken, ", ", reason,
             "; for ", others, ": --mean ", mean, " --std ", std, ". The wrong ones cost about 7 points of top-1");
    }

    // ---- In words ----

    std::string zoo_name() const {
        for (const std::string& name : model_names()) {
            ModelSettings zoo = model_settings(name);
            zoo.name = s_.name;
            zoo.num_classes = s_.num_classes;
            zoo.pruning_loc = s_.pruning_loc;
            if (zoo == s_) return name;
        }
        return s_.name;
    }

    std::string whose_names() const {
        const std::string library(weights_.naming->library);
        return library + (library.ends_with('s') ? "' names" : "'s names");
    }

    std::string heads_text() const {
        if (!result_.incomplete.empty()) return "an unknown number of heads";
        return str(s_.num_heads, s_.num_heads > 1 ? " heads" : " head", result_.heads_known ? "" : " (assumed)");
    }

    std::string description() const {
        std::vector<std::string> parts = {str("vit ", s_.embed_dim, " wide"),
                                          str(s_.depth, s_.depth > 1 ? " blocks" : " block"), heads_text(),
                                          str("patch ", s_.patch_size, " (", whose_names(), ')')};
        if (s_.registers > 0) parts.push_back(str(s_.registers, s_.registers > 1 ? " registers" : " register"));
        if (s_.distillation_token) parts.emplace_back("a distillation token");
        if (!s_.class_token) parts.emplace_back("no [CLS]");
        if (s_.layer_scale) parts.emplace_back("LayerScale");
        if (!s_.qkv_bias) parts.emplace_back("no biases of queries, keys and values");
        if (s_.qk_norm) parts.emplace_back("norms of queries and keys");
        if (s_.rope != "none") parts.push_back(str("rotary positions as ", s_.rope));
        if (s_.mlp != "gelu") parts.push_back(s_.mlp);
        if (s_.pooling == "mean") parts.emplace_back("mean of the patches");
        if (s_.pooling == "map") parts.emplace_back("attention pooling");
        if (!s_.final_norm) parts.emplace_back("no norm behind the last block");
        if (s_.pooling == "token_mean") parts.emplace_back("[CLS] beside the patches' mean");
        parts.push_back(join(s_.image_size, " x ") + " px");
        if (s_.stages() > 0) parts.push_back(str(s_.stages(), " prediction modules"));
        parts.push_back(s_.classifies() ? str(s_.num_classes, s_.num_classes > 1 ? " classes" : " class",
                                              s_.head_bias ? "" : " without biases")
                                        : str("no classes: an embedding of ", s_.outputs()));
        return join(parts, ", ");
    }

    CanonicalWeights& weights_;
    TensorMap& t_;
    const std::optional<ModelConfig>& config_;
    const KnownParts& known_;
    const bool of_openai_;
    const std::string& file_;
    ModelSettings s_;
    RecognizedModel result_;
};

std::int64_t depth_of(const TensorMap& tensors) {
    std::int64_t depth = 0;
    while (tensors.contains(str("blocks.", depth, ".norm1.weight"))) ++depth;
    return depth;
}

}  // namespace

RecognizedModel recognize(CanonicalWeights& weights, const std::optional<ModelConfig>& config, const KnownParts& known,
                          bool of_openai, const std::string& file) {
    return Recognizer(weights, config, known, of_openai, file).recognize();
}

std::string disagreement(const ModelConfig& config, const CanonicalWeights& weights) {
    const at::Tensor& patches = weights.tensors.at("patch_embed.proj.weight");
    std::vector<std::string> found;
    const auto compare = [&](const char* what, const std::optional<std::int64_t>& said, std::int64_t is) {
        if (said && *said != is) found.push_back(str(what, ' ', *said, ", the weights' ", is));
    };
    compare("width", config.embed_dim, patches.size(0));
    compare("depth", config.depth, depth_of(weights.tensors));
    if (patches.dim() == 4) compare("patch size", config.patch_size, patches.size(3));
    return join(found, "; ");
}

std::string difference_from_zoo(const ModelSettings& s, const std::string& name) {
    const ModelSettings zoo = model_settings(name);
    std::vector<std::string> found;
    const auto compare = [&](const char* what, const auto& is, const auto& expected) {
        if (is != expected) found.push_back(str(std::boolalpha, what, ' ', is, ", ", name, "'s is ", expected));
    };
    compare("embed_dim", s.embed_dim, zoo.embed_dim);
    compare("depth", s.depth, zoo.depth);
    compare("num_heads", s.num_heads, zoo.num_heads);
    compare("patch_size", s.patch_size, zoo.patch_size);
    compare("mlp_ratio", s.mlp_ratio, zoo.mlp_ratio);
    compare("mlp", s.mlp, zoo.mlp);
    compare("layer_scale", s.layer_scale, zoo.layer_scale);
    compare("qk_norm", s.qk_norm, zoo.qk_norm);
    compare("qkv_bias", s.qkv_bias, zoo.qkv_bias);
    compare("norm_before_blocks", s.norm_before_blocks, zoo.norm_before_blocks);
    compare("class_token", s.class_token, zoo.class_token);
    compare("distillation_token", s.distillation_token, zoo.distillation_token);
    compare("registers", s.registers, zoo.registers);
    compare("pooling", s.pooling, zoo.pooling);
    compare("final_norm", s.final_norm, zoo.final_norm);
    return join(found, "; ");
}

}  // namespace dynvit
