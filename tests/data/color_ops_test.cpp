// Compares with Pillow (golden tensors, every byte equal) and with closed forms.
#include "dynvit/data/color_ops.hpp"

#include <cmath>
#include <functional>
#include <set>

#include "dynvit/io/safetensors.hpp"
#include "picture_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::expect_same;
using test::one_color;
using test::same;
using test::speckled;

struct NamedOperation {
    const char* name;
    std::function<Image(Image)> apply;
};

/// All operations, with arguments that change something.
std::vector<NamedOperation> operations() {
    return {
        {"auto_contrast", [](Image image) { return auto_contrast(std::move(image)); }},
        {"equalize", [](Image image) { return equalize(std::move(image)); }},
        {"invert", [](Image image) { return invert(std::move(image)); }},
        {"posterize.3", [](Image image) { return posterize(std::move(image), 3); }},
        {"solarize.87", [](Image image) { return solarize(std::move(image), 87); }},
        {"solarize_add.40", [](Image image) { return solarize_add(std::move(image), 40); }},
        {"color.0.4", [](Image image) { return adjust_color(std::move(image), 0.4); }},
        {"color.1.63", [](Image image) { return adjust_color(std::move(image), 1.63); }},
        {"contrast.0.4", [](Image image) { return adjust_contrast(std::move(image), 0.4); }},
        {"contrast.1.63", [](Image image) { return adjust_contrast(std::move(image), 1.63); }},
        {"brightness.0.4", [](Image image) { return adjust_brightness(std::move(image), 0.4); }},
        {"brightness.1.63", [](Image image) { return adjust_brightness(std::move(image), 1.63); }},
        {"sharpness.0.2", [](const Image& image) { return adjust_sharpness(image, 0.2); }},
        {"sharpness.1.63", [](const Image& image) { return adjust_sharpness(image, 1.63); }},
    };
}

TEST(ColorOps, ArePillows) {
    const TensorMap golden = read_safetensors(test::golden("images/randaugment.safetensors")).tensors;
    const Image image = test::to_image(golden.at("input"));
    for (const NamedOperation& operation : operations())
        expect_same(operation.apply(image), test::to_image(golden.at(std::string("out.") + operation.name)),
                    operation.name);
}

TEST(ColorOps, KeepAnySize) {
    for (const NamedOperation& operation : operations())
        for (const auto& [width, height] : {std::pair(1, 1), {1, 7}, {7, 1}, {2, 2}, {3, 3}, {33, 5}, {0, 0}}) {
            const Image result = operation.apply(speckled(width, height, 1));
            EXPECT_EQ(result.width, width) << operation.name;
            EXPECT_EQ(result.height, height) << operation.name;
            EXPECT_EQ(result.pixels.size(), static_cast<std::size_t>(3 * width * height)) << operation.name;
        }
}

TEST(ColorOps, OneColorStaysOneColor) {
    for (const NamedOperation& operation : operations())
        for (const int side : {1, 5}) {
            const Image result = operation.apply(one_color(side, side, {200, 30, 90}));
            expect_same(result, one_color(side, side, {result.pixels[0], result.pixels[1], result.pixels[2]}),
                        operation.name);
        }
}

TEST(ColorOps, OneColorHasNoContrastToChange) {
    const Image plain = one_color(20, 20, {200, 30, 90});
    expect_same(auto_contrast(plain), plain, "auto_contrast");
    expect_same(equalize(plain), plain, "equalize");
    expect_same(adjust_sharpness(plain, 1.9), plain, "sharpness");
    expect_same(adjust_sharpness(plain, 0.1), plain, "sharpness");
    const Image grey = one_color(20, 20, {77, 77, 77});
    expect_same(adjust_contrast(grey, 1.9), grey, "contrast");
    expect_same(adjust_color(grey, 1.9), grey, "color");
}

TEST(ColorOps, FactorOneChangesNothingAndZeroLeavesTheDegenerate) {
    const Image image = speckled(13, 9, 2);
    for (const auto& adjust : {adjust_color, adjust_contrast, adjust_brightness})
        EXPECT_TRUE(same(adjust(image, 1), image));
    EXPECT_TRUE(same(adjust_sharpness(image, 1), image));
    EXPECT_TRUE(same(adjust_brightness(image, 0), one_color(13, 9, {0, 0, 0})));
    const Image grey = adjust_color(image, 0), flat = adjust_contrast(image, 0);
    double mean = 0;
    for (std::size_t i = 0; i < image.pixels.size(); i += 3) {
        const double luma = 0.299 * image.pixels[i] + 0.587 * image.pixels[i + 1] + 0.114 * image.pixels[i + 2];
        mean += luma / (13 * 9);
        for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(grey.pixels[i + c], luma, 0.51);  // rounded; the weights too
    }
    EXPECT_NEAR(flat.pixels[0], mean, 0.5 + 0.1);  // the mean of rounded values, rounded: of 117, off by 0.03 and 1/2
    EXPECT_TRUE(same(flat, one_color(13, 9, {flat.pixels[0], flat.pixels[0], flat.pixels[0]})));
}

TEST(Contrast, MeanIsRoundedHalfUp) {
    Image image(2, 1);
    image.pixels = {10, 10, 10, 11, 11, 11};
    EXPECT_TRUE(same(adjust_contrast(image, 0), one_color(2, 1, {11, 11, 11})));
}

TEST(ColorOps, FarFactorsClamp) {
    const Image image = speckled(13, 9, 3);
    const Image bright = adjust_brightness(image, 1e30), dark = adjust_brightness(image, -1e30);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
        EXPECT_EQ(bright.pixels[i], image.pixels[i] > 0 ? 255 : 0);
        EXPECT_EQ(dark.pixels[i], 0);
    }
}

TEST(AutoContrast, StretchesEachChannelToAllValues) {
    Image image(3, 1);
    image.pixels = {10, 0, 50, 20, 128, 50, 30, 255, 50};
    EXPECT_EQ(auto_contrast(image).pixels, (std::vector<std::uint8_t>{0, 0, 50, 127, 128, 50, 255, 255, 50}));
}

// 256 x 4 pixels whose channel takes 4 adjacent values equally often: a step is 256 x 3 / 255 = 3 pixels, ranks start
// at 1 and grow by 256 a value, so the values become 1/3, 257/3, 513/3 and 769/3, of which 256 is clamped.
TEST(Equalize, SpreadsAnEvenHistogram) {
    Image image(256, 4);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(100 + i / 3 % 4);
    const Image result = equalize(image);
    EXPECT_EQ(std::set<int>(result.pixels.begin(), result.pixels.end()), (std::set<int>{0, 85, 171, 255}));
    EXPECT_EQ(result.pixels[3 * 2], 171);
}

TEST(Equalize, LeavesFewPixels) {
    const Image image = speckled(10, 10, 4);  // at most 100 below the highest value
    EXPECT_TRUE(same(equalize(image), image));
}

TEST(PointOps, FollowTheirRule) {
    Image ramp(256, 1);
    for (std::size_t i = 0; i < ramp.pixels.size(); ++i) ramp.pixels[i] = static_cast<std::uint8_t>(i / 3);
    for (int v = 0; v < 256; ++v) {
        EXPECT_EQ(invert(ramp).at(v, 0)[0], 255 - v);
        for (const int bits : {1, 4, 7}) EXPECT_EQ(posterize(ramp, bits).at(v, 0)[1], v - v % (1 << (8 - bits)));
        for (const int threshold : {0, 100, 256})
            EXPECT_EQ(solarize(ramp, threshold).at(v, 0)[2], v < threshold ? v : 255 - v);
        EXPECT_EQ(solarize_add(ramp, 110).at(v, 0)[0], v < 128 ? v + 110 : v);
        EXPECT_EQ(solarize_add(ramp, 2147483647).at(v, 0)[0], v < 128 ? 255 : v);
    }
    for (const int bits : {8, 9, 100}) EXPECT_TRUE(same(posterize(ramp, bits), ramp));
    for (const int bits : {0, -2}) EXPECT_TRUE(same(posterize(ramp, bits), one_color(256, 1, {0, 0, 0})));
}

// By the definition, in doubles: no sum lies so near half-way between two whole numbers that rounding is unclear.
TEST(Sharpness, DegenerateIsTheSmoothedPicture) {
    const Image image = speckled(9, 7, 5);
    const Image smooth = adjust_sharpness(image, 0);
    for (int y = 0; y < 7; ++y)
        for (int x = 0; x < 9; ++x)
            for (int c = 0; c < 3; ++c) {
                double sum = 4.0 * image.at(x, y)[c];
                const bool border = x == 0 || y == 0 || x == 8 || y == 6;
                for (int j = -1; j <= 1 && !border; ++j)
                    for (int i = -1; i <= 1; ++i) sum += image.at(x + i, y + j)[c];
                EXPECT_EQ(smooth.at(x, y)[c], border ? image.at(x, y)[c] : std::lround(sum / 13));
            }
}

TEST(Sharpness, LeavesPicturesThatAreAllBorder) {
    for (const auto& [width, height] : {std::pair(1, 1), {2, 9}, {9, 2}}) {
        const Image image = speckled(width, height, 6);
        EXPECT_TRUE(same(adjust_sharpness(image, 0.1), image));
    }
}

}  // namespace
}  // namespace dynvit
