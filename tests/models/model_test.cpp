#include <ATen/ATen.h>

#include "dynvit/core/config.hpp"
#include "dynvit/models/gumbel_decision.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

using test::error_of;

// Millions of parameters and GMACs as DeiT's authors give them; for the two widths in between, which have no published
// checkpoint, ten and fifteen million by hand.
TEST(Zoo, ParametersAndMacsAreThePublishedOnes) {
    const struct {
        const char* name;
        double parameters, gmacs;
    } published[] = {{"deit_tiny", 5.7, 1.3},   {"deit_256", 9.98, 2.1},   {"deit_320", 15.43, 3.25},
                     {"deit_small", 22.1, 4.6}, {"deit_base", 86.6, 17.6}, {"deit_base_384", 86.9, 55.5}};
    ASSERT_EQ(model_names().size(), std::size(published));
    for (const auto& row : published) {
        ModelSettings settings = model_settings(row.name);
        EXPECT_NEAR(1e-9 * static_cast<double>(count_macs(settings)), row.gmacs, 0.051) << row.name;
        settings.pruning_loc = {};
        EXPECT_NEAR(1e-6 * static_cast<double>(count_parameters(settings)), row.parameters, 0.051) << row.name;
    }
}

TEST(Zoo, ParameterCountIsThatOfTheModel) {
    for (const auto& stages : std::vector<std::vector<std::int64_t>>{{}, {3, 6, 9}}) {
        DynamicVit model(test::tiny_settings(stages), test::generator());
        std::int64_t parameters = 0;
        for (const at::Tensor& parameter : model->parameters()) parameters += parameter.numel();
        EXPECT_EQ(parameters, count_parameters(model->settings()));
    }
}

TEST(Macs, PrunedDeitSmallIsThePublishedFigure) {  // which are cut, not rounded, to one digit
    const ModelSettings settings = model_settings("deit_small");
    for (const auto& [ratio, gmacs] : std::vector<std::pair<double, double>>{{0.9, 4.0}, {0.8, 3.4}, {0.7, 2.9}}) {
        const auto kept = tokens_per_stage(stage_ratios(ratio, 3), 196);
        EXPECT_EQ(std::floor(1e-8 * static_cast<double>(count_macs(settings, kept))), std::round(10 * gmacs)) << ratio;
    }
}

TEST(Macs, HandCount) {  // 2 x 2 patches of 4, 8 channels, one block after a stage that keeps 1
    ModelSettings s;
    s.name = "custom";
    s.image_size = {8};
    s.patch_size = 4;
    s.embed_dim = 8;
    s.num_heads = 2;
    s.depth = 1;
    s.num_classes = 3;
    s.pruning_loc = {0};
    const std::int64_t embed = 4 * 48 * 8, predictor = 4 * (64 + 32 + 8 + 4),
                       block = 2 * (8 * 24 + 64 + 2 * 8 * 32) + 2 * 4 * 8;
    EXPECT_EQ(count_macs(s, {1}), embed + predictor + block + 24);
}

TEST(KeepRatio, CountsOf196) {  // the published ones
    const auto counts = [](double rho) { return tokens_per_stage(stage_ratios(rho, 3), 196); };
    using Counts = std::vector<std::int64_t>;
    EXPECT_EQ(counts(0.9), (Counts{176, 158, 142}));
    EXPECT_EQ(counts(0.8), (Counts{156, 125, 100}));
    EXPECT_EQ(counts(0.7), (Counts{137, 96, 67}));
    EXPECT_EQ(counts(0.6), (Counts{117, 70, 42}));
    EXPECT_EQ(counts(0.5), (Counts{98, 49, 24}));
    EXPECT_EQ(tokens_per_stage({0.29}, 100), Counts{29});
    EXPECT_EQ(tokens_per_stage({0.001}, 100), Counts{0});
}

TEST(GumbelDecision, DrawsFromTheProbabilities) {
    const at::Tensor log_prob = at::tensor({0.3, 0.7}).log().expand({4, 5000, 2});
    const at::Tensor noise = sample_gumbel({4, 5000, 2}, test::generator(1), at::kCPU);
    const at::Tensor decision = gumbel_decision(log_prob, at::ones({4, 5000}), noise);
    EXPECT_NEAR(decision.mean().item<double>(), 0.3, 5 * std::sqrt(0.21 / 20000));
    EXPECT_TRUE(((decision == 0) | (decision == 1)).all().item<bool>()) << "exactly one or zero";
}

TEST(GumbelDecision, GradientIsTheSoftOneAndDroppedStaysDropped) {
    const at::Tensor log_prob = at::log_softmax(at::randn({2, 6, 2}, test::generator(2)), -1).requires_grad_();
    const at::Tensor again = log_prob.detach().clone().requires_grad_();
    const at::Tensor noise = sample_gumbel({2, 6, 2}, test::generator(3), at::kCPU);
    at::Tensor previous = at::ones({2, 6});
    previous[0][2] = 0;
    const at::Tensor decision = gumbel_decision(log_prob, previous, noise);
    EXPECT_EQ(decision[0][2].item<double>(), 0);
    decision.sum().backward();
    (at::softmax(again + noise, -1).select(-1, 0) * previous).sum().backward();
    EXPECT_CLOSE(log_prob.grad(), again.grad(), 1e-6);
}

TEST(PredictionModule, EmptyImageGivesFiniteProbabilities) {
    PredictionModule module(8, test::generator(3));
    const torch::NoGradGuard no_grad;
    for (at::Tensor& parameter : module->parameters()) {
        if (parameter.dim() == 2) parameter.mul_(20);
    }
    const at::Tensor x = at::randn({2, 5, 8}, test::generator(4));
    at::Tensor decision = at::ones({2, 5});
    decision[1].zero_();
    EXPECT_TRUE(module(x, decision).isfinite().all().item<bool>());
    EXPECT_CLOSE(module(x, at::ones({2, 5})), module(x), 1e-6);
}

TEST(PosEmbed, ResizeOfTheSameGridChangesNothing) {
    const at::Tensor embedding = at::randn({1, 1 + 6, 4}, test::generator(5));
    EXPECT_CLOSE(resize_pos_embed(embedding, 2, 3, 2, 3), embedding, 1e-6);
}

TEST(PosEmbed, AgreesWithTimm) {
    DYNVIT_NEEDS_SHARED(shared);
    const at::Tensor stored =
        read_safetensors(shared / "weights/deit_tiny_patch16_224.safetensors").tensors.at("pos_embed");
    const TensorMap golden = read_safetensors(shared / "golden/photographs/deit_tiny.safetensors").tensors;
    EXPECT_CLOSE(resize_pos_embed(stored, 14, 14, 10, 10), golden.at("pos_embed_160_bicubic_antialias"), 1e-5);
}

TEST(StateDict, ReportsMissingUnexpectedAndMisShaped) {
    DynamicVit model = test::tiny_student();
    TensorMap weights = state_dict(*model);
    weights.erase("norm.weight");
    weights["extra"] = at::zeros({1});
    weights["head.weight"] = at::zeros({3, 32});
    const LoadReport report = load_state_dict(*model, weights);
    EXPECT_EQ(report.missing, std::vector<std::string>{"norm.weight"});
    EXPECT_EQ(report.unexpected, std::vector<std::string>{"extra"});
    EXPECT_EQ(report.mis_shaped,
              std::vector<std::string>{"head.weight: (3, 32) in the weights, (10, 32) in the model"});
    EXPECT_EQ(report.text(),
              "1 missing: norm.weight; 1 unexpected: extra; "
              "1 mis-shaped: head.weight: (3, 32) in the weights, (10, 32) in the model");
}

TEST(ModelSettings, ZooNameFillsTheRestAndFieldsOverride) {
    const auto s = read_config<ModelSettings>({"name: deit_base_384\nnum_classes: 7", "m.yaml", {}});
    EXPECT_EQ(s.embed_dim, 768);
    EXPECT_EQ(s.image_height(), 384);
    EXPECT_EQ(s.num_classes, 7);
    EXPECT_EQ(write_config(read_config<ModelSettings>({write_config(s), "m.yaml", {}})), write_config(s));
}

TEST(ModelSettings, FaultsNameTheKey) {
    const auto read = [](const std::string& text) {
        return error_of([&] { read_config<ModelSettings>({text, "m.yaml", {}}); });
    };
    EXPECT_EQ(read("name: deit_small\npruning_loc: [3, 12]"),
              "[config] m.yaml:2: pruning_loc: found a stage at block 12 of 12, expected blocks counted from 0, at "
              "most 11");
    EXPECT_EQ(read("pruning_loc: [6, 3]"),
              "[config] m.yaml:1: pruning_loc: found block 3 after 6, expected ascending blocks");
    EXPECT_EQ(read("image_size: 100"),
              "[config] m.yaml:1: image_size: found 100, expected a multiple of patch_size 16");
    EXPECT_EQ(read("image_size: [16, 16, 16]"),
              "[config] m.yaml:1: image_size: found 3 numbers, expected one, or height and width");
    EXPECT_EQ(read("num_heads: 5"), "[config] m.yaml:1: num_heads: found 5, expected a divisor of embed_dim 384");
    EXPECT_NE(read("name: deit_huge").find("expected one of deit_tiny"), std::string::npos);
}

}  // namespace
}  // namespace dynvit
