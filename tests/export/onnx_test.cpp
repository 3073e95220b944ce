// What stands in ONNX files. What they compute is the business of onnx_runtime_test.cpp.
#include "dynvit/export/onnx.hpp"

#include <cstring>
#include <limits>

#include "dynvit/core/config.hpp"
#include "dynvit/core/files.hpp"
#include "export_support.hpp"
#include "onnx_summary.hpp"

namespace dynvit {
namespace {

#ifdef DYNVIT_ONNX

using Words = std::vector<std::string>;

class Onnx : public testing::Test {
  protected:
    test::OnnxSummary exported(const ExportOptions& options) const {
        export_onnx(folder_ / "m.onnx", model_, options);
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << "nothing beside it";
        return test::read_onnx(folder_ / "m.onnx");
    }

    DynamicVit model_ = test::random_model(test::oblong_settings(), 3);
    test::TemporaryFolder folder_;
};

TEST_F(Onnx, InputsAndOutputsOfAnyBatch) {
    const test::OnnxSummary found = exported({.plan = {.tokens = {168, 117}}, .kept_tokens = true});
    EXPECT_EQ(found.fault, "");
    EXPECT_EQ(found.opset, 17);
    EXPECT_EQ(found.inputs, (std::map<std::string, Words>{{"images", {"batch", "3", "96", "160"}}}));
    EXPECT_EQ(found.outputs,
              (std::map<std::string, Words>{
                  {"logits", {"batch", "7"}}, {"kept_1", {"batch", "168"}}, {"kept_2", {"batch", "117"}}}));
    EXPECT_EQ(found.nodes.at("GatherND"), 2);
    EXPECT_EQ(found.nodes.at("LayerNormalization"), 2 * 5 + 1 + 2);
    EXPECT_EQ(found.nodes.at("Softmax"), 5);
}

TEST_F(Onnx, SaysHowPicturesArePrepared) {
    EXPECT_EQ(exported({}).doc, "images: " + describe({}, 96, 160));
    ExportOptions options;
    options.preprocessing.mean = options.preprocessing.std = {0.5, 0.5, 0.5};
    options.preprocessing.crop = kSquash;
    const test::OnnxSummary found = exported(options);
    EXPECT_EQ(found.fault, "");
    EXPECT_EQ(found.doc,
              "images: RGB, (value / 255 - mean) / std, mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5); resized to 160 x 96 "
              "(width x height), bicubic");
    EXPECT_EQ(read_config<Preprocessing>({found.metadata.at("dynvit.preprocessing"), "it", {}}), options.preprocessing);
}

TEST_F(Onnx, KeptTokensOnRequest) {
    EXPECT_EQ(exported({.plan = {.tokens = {168, 117}}, .kept_tokens = false}).outputs,
              (std::map<std::string, Words>{{"logits", {"batch", "7"}}}));
}

TEST_F(Onnx, InitializersAreTheWeights) {
    const test::OnnxSummary found = exported({.plan = {.tokens = {168, 117}}, .kept_tokens = false});
    for (const auto& [name, tensor] : state_dict(*model_)) {
        ASSERT_TRUE(found.initializers.contains(name)) << name;
        const test::OnnxTensor& stored = found.initializers.at(name);
        EXPECT_EQ(at::IntArrayRef(stored.shape), tensor.sizes()) << name;
        EXPECT_EQ(stored.type, 1) << name;
        ASSERT_EQ(stored.bytes.size(), tensor.nbytes()) << name;
        EXPECT_EQ(std::memcmp(stored.bytes.data(), tensor.const_data_ptr(), tensor.nbytes()), 0) << name;
    }
}

TEST_F(Onnx, DenseHasNoPredictionModules) {
    const test::OnnxSummary found = exported({});
    EXPECT_EQ(found.fault, "");
    EXPECT_FALSE(found.nodes.contains("TopK"));
    for (const auto& [name, tensor] : found.initializers) EXPECT_FALSE(is_of_prediction_module(name)) << name;
}

TEST_F(Onnx, EqualModelsGiveEqualBytes) {
    export_onnx(folder_ / "a", model_, {.plan = {.tokens = {168, 117}}, .kept_tokens = true});
    export_onnx(folder_ / "b", model_, {.plan = {.tokens = {168, 117}}, .kept_tokens = true});
    EXPECT_EQ(read_file(folder_ / "a", "test"), read_file(folder_ / "b", "test"));
}

TEST_F(Onnx, AFullDiskLeavesWhatWasThere) {
    write_file_atomically(folder_ / "m.onnx", "mine", "test");
    const std::string error = test::error_of([&] {
        const test::FileSizeLimit limit(4096);
        export_onnx(folder_ / "m.onnx", model_, {});
    });
    EXPECT_NE(error.find("m.onnx: cannot be written: File too large"), std::string::npos) << error;
    EXPECT_EQ(read_file(folder_ / "m.onnx", "test").size(), 4u);
}

TEST_F(Onnx, WeightsThatAreNoNumbers) {
    const torch::NoGradGuard no_grad;
    model_->named_parameters()["blocks.2.norm1.bias"][3] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(test::error_of([&] { export_model(folder_ / "m.onnx", model_, {}, "onnx"); }),
              "[export] blocks.2.norm1.bias: found infinity or NaN among the weights, expected numbers");
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(Onnx, CountsThatNoStageCanKeep) {
    const auto fault = [&](const ExportOptions& options) {
        return test::error_of([&] { export_model(folder_ / "m.onnx", model_, options, "onnx"); });
    };
    EXPECT_EQ(fault({.plan = {.tokens = {168}}}), "[policy] predicted: found 1 token counts, expected one a stage, 2");
    EXPECT_EQ(fault({.plan = {.tokens = {241, 5}}}),
              "[policy] predicted: found a count of 241 at stage 1, expected 0 to 240");
    EXPECT_EQ(fault({.plan = {.tokens = {5, 6}}}),
              "[policy] predicted: found a count of 6 at stage 2, expected 0 to 5");
    EXPECT_EQ(fault({.kept_tokens = true}), "[export] a dense model keeps every token: it has no kept tokens to give");
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

#else

TEST(Onnx, SaysWhatIsMissing) {
    const std::string error =
        test::error_of([] { export_onnx("m.onnx", test::random_model(test::oblong_settings(), 3), {}); });
    EXPECT_NE(error.find("built without ONNX; install libonnx-dev and libprotobuf-dev"), std::string::npos) << error;
}

#endif

}  // namespace
}  // namespace dynvit
