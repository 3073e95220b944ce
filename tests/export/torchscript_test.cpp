// TorchScript files, loaded as a program without dynvit loads them, against pruned_forward.
#include "dynvit/export/torchscript.hpp"

#include <ATen/Parallel.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <limits>

#include "dynvit/core/config.hpp"
#include "export_support.hpp"
#include "photographs.hpp"

namespace dynvit {
namespace {

using Counts = std::vector<std::int64_t>;

class TorchScript : public testing::Test {
  protected:
    void SetUp() override { at::set_num_threads(1); }  // of small tensors, threads only wait for each other

    torch::jit::Module exported(DynamicVit model, const ExportOptions& options) const {
        export_torchscript(folder_ / "m.pt", model, options);
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << "nothing beside it";
        return torch::jit::load((folder_ / "m.pt").string());
    }

    // Three times: what LibTorch compiles after it has watched a first run must give the same.
    static void expect_same(torch::jit::Module& module, DynamicVit model, const at::Tensor& images,
                            const Counts& counts) {
        const torch::NoGradGuard no_grad;
        const PrunedOutput expected = test::expected_output(model, images, counts);
        for (int i = 0; i < 3; ++i) {
            const c10::IValue output = module.forward({images});
            const auto& found = output.toTupleRef().elements();
            ASSERT_EQ(found.size(), 1 + counts.size());
            EXPECT_LE((found[0].toTensor() - expected.logits).abs().max().item<double>(), 1e-4);
            for (std::size_t s = 0; s < counts.size(); ++s)
                EXPECT_TRUE(found[1 + s].toTensor().equal(expected.kept[s]));
        }
    }

    test::TemporaryFolder folder_;
};

TEST_F(TorchScript, KeepsAndAnswersAsTheModelDoes) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    for (const Counts& counts : {Counts{168, 117}, {240, 1}, {0, 0}}) {
        torch::jit::Module module = exported(model, {.plan = {.tokens = counts}, .kept_tokens = true});
        for (const std::int64_t batch : {1, 3, 5})
            expect_same(module, model, test::random_images(model->settings(), batch), counts);
    }
}

TEST_F(TorchScript, SaysHowPicturesArePrepared) {
    ExportOptions options;
    options.preprocessing.mean = options.preprocessing.std = {0.5, 0.5, 0.5};
    options.preprocessing.resize = 130;
    exported(test::random_model(test::oblong_settings(), 3), options);
    torch::jit::ExtraFilesMap files = {{"dynvit.preprocessing", ""}};
    torch::jit::load((folder_ / "m.pt").string(), std::nullopt, files);
    const std::string& text = files.at("dynvit.preprocessing");
    EXPECT_EQ(text.rfind("# images: " + describe(options.preprocessing, 96, 160) + '\n', 0), 0u) << text;
    EXPECT_EQ(read_config<Preprocessing>({text, "it", {}}), options.preprocessing);
}

TEST_F(TorchScript, ModelsOfOtherLibraries) {
    for (const DynamicVit& model : test::models_of_other_libraries()) {
        torch::jit::Module module = exported(model, {.plan = test::plan_of(model, {17}), .kept_tokens = true});
        expect_same(module, model, test::random_images(model->settings(), 3), {17});
    }
}

TEST_F(TorchScript, OtherParts) {
    for (const ModelSettings& settings : test::settings_of_other_parts()) {
        DynamicVit model = test::random_model(settings, 3);
        torch::jit::Module module = exported(model, {.plan = test::plan_of(model, {168, 117}), .kept_tokens = true});
        expect_same(module, model, test::random_images(settings, 3), {168, 117});
        if (!settings.matches()) continue;
        torch::jit::Module halving = exported(model, {.plan = test::plan_of(model, {120, 60}), .kept_tokens = true});
        expect_same(halving, model, test::random_images(settings, 3), {120, 60});
    }
}

TEST_F(TorchScript, TheGoldenStudent) {
    DynamicVit model = test::tiny_student();
    torch::jit::Module module = exported(model, {.plan = {.tokens = {137, 96, 67}}, .kept_tokens = true});
    expect_same(module, model, test::random_images(model->settings(), 2), {137, 96, 67});
}

TEST_F(TorchScript, DenseHasNoPredictionModules) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    torch::jit::Module module = exported(model, {});
    const at::Tensor images = test::random_images(model->settings(), 3);
    EXPECT_LE(
        (module.forward({images}).toTensor() - test::dense_forward(model, images).logits).abs().max().item<double>(),
        1e-4);
    for (const auto& parameter : module.named_parameters()) EXPECT_FALSE(is_of_prediction_module(parameter.name));
}

TEST_F(TorchScript, ParametersHaveThePublishedNames) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    const torch::jit::Module module = exported(model, {.plan = {.tokens = {168, 117}}, .kept_tokens = false});
    TensorMap found;
    for (const auto& parameter : module.named_parameters()) found.emplace(parameter.name, parameter.value);
    const TensorMap expected = state_dict(*model);
    EXPECT_EQ(found.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
        ASSERT_TRUE(found.contains(name)) << name;
        EXPECT_TRUE(found.at(name).equal(tensor)) << name;
    }
}

TEST_F(TorchScript, EqualScoresGoToTheLowerIndex) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    const torch::NoGradGuard no_grad;
    for (const auto& item : model->named_parameters())
        if (is_of_prediction_module(item.key())) at::Tensor(item.value()).zero_();
    torch::jit::Module module = exported(model, {.plan = {.tokens = {100, 40}}, .kept_tokens = true});
    const at::Tensor images = test::random_images(model->settings(), 2);
    expect_same(module, model, images, {100, 40});
    EXPECT_TRUE(module.forward({images}).toTupleRef().elements()[2].toTensor()[1].equal(at::arange(40)));
}

TEST_F(TorchScript, AFileThatAnswersOtherwiseIsNotKept) {  // NaN equals nothing
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    const torch::NoGradGuard no_grad;
    model->named_parameters()["head.bias"].fill_(std::numeric_limits<float>::quiet_NaN());
    const std::string error = test::error_of([&] { export_torchscript(folder_ / "m.pt", model, {}); });
    EXPECT_NE(error.find("m.pt: found logits that differ by "), std::string::npos) << error;
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(TorchScript, OtherSizesAreRefused) {
    DynamicVit model = test::random_model(test::oblong_settings(), 3);
    torch::jit::Module module = exported(model, {});
    EXPECT_THROW(module.forward({at::zeros({1, 3, 160, 96})}), std::exception);
}

TEST_F(TorchScript, Photographs) {
    DYNVIT_NEEDS_SHARED(shared);
    DynamicVit model = test::published_model(shared);
    torch::jit::Module module = exported(model, {.plan = {.tokens = {137, 96, 67}}, .kept_tokens = true});
    expect_same(module, model, test::photographs(shared, 20), {137, 96, 67});
}

}  // namespace
}  // namespace dynvit
