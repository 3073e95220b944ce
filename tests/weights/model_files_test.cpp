// Files as people have them: folders, parts with an index, wrapped names, several models in one file. Each holds the
// weights of a small model, which must come out bit by bit.
#include "dynvit/weights/model_files.hpp"

#include <ATen/ATen.h>

#include <fstream>
#include <limits>

#include "dynvit/weights/model_file.hpp"
#include "models/golden_model.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

/// 128 channels, two blocks, a picture of 32 pixels in patches of 8.
ModelSettings small_settings() {
    ModelSettings s;
    s.name = "custom";
    s.image_size = {32};
    s.patch_size = 8;
    s.num_classes = 5;
    s.embed_dim = 128;
    s.depth = 2;
    s.num_heads = 2;
    s.mlp_ratio = 1;
    s.pruning_loc = {};
    return s;
}

TensorMap small_weights(std::uint64_t seed = 0) {
    return state_dict(*DynamicVit(small_settings(), test::generator(seed)));
}

TensorMap with_prefix(const std::string& prefix, const TensorMap& weights) {
    TensorMap renamed;
    for (const auto& [name, tensor] : weights) renamed.emplace(prefix + name, tensor);
    return renamed;
}

TensorMap both(TensorMap a, TensorMap b) {
    a.merge(b);
    return a;
}

void write(const fs::path& path, const std::string& text) {
    std::ofstream(path) << text;
}

class ModelFiles : public testing::Test {
  protected:
    ModelFile read(const TensorMap& tensors, const ReadOptions& options = {}) const {
        write_safetensors(folder_ / "w.safetensors", tensors);
        return read_model_file(folder_ / "w.safetensors", options);
    }
    std::string error(const TensorMap& tensors, const ReadOptions& options = {}) const {
        return test::error_of([&] { read(tensors, options); });
    }
    std::string path(const std::string& name) const { return (folder_ / name).string(); }

    test::TemporaryFolder folder_;
};

void expect_weights(const ModelFile& file, const TensorMap& weights) {
    ASSERT_TRUE(file.recognized);
    ASSERT_EQ(file.weights.size(), weights.size());
    for (const auto& [name, tensor] : weights) EXPECT_TRUE(file.weights.at(name).equal(tensor)) << name;
}

TEST_F(ModelFiles, WrappedNames) {
    const TensorMap weights = small_weights();
    for (const char* prefix :
         {"", "module.", "_orig_mod.module.", "model.backbone.", "net.encoder._orig_mod.", "any."}) {
        SCOPED_TRACE(prefix);
        expect_weights(read(with_prefix(prefix, weights)), weights);
    }
    TensorMap beside;  // the head beside the backbone
    for (const auto& [name, tensor] : weights) {
        beside.emplace((name.starts_with("head") ? "model." : "model.backbone.") + name, tensor);
    }
    expect_weights(read(beside), weights);
}

TEST_F(ModelFiles, SettingsOfAPlainModel) {
    const ModelFile file = read(small_weights());
    EXPECT_EQ(*file.settings, small_settings());
    EXPECT_FALSE(file.heads_known);
    EXPECT_EQ(file.description, "vit 128 wide, 2 blocks, 2 heads (assumed), patch 8 (timm's names), 32 px, 5 classes");
    EXPECT_EQ(read(small_weights(), {.known = {.num_heads = 4}}).settings->num_heads, 4);
}

TEST_F(ModelFiles, OneOfSeveralModels) {
    const TensorMap a = small_weights(1), b = small_weights(2);
    const TensorMap towers = both(with_prefix("student.", a), with_prefix("teacher.", b));
    EXPECT_EQ(error(towers), "[weights] " + path("w.safetensors") +
                                 ": holds several Vision Transformers, behind the prefixes \"student.\", \"teacher.\", "
                                 "expected one of them: --weights-prefix");
    expect_weights(read(towers, {.prefix = "teacher"}), b);
    EXPECT_EQ(error(towers, {.prefix = "model"}),
              "[weights] " + path("w.safetensors") +
                  ": no Vision Transformer has the prefix \"model\", expected one of \"student.\", \"teacher.\"");
    expect_weights(read(both(with_prefix("model.", a), with_prefix("ema.module.", b))), a);  // plain before average
}

TEST_F(ModelFiles, WhatNobodyNeedsStopsNothing) {
    const TensorMap weights = small_weights();
    TensorMap more = weights;
    more.emplace("decoder.weight", at::ones({2}));
    more.emplace("text_model.layer.0.weight", at::full({2}, std::numeric_limits<float>::quiet_NaN()));
    more.emplace("pre_logits.fc.weight", at::ones({2, 2}));
    more.emplace("steps", at::scalar_tensor(3, at::kLong));
    expect_weights(read(more), weights);
}

TEST_F(ModelFiles, AnotherKindOfModelIsRefused) {
    TensorMap other = small_weights();
    other.emplace("blocks.0.attn.relative_position_bias_table", at::ones({4, 2}));
    EXPECT_EQ(error(other), "[weights] " + path("w.safetensors") +
                                ": is no Vision Transformer that dynvit knows: it has 1 tensor that no model here has, "
                                "such as blocks.0.attn.relative_position_bias_table");
    TensorMap two_norms = small_weights();
    two_norms.emplace("fc_norm.weight", at::ones({128}));
    EXPECT_EQ(error(two_norms), "[weights] " + path("w.safetensors") +
                                    ": has norm and fc_norm, expected one of them: which the head reads is not known");
    TensorMap half_a_head = small_weights();
    half_a_head.erase("head.weight");
    EXPECT_EQ(error(half_a_head), "[weights] " + path("w.safetensors") + ": has head.bias, but no head.weight");
    EXPECT_EQ(test::error_of([&] {
                  settings_of(read({{"weight", at::ones({2})}}));
              }),
              "[weights] " + path("w.safetensors") +
                  ": holds no Vision Transformer that dynvit knows, found 1 tensors: weight");
}

TEST_F(ModelFiles, WeightsThatAreNotFinite) {
    for (const double value : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
        TensorMap weights = small_weights();
        weights.at("blocks.1.mlp.fc1.weight").index_put_({3, 4}, value);
        EXPECT_EQ(error(weights),
                  "[weights] " + path("w.safetensors") + ": blocks.1.mlp.fc1.weight holds numbers that are not finite");
    }
}

TEST_F(ModelFiles, Folders) {
    const TensorMap weights = small_weights(), other = small_weights(1);
    EXPECT_NE(test::error_of([&] { read_model_file(folder_.path()); }).find("holds no weights"), std::string::npos);
    write_safetensors(folder_ / "a.safetensors", other);
    expect_weights(read_model_file(folder_.path()), other);
    write_safetensors(folder_ / "b.safetensors", weights);
    EXPECT_EQ(test::error_of([&] { read_model_file(folder_.path()); }),
              "[weights] " + folder_.path().string() +
                  ": holds 2 weights files, expected one of them: a.safetensors, b.safetensors");
    write_safetensors(folder_ / "model.safetensors", weights);
    expect_weights(read_model_file(folder_.path()), weights);
}

TEST_F(ModelFiles, PartsThatAnIndexLists) {
    const TensorMap weights = small_weights();
    TensorMap first, second;
    std::string map;
    for (const auto& [name, tensor] : weights) {
        const bool early = first.size() < weights.size() / 2;
        (early ? first : second).emplace(name, tensor);
        map += str(map.empty() ? "" : ", ", '"', name, "\": \"model-0000", early ? 1 : 2, "-of-00002.safetensors\"");
    }
    write_safetensors(folder_ / "model-00001-of-00002.safetensors", first);
    EXPECT_EQ(test::error_of([&] { read_model_file(folder_ / "model-00001-of-00002.safetensors"); }),
              "[weights] " + path("model-00001-of-00002.safetensors") +
                  ": is one part of several, expected model.safetensors.index.json beside it, which lists them");
    write(folder_ / "model.safetensors.index.json", "{\"weight_map\": {" + map + "}}");
    EXPECT_EQ(test::error_of([&] { read_model_file(folder_.path()); }),
              "[weights] " + path("model.safetensors.index.json") +
                  ": lists model-00002-of-00002.safetensors, which is not there");
    write_safetensors(folder_ / "model-00002-of-00002.safetensors", second);
    for (const char* name : {"", "model.safetensors.index.json", "model-00002-of-00002.safetensors"}) {
        expect_weights(read_model_file(folder_ / name), weights);
    }
    write(folder_ / "model.safetensors.index.json", R"({"weight_map": {"a": "../w.safetensors"}})");
    EXPECT_NE(test::error_of([&] { read_model_file(folder_.path()); }).find("expected names of files beside it"),
              std::string::npos);
}

constexpr const char* kConfig = R"({"architecture": "vit_tiny", "global_pool": "token",
    "model_args": {"num_heads": 4, "depth": DEPTH}, "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2],
    "interpolation": "bilinear", "crop_pct": 0.9, "label_names": ["a", "b", "c", "d", "e"]}})";

std::string config_of_depth(int depth) {
    std::string text = kConfig;
    return text.replace(text.find("DEPTH"), 5, std::to_string(depth));
}

TEST_F(ModelFiles, ConfigBesideTheWeights) {
    write_safetensors(folder_ / "model.safetensors", small_weights());
    write(folder_ / "config.json", config_of_depth(2));
    const ModelFile file = read_model_file(folder_.path());
    EXPECT_EQ(file.settings->num_heads, 4);
    EXPECT_EQ(join(file.class_names, " "), "a b c d e");
    EXPECT_EQ(file.preprocessing->mean, (std::array<double, 3>{0.5, 0.4, 0.3}));
    EXPECT_EQ(file.preprocessing->interpolation, "bilinear");

    write(folder_ / "config.json", config_of_depth(12));  // another model's: an error in a folder, else passed over
    EXPECT_EQ(test::error_of([&] { read_model_file(folder_.path()); }),
              "[weights] " + path("config.json") + ": is of another model than the weights: depth 12, the weights' 2");
    EXPECT_EQ(read_model_file(folder_ / "model.safetensors").settings->num_heads, 2);
    write(folder_ / "config.json",
          R"({"architecture": )" + std::string(100'000, '[') + std::string(100'000, ']') + "}");
    EXPECT_EQ(test::error_of([&] { read_model_file(folder_.path()); }),
              "[weights] " + path("config.json") + ": is not valid JSON of an object");
    write(folder_ / "config.json", R"({"architecture": 3})");
    EXPECT_EQ(test::error_of([&] { read_model_file(folder_.path()); }),
              "[weights] " + path("config.json") + ": architecture: found 3, expected a string");
}

TEST_F(ModelFiles, ANameIsCheckedAgainstWhatWasRecognized) {
    const ModelFile file = read(small_weights());
    EXPECT_EQ(test::error_of([&] { zoo_settings("deit_tiny", file); }),
              "[weights] " + path("w.safetensors") +
                  ": is no deit_tiny, as --model says: embed_dim 128, deit_tiny's is 192; depth 2, deit_tiny's is 12; "
                  "patch_size 8, deit_tiny's is 16; mlp_ratio 1, deit_tiny's is 4 (it is " +
                  file.description + ")");
}

// A backbone without a head, of another library, starts a model with classes of its own.
TEST_F(ModelFiles, FineTuningStartsFromAnyBackbone) {
    const ModelFile file = read_model_file(test::golden("backbones/mae_pretrained/checkpoint.pth"),
                                           {.known = {.num_heads = 3, .normalization_known = true}});
    ModelSettings settings = *file.settings;
    settings.num_classes = 11;
    settings.pruning_loc = {1};
    DynamicVit model(settings, test::generator());
    load_weights(*model, file, Fit::kFineTune);
    EXPECT_TRUE(state_dict(*model).at("blocks.1.attn.qkv.weight").equal(file.weights.at("blocks.1.attn.qkv.weight")));
    EXPECT_NE(test::error_of([&] { load_weights(*model, file, Fit::kEvaluate); }).find("missing: head.weight"),
              std::string::npos);
    EXPECT_EQ(
        test::error_of([&] { check_classifies(file); }),
        "[weights] " + file.path.string() +
            ": has no head for classes: its outputs are an embedding of 24 numbers, expected a model that classifies");
}

}  // namespace
}  // namespace dynvit
