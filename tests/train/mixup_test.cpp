// Blending against its definition picture by picture; draws against their distributions.
#include "dynvit/train/mixup.hpp"

#include <algorithm>
#include <cmath>

#include "tensor_support.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kHeight = 12, kWidth = 20;

at::Tensor pictures(std::int64_t batch) {
    return at::arange(batch * 3 * kHeight * kWidth, at::kFloat).view({batch, 3, kHeight, kWidth});
}

// Pixel by pixel, as MixShare is documented.
at::Tensor blended(const at::Tensor& images, const std::vector<MixShare>& shares) {
    at::Tensor result = images.clone();
    for (std::int64_t b = 0; b < images.size(0); ++b) {
        const MixShare& mix = shares[b];
        const at::Tensor own = images[b], partner = images[images.size(0) - 1 - b];
        if (!mix.cut()) {
            result[b] = own * mix.share + partner * (1 - mix.share);
            continue;
        }
        result[b]
            .slice(1, mix.top, mix.bottom)
            .slice(2, mix.left, mix.right)
            .copy_(partner.slice(1, mix.top, mix.bottom).slice(2, mix.left, mix.right));
    }
    return result;
}

TEST(Mixup, BlendsPicturesAndTargetsAsDefined) {
    Random random(1);
    for (const char* mode : {"batch", "pair", "elem"}) {
        for (const auto& [mixup, cutmix] : {std::pair{0.8, 0.0}, std::pair{0.0, 1.0}, std::pair{0.8, 1.0}}) {
            const MixupSettings settings{.mixup = mixup, .cutmix = cutmix, .probability = 0.8, .mode = mode};
            for (int i = 0; i < 20; ++i) {
                const auto shares = draw_mix(settings, 5, kHeight, kWidth, random);
                const at::Tensor images = pictures(5), target = at::eye(5);
                EXPECT_CLOSE(mix_images(images, shares), blended(images, shares), 1e-6) << mode;
                const at::Tensor mixed = mix_targets(target, shares);
                for (int b = 0; b < 5; ++b) {
                    const float share = static_cast<float>(shares[b].share);
                    EXPECT_FLOAT_EQ(mixed[b][b].item<float>(), b == 2 ? 1.0f : share)
                        << "the middle one is its own partner";
                    EXPECT_NEAR(mixed[b].sum().item<float>(), 1, 1e-6);
                }
            }
        }
    }
}

TEST(Mixup, ShareIsWhatAWindowLeaves) {
    Random random(2);
    const MixupSettings settings{.cutmix = 1.0, .mode = "elem"};
    double mean = 0;
    for (const MixShare& mix : draw_mix(settings, 4000, 224, 224, random)) {
        const double area = static_cast<double>((mix.bottom - mix.top) * (mix.right - mix.left)) / (224.0 * 224.0);
        EXPECT_NEAR(mix.share, 1 - area, 1e-12);
        EXPECT_GE(mix.top, 0);
        EXPECT_LE(mix.bottom, 224);
        EXPECT_GE(mix.left, 0);
        EXPECT_LE(mix.right, 224);
        mean += mix.share / 4000;
    }
    EXPECT_GT(mean, 0.5) << "half of the picture on average, less what the border cuts off";
    EXPECT_LT(mean, 0.75);
}

// Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
TEST(Mixup, SharesFollowTheBetaDistribution) {
    for (const double alpha : {0.2, 0.8, 1.0, 3.0}) {
        Random random(3);
        const MixupSettings settings{.mixup = alpha, .mode = "elem"};
        const int count = 20000;
        double sum = 0, squares = 0;
        for (const MixShare& mix : draw_mix(settings, count, 8, 8, random)) {
            sum += mix.share;
            squares += mix.share * mix.share;
        }
        const double mean = sum / count, variance = squares / count - mean * mean;
        EXPECT_NEAR(mean, 0.5, 0.015) << alpha << ": five standard errors";
        EXPECT_NEAR(variance, 1 / (4 * (2 * alpha + 1)), 0.006) << alpha;
    }
}

TEST(Mixup, ModesShareTheirDraws) {
    Random random(4);
    const auto differing = [&](const char* mode) {
        const MixupSettings settings{.mixup = 0.8, .mode = mode};
        const auto shares = draw_mix(settings, 8, 8, 8, random);
        std::vector<double> values;
        for (const MixShare& mix : shares) values.push_back(mix.share);
        if (mode != std::string("elem")) {
            for (int b = 0; b < 8; ++b) EXPECT_EQ(values[b], values[7 - b]) << mode;
        }
        std::sort(values.begin(), values.end());
        return std::unique(values.begin(), values.end()) - values.begin();
    };
    EXPECT_EQ(differing("batch"), 1);
    EXPECT_EQ(differing("pair"), 4);
    EXPECT_EQ(differing("elem"), 8);
}

TEST(Mixup, ProbabilitiesOfNothingAndOfCutMix) {
    Random random(5);
    const MixupSettings settings{
        .mixup = 1.0, .cutmix = 1.0, .probability = 0.5, .switch_probability = 0.25, .mode = "elem"};
    int untouched = 0, cut = 0;
    const int count = 8000;
    for (const MixShare& mix : draw_mix(settings, count, 224, 224, random)) {
        untouched += mix.share == 1.0 && !mix.cut();
        cut += mix.cut();
    }
    EXPECT_NEAR(untouched, 0.5 * count, 250);
    EXPECT_NEAR(cut, 0.125 * count, 150);
}

}  // namespace
}  // namespace dynvit
