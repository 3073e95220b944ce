// Windows against their legal range and closed forms; whole transforms against the steps they consist of.
#include "dynvit/data/transforms.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "dynvit/core/files.hpp"
#include "jpeg_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

Image speckled(int width, int height) {
    Image image(width, height);
    Random random(mix_seed({static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height)}));
    for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(random.integer(0, 256));
    return image;
}

void expect_equal(const Image& got, const Image& expected) {
    EXPECT_EQ(got.width, expected.width);
    EXPECT_EQ(got.height, expected.height);
    EXPECT_EQ(got.pixels, expected.pixels);
}

TEST(RandomResizedCrop, WindowLiesInsideThePicture) {
    Random random(1);
    for (int i = 0; i < 20000; ++i) {
        const int limit = i % 3 == 0 ? 4 : 600;
        const int width = static_cast<int>(random.integer(1, limit)),
                  height = static_cast<int>(random.integer(1, limit));
        const Window window = random_resized_crop(width, height, {}, random);
        ASSERT_GE(window.left, 0);
        ASSERT_GE(window.top, 0);
        ASSERT_GE(window.width, 1);
        ASSERT_GE(window.height, 1);
        ASSERT_LE(window.left + window.width, width) << width << " x " << height;
        ASSERT_LE(window.top + window.height, height) << width << " x " << height;
    }
}

TEST(RandomResizedCrop, OnePixelIsTakenWhole) {
    Random random(2);
    const Window window = random_resized_crop(1, 1, {}, random);
    EXPECT_EQ(window.left, 0);
    EXPECT_EQ(window.top, 0);
    EXPECT_EQ(window.width, 1);
    EXPECT_EQ(window.height, 1);
}

// Sides are rounded by at most half a pixel: of 400 x 300, a window of at least 0.2 has sides of at least 130 pixels.
TEST(RandomResizedCrop, AreaAndRatioKeepTheirRange) {
    const TrainTransform transform{.scale = {0.2, 0.6}, .ratio = {0.8, 1.25}};
    Random random(3);
    double smallest = 1, largest = 0, narrowest = 9, widest = 0;
    for (int i = 0; i < 5000; ++i) {
        const Window window = random_resized_crop(400, 300, transform, random);
        const double area = window.width * window.height / (400.0 * 300.0);
        const double ratio = static_cast<double>(window.width) / window.height;
        smallest = std::min(smallest, area);
        largest = std::max(largest, area);
        narrowest = std::min(narrowest, ratio);
        widest = std::max(widest, ratio);
    }
    constexpr double kRounding = 1 / 130.0;  // half a pixel on each of two sides
    EXPECT_GE(smallest, 0.2 * (1 - kRounding));
    EXPECT_LE(largest, 0.6 * (1 + kRounding));
    EXPECT_GE(narrowest, 0.8 * (1 - kRounding));
    EXPECT_LE(widest, 1.25 * (1 + kRounding));
    EXPECT_LT(smallest, 0.22);  // and uses it up
    EXPECT_GT(largest, 0.58);
    EXPECT_LT(narrowest, 0.83);
    EXPECT_GT(widest, 1.21);
}

// The logarithm of the ratio is uniform: as many windows are higher than wide as the other way round. Of 10000, the
// standard deviation is 50; five of them.
TEST(RandomResizedCrop, RatioIsLogUniform) {
    const TrainTransform transform{.scale = {0.1, 0.3}, .ratio = {0.5, 2.0}};
    Random random(4);
    int wide = 0, very_wide = 0;
    for (int i = 0; i < 10000; ++i) {
        const Window window = random_resized_crop(2000, 2000, transform, random);
        wide += window.width > window.height;
        very_wide += window.width > window.height * std::sqrt(2.0);
    }
    EXPECT_NEAR(wide, 5000, 250);
    EXPECT_NEAR(very_wide, 2500, 250);
}

TEST(RandomResizedCrop, DrawsInTorchvisionsOrder) {
    const TrainTransform transform{.scale = {0.1, 0.3}};  // the first try always fits a square
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed), by_hand(seed);
        const Window window = random_resized_crop(200, 200, transform, random);
        const double area = 200.0 * 200.0 * by_hand.uniform(0.1, 0.3);
        const double ratio = std::exp(by_hand.uniform(std::log(0.75), std::log(4.0 / 3.0)));
        EXPECT_EQ(window.width, static_cast<int>(std::nearbyint(std::sqrt(area * ratio))));
        EXPECT_EQ(window.height, static_cast<int>(std::nearbyint(std::sqrt(area / ratio))));
        EXPECT_EQ(window.top, by_hand.integer(0, 200 - window.height + 1));
        EXPECT_EQ(window.left, by_hand.integer(0, 200 - window.width + 1));
        EXPECT_EQ(random.bits(), by_hand.bits());
    }
}

// A strip that no window of the asked scale fits: the largest legal one in the middle.
TEST(RandomResizedCrop, FallsBackToTheMiddle) {
    const TrainTransform transform{.scale = {0.9, 1.0}};
    Random random(5);
    const Window wide = random_resized_crop(1000, 10, transform, random);
    EXPECT_EQ(wide.width, 13);  // 10 x 4 / 3
    EXPECT_EQ(wide.height, 10);
    EXPECT_EQ(wide.left, 493);
    EXPECT_EQ(wide.top, 0);
    const Window high = random_resized_crop(9, 1000, transform, random);
    EXPECT_EQ(high.width, 9);
    EXPECT_EQ(high.height, 12);
    EXPECT_EQ(high.left, 0);
    EXPECT_EQ(high.top, 494);
    const Window whole = random_resized_crop(100, 90, {.scale = {2, 3}}, random);
    EXPECT_EQ(whole.width, 100);
    EXPECT_EQ(whole.height, 90);
}

TEST(TrainTransform, IsCropResizeAndMirror) {
    const Image image = speckled(40, 30);
    TrainTransform transform{.width = 16, .height = 12, .flip = 0};
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Random random(seed), by_hand(seed), mirrored(seed);
        const Window window = random_resized_crop(40, 30, transform, by_hand);
        const Image expected = resize(crop(image, window), 16, 12, Filter::kBicubic);
        transform.flip = 0;
        expect_equal(apply(transform, image, random), expected);
        transform.flip = 1;
        const Image flipped = apply(transform, image, mirrored);
        for (int y = 0; y < 12; ++y)
            for (int x = 0; x < 16; ++x)
                ASSERT_TRUE(std::equal(flipped.at(x, y), flipped.at(x, y) + 3, expected.at(15 - x, y)));
    }
}

TEST(TrainTransform, MirrorsAnOddWidthToo) {
    const Image image = speckled(5, 1);
    const TrainTransform transform{.width = 5, .height = 1, .scale = {1, 1}, .ratio = {5, 5}, .flip = 1};
    Random random(6);
    const Image flipped = apply(transform, image, random);
    ASSERT_EQ(flipped.width, 5);
    for (int x = 0; x < 5; ++x) EXPECT_TRUE(std::equal(flipped.at(x, 0), flipped.at(x, 0) + 3, image.at(4 - x, 0)));
}

TEST(TrainTransform, OnePixelFillsTheInput) {
    Image image(1, 1);
    image.pixels = {10, 200, 30};
    Random random(7);
    const Image result = apply(TrainTransform{.width = 8, .height = 6}, image, random);
    EXPECT_EQ(result.width, 8);
    EXPECT_EQ(result.height, 6);
    for (int y = 0; y < 6; ++y)
        for (int x = 0; x < 8; ++x) EXPECT_TRUE(std::equal(image.pixels.begin(), image.pixels.end(), result.at(x, y)));
}

Sample encoded(const std::vector<std::uint8_t>& bytes) {
    Sample sample;
    sample.encoded = bytes;
    sample.name = "sample";
    return sample;
}

// Windows of less than twice the target are decoded at full size, where decode_window gives the whole picture's pixels.
TEST(TrainTransform, OfAFileIsThatOfItsPicture) {
    const TrainTransform transform{.width = 48, .height = 40};
    TrainTransform exact = transform;
    exact.exact_decode = true;
    for (const char* name : {"rgb_420.jpg", "rgb_444.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png"}) {
        const Sample sample = encoded(read_file(test::golden(std::string("images/") + name), "test"));
        const Image image = decode_image(sample.encoded, name);
        ASSERT_TRUE(image.width < 96 || image.height < 80) << name;
        for (std::uint64_t seed = 0; seed < 10; ++seed) {
            Random fast(seed), slow(seed), whole(seed);
            const Image expected = apply(transform, image, whole);
            expect_equal(apply(transform, sample, fast), expected);
            expect_equal(apply(exact, sample, slow), expected);
            EXPECT_EQ(fast.bits(), whole.bits());
        }
    }
}

TEST(TrainTransform, OfADrawnPictureIsThatOfThePicture) {
    Sample sample;
    sample.image = speckled(40, 30);
    Random one(3), other(3);
    expect_equal(apply(TrainTransform{}, sample, one), apply(TrainTransform{}, sample.image, other));
}

TEST(TrainTransform, NamesTheFileThatCannotBeDecoded) {
    Random random(1);
    const Sample sample = encoded({1, 2, 3});
    EXPECT_EQ(test::error_of([&] { apply(TrainTransform{}, sample, random); }).find("[image] sample: "), 0u);
}

/// Takes no picture, or makes a black one of every picture; notes what it was asked for.
class NotingDecoder : public WindowDecoder {
  public:
    std::optional<Image> decode(std::span<const std::uint8_t> bytes, const Window& window, bool mirrored) override {
        asked.push_back({std::vector(bytes.begin(), bytes.end()), window, mirrored});
        return takes ? std::optional(Image(48, 40)) : std::nullopt;
    }
    struct Asked {
        std::vector<std::uint8_t> bytes;
        Window window;
        bool mirrored;
    };
    bool takes = false;
    std::vector<Asked> asked;
};

TEST(TrainTransform, ADecoderIsAskedForTheWindowThatTheProcessorTakes) {
    const TrainTransform transform{.width = 48, .height = 40};
    const Sample sample = encoded(read_file(test::golden("images/rgb_420.jpg"), "test"));
    const PictureSize size = picture_size(sample.encoded, "sample");
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        NotingDecoder decoder;
        decoder.takes = true;
        Random random(seed), by_hand(seed);
        expect_equal(apply(transform, sample, random, &decoder), Image(48, 40));
        const Window window = random_resized_crop(size.width, size.height, transform, by_hand);
        ASSERT_EQ(decoder.asked.size(), 1u);
        EXPECT_EQ(decoder.asked[0].bytes, sample.encoded);
        EXPECT_EQ(decoder.asked[0].window.left, window.left);
        EXPECT_EQ(decoder.asked[0].window.top, window.top);
        EXPECT_EQ(decoder.asked[0].window.width, window.width);
        EXPECT_EQ(decoder.asked[0].window.height, window.height);
        EXPECT_EQ(decoder.asked[0].mirrored, by_hand.chance(transform.flip));
        EXPECT_EQ(random.bits(), by_hand.bits());
    }
}

TEST(TrainTransform, WhatADecoderDoesNotTakeIsDecodedHere) {
    NotingDecoder decoder;
    TrainTransform transform{.width = 20, .height = 16};
    for (const bool exact : {false, true}) {
        transform.exact_decode = exact;
        for (const char* name : {"rgb_420.jpg", "progressive.jpg", "rgb.png"}) {
            const Sample sample = encoded(read_file(test::golden(std::string("images/") + name), "test"));
            Random asked(3), alone(3);
            expect_equal(apply(transform, sample, asked, &decoder), apply(transform, sample, alone));
            EXPECT_EQ(asked.bits(), alone.bits());
        }
    }
    EXPECT_EQ(decoder.asked.size(), 6u);

    Sample cut = encoded(read_file(test::golden("images/rgb_420.jpg"), "test"));
    cut.encoded.resize(cut.encoded.size() / 2);
    transform.scale = {1, 1};
    Random asked(4), alone(4);
    EXPECT_EQ(test::error_of([&] { apply(transform, cut, asked, &decoder); }),
              test::error_of([&] { apply(transform, cut, alone); }));
}

/// Waves of colour: of red the shortest, `period` pixels across and 1.4 times as many down.
Image waves(int width, int height, double period) {
    Image image(width, height);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            for (int c = 0; c < 3; ++c) {
                const double across = std::sin(2 * M_PI * x / (period * (1 + 0.4 * c)));
                const double down = std::cos(2 * M_PI * y / (period * (1.4 + 0.2 * c)));
                image.at(x, y)[c] = static_cast<std::uint8_t>(std::lround(128 + 50 * across + 50 * down));
            }
    return image;
}

// The waves are 8 and more reduced pixels long, which no scale leaves out. What remains is rounding to 8 bits: of luma
// and chroma, of the colours and of each of two passes, which at full size is mostly averaged away. 1/12 each, counted
// six times. Half a reduced pixel off, waves of 10 output pixels and amplitude 50 would give a mean square above 100.
TEST(TrainTransform, ReducedDecodingIsCloseToFullDecoding) {
    for (const int size : {96, 48, 24}) {  // the reduced scales 1/2, 1/4 and 1/8 of most windows
        const Image image = waves(512, 384, 50.0 * 96 / size);
        for (const auto& [horizontal, vertical] : {std::pair{1, 1}, {2, 1}, {1, 2}, {2, 2}}) {
            const Sample sample =
                encoded(test::encode_jpeg(image, {.quality = 100, .horizontal = horizontal, .vertical = vertical}));
            const TrainTransform fast{.width = size, .height = size, .scale = {0.6, 1}};
            TrainTransform exact = fast;
            exact.exact_decode = true;
            for (std::uint64_t seed = 0; seed < 5; ++seed) {
                Random a(seed), b(seed);
                const Image got = apply(fast, sample, a), wanted = apply(exact, sample, b);
                double squares = 0, sum = 0;
                for (std::size_t i = 0; i < got.pixels.size(); ++i) {
                    const int difference = got.pixels[i] - wanted.pixels[i];
                    squares += difference * difference;
                    sum += difference;
                }
                const double count = static_cast<double>(got.pixels.size());
                EXPECT_TRUE(squares > 0 || horizontal != vertical) << "another decoding was expected";
                EXPECT_LT(squares / count, 0.5) << size << ", subsampled " << horizontal << " x " << vertical;
                EXPECT_LT(std::abs(sum / count), 0.2) << size;
            }
        }
    }
}

TEST(EvalTransform, IsResizeAndCentreCrop) {
    const Image image = speckled(60, 45);
    expect_equal(apply(EvalTransform{.width = 28, .height = 28}, image),
                 center_crop(resize_short_side(image, 32), 28, 28));  // 28 / 0.875
    expect_equal(apply(EvalTransform{.width = 28, .height = 28, .resize = 40}, image),
                 center_crop(resize_short_side(image, 40), 28, 28));
}

// As timm: the picture covers what it is cropped from, and no border is added.
TEST(EvalTransform, OfAnotherShapeIsCovered) {
    const Image wide = speckled(60, 45), narrow = speckled(45, 60);
    // 40 / 0.875 = 45.7, 20 / 0.875 = 22.9: the width decides, 60 x 45 becomes 45 x 34 (33.75).
    expect_equal(apply(EvalTransform{.width = 40, .height = 20}, wide), center_crop(resize(wide, 45, 34), 40, 20));
    // 45 x 60 becomes 45 x 60.
    expect_equal(apply(EvalTransform{.width = 40, .height = 20}, narrow), center_crop(narrow, 40, 20));
    // The shorter side of what is covered is 30, the longer one 60: 45 x 60 becomes 60 x 80.
    expect_equal(apply(EvalTransform{.width = 40, .height = 20, .resize = 30}, narrow),
                 center_crop(resize(narrow, 60, 80), 40, 20));
    const Image white = [] {
        Image made(500, 375);
        std::ranges::fill(made.pixels, std::uint8_t{255});
        return made;
    }();
    for (const auto& [width, height] : {std::pair(320, 160), std::pair(160, 320), std::pair(224, 208)}) {
        const Image prepared = apply(EvalTransform{.width = width, .height = height}, white);
        EXPECT_TRUE(std::ranges::all_of(prepared.pixels, [](std::uint8_t value) { return value == 255; }))
            << width << " x " << height;
    }
}

TEST(EvalTransform, IsWhatPreprocessingSays) {
    const Image image = speckled(60, 45);
    Preprocessing preprocessing;
    const auto prepared = [&] { return apply(eval_transform(preprocessing, 16, 20), image); };
    expect_equal(prepared(), center_crop(resize_to_cover(image, 22, 18), 20, 16));  // 20 and 16 / 0.875, rounded down
    preprocessing.crop_pct = 0.5;
    expect_equal(prepared(), center_crop(resize_to_cover(image, 40, 32), 20, 16));
    preprocessing.interpolation = "bilinear";
    expect_equal(prepared(), center_crop(resize_to_cover(image, 40, 32, Filter::kBilinear), 20, 16));
    preprocessing.resize = 48;  // before a share of the crop
    expect_equal(prepared(), center_crop(resize_to_cover(image, 60, 48, Filter::kBilinear), 20, 16));
    preprocessing.resize = 0;
    preprocessing.crop = kSquash;
    expect_equal(prepared(), resize(image, 20, 16, Filter::kBilinear));
    preprocessing.interpolation = "lanczos";
    expect_equal(prepared(), resize(image, 20, 16, Filter::kLanczos));
}

TEST(TrainTransform, ResizesAsItsFilterDoes) {
    const Image image = speckled(60, 45);
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic, Filter::kLanczos}) {
        const TrainTransform transform{.width = 20, .height = 16, .flip = 0, .filter = filter};
        Random random(5), same_one(5);
        const Window window = random_resized_crop(60, 45, transform, random);
        expect_equal(apply(transform, image, same_one), resize(crop(image, window), 20, 16, filter));
    }
}

TEST(EvalTransform, HasTheAskedSizeForAnyPicture) {
    for (const auto& [width, height] : {std::pair(1, 1), std::pair(1, 40), std::pair(300, 7), std::pair(224, 224)}) {
        const Image result = apply(EvalTransform{.width = 24, .height = 16}, speckled(width, height));
        EXPECT_EQ(result.width, 24);
        EXPECT_EQ(result.height, 16);
        EXPECT_EQ(result.pixels.size(), 24u * 16 * 3);
    }
}

TEST(EvalTransform, APictureTooLongToResizeIsNamed) {
    const Image line(1, 65000);
    EXPECT_EQ(test::error_of([&] { apply(EvalTransform{}, line, "line.png"); }),
              "[image] line.png: 1 x 65000 pixels are too long a picture: resized to cover 256 x 256, it would "
              "have more than 2^28; expected a shorter one, or --crop squash");
    const Image squashed = apply(EvalTransform{.squash = true}, line, "line.png");
    EXPECT_EQ(squashed.width, 224);
    EXPECT_EQ(squashed.height, 224);
    EXPECT_EQ(apply(EvalTransform{}, Image(1, 4000), "shorter.png").height, 224);
}

}  // namespace
}  // namespace dynvit
