// Compares with Pillow (golden tensors), with a plain definition of the filter, and with closed forms.
#include "dynvit/data/resize.hpp"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <tuple>
#include <vector>

#include "dynvit/core/random.hpp"
#include "dynvit/io/safetensors.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

Image random_image(int width, int height, std::uint64_t seed) {
    Image image(width, height);
    Random random(seed);
    for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(random.bits() >> 56);
    return image;
}

/// Fails unless `image` is within 1 of `expected` (H, W, 3), at least 99 % of it equal.
void expect_close(const Image& image, const at::Tensor& expected, const std::string& what) {
    ASSERT_EQ(expected.sizes(), (std::vector<std::int64_t>{image.height, image.width, 3})) << what;
    const std::uint8_t* wanted = expected.const_data_ptr<std::uint8_t>();
    std::size_t different = 0;
    int largest = 0;
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
        const int difference = std::abs(image.pixels[i] - wanted[i]);
        different += difference != 0;
        largest = std::max(largest, difference);
    }
    EXPECT_LE(largest, 1) << what;
    EXPECT_LE(different * 100, image.pixels.size()) << what;
}

/// Rows for columns.
Image turned(const Image& image) {
    Image result(image.height, image.width);
    for (int y = 0; y < image.height; ++y)
        for (int x = 0; x < image.width; ++x) std::copy_n(image.at(x, y), 3, result.at(y, x));
    return result;
}

double kernel(double x, Filter filter) {
    x = std::abs(x);
    if (filter == Filter::kBilinear) return std::max(0.0, 1 - x);
    if (filter == Filter::kLanczos) {
        const double pi_x = std::numbers::pi * x;
        return x == 0 ? 1 : x < 3 ? 3 * std::sin(pi_x) * std::sin(pi_x / 3) / (pi_x * pi_x) : 0;
    }
    if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
    if (x < 2) return -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2;
    return 0;
}

/// The filter's definition for one output byte of the stretch [from, to) of a line of bytes, in floating point.
double filtered(const std::vector<double>& line, double from, double to, int out_size, int output, Filter filter) {
    const double scale = (to - from) / out_size, stretch = std::max(1.0, scale);
    const double center = from + (output + 0.5) * scale;
    const double support = (filter == Filter::kBilinear ? 1 : filter == Filter::kBicubic ? 2 : 3) * stretch;
    double sum = 0, total = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const double middle = static_cast<double>(i) + 0.5;
        if (std::abs(middle - center) > support) continue;
        const double weight = kernel((middle - center) / stretch, filter);
        sum += weight * line[i];
        total += weight;
    }
    return sum / total;
}

TEST(Resize, ResizedScenesArePillows) {
    const TensorMap golden = read_safetensors(test::golden("images/expected.safetensors")).tensors;
    int compared = 0;
    for (const auto& [name, expected] : golden) {
        int scene, size, top, left, height, width;
        if (std::sscanf(name.c_str(), "scene%d.resize%d_crop224", &scene, &size) == 2) {
            const Image image = read_image(test::golden("images/scene" + std::to_string(scene) + ".png"));
            expect_close(center_crop(resize_short_side(image, size), 224, 224), expected, name);
            ++compared;
        } else if (std::sscanf(name.c_str(), "scene%d.crop_t%d_l%d_h%d_w%d.resize96", &scene, &top, &left, &height,
                               &width) == 5) {
            const Image image = read_image(test::golden("images/scene" + std::to_string(scene) + ".png"));
            expect_close(resize(crop(image, {left, top, width, height}), 96, 96), expected, name);
            ++compared;
        }
    }
    EXPECT_EQ(compared, 12);
}

TEST(Resize, PreparedPhotographsArePillows) {
    DYNVIT_NEEDS_SHARED(shared);
    const Safetensors golden = read_safetensors(shared / "golden/photographs/preprocess.safetensors");
    const auto files = nlohmann::json::parse(golden.metadata.at("files")).get<std::vector<std::string>>();
    ASSERT_EQ(files.size(), 6u);
    for (std::size_t i = 0; i < files.size(); ++i) {
        const Image image = read_image(shared / "data/imagenet-val-300/val" / files[i]);
        for (const int size : {248, 256}) {
            const std::string name = str("u8.resize", size, "_crop224.", i);
            expect_close(center_crop(resize_short_side(image, size), 224, 224), golden.tensors.at(name), name);
        }
    }
}

// Up to the last bit of a weight, for every filter: shrunk to any aspect ratio, and a corner enlarged.
TEST(Resize, FiltersArePillows) {
    const Image image = read_image(test::golden("images/scene1.png"));
    const Image corner = crop(image, {30, 20, 12, 9});
    int compared = 0;
    for (const auto& [name, expected] : read_safetensors(test::golden("images/interpolation.safetensors")).tensors) {
        char filter[16];
        int width, height;
        ASSERT_EQ(std::sscanf(name.c_str(), "scene1.%15[a-z]_%dx%d", filter, &width, &height), 3) << name;
        expect_close(resize(name.ends_with(".corner") ? corner : image, width, height, filter_of(filter)), expected,
                     name);
        ++compared;
    }
    EXPECT_EQ(compared, 12);
    EXPECT_EQ(test::error_of([] { filter_of("cubic"); }),
              "[image] found the interpolation 'cubic', expected one of bicubic, bilinear, lanczos");
}

// One pass at a time, for sizes around the passes' vector lengths. Rounding takes up to 1/2; a weight is off by at most
// 2^-23, and times 255 for each of up to 401 weights that is less than 0.013. The result is clamped.
TEST(Resize, OnePassIsTheDefinitionOfTheFilter) {
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic, Filter::kLanczos})
        for (const auto& [in_size, out_size, other] : std::vector<std::array<int, 3>>{
                 {1, 5, 3}, {2, 1, 4}, {7, 30, 11}, {40, 11, 21}, {9, 43, 1}, {64, 3, 33}, {100, 1, 2}, {33, 32, 22}}) {
            const Image image = random_image(in_size, other, mix_seed({7, static_cast<std::uint64_t>(in_size)}));
            const Image wide = resize(image, out_size, other, filter);
            const Image high = resize(turned(image), other, out_size, filter);
            ASSERT_EQ(wide.width, out_size);
            ASSERT_EQ(wide.height, other);
            EXPECT_EQ(turned(high).pixels, wide.pixels) << in_size << " to " << out_size;
            for (int y = 0; y < other; ++y)
                for (int c = 0; c < 3; ++c) {
                    std::vector<double> line(in_size);
                    for (int x = 0; x < in_size; ++x) line[x] = image.at(x, y)[c];
                    for (int x = 0; x < out_size; ++x) {
                        const double wanted = std::clamp(filtered(line, 0, in_size, out_size, x, filter), 0.0, 255.0);
                        EXPECT_NEAR(wide.at(x, y)[c], wanted, 0.513) << in_size << " to " << out_size << " at " << x;
                    }
                }
        }
}

// As above, for stretches that begin and end inside a pixel; eighths are exact in single precision.
TEST(Resize, ABoxIsTheDefinitionOfTheFilter) {
    struct Case {
        int in_size;
        double from, to;
        int out_size;
    };
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic})
        for (const auto& [in_size, from, to, out_size] : std::vector<Case>{{40, 3.125, 33.5, 11},
                                                                           {40, 0.5, 40, 40},
                                                                           {40, 0, 39.875, 57},
                                                                           {90, 89, 89.125, 5},
                                                                           {90, 10.25, 80.75, 1},
                                                                           {7, 1.375, 6.625, 30},
                                                                           {33, 4, 20, 16},
                                                                           {3, 0.125, 2.5, 9}}) {
            const int other = 13;
            const Image image = random_image(in_size, other, mix_seed({9, static_cast<std::uint64_t>(in_size)}));
            const auto left = static_cast<float>(from), right = static_cast<float>(to);
            const Image wide = resize(image, SourceBox{left, 0, right, 13}, out_size, other, filter);
            const Image high = resize(turned(image), SourceBox{0, left, 13, right}, other, out_size, filter);
            EXPECT_EQ(turned(high).pixels, wide.pixels) << in_size << " to " << out_size;
            for (int y = 0; y < other; ++y)
                for (int c = 0; c < 3; ++c) {
                    std::vector<double> line(in_size);
                    for (int x = 0; x < in_size; ++x) line[x] = image.at(x, y)[c];
                    for (int x = 0; x < out_size; ++x) {
                        const double wanted = filtered(line, from, to, out_size, x, filter);
                        EXPECT_NEAR(wide.at(x, y)[c], std::clamp(wanted, 0.0, 255.0), 0.513)
                            << from << " to " << to << " at " << x;
                    }
                }
        }
}

// Both filters keep a ramp of one level a pixel as it is where they enlarge: an output's level is its middle's place
// less half a pixel. A box in the wrong place would show as a constant difference. Two roundings of 1/2.
TEST(Resize, ABoxShiftsNothing) {
    Image ramp(100, 80);
    for (int y = 0; y < 80; ++y)
        for (int x = 0; x < 100; ++x) {
            ramp.at(x, y)[0] = static_cast<std::uint8_t>(2 * x);
            ramp.at(x, y)[1] = static_cast<std::uint8_t>(2 * y);
            ramp.at(x, y)[2] = static_cast<std::uint8_t>(x + y);
        }
    const SourceBox box{20.25f, 11.5f, 71.125f, 58.875f};
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
        const Image result = resize(ramp, box, 130, 111, filter);
        for (int y = 0; y < 111; ++y)
            for (int x = 0; x < 130; ++x) {
                const double at_x = 20.25 + (x + 0.5) * (71.125 - 20.25) / 130 - 0.5;
                const double at_y = 11.5 + (y + 0.5) * (58.875 - 11.5) / 111 - 0.5;
                ASSERT_NEAR(result.at(x, y)[0], 2 * at_x, 1.01);
                ASSERT_NEAR(result.at(x, y)[1], 2 * at_y, 1.01);
                ASSERT_NEAR(result.at(x, y)[2], at_x + at_y, 1.01);
            }
    }
}

TEST(Resize, APartIsTheCroppedPicture) {
    const Image image = random_image(61, 47, 21);
    for (const Window& window :
         {Window{0, 0, 61, 47}, Window{5, 7, 40, 33}, Window{58, 44, 3, 3}, Window{60, 0, 1, 47}})
        for (const auto& [width, height] :
             {std::pair{20, 16}, {100, 90}, {window.width, 10}, {9, window.height}, {window.width, window.height}})
            EXPECT_EQ(resize(part(image, window), width, height).pixels,
                      resize(crop(image, window), width, height).pixels);
}

TEST(Resize, MirroredIsTheSameFromRightToLeft) {
    const Image image = random_image(41, 30, 22);
    const SourceBox whole{0, 0, 41, 30}, box{3.5f, 2, 39.25f, 28.5f};
    for (const SourceBox& from : {whole, box})
        for (const auto& [width, height] : {std::pair{17, 12}, {80, 61}, {41, 30}, {41, 9}, {24, 30}, {40, 7}}) {
            const Image plain = resize(image, from, width, height);
            const Image mirrored = resize(image, from, width, height, Filter::kBicubic, true);
            for (int y = 0; y < height; ++y)
                for (int x = 0; x < width; ++x)
                    ASSERT_TRUE(std::equal(plain.at(x, y), plain.at(x, y) + 3, mirrored.at(width - 1 - x, y)));
        }
}

// Both passes, against one after the other. The numbers of rows and columns that go are around Pillow 13's border
// between the two orders: rows first where more than twice as many of them go.
TEST(Resize, TwoPassesFollowEachOtherInPillowsOrder) {
    for (const Filter filter : {Filter::kBilinear, Filter::kBicubic})
        for (const auto& [width, height, rows_first] : std::vector<std::tuple<int, int, bool>>{{50, 21, false},
                                                                                               {50, 20, false},
                                                                                               {50, 19, true},
                                                                                               {70, 39, true},
                                                                                               {70, 41, false},
                                                                                               {59, 39, false},
                                                                                               {20, 3, false},
                                                                                               {61, 39, true},
                                                                                               {7, 90, false}}) {
            const Image image = random_image(60, 40, 17);
            const Image rows = resize(resize(image, 60, height, filter), width, height, filter);
            const Image columns = resize(resize(image, width, 40, filter), width, height, filter);
            ASSERT_NE(rows.pixels, columns.pixels) << "the orders must differ for this to test one";
            EXPECT_EQ(resize(image, width, height, filter).pixels, rows_first ? rows.pixels : columns.pixels)
                << width << " x " << height;
        }
}

TEST(Resize, OneColourStaysOneColour) {
    for (const int value : {0, 1, 128, 254, 255}) {
        Image image(37, 23);
        std::fill(image.pixels.begin(), image.pixels.end(), static_cast<std::uint8_t>(value));
        for (const Filter filter : {Filter::kBilinear, Filter::kBicubic})
            for (const int size : {1, 8, 23, 37, 90})
                for (const std::uint8_t byte : resize(image, size, size, filter).pixels) ASSERT_EQ(byte, value);
    }
}

TEST(Resize, SharpEdgesAreClampedNotWrapped) {
    Image image(16, 16);  // left half black, right half white: bicubic overshoots on both sides
    for (int y = 0; y < 16; ++y)
        for (int x = 8; x < 16; ++x) std::fill_n(image.at(x, y), 3, 255);
    const Image result = resize(image, 64, 16);
    for (int y = 0; y < 16; ++y)
        for (int x = 0; x < 64; ++x) {
            if (x < 28) {
                EXPECT_LE(result.at(x, y)[0], 32) << x;
            } else if (x >= 36) {
                EXPECT_GE(result.at(x, y)[0], 223) << x;
            }
        }
    EXPECT_EQ(result.at(29, 5)[0] + result.at(34, 5)[0], 255);  // symmetric about the edge
}

TEST(Resize, SameSizeIsACopy) {
    const Image image = random_image(19, 11, 3);
    EXPECT_EQ(resize(image, 19, 11).pixels, image.pixels);
}

TEST(Resize, SizesNobodyCanHaveAreErrors) {
    const Image image = random_image(4, 4, 1);
    EXPECT_NE(test::error_of([&] { resize(image, 0, 4); }).find("resize to 0 x 4"), std::string::npos);
    EXPECT_NE(test::error_of([&] { resize(image, 4, -1); }).find("resize to 4 x -1"), std::string::npos);
    EXPECT_NE(test::error_of([&] { resize(image, 1 << 15, 1 << 14); }).find("2^28"), std::string::npos);
    EXPECT_NE(test::error_of([&] { resize(Image(), 4, 4); }).find("resize from 0 x 0"), std::string::npos);
    EXPECT_NE(test::error_of([&] { resize_short_side(Image(1 << 20, 1), 300); }).find("2^28"), std::string::npos);
    EXPECT_NE(test::error_of([&] { crop(image, {0, 0, 0, 3}); }).find("crop to 0 x 3"), std::string::npos);
    for (const Window& window :
         {Window{-1, 0, 2, 2}, Window{0, 3, 2, 2}, Window{0, 0, 0, 2}, Window{4, 0, 2147483647, 1}})
        EXPECT_NE(test::error_of([&] { part(image, window); }).find("expected one inside 4 x 4"), std::string::npos);
    const float nan = std::nanf("");
    for (const SourceBox& box : {SourceBox{-0.1f, 0, 2, 2}, SourceBox{0, 0, 4.1f, 2}, SourceBox{1, 0, 1, 2},
                                 SourceBox{0, 3, 2, 2}, SourceBox{nan, 0, 2, 2}, SourceBox{0, 0, 2, nan}})
        EXPECT_NE(test::error_of([&] { resize(image, box, 3, 3); }).find("expected one inside 4 x 4"),
                  std::string::npos);
}

// torchvision: the longer side is int(size * long / short).
TEST(ResizeShortSide, RoundsTheLongSideDown) {
    for (const auto& [in_width, in_height, size, width, height] :
         std::vector<std::array<int, 5>>{{500, 333, 256, 384, 256},
                                         {333, 500, 256, 256, 384},
                                         {10, 10, 7, 7, 7},
                                         {7, 3, 4, 9, 4},
                                         {3, 7, 3, 3, 7}}) {
        const Image result = resize_short_side(Image(in_width, in_height), size);
        EXPECT_EQ(result.width, width) << in_width << 'x' << in_height;
        EXPECT_EQ(result.height, height) << in_width << 'x' << in_height;
    }
}

TEST(Crop, TakesTheWindowAndIsBlackOutside) {
    const Image image = random_image(6, 5, 9);
    for (const Window& window : {Window{1, 2, 3, 2}, Window{-2, -3, 20, 20}, Window{4, 3, 5, 5}, Window{-3, 1, 4, 2},
                                 Window{6, 0, 2, 2}, Window{0, -4, 3, 4}, Window{2147483647, -2147483647, 2, 2}}) {
        const Image result = crop(image, window);
        ASSERT_EQ(result.width, window.width);
        ASSERT_EQ(result.height, window.height);
        for (int y = 0; y < window.height; ++y)
            for (int x = 0; x < window.width; ++x) {
                const std::int64_t from_x = std::int64_t{window.left} + x, from_y = std::int64_t{window.top} + y;
                const bool inside = from_x >= 0 && from_x < 6 && from_y >= 0 && from_y < 5;
                for (int c = 0; c < 3; ++c)
                    EXPECT_EQ(result.at(x, y)[c],
                              inside ? image.at(static_cast<int>(from_x), static_cast<int>(from_y))[c] : 0);
            }
    }
}

// torchvision: starts at round((size - wanted) / 2), halves to even; too small a picture gets (wanted - size) // 2
// black before it.
TEST(CenterCrop, StartsWhereTorchvisionDoes) {
    for (const auto& [size, wanted, offset] : std::vector<std::array<int, 3>>{
             {10, 4, 3}, {5, 4, 0}, {7, 4, 2}, {9, 4, 2}, {11, 4, 4}, {4, 4, 0}, {3, 4, 0}, {2, 4, -1}, {1, 4, -1}}) {
        Image row(size, 1), column(1, size);
        for (int i = 0; i < size; ++i) row.at(i, 0)[0] = column.at(0, i)[0] = static_cast<std::uint8_t>(100 + i);
        const Image from_row = center_crop(row, wanted, 1), from_column = center_crop(column, 1, wanted);
        for (int i = 0; i < wanted; ++i) {
            const int from = i + offset;
            const int expected = from >= 0 && from < size ? 100 + from : 0;
            EXPECT_EQ(from_row.at(i, 0)[0], expected) << size << " to " << wanted;
            EXPECT_EQ(from_column.at(0, i)[0], expected) << size << " to " << wanted;
        }
    }
}

}  // namespace
}  // namespace dynvit
