#include "dynvit/weights/model_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "json_fields.hpp"

namespace dynvit {
namespace {

// ---- Pictures -------------------------------------------------------------------------------------------------------

void read_colors(const JsonFields& fields, const std::string& key, std::array<double, 3>& value) {
    const std::vector<double> found = fields.reals(key);
    if (found.empty()) return;
    if (found.size() != 1 && found.size() != 3) {
        throw Error("weights", fields.file(), ": ", key, ": found ", found.size(), " numbers, expected one a colour");
    }
    for (std::size_t c = 0; c < value.size(); ++c) value[c] = found.size() == 1 ? found.front() : found[c];
}

// The crop's share, so that a crop of `crop` pixels is cut from `side`.
double crop_share(std::int64_t crop, std::int64_t side) {
    const double share = static_cast<double>(crop) / static_cast<double>(side);
    const bool rounds_off = static_cast<std::int64_t>(static_cast<double>(crop) / share) < side;
    return std::clamp(rounds_off ? std::nextafter(share, 0) : share, 0.1, 1.0);
}

void read_interpolation(const std::string& name, ModelConfig& config) {
    constexpr std::string_view kKnown[] = {"bicubic", "bilinear", "lanczos"};
    if (name.empty()) return;
    if (std::ranges::find(kKnown, name) != std::end(kKnown)) {
        config.preprocessing->interpolation = name;
    } else {
        config.notes.push_back(str("pictures are resized ", config.preprocessing->interpolation, ", not ", name));
    }
}

// timm's and open_clip's.
void read_crop_mode(const std::string& name, ModelConfig& config) {
    if (name == "squash") config.preprocessing->crop = kSquash;
    if (name == "border" || name == "longest") {
        config.notes.push_back("pictures are cropped in their middle, not framed to the model's size");
    }
}

// ---- timm -----------------------------------------------------------------------------------------------------------

// SigLIP's GELU is the tanh form in these architectures, the exact one in all others.
constexpr std::string_view kTanhArchitectures[] = {"vit_so400m_patch16_siglip", "vit_giantopt_patch16_siglip",
                                                   "vit_base_patch32_siglip", "vit_large_patch16_siglip"};

// The last two have it at some sizes alone.
bool is_tanh_architecture(const std::string& name) {
    const auto starts = [&](std::string_view start) { return name.starts_with(start); };
    if (std::ranges::none_of(kTanhArchitectures, starts)) return false;
    if (starts("vit_base_patch32_siglip")) return name.ends_with("_256");
    return !starts("vit_large_patch16_siglip") || name.ends_with("_512");
}

std::string timm_activation(const std::string& architecture) {
    if (architecture.find("quickgelu") != std::string::npos) return "quick_gelu";
    return is_tanh_architecture(architecture) ? "gelu_tanh" : "gelu";
}

ModelConfig timm_config(const JsonFields& root) {
    const JsonFields pretrained = root.has("pretrained_cfg") ? root.section("pretrained_cfg") : root;
    const JsonFields arguments = root.has("model_args") ? root.section("model_args") : JsonFields(root.file(), {});
    ModelConfig config;
    config.library = "timm";
    config.architecture = root.text("architecture");
    config.num_heads = arguments.number("num_heads");
    config.embed_dim = arguments.number("embed_dim");
    config.depth = arguments.number("depth");
    config.patch_size = arguments.number("patch_size");
    const std::vector<std::int64_t> input = pretrained.numbers("input_size");  // colours, height, width
    if (input.size() == 3) config.image_size = {input[1], input[2]};
    const bool clip = config.architecture.find("clip") != std::string::npos;
    const bool dinov3 = config.architecture.find("dinov3") != std::string::npos;
    config.norm_epsilon = dinov3 || (clip && !config.architecture.starts_with("eva")) ? 1e-5 : 1e-6;
    const std::vector<std::int64_t> grid = arguments.numbers("ref_feat_shape");
    if (!grid.empty()) config.rope_grid = grid.front();
    config.mlp = timm_activation(config.architecture);
    config.pooling = root.text("global_pool");
    if (!config.num_heads && config.architecture.starts_with("vit_base_patch16_gap_")) config.num_heads = 16;
    Preprocessing& pictures = config.preprocessing.emplace();
    read_colors(pretrained, "mean", pictures.mean);
    read_colors(pretrained, "std", pictures.std);
    pictures.crop_pct = std::clamp(pretrained.real("crop_pct").value_or(pictures.crop_pct), 0.1, 1.0);
    read_interpolation(pretrained.text("interpolation"), config);
    read_crop_mode(pretrained.text("crop_mode"), config);
    config.class_names = pretrained.has("label_names") ? pretrained.texts("label_names") : root.texts("label_names");
    return config;
}

// ---- transformers ---------------------------------------------------------------------------------------------------

struct Named {
    std::string_view name, here;
};

constexpr Named kActivations[] = {
    {"gelu", "gelu"},
    {"gelu_python", "gelu"},
    {"gelu_pytorch_tanh", "gelu_tanh"},
    {"gelu_new", "gelu_tanh"},
    {"gelu_fast", "gelu_tanh"},
    {"gelu_accurate", "gelu_tanh"},
    {"quick_gelu", "quick_gelu"},
};

// What a key that is missing stands for: releases of transformers left out what is as it is by default.
struct Defaults {
    std::string_view model_type;
    double norm_epsilon;
    std::string_view activation;
};

constexpr Defaults kDefaults[] = {
    {"clip", 1e-5, "quick_gelu"}, {"siglip", 1e-6, "gelu_pytorch_tanh"},
    {"dinov2", 1e-6, "gelu"},     {"dinov3", 1e-5, "gelu"},
    {"", 1e-12, "gelu"},  // ViT, DeiT
};

constexpr std::int64_t kDefaultHeads = 12;  // in every one of them

std::string activation_here(const std::string& name, const JsonFields& fields) {
    if (name == "silu" || name == "swish") return "gelu";  // a gated layer's, which shapes tell
    for (const Named& known : kActivations) {
        if (known.name == name) return std::string(known.here);
    }
    std::vector<std::string_view> names;
    for (const Named& known : kActivations) names.push_back(known.name);
    throw Error("weights", fields.file(), ": hidden_act: found ", name, ", expected one of ", join(names, ", "));
}

// id2label's names, in the order of their numbers; none where they are LABEL_0 and so on.
std::vector<std::string> labels(const JsonFields& root) {
    if (!root.has("id2label")) return {};
    const JsonFields by_number = root.section("id2label");
    std::vector<std::string> names;
    for (std::size_t i = 0; by_number.has(std::to_string(i)); ++i) names.push_back(by_number.text(std::to_string(i)));
    const bool placeholders = std::ranges::all_of(names, [](const auto& name) { return name.starts_with("LABEL_"); });
    return placeholders || names.size() != by_number.size() ? std::vector<std::string>() : names;
}

// PIL's numbers.
std::string interpolation_of(std::int64_t number) {
    constexpr std::string_view kNames[] = {"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"};
    return number < std::ssize(kNames) ? std::string(kNames[number]) : str("PIL's filter ", number);
}

// A size is a number, {shortest_edge} or {height, width}.
struct Size {
    std::int64_t shortest = 0, height = 0, width = 0;

    std::int64_t side() const { return shortest > 0 ? shortest : std::min(height, width); }
};

Size size_in(const JsonFields& fields, const std::string& key, bool number_is_shortest) {
    if (!fields.has(key)) return {};
    if (fields.is_number(key)) {
        const std::int64_t side = *fields.number(key);
        return number_is_shortest ? Size{side, 0, 0} : Size{0, side, side};
    }
    const JsonFields size = fields.section(key);
    return {size.number("shortest_edge").value_or(0), size.number("height").value_or(0),
            size.number("width").value_or(0)};
}

void read_preprocessor(const JsonFields& fields, ModelConfig& config) {
    Preprocessing& pictures = config.preprocessing.emplace();
    pictures.mean.fill(0.5);
    pictures.std.fill(0.5);
    read_colors(fields, "image_mean", pictures.mean);
    read_colors(fields, "image_std", pictures.std);
    if (!fields.truth("do_normalize", true)) {
        pictures.mean.fill(0);
        pictures.std.fill(1);
    }
    if (const auto filter = fields.number("resample")) read_interpolation(interpolation_of(*filter), config);
    const bool crops = fields.truth("do_center_crop");
    const Size size = size_in(fields, "size", crops), crop = size_in(fields, "crop_size", false);
    if (!crops || crop.side() == 0) {
        pictures.crop = size.shortest > 0 ? kCenterCrop : kSquash;
        if (size.shortest > 0) pictures.crop_pct = 1;
        config.picture_size = size.side();
        return;
    }
    config.picture_size = crop.side();
    if (size.side() > 0) pictures.crop_pct = crop_share(crop.side(), std::max(size.side(), crop.side()));
    if (size.shortest == 0 && size.height > 0) {
        config.notes.push_back(str("pictures keep their aspect ratio where transformers makes them ", size.height,
                                   " x ", size.width, " before the crop"));
    }
}

ModelConfig transformers_config(const JsonFields& root) {
    const JsonFields vision = root.has("vision_config") ? root.section("vision_config") : root;
    ModelConfig config;
    config.library = "transformers";
    config.architecture = root.text("model_type");
    const auto fits = [&](const Defaults& one) { return config.architecture.starts_with(one.model_type); };
    const Defaults& defaults = *std::ranges::find_if(kDefaults, fits);
    config.embed_dim = vision.number("hidden_size");
    config.depth = vision.number("num_hidden_layers");
    config.num_heads = vision.number("num_attention_heads").value_or(kDefaultHeads);
    config.patch_size = vision.number("patch_size");
    config.image_size = vision.numbers("image_size");
    config.norm_epsilon = vision.real("layer_norm_eps").value_or(defaults.norm_epsilon);
    constexpr double kRotaryBase = 100;
    if (const double base = vision.real("rope_theta").value_or(kRotaryBase); base != kRotaryBase) {
        throw Error("weights", vision.file(), ": rope_theta: found ", base, ", expected ", kRotaryBase);
    }
    const std::string activation = vision.text("hidden_act");
    config.mlp = activation_here(activation.empty() ? std::string(defaults.activation) : activation, vision);
    config.class_names = labels(root);
    const std::filesystem::path preprocessor =
        std::filesystem::path(root.file()).parent_path() / "preprocessor_config.json";
    if (std::filesystem::exists(preprocessor)) read_preprocessor(JsonFields::of_file(preprocessor), config);
    return config;
}

// ---- open_clip ------------------------------------------------------------------------------------------------------

std::optional<ModelConfig> open_clip_config(const JsonFields& root) {
    const JsonFields model = root.section("model_cfg");
    if (!model.has("vision_cfg")) return std::nullopt;
    const JsonFields vision = model.section("vision_cfg"), pictures = root.section("preprocess_cfg");
    ModelConfig config;
    config.library = "open_clip";
    Preprocessing& own = config.preprocessing.emplace();
    own.mean = kClipMean;
    own.std = kClipStd;
    own.crop_pct = 1;
    read_colors(pictures, "mean", own.mean);
    read_colors(pictures, "std", own.std);
    read_interpolation(pictures.text("interpolation"), config);
    read_crop_mode(pictures.text("resize_mode"), config);
    config.image_size = vision.numbers("image_size");
    config.patch_size = vision.number("patch_size");
    if (vision.has("timm_model_name")) {
        config.architecture = vision.text("timm_model_name");
        config.norm_epsilon = 1e-6;
        config.mlp = timm_activation(config.architecture);
        const std::string pooling = vision.text("timm_pool");
        config.pooling = pooling == "map" || pooling == "avg" || pooling == "token" ? pooling : "";
        return config;
    }
    config.embed_dim = vision.number("width");
    config.depth = vision.number("layers");
    constexpr std::int64_t kHeadWidth = 64;
    const std::int64_t head_width = std::max<std::int64_t>(1, vision.number("head_width").value_or(kHeadWidth));
    if (config.embed_dim) config.num_heads = *config.embed_dim / head_width;
    config.norm_epsilon = 1e-5;
    config.mlp = model.truth("quick_gelu") ? "quick_gelu" : "gelu";
    return config;
}

}  // namespace

std::optional<ModelConfig> read_model_config(const std::filesystem::path& path) {
    const JsonFields root = JsonFields::of_file(path);
    std::optional<ModelConfig> config;
    if (root.has("model_cfg")) {
        config = open_clip_config(root);
    } else if (root.has("architecture")) {
        config = timm_config(root);
    } else if (root.has("model_type")) {
        config = transformers_config(root);
    }
    if (config) config->path = path;
    return config;
}

}  // namespace dynvit
