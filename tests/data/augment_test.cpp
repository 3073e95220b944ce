// Settings as YAML reads them; the whole augmentation against the steps it consists of.
#include "dynvit/data/augment.hpp"

#include "dynvit/core/config.hpp"
#include "dynvit/data/color_jitter.hpp"
#include "picture_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;
using test::same;
using test::speckled;

AugmentSettings read(const std::string& text, std::vector<std::string> overrides = {}) {
    return read_config<AugmentSettings>({text, "a.yaml", std::move(overrides)});
}

constexpr const char* kDeit = "rand_augment: rand-m9-mstd0.5-inc1\ncolor_jitter: 0.4\nerase_probability: 0.25\n";

TEST(AugmentSettings, ChangeNothingByDefault) {
    const Image image = speckled(20, 16, 1);
    const Augmentation augmentation = make_augmentation({});
    Random random(2);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(same(apply(augmentation, image, random), image));
}

TEST(AugmentSettings, AreReadAndWrittenBack) {
    const AugmentSettings settings = read(std::string(kDeit) + "rand_augment_filter: random\nerase_mode: const\n");
    EXPECT_EQ(settings.rand_augment, "rand-m9-mstd0.5-inc1");
    EXPECT_EQ(settings.color_jitter, 0.4);
    EXPECT_EQ(settings.erase_probability, 0.25);
    EXPECT_EQ(write_config(read(write_config(settings))), write_config(settings));

    const Augmentation augmentation = make_augmentation(settings);
    ASSERT_TRUE(augmentation.rand_augment);
    EXPECT_EQ(augmentation.rand_augment->magnitude, 9);
    EXPECT_FALSE(augmentation.rand_augment->filter);
    EXPECT_EQ(augmentation.erasing.probability, 0.25);
    EXPECT_EQ(augmentation.erasing.mode, EraseMode::kConst);
    EXPECT_EQ(make_augmentation(read(kDeit)).rand_augment->filter, Filter::kBicubic);
    EXPECT_EQ(make_augmentation(read(kDeit)).erasing.mode, EraseMode::kPixel);
    EXPECT_FALSE(make_augmentation(read("rand_augment: ''")).rand_augment);
}

TEST(AugmentSettings, ErrorsNameFileLineAndKey) {
    EXPECT_EQ(
        error_of([] { read("erase_mode: pixel\nrand_augment: rand-m9-q2"); }),
        "[config] a.yaml:2: rand_augment: found section 'q2', expected m, n, p, mstd, mmax or inc with a number, or "
        "tweights");
    EXPECT_EQ(
        error_of([] { read("", {"rand_augment=m9"}); }),
        "[config] --set rand_augment=m9: rand_augment: found 'm9' first, expected 'rand', as in rand-m9-mstd0.5-inc1");
    EXPECT_EQ(error_of([] { read("rand_augment_filter: lanczos"); }),
              "[config] a.yaml:1: rand_augment_filter: found 'lanczos', expected one of bicubic, bilinear, random");
    EXPECT_EQ(error_of([] { read("erase_mode: rand"); }),
              "[config] a.yaml:1: erase_mode: found 'rand', expected one of pixel, const");
    EXPECT_EQ(error_of([] { read("erase_probability: 1.1"); }),
              "[config] a.yaml:1: erase_probability: found '1.1', expected a number of at least 0 and at most 1");
    EXPECT_EQ(error_of([] { read("color_jitter: -1"); }),
              "[config] a.yaml:1: color_jitter: found '-1', expected a number of at least 0");
}

TEST(MakeAugmentation, FillsGapsWithTheMean) {
    EXPECT_EQ(make_augmentation(read(kDeit)).rand_augment->fill, (Rgb{124, 116, 104}));
    Preprocessing preprocessing;
    preprocessing.mean = {0.5, 0, 1};
    preprocessing.std = {0.5, 0.25, 0.125};
    const Augmentation augmentation = make_augmentation(read(kDeit), preprocessing);
    EXPECT_EQ(augmentation.rand_augment->fill, (Rgb{128, 0, 255}));
    EXPECT_EQ(augmentation.erasing.mean, preprocessing.mean);
    EXPECT_EQ(augmentation.erasing.std, preprocessing.std);
    const Image shifted = apply(Operation::kTranslateX, 0.5, Filter::kBilinear, Image(8, 4), {128, 0, 255});
    EXPECT_EQ(shifted.at(7, 2)[0], 128) << "from outside the picture";
    EXPECT_EQ(shifted.at(7, 2)[2], 255);
    EXPECT_EQ(shifted.at(0, 2)[2], 0);
}

TEST(MakeAugmentation, RefusesWhatWasNotRead) {
    EXPECT_EQ(
        error_of([] { make_augmentation({.rand_augment = "rand-n"}); }),
        "[rand_augment] 'rand-n': found section 'n', expected n and a whole number of at least 1 and at most 100");
    EXPECT_EQ(error_of([] { make_augmentation({.erase_mode = "rand"}); }),
              "[augment] erase_mode: found 'rand', expected one of pixel, const");
}

TEST(Augmentation, RandAugmentTakesThePlaceOfJitterAndErasingComesLast) {
    const Image image = speckled(20, 16, 3);
    const Augmentation augmentation =
        make_augmentation({.rand_augment = "rand-m9-mstd0.5-inc1", .color_jitter = 0.4, .erase_probability = 0.5});
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed), by_hand(seed);
        const Image augmented = apply(*augmentation.rand_augment, image, by_hand);
        EXPECT_TRUE(same(apply(augmentation, image, random), apply(augmentation.erasing, augmented, by_hand)));
        EXPECT_EQ(random.bits(), by_hand.bits());
    }
}

TEST(Augmentation, JitterComesBeforeErasing) {
    const Image image = speckled(20, 16, 4);
    const Augmentation augmentation =
        make_augmentation({.color_jitter = 0.4, .erase_probability = 1, .erase_mode = "const"});
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed), by_hand(seed);
        const Image jittered = color_jitter(image, 0.4, by_hand);
        EXPECT_TRUE(same(apply(augmentation, image, random), apply(augmentation.erasing, jittered, by_hand)));
    }
}

TEST(Augmentation, KeepsAnySize) {
    const Augmentation augmentation =
        make_augmentation({.rand_augment = "rand-m9-mstd0.5-inc1-p1", .erase_probability = 1});
    Random random(5);
    for (const auto& [width, height] : {std::pair(1, 1), {1, 13}, {13, 1}, {48, 32}})
        for (int i = 0; i < 50; ++i) {
            const Image result = apply(augmentation, speckled(width, height, 6), random);
            EXPECT_EQ(result.width, width);
            EXPECT_EQ(result.height, height);
            EXPECT_EQ(result.pixels.size(), static_cast<std::size_t>(3 * width * height));
        }
}

}  // namespace
}  // namespace dynvit
