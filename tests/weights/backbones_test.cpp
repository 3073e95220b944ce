// Compares models read from files of other libraries with what those libraries make of the same pictures: small models
// of every family in golden/backbones, whose README says how they were made.
#include <ATen/ATen.h>

#include <cstdio>
#include <map>

#include "dynvit/core/config.hpp"
#include "dynvit/weights/model_file.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"
#include "support.hpp"
#include "tensor_support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 5e-5;  // of a standard deviation; the least mistake that is known moves them by 4e-4

/// A small model's settings, beside those of nearly all.
ModelSettings small(std::int64_t classes = 7) {
    ModelSettings s;
    s.name = "custom";
    s.image_size = {40};
    s.patch_size = 8;
    s.num_classes = classes;
    s.embed_dim = 24;
    s.depth = 2;
    s.num_heads = 3;
    s.mlp_ratio = 2;
    s.pruning_loc = {};
    return s;
}

template <class Change>
ModelSettings small_with(Change change, std::int64_t classes = 7) {
    ModelSettings s = small(classes);
    change(s);
    return s;
}

/// What transformers' models have otherwise than timm's.
void of_transformers(ModelSettings& s) {
    s.norm_epsilon = 1e-12;
    s.position_resampling = "bicubic";
}

void of_dinov2(ModelSettings& s) {
    s.layer_scale = true;
    s.position_resampling = "offset";
}

void of_deit3(ModelSettings& s) {
    s.layer_scale = true;
    s.prefix_positions = false;
}

void of_dinov2_reg4(ModelSettings& s) {
    of_deit3(s);
    s.registers = 4;
}

void of_clip(ModelSettings& s) {
    s.norm_epsilon = 1e-5;
    s.norm_before_blocks = true;
    s.patch_bias = false;
}

void of_openai(ModelSettings& s) {
    of_clip(s);
    s.projection = true;
    s.head_bias = false;
    s.mlp_ratio = 4;
}

void of_siglip(ModelSettings& s) {
    s.class_token = false;
    s.pooling = "map";
}

void of_transformers_siglip(ModelSettings& s) {
    of_siglip(s);
    s.mlp = "gelu_tanh";
    s.position_resampling = "bicubic";
}

void of_rotary(ModelSettings& s) {
    s.embed_dim = 32;
    s.num_heads = 2;
}

void of_dinov3(ModelSettings& s) {
    of_rotary(s);
    s.rope = "dinov3";
    s.absolute_positions = false;
    s.registers = 4;
    s.layer_scale = true;
    s.norm_epsilon = 1e-5;
}

// Its own files, which do not say the pictures' size.
void of_dinov3_itself(ModelSettings& s) {
    of_dinov3(s);
    s.image_size = {224};
    s.rope_bfloat16 = true;
}

void of_eva02(ModelSettings& s) {
    of_rotary(s);
    s.rope = "eva02";
    s.rope_grid = 4;
    s.mlp = "swiglu";
    s.mlp_ratio = 42.0 / 32;
}

struct Family {
    ModelSettings settings;
    /// Of images.2, where the file's own library has another way than the one that is taken: DeiT and MAE are read as
    /// timm reads them.
    std::string resampling_2 = {};
};

const std::map<std::string, Family>& families() {
    using S = ModelSettings;
    static const std::map<std::string, Family> all = {
        {"vit_augreg", {small_with([](S& s) { s.depth = 3; })}},
        {"vit_augreg_bare", {small(41)}},
        {"vit_pre_logits", {small()}},
        {"vit_gap_layer_scale", {small_with([](S& s) {
             s.class_token = false;
             s.layer_scale = true;
             s.qkv_bias = false;
             s.pooling = "mean";
         })}},
        {"vit_gap_fc_norm", {small_with([](S& s) {
             s.pooling = "mean";
             s.norm_after_pooling = true;
         })}},
        {"vit_reg4", {small_with(of_dinov2_reg4)}},
        {"vit_reg4_embedded", {small_with([](S& s) {
             s.class_token = false;
             s.registers = 4;
             s.pooling = "mean";
         })}},
        {"vit_reg1_gap", {small_with([](S& s) {
             s.class_token = false;
             s.registers = 1;
             s.layer_scale = true;
             s.prefix_positions = false;
             s.pooling = "mean";
             s.norm_after_pooling = true;
         })}},
        {"vit_no_qkv_bias_qk_norm", {small_with([](S& s) {
             s.qkv_bias = false;
             s.qk_norm = true;
         })}},
        {"deit", {small(), "bicubic"}},
        {"deit_distilled", {small_with([](S& s) { s.distillation_token = true; }), "bicubic"}},
        {"deit3", {small_with(of_deit3), "bicubic"}},
        {"timm_deit_distilled", {small_with([](S& s) { s.distillation_token = true; })}},
        {"timm_deit3", {small_with(of_deit3)}},
        {"mae_finetuned",
         {small_with([](S& s) {
              s.pooling = "mean";
              s.norm_after_pooling = true;
          }),
          "bicubic"}},
        {"mae_pretrained", {small_with([](S& s) { s.position_resampling = "bicubic"; }, 0)}},
        {"dinov2",
         {small_with(
             [](S& s) {
                 of_dinov2(s);
                 s.image_size = {70};
                 s.patch_size = 14;
             },
             0)}},
        {"dinov2_chunks",
         {small_with(
             [](S& s) {
                 of_dinov2(s);
                 s.depth = 4;
             },
             0)}},
        {"dinov2_reg4", {small_with(of_dinov2_reg4, 0)}},
        {"dinov2_giant",
         {small_with(
             [](S& s) {
                 of_dinov2(s);
                 s.mlp = "swiglu";
                 s.mlp_ratio = 32.0 / 24;
             },
             0)}},
        {"timm_dinov2_reg4", {small_with(of_dinov2_reg4, 0)}},
        {"timm_dinov2_giant",
         {small_with(
             [](S& s) {
                 s.layer_scale = true;
                 s.registers = 4;
                 s.prefix_positions = false;
                 s.mlp = "swiglu";
                 s.mlp_ratio = 64.0 / 24;
             },
             0)}},
        {"hf_vit", {small_with(of_transformers)}},
        {"hf_vit_backbone", {small_with(of_transformers, 0)}},
        {"hf_deit", {small_with(of_transformers)}},
        {"hf_deit_one_head", {small_with([](S& s) {
             of_transformers(s);
             s.registers = 1;  // nobody reads the distillation token
         })}},
        {"hf_deit_distilled", {small_with([](S& s) {
             of_transformers(s);
             s.distillation_token = true;
         })}},
        {"hf_dinov2", {small_with([](S& s) {
             s.layer_scale = true;
             s.position_resampling = "bicubic";
             s.pooling = "token_mean";
         })}},
        {"hf_dinov2_backbone",
         {small_with(
             [](S& s) {
                 s.layer_scale = true;
                 s.position_resampling = "bicubic";
             },
             0)}},
        {"hf_dinov2_reg4", {small_with([](S& s) {
             s.layer_scale = true;
             s.registers = 4;
             s.prefix_positions = false;
             s.pooling = "token_mean";
         })}},
        {"hf_dinov2_giant",
         {small_with(
             [](S& s) {
                 s.layer_scale = true;
                 s.position_resampling = "bicubic";
                 s.mlp = "swiglu";
                 s.mlp_ratio = 32.0 / 24;
             },
             0)}},
        {"openai_clip",
         {small_with(
             [](S& s) {
                 of_openai(s);
                 s.embed_dim = 64;
                 s.num_heads = 1;
                 s.mlp = "quick_gelu";
             },
             16)}},
        {"openai_clip_jit",
         {small_with(
             [](S& s) {
                 of_openai(s);
                 s.embed_dim = 64;
                 s.num_heads = 1;
                 s.depth = 1;
                 s.mlp = "quick_gelu";
             },
             16)}},
        {"open_clip",
         {small_with(
             [](S& s) {
                 of_openai(s);
                 s.embed_dim = 32;
                 s.num_heads = 2;
             },
             16)}},
        {"hf_clip",
         {small_with(
             [](S& s) {
                 of_clip(s);
                 s.projection = true;
                 s.head_bias = false;
                 s.mlp = "quick_gelu";
                 s.position_resampling = "bicubic";
             },
             16)}},
        {"hf_clip_classifier", {small_with([](S& s) {
             of_clip(s);
             s.mlp = "quick_gelu";
             s.position_resampling = "bicubic";
             s.pooling = "mean";
             s.final_norm = false;
         })}},
        {"hf_clip_both_towers",
         {small_with(
             [](S& s) {
                 of_clip(s);
                 s.projection = true;
                 s.head_bias = false;
                 s.position_resampling = "bicubic";
             },
             16)}},
        {"timm_clip", {small_with(of_clip)}},
        {"timm_clip_quickgelu",
         {small_with(
             [](S& s) {
                 of_clip(s);
                 s.mlp = "quick_gelu";
             },
             16)}},
        {"siglip_timm", {small_with(of_siglip, 0)}},
        {"siglip_timm_tanh",
         {small_with(
             [](S& s) {
                 of_siglip(s);
                 s.mlp = "gelu_tanh";
             },
             0)}},
        {"siglip_gap_timm",
         {small_with(
             [](S& s) {
                 s.class_token = false;
                 s.pooling = "mean";
             },
             0)}},
        {"open_clip_siglip", {small_with(of_siglip, 0)}},
        {"hf_siglip", {small_with(of_transformers_siglip, 0)}},
        {"hf_siglip_both_towers", {small_with(of_transformers_siglip, 0)}},
        {"dinov3", {small_with(of_dinov3_itself, 0)}},
        {"dinov3_swiglu",
         {small_with(
             [](S& s) {
                 of_dinov3_itself(s);
                 s.mlp = "swiglu";
             },
             0)}},
        {"dinov3_7b",
         {small_with(
             [](S& s) {
                 of_dinov3_itself(s);
                 s.mlp = "swiglu";
                 s.qkv_bias = false;
             },
             0)}},
        {"timm_dinov3",
         {small_with(
             [](S& s) {
                 of_dinov3(s);
                 s.image_size = {256};  // config.json says it
                 s.pooling = "mean";
             },
             0)}},
        {"timm_dinov3_plus",
         {small_with(
             [](S& s) {
                 of_dinov3(s);
                 s.image_size = {256};
                 s.pooling = "mean";
                 s.mlp = "swiglu";
                 s.qkv_bias = false;
             },
             0)}},
        {"hf_dinov3", {small_with(of_dinov3, 0)}},
        {"hf_dinov3_swiglu",
         {small_with(
             [](S& s) {
                 of_dinov3(s);
                 s.mlp = "swiglu";
                 s.mlp_ratio = 1.5;
             },
             0)}},
        {"torchvision_vit", {small_with([](S& s) { s.position_resampling = "aligned"; })}},
        {"eva02", {small_with([](S& s) {
             of_eva02(s);
             s.mlp_norm = true;
             s.pooling = "mean";
             s.norm_after_pooling = true;
         })}},
        {"eva02_small_no_norm", {small_with([](S& s) {
             of_eva02(s);
             s.pooling = "mean";
             s.norm_after_pooling = true;
         })}},
        {"eva02_clip",
         {small_with(
             [](S& s) {
                 of_eva02(s);
                 s.mlp_norm = true;
                 s.attention_norm = true;
             },
             16)}},
    };
    return all;
}

fs::path folder_of(const std::string& family) {
    return test::golden("backbones/" + family);
}

/// What a user would give: the folder as it was downloaded or, where the golden outputs lie beside, the file.
fs::path given(const std::string& family) {
    fs::path folder = folder_of(family);
    for (const char* name : {"checkpoint.pth", "model.pt"}) {
        if (fs::exists(folder / name)) return folder / name;
    }
    return folder;
}

/// The number of heads, which no tensor has, where no config.json has it: these models have none of the usual width.
/// open_clip's has none of a tower of timm's.
ReadOptions options_for(const std::string& family) {
    const fs::path folder = folder_of(family);
    if (fs::exists(folder / "config.json") || family == "open_clip") return {};
    const std::string about = read_safetensors(folder / "expected.safetensors").metadata.at("about");
    const std::string key = "\"num_heads\": \"";
    return {.known = {.num_heads = std::stol(about.substr(about.find(key) + key.size()))}};
}

/// The largest difference in standard deviations of what is expected.
double difference(const at::Tensor& found, const at::Tensor& expected) {
    if (found.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
    return ((found - expected).abs().max() / expected.std()).item<double>();
}

VisionTransformerImpl::Output run_training_model(DynamicVit& model, const at::Tensor& images) {
    VisionTransformerImpl& backbone = model->backbone();
    at::Tensor x = backbone.embed(images);
    for (std::int64_t i = 0; i < model->settings().depth; ++i) x = backbone.run_block(i, x);
    return backbone.read_out({x});
}

DynamicVit load(const ModelFile& file, const ModelSettings& settings) {
    DynamicVit model(settings, test::generator());
    load_weights(*model, file, Fit::kEvaluate);
    model->eval();
    return model;
}

/// Training and inference against the library at one size. @param suffix of the golden tensors: "", ".2", ".3"
void expect_library_outputs(const std::string& name, const ModelFile& file, ModelSettings settings,
                            const TensorMap& expected, const std::string& suffix) {
    const auto found = expected.find("images" + suffix);
    if (found == expected.end()) return;
    const at::NoGradGuard no_grad;
    const at::Tensor images = found->second.to(at::kFloat), logits = expected.at("logits" + suffix);
    settings.image_size = {images.size(2), images.size(3)};
    if (suffix == ".2" && !families().at(name).resampling_2.empty()) {
        settings.position_resampling = families().at(name).resampling_2;
    }
    DynamicVit model = load(file, settings);
    const auto trained = run_training_model(model, images);
    const double training = difference(trained.logits, logits);
    const double inference = difference(test::prune(model, images, {}).logits, logits);
    std::printf("%-24s %3ld x %3ld  training %.1e  inference %.1e\n", name.c_str(), images.size(2), images.size(3),
                training, inference);
    EXPECT_LT(training, kTolerance) << suffix;
    EXPECT_LT(inference, kTolerance) << suffix;
    if (suffix.empty() && expected.contains("features")) {
        EXPECT_LT(difference(trained.features, expected.at("features")), kTolerance);
    }
}

class Backbones : public testing::TestWithParam<std::string> {};

TEST_P(Backbones, GiveTheirLibrarysOutputs) {
    const Family& family = families().at(GetParam());
    const ModelFile file = read_model_file(given(GetParam()), options_for(GetParam()));
    ASSERT_TRUE(file.recognized);
    EXPECT_EQ(write_config(*file.settings, false), write_config(family.settings, false));
    const TensorMap expected = read_safetensors(folder_of(GetParam()) / "expected.safetensors").tensors;
    for (const char* suffix : {"", ".2", ".3"}) {
        expect_library_outputs(GetParam(), file, *file.settings, expected, suffix);
    }
}

std::vector<std::string> names_of_families() {
    std::vector<std::string> names;
    for (const auto& [name, family] : families()) names.push_back(name);
    return names;
}

INSTANTIATE_TEST_SUITE_P(Families, Backbones, testing::ValuesIn(names_of_families()),
                         [](const auto& info) { return info.param; });

TEST(BackbonesBeside, EveryGoldenFamilyIsTested) {
    for (const fs::directory_entry& entry : fs::directory_iterator(test::golden("backbones"))) {
        if (!entry.is_directory()) continue;
        const std::string name = entry.path().filename().string();
        EXPECT_TRUE(families().contains(name)) << name;
    }
}

std::string preprocessing_of(const std::string& name) {
    const ModelFile file = read_model_file(given(name), options_for(name));
    if (!file.preprocessing) return "not known";
    const Preprocessing& p = *file.preprocessing;
    const std::int64_t side = file.settings->image_height();
    return str(p.mean[0], ' ', p.std[0], ' ', p.interpolation, ' ', p.crop,
               p.crop == kCenterCrop ? str(' ', short_side(p, side, side)) : "");
}

TEST(BackbonesBeside, PicturesArePreparedAsConfigsSay) {
    const std::map<std::string, std::string> expected = {
        {"vit_augreg", "0.5 0.5 bicubic center 44"},  // crop_pct 0.9 of 40
        {"vit_augreg_bare", "not known"},
        {"timm_deit3", "0.485 0.229 bicubic center 40"},
        {"deit3", "0.485 0.229 bicubic center 45"},  // no config: the family's, 40 / 0.875
        {"hf_vit", "0.5 0.5 bilinear squash"},
        {"hf_deit", "0.5 0.5 bicubic center 46"},
        {"hf_dinov2", "0.485 0.229 bicubic center 46"},
        {"hf_clip", "0.481455 0.26863 bicubic center 40"},
        {"openai_clip", "0.481455 0.26863 bicubic center 40"},
        {"open_clip", "0.481455 0.26863 bicubic center 40"},
        {"hf_siglip", "0.5 0.5 bicubic squash"},
        {"open_clip_siglip", "0.5 0.5 bicubic squash"},
        {"hf_clip_classifier", "0.481455 0.26863 bicubic center 40"},
        {"torchvision_vit", "0.485 0.229 bilinear center 45"},  // no config: the family's, 40 / 0.875
    };
    for (const auto& [name, text] : expected) EXPECT_EQ(preprocessing_of(name), text) << name;
}

// DINOv2's hub has models of a backbone and a linear head on [CLS] beside the patches' mean.
TEST(BackbonesBeside, Dinov2WithItsLinearHead) {
    const fs::path folder = folder_of("dinov2");
    const test::TemporaryFolder made;
    TensorMap both;
    for (const auto& [name, tensor] : read_pth(folder / "checkpoint.pth").tensors) both["backbone." + name] = tensor;
    for (const auto& [name, tensor] : read_pth(folder / "linear_head.pth").tensors)
        both["linear_head." + name] = tensor;
    write_safetensors(made / "both.safetensors", both);
    const ModelFile file = read_model_file(made / "both.safetensors", {.known = {.num_heads = 3}});
    EXPECT_EQ(file.settings->pooling, "token_mean");
    const TensorMap expected = read_safetensors(folder / "expected.safetensors").tensors;
    const at::NoGradGuard no_grad;
    DynamicVit model = load(file, *file.settings);
    EXPECT_LT(difference(run_training_model(model, expected.at("images").to(at::kFloat)).logits,
                         expected.at("linear_logits")),
              kTolerance);
}

// Its hub's other head reads four blocks' [CLS], which only the last block has here.
TEST(BackbonesBeside, Dinov2WithAHeadOfFourLayersIsRefused) {
    const test::TemporaryFolder made;
    TensorMap both;
    for (const auto& [name, tensor] : read_pth(folder_of("dinov2") / "checkpoint.pth").tensors)
        both["backbone." + name] = tensor;
    both["linear_head.weight"] = at::zeros({7, 5 * 24});
    both["linear_head.bias"] = at::zeros(7);
    const fs::path file = made / "both.safetensors";
    write_safetensors(file, both);
    EXPECT_EQ(test::error_of([&] { read_model_file(file, {.known = {.num_heads = 3}}); }),
              str("[weights] ", file.string(),
                  ": head.weight: reads [CLS] behind each of the last four blocks, expected DINOv2's head of one layer "
                  "(its hub's layers=1)"));
}

// A classifier whose bias is still zero is one all the same; timm's CLIP has such a bias beside a projection.
TEST(BackbonesBeside, AClassifierOfClipWithoutABiasYetClassifies) {
    const test::TemporaryFolder made;
    const fs::path folder = folder_of("hf_clip_classifier");
    TensorMap weights = read_safetensors(folder / "model.safetensors").tensors;
    weights.at("classifier.bias").zero_();
    write_safetensors(made / "model.safetensors", weights);
    fs::copy(folder / "config.json", made / "config.json");
    const ModelFile file = read_model_file(made.path());
    EXPECT_TRUE(file.settings->classifies());
    EXPECT_FALSE(file.settings->final_norm);
}

}  // namespace
}  // namespace dynvit
