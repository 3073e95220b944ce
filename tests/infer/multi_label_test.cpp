// Average precision against numbers of scikit-learn 1.7's average_precision_score and against its definition, threshold
// by threshold.
#include "dynvit/infer/multi_label.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <set>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

double precision_of(const std::vector<double>& scores, const std::vector<std::int64_t>& has_it) {
    return average_precision(at::tensor(scores), at::tensor(has_it, at::kLong).to(at::kByte));
}

TEST(AveragePrecision, IsScikitLearns) {
    EXPECT_NEAR(precision_of({0.1, 0.4, 0.35, 0.8}, {0, 0, 1, 1}), 0.8333333333333333, 1e-12);
    EXPECT_NEAR(precision_of({3, 1, 3, 2, 2, 2, 0, 1, -1, 0.5}, {1, 0, 0, 1, 0, 1, 1, 0, 0, 1}), 0.5511111111111111,
                1e-12);
    EXPECT_NEAR(precision_of({1, 1, 1, 1}, {1, 0, 1, 0}), 0.5, 1e-12);
    EXPECT_NEAR(precision_of({3, 2, 1}, {0, 1, 0}), 0.5, 1e-12);
    EXPECT_NEAR(precision_of({0, 1}, {1, 1}), 1.0, 1e-12);
    EXPECT_TRUE(std::isnan(precision_of({0, 1}, {0, 0})));
}

// The sum over falling thresholds of (recall - the recall before) x precision.
double by_definition(const at::Tensor& scores, const at::Tensor& has_it) {
    std::set<float, std::greater<>> thresholds;
    for (std::int64_t i = 0; i < scores.size(0); ++i) thresholds.insert(scores[i].item<float>());
    const double all = has_it.sum().item<double>();
    double sum = 0, before = 0;
    for (const float threshold : thresholds) {
        const at::Tensor taken = scores >= threshold;
        const double hits = taken.logical_and(has_it.to(at::kBool)).sum().item<double>();
        sum += (hits / all - before) * hits / taken.sum().item<double>();
        before = hits / all;
    }
    return sum;
}

TEST(AveragePrecision, IsTheAreaInSteps) {
    const at::Tensor scores = at::randn({60, 5}, test::generator(1)).mul(4).round();  // many are equal
    at::Tensor has = at::randint(0, 2, {60, 5}, test::generator(2), at::kByte);
    double sum = 0;
    for (std::int64_t c = 0; c < 5; ++c) {
        const double expected = by_definition(scores.select(1, c), has.select(1, c));
        EXPECT_NEAR(average_precision(scores.select(1, c), has.select(1, c)), expected, 1e-12);
        sum += expected;
    }
    const MeanAveragePrecision all = mean_average_precision(scores, has);
    EXPECT_NEAR(all.mean, sum / 5, 1e-12);
    EXPECT_EQ(all.classes, 5);
    has.select(1, 2).zero_();
    const double of_third =
        by_definition(scores.select(1, 2), at::randint(0, 2, {60, 5}, test::generator(2), at::kByte).select(1, 2));
    const MeanAveragePrecision without = mean_average_precision(scores, has);
    EXPECT_NEAR(without.mean, (sum - of_third) / 4, 1e-12) << "a class that no picture has does not count";
    EXPECT_EQ(without.classes, 4);
    EXPECT_EQ(mean_average_precision(scores, at::zeros({60, 5}, at::kByte)).classes, 0);
}

TEST(IndependentKl, SumsTheDivergencesOfTheClasses) {
    const auto logit = [](double p) { return std::log(p / (1 - p)); };
    const at::Tensor own = at::tensor({logit(0.2), logit(0.5)}).view({1, 2}),
                     reference = at::tensor({logit(0.6), logit(0.1)}).view({1, 2});
    const double expected =
        0.6 * std::log(0.6 / 0.2) + 0.4 * std::log(0.4 / 0.8) + 0.1 * std::log(0.1 / 0.5) + 0.9 * std::log(0.9 / 0.5);
    EXPECT_NEAR(independent_kl(own, reference).item<double>(), expected, 1e-6);
    EXPECT_EQ(independent_kl(own, own).item<double>(), 0.0);
    EXPECT_TRUE(independent_kl(at::full({1, 2}, 90.0), at::full({1, 2}, -90.0)).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace dynvit
