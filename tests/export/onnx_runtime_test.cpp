// ONNX files as ONNX Runtime runs them, against pruned_forward: kept patches equal, logits to 1e-4, batches of 1 and 5.
#include <sys/wait.h>

#include "dynvit/export/onnx.hpp"
#include "export_support.hpp"
#include "photographs.hpp"

namespace dynvit {
namespace {

constexpr int kNotInstalled = 77;

class OnnxRuntime : public testing::Test {
  protected:
    void SetUp() override {
#ifndef DYNVIT_ONNX
        GTEST_SKIP() << "this dynvit was built without libonnx";
#endif
    }

    void compare(const DynamicVit& model, const std::vector<std::int64_t>& tokens, const at::Tensor& images) const {
        export_onnx(folder_ / "m.onnx", model, {.plan = test::plan_of(model, tokens), .kept_tokens = !tokens.empty()});
        const PrunedOutput expected = test::expected_output(model, images, tokens);
        TensorMap tensors = {{"images", images}, {"logits", expected.logits}};
        for (std::size_t s = 0; s < expected.kept.size(); ++s) tensors[str("kept_", s + 1)] = expected.kept[s];
        write_safetensors(folder_ / "expected.safetensors", tensors);
        const std::string command =
            str("'", DYNVIT_SCRIPTS, "/check_export.sh' '", DYNVIT_ONNXRUNTIME, "' '", (folder_ / "m.onnx").string(),
                "' '", (folder_ / "expected.safetensors").string(), "'");
        const int status = std::system(command.c_str());
        ASSERT_TRUE(WIFEXITED(status));
        if (WEXITSTATUS(status) == kNotInstalled) GTEST_SKIP() << "needs onnxruntime: is PyPI within reach?";
        EXPECT_EQ(WEXITSTATUS(status), 0);
    }

    test::TemporaryFolder folder_;
};

TEST_F(OnnxRuntime, OtherShapes) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    compare(model, {168, 117}, test::random_images(model->settings(), 10));
}

TEST_F(OnnxRuntime, Dense) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    compare(model, {}, test::random_images(model->settings(), 5));
}

TEST_F(OnnxRuntime, OtherParts) {
    for (const ModelSettings& settings : test::settings_of_other_parts()) {
        compare(test::random_model(settings, 3), {168, 117}, test::random_images(settings, 5));
        if (settings.matches()) compare(test::random_model(settings, 3), {120, 60}, test::random_images(settings, 5));
    }
}

TEST_F(OnnxRuntime, ModelsOfOtherLibraries) {
    for (const DynamicVit& model : test::models_of_other_libraries()) {
        compare(model, {17}, test::random_images(model->settings(), 5));
    }
}

TEST_F(OnnxRuntime, NoPatchIsLeft) {
    ModelSettings settings = test::oblong_settings();
    settings.pruning_loc = {1, 2, 3};
    DynamicVit model = test::random_model(settings, 5);
    compare(model, {1, 0, 0}, test::random_images(settings, 5));
}

TEST_F(OnnxRuntime, TheGoldenStudent) {
    DynamicVit model = test::tiny_student();
    compare(model, {137, 96, 67}, test::random_images(model->settings(), 5));
}

TEST_F(OnnxRuntime, EqualScoresGoToTheLowerIndex) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    const torch::NoGradGuard no_grad;
    for (const auto& item : model->named_parameters())
        if (is_of_prediction_module(item.key())) at::Tensor(item.value()).zero_();
    compare(model, {100, 40}, test::random_images(model->settings(), 5));
}

TEST_F(OnnxRuntime, Photographs) {
    DYNVIT_NEEDS_SHARED(shared);
    compare(test::published_model(shared), {137, 96, 67}, test::photographs(shared, 20));
}

}  // namespace
}  // namespace dynvit
