#include "dynvit/models/pruning_plan.hpp"

#include "dynvit/models/macs.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Counts = std::vector<std::int64_t>;

ModelSettings dense_settings() {
    ModelSettings settings = model_settings("deit_small");
    settings.pruning_loc = {};
    return settings;
}

TEST(PruningPlan, RatiosAndSharesBecomeCounts) {
    const ModelSettings settings = model_settings("deit_small");
    EXPECT_EQ(plan_for_ratio(settings, 0.7).tokens, (Counts{137, 96, 67}));  // the published ones
    EXPECT_EQ(plan_for_ratio(settings, 0.7).policy, "predicted");
    EXPECT_EQ(plan_for_shares(settings, {0.5, 0.5, 0.25}).tokens, (Counts{98, 98, 49}));
    EXPECT_EQ(stage_shares({0.5}, 3), (std::vector<double>{0.5, 0.25, 0.125}));
    EXPECT_EQ(stage_shares({0.9, 0.5, 0.3}, 3), (std::vector<double>{0.9, 0.5, 0.3}));
    for (const PruningPlan& plan : {plan_for_ratio(settings, 1), plan_for_shares(settings, {1, 1, 1}),
                                    plan_for_ratio(dense_settings(), 1), PruningPlan()}) {
        EXPECT_TRUE(plan.dense());
    }
    EXPECT_FALSE(plan_for_shares(settings, {1, 1, 0.9}).dense());
    EXPECT_EQ(test::error_of([] { plan_for_ratio(dense_settings(), 0.7, "w.pth:"); }),
              "[keep-ratio] w.pth: has no prediction modules: expected 1, found 0.7");
}

// Whatever the number of patches: a count that has been stored is the count that comes back.
TEST(PruningPlan, ACountOverThePatchesIsThatCountAgain) {
    for (std::int64_t side = 1; side <= 24; ++side) {
        ModelSettings settings = model_settings("deit_small");
        settings.image_size = {side * settings.patch_size};
        settings.pruning_loc = {3};
        for (std::int64_t count = 0; count < settings.patches(); ++count) {
            const double share = static_cast<double>(count) / static_cast<double>(settings.patches());
            ASSERT_EQ(plan_for_shares(settings, {share}).tokens, Counts{count}) << settings.patches();
        }
    }
}

TEST(PruningPlan, ThresholdsAreOneForAllOrOneEach) {
    const ModelSettings settings = model_settings("deit_small");
    const PruningPlan plan = plan_for_thresholds(settings, {0.4});
    EXPECT_EQ(plan.policy, "per_image");
    EXPECT_EQ(plan.thresholds, (std::vector<double>{0.4, 0.4, 0.4}));
    EXPECT_EQ(plan_for_thresholds(settings, {0.4, 0.3, 0.2}).thresholds, (std::vector<double>{0.4, 0.3, 0.2}));
    EXPECT_FALSE(plan.dense());
    EXPECT_EQ(test::error_of([&] {
                  plan_for_thresholds(settings, {0.4, 0.3});
              }),
              "[threshold] found 2 numbers, expected one or one a stage, 3");
    EXPECT_EQ(test::error_of([&] { plan_for_thresholds(settings, {-0.1}); }),
              "[policy] per_image: found a threshold of -0.1, expected 0 to 1");
    EXPECT_EQ(test::error_of([&] { plan_for_thresholds(dense_settings(), {0.4}); }),
              "[threshold] the model has no prediction modules: expected none, found 1");
}

TEST(PruningPlan, ABudgetBuysTheLargestRatio) {
    const ModelSettings settings = model_settings("deit_small");
    const double ratio = keep_ratio_for_gmacs(settings, 2.9);
    const auto gmacs = [&](double rho) {
        return 1e-9 * static_cast<double>(count_macs(settings, plan_for_ratio(settings, rho).tokens));
    };
    EXPECT_LE(gmacs(ratio), 2.9);
    EXPECT_GT(gmacs(ratio + 0.01), 2.9);
    EXPECT_NE(test::error_of([&] { keep_ratio_for_gmacs(settings, 0.1); }).find("of a model that keeps no patch"),
              std::string::npos);
    EXPECT_NE(test::error_of([&] { keep_ratio_for_gmacs(dense_settings(), 0.1); }).find("which has no stage"),
              std::string::npos);
}

TEST(PruningPlan, WhatDoesNotFitTheModel) {
    const ModelSettings settings = model_settings("deit_small");
    const auto fault = [&](const PruningPlan& plan, const std::string& name = "") {
        return test::error_of([&] { check_plan(plan, settings, name); });
    };
    EXPECT_EQ(fault({.tokens = {9, 5}}), "[policy] predicted: found 2 token counts, expected one a stage, 3");
    EXPECT_EQ(fault({.tokens = {9, 5}}, "b.safetensors"),
              "[policy] b.safetensors: found 2 token counts, expected one a stage, 3");
    EXPECT_EQ(fault({.tokens = {197, 5, 5}}), "[policy] predicted: found a count of 197 at stage 1, expected 0 to 196");
    EXPECT_EQ(fault({.tokens = {9, 5, 6}}), "[policy] predicted: found a count of 6 at stage 3, expected 0 to 5");
    EXPECT_EQ(fault({.tokens = {9, 5, -1}}), "[policy] predicted: found a count of -1 at stage 3, expected 0 to 5");
    EXPECT_EQ(fault({.policy = "per_image", .thresholds = {0.5}}),
              "[policy] per_image: found 1 thresholds, expected one a stage, 3");
    check_plan({.tokens = {196, 0, 0}}, settings);
    check_plan({}, settings);
}

}  // namespace
}  // namespace dynvit
