// Compares models loaded from PyTorch's checkpoints with the same model loaded from safetensors: equal weights must
// give equal outputs, bit by bit.
#include "dynvit/weights/model_file.hpp"

#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "dynvit/infer/pruned_vit.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/weights/canonical_weights.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

struct Outputs {
    at::Tensor dense, pruned;  // logits
};

Outputs outputs(const ModelFile& file) {
    const at::NoGradGuard no_grad;
    DynamicVit model(test::tiny_settings(), test::generator());
    load_weights(*model, file, Fit::kEvaluate);
    model->eval();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(1));
    const auto run = [&](double keep_ratio) {
        const auto tokens = tokens_per_stage(stage_ratios(keep_ratio, 3), model->settings().patches());
        return test::prune(model, images, tokens).logits;
    };
    return {run(1.0), run(0.7)};
}

TEST(ModelFile, CheckpointsGiveTheOutputsOfSafetensors) {
    const Outputs expected = outputs(read_model_file(test::golden("model/tiny_student.safetensors")));
    for (const char* name : {"model/tiny_student_zip.pth", "model/tiny_student_legacy.pth"}) {
        const ModelFile file = read_model_file(test::golden(name));
        EXPECT_TRUE(file.recognized);
        EXPECT_EQ(file.part, "model");
        const Outputs found = outputs(file);
        EXPECT_TRUE(found.dense.equal(expected.dense)) << name;
        EXPECT_TRUE(found.pruned.equal(expected.pruned)) << name;
    }
}

TEST(ModelFile, HalfPrecisionCheckpointGivesTheOutputsOfRoundedWeights) {
    const ModelFile file = read_model_file(test::golden("model/tiny_student_half_bare.pth"));
    ModelFile rounded = read_model_file(test::golden("model/tiny_student.safetensors"));
    for (auto& [name, tensor] : rounded.weights) tensor = tensor.to(at::kHalf).to(at::kFloat);
    const Outputs found = outputs(file), expected = outputs(rounded);
    EXPECT_TRUE(found.dense.equal(expected.dense));
    EXPECT_TRUE(found.pruned.equal(expected.pruned));
}

TEST(ModelFile, EightBitsGiveTheOutputsOfRoundedWeights) {
    const test::TemporaryFolder folder;
    const TensorMap student = read_safetensors(test::golden("model/tiny_student.safetensors")).tensors;
    for (const at::ScalarType type : {at::kFloat8_e4m3fn, at::ScalarType::Float8_e4m3fnuz}) {
        TensorMap stored, rounded;
        for (const auto& [name, tensor] : student) {
            stored[name] = tensor.to(type);
            rounded[name] = stored[name].to(at::kFloat);
        }
        write_safetensors(folder / "stored", stored);
        write_safetensors(folder / "rounded", rounded);
        const Outputs found = outputs(read_model_file(folder / "stored")),
                      expected = outputs(read_model_file(folder / "rounded"));
        EXPECT_TRUE(found.dense.equal(expected.dense)) << c10::toString(type);
        EXPECT_TRUE(found.pruned.equal(expected.pruned)) << c10::toString(type);
    }
    EXPECT_TRUE(computable(at::tensor({1, 40000}, at::kInt).to(at::kUInt16)).equal(at::tensor({1.F, 40000.F})));
    EXPECT_EQ(computable(at::ones({1}, at::kHalf)).scalar_type(), at::kHalf) << "there are operators for it";
}

TEST(ModelFile, TensorsThatAreNotReadMatterWhereTheModelNeedsThem) {
    const test::TemporaryFolder folder;
    const std::string path = (folder / "w").string();
    TensorMap student = read_safetensors(test::golden("model/tiny_student.safetensors")).tensors;
    student["zz"] = at::ones({1});
    write_safetensors(path, student);
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    const auto with_type = [&](const std::string& name, const std::string& type) {  // in place of F32
        std::string changed = bytes;
        const std::size_t at = changed.find("\"F32\"", changed.find('"' + name + '"'));
        changed.replace(at + 1, 3, type);
        std::filesystem::remove(path);
        std::ofstream(path, std::ios::binary) << changed;
    };
    const Outputs expected = outputs(read_model_file(test::golden("model/tiny_student.safetensors")));
    with_type("zz", "I4x");
    const ModelFile unneeded = read_model_file(path);
    EXPECT_EQ(unneeded.unread.size(), 1u);
    EXPECT_TRUE(outputs(unneeded).dense.equal(expected.dense));
    for (const std::string name : {"blocks.0.attn.qkv.weight", "head.weight", "patch_embed.proj.weight", "pos_embed"}) {
        with_type(name, "I4x");
        const std::string error = test::error_of([&] { read_model_file(path); });
        EXPECT_EQ(error.find("[weights] " + path + ": tensor " + name + ": unknown type \"I4x\", expected one of F64"),
                  0u)
            << error;
    }
    student["blocks.1.norm1.bias"] = student["blocks.1.norm1.bias"].to(at::kComplexFloat);
    write_safetensors(path, student);
    EXPECT_EQ(
        test::error_of([&] { read_model_file(path); }),
        "[weights] " + path + ": tensor blocks.1.norm1.bias: holds complex numbers (ComplexFloat), expected real ones");
    // The same of a file of dynvit's own.
    write_model_file(path, student, test::tiny_settings());
    EXPECT_NE(test::error_of([&] {
                  outputs(read_model_file(path));
              }).find("blocks.1.norm1.bias: complex numbers in the weights, real ones in the model"),
              std::string::npos);
}

TEST(ModelFile, SafetensorsOfAWrappedModel) {
    const test::TemporaryFolder folder;
    const TensorMap weights = read_safetensors(test::golden("model/tiny_student.safetensors")).tensors;
    TensorMap wrapped;
    for (const auto& [name, tensor] : weights) wrapped.emplace("module." + name, tensor);
    write_safetensors(folder / "w.safetensors", wrapped);
    const ModelFile file = read_model_file(folder / "w.safetensors");
    ASSERT_EQ(file.weights.size(), weights.size());
    for (const auto& [name, tensor] : weights) EXPECT_TRUE(file.weights.at(name).equal(tensor)) << name;
}

TEST(ModelFile, WeightsAndSettingsComeBack) {
    const test::TemporaryFolder folder;
    const ModelSettings settings = test::tiny_settings();
    const TensorMap weights = {{"a", at::arange(3)}};
    write_model_file(folder / "with", weights, settings);
    write_model_file(folder / "without", weights, std::nullopt);
    const ModelFile with = read_model_file(folder / "with"), without = read_model_file(folder / "without");
    ASSERT_TRUE(with.settings);
    EXPECT_EQ(with.settings->embed_dim, settings.embed_dim);
    EXPECT_EQ(with.settings->pruning_loc, settings.pruning_loc);
    EXPECT_FALSE(without.settings);
    EXPECT_TRUE(with.weights.at("a").equal(at::arange(3)));
    EXPECT_TRUE(without.weights.at("a").equal(at::arange(3)));
}

TEST(ModelFile, PreprocessingComesBack) {
    const test::TemporaryFolder folder;
    const TensorMap weights = {{"a", at::arange(3)}};
    Preprocessing clip;
    clip.mean = {0.48145466, 0.4578275, 0.40821073};
    clip.std = {0.26862954, 0.26130258, 0.27577711};
    clip.resize = 224;
    write_model_file(folder / "with", weights, test::tiny_settings(), std::nullopt, clip);
    write_model_file(folder / "without", weights, test::tiny_settings());
    EXPECT_EQ(read_model_file(folder / "with").preprocessing, clip);
    EXPECT_FALSE(read_model_file(folder / "without").preprocessing);

    // A bundle from before had its short side alone.
    BundleSettings bundle;
    bundle.resize = 248;
    write_model_file(folder / "bundle", weights, test::tiny_settings(), bundle);
    Preprocessing resized;
    resized.resize = 248;
    EXPECT_EQ(read_model_file(folder / "bundle").preprocessing, resized);
    write_model_file(folder / "newer", weights, test::tiny_settings(), bundle, clip);
    EXPECT_EQ(read_model_file(folder / "newer").preprocessing, clip);

    write_safetensors(folder / "bad", weights, {{"dynvit.preprocessing", "std: 0"}});
    EXPECT_EQ(test::error_of([&] { read_model_file(folder / "bad"); }),
              str("[config] ", (folder / "bad").string(),
                  " (its dynvit.preprocessing):1: std: found '0', expected a number above 0 and at most 1"));
}

TEST(ModelFile, ErrorsNameTheFileAndWhatItIs) {
    const test::TemporaryFolder folder;
    const std::string path = (folder / "notes.pth").string();
    std::ofstream(path) << "These are notes.";
    EXPECT_EQ(
        test::error_of([&] { read_model_file(path); }),
        "[weights] " + path +
            ": found text (16 bytes) that starts with 'These are notes.', expected a safetensors file or a PyTorch "
            "checkpoint");
    EXPECT_EQ(test::error_of([&] { read_model_file(folder / "none.pth"); }),
              "[weights] " + (folder / "none.pth").string() + ": no such file");
    const std::string student = test::golden("model/tiny_student.safetensors").string();
    EXPECT_EQ(test::error_of([&] { read_model_file(student, {.part = "ema"}); }),
              "[weights] " + student +
                  ": is a safetensors file, which holds one set of weights; EMA weights are read from "
                  "PyTorch checkpoints");
}

}  // namespace
}  // namespace dynvit
