// Compares with Pillow (golden tensors, every byte equal), with a plain definition of the filters, and with closed
// forms.
#include "dynvit/data/affine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "dynvit/io/safetensors.hpp"
#include "picture_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::expect_same;
using test::one_color;
using test::same;
using test::speckled;

constexpr Filter kFilters[] = {Filter::kBilinear, Filter::kBicubic};

TEST(Affine, OperationsArePillows) {
    const TensorMap golden = read_safetensors(test::golden("images/randaugment.safetensors")).tensors;
    const Image image = test::to_image(golden.at("input"));
    const auto compare = [&](const std::string& name, const Image& result) {
        expect_same(result, test::to_image(golden.at("out." + name)), name);
    };
    compare("rotate.-27", rotate(image, -27, Filter::kBicubic));
    compare("rotate.17.5", rotate(image, 17.5, Filter::kBicubic));
    compare("shear_x.0.27", shear_x(image, 0.27, Filter::kBicubic));
    compare("shear_y.-0.2", shear_y(image, -0.2, Filter::kBicubic));
    compare("translate_x_rel.0.31", translate_x(image, 0.31, Filter::kBicubic));
    compare("translate_y_rel.-0.4", translate_y(image, -0.4, Filter::kBicubic));
}

double kernel(double x, Filter filter) {
    x = std::abs(x);
    if (filter == Filter::kBilinear) return std::max(0.0, 1 - x);
    if (x < 1) return x * x * x - 2 * x * x + 1;  // Keys, a = -1
    if (x < 2) return -x * x * x + 5 * x * x - 8 * x + 4;
    return 0;
}

/// The sum of all pixels around a point, each times its kernel; `fill` outside the picture.
double defined(const Image& image, double x, double y, int channel, Filter filter, Rgb fill) {
    if (x < 0 || y < 0 || x >= image.width || y >= image.height) return fill[channel];
    double sum = 0;
    for (int j = static_cast<int>(y) - 3; j <= static_cast<int>(y) + 3; ++j)
        for (int i = static_cast<int>(x) - 3; i <= static_cast<int>(x) + 3; ++i) {
            const std::uint8_t* pixel = image.at(std::clamp(i, 0, image.width - 1), std::clamp(j, 0, image.height - 1));
            sum += kernel(i + 0.5 - x, filter) * kernel(j + 0.5 - y, filter) * pixel[channel];
        }
    return std::clamp(sum, 0.0, 255.0);
}

// Fractions are dropped, so a sum of double's accuracy is off by up to 1, in either direction only if it is a whole
// number but for rounding.
TEST(Affine, IsTheDefinitionOfItsFilters) {
    const Rgb fill = {1, 2, 3};
    Random random(1);
    for (const auto& [width, height] : {std::pair(1, 1), {1, 6}, {2, 3}, {5, 1}, {4, 4}, {17, 11}})
        for (int repeat = 0; repeat < 10; ++repeat) {
            const Image image = speckled(width, height, random.bits());
            const auto coefficient = [&] { return random.uniform(-1.5, 1.5); };
            const Affine map{coefficient(), coefficient(), coefficient() * width,
                             coefficient(), coefficient(), coefficient() * height};
            for (const Filter filter : kFilters) {
                const Image result = affine(image, map, filter, fill);
                ASSERT_EQ(result.width, width);
                ASSERT_EQ(result.height, height);
                for (int y = 0; y < height; ++y)
                    for (int x = 0; x < width; ++x)
                        for (int c = 0; c < 3; ++c) {
                            const double from_x = map.xx * (x + 0.5) + map.xy * (y + 0.5) + map.x0;
                            const double from_y = map.yx * (x + 0.5) + map.yy * (y + 0.5) + map.y0;
                            const double expected = defined(image, from_x, from_y, c, filter, fill);
                            EXPECT_GE(result.at(x, y)[c], expected - 1 - 1e-9);
                            EXPECT_LE(result.at(x, y)[c], expected + 1e-9);
                        }
            }
        }
}

TEST(Affine, IdentityChangesNothing) {
    for (const auto& [width, height] : {std::pair(1, 1), {5, 3}, {40, 30}, {0, 0}}) {
        const Image image = speckled(width, height, 2);
        for (const Filter filter : kFilters) {
            EXPECT_TRUE(same(affine(image, {}, filter), image));
            for (const double degrees : {0.0, -0.0, 360.0, -720.0})
                EXPECT_TRUE(same(rotate(image, degrees, filter), image));
            for (const auto& operation : {shear_x, shear_y, translate_x, translate_y})
                EXPECT_TRUE(same(operation(image, 0, filter, kImageNetMeanRgb), image));
        }
    }
}

TEST(Rotate, QuarterTurnsMovePixels) {
    for (const int side : {1, 2, 7, 8}) {
        const Image image = speckled(side, side, 3);
        for (const Filter filter : kFilters) {
            const Image left = rotate(image, 90, filter), right = rotate(image, -90, filter);
            const Image half = rotate(image, 180, filter);
            EXPECT_TRUE(same(rotate(image, 270, filter), right));
            for (int y = 0; y < side; ++y)
                for (int x = 0; x < side; ++x) {
                    const std::uint8_t* pixel = image.at(x, y);
                    EXPECT_TRUE(std::equal(pixel, pixel + 3, left.at(y, side - 1 - x)));
                    EXPECT_TRUE(std::equal(pixel, pixel + 3, right.at(side - 1 - y, x)));
                    EXPECT_TRUE(std::equal(pixel, pixel + 3, half.at(side - 1 - x, side - 1 - y)));
                }
        }
    }
}

TEST(Rotate, HalfATurnFitsAnyPicture) {
    const Image image = speckled(9, 4, 4);
    const Image half = rotate(image, 180, Filter::kBicubic);
    for (int y = 0; y < 4; ++y)
        for (int x = 0; x < 9; ++x) EXPECT_TRUE(std::equal(image.at(x, y), image.at(x, y) + 3, half.at(8 - x, 3 - y)));
}

TEST(Rotate, TurnsCounterClockwise) {
    Image image = one_color(21, 21, {0, 0, 0});
    std::fill_n(image.at(20, 10), 3, 255);  // on the right, at the height of the middle
    const Image turned = rotate(image, 30, Filter::kBilinear);
    int brightest_y = 0, brightest = -1;
    for (int y = 0; y < 21; ++y)
        for (int x = 0; x < 21; ++x)
            if (turned.at(x, y)[0] > brightest) {
                brightest = turned.at(x, y)[0];
                brightest_y = y;
            }
    EXPECT_EQ(brightest_y, 5);  // 10 - 10 sin 30 degrees
}

TEST(Translate, WholePixelsMove) {
    const Image image = speckled(8, 4, 5);
    for (const Filter filter : kFilters) {
        const Image across = translate_x(image, 0.25, filter), down = translate_y(image, -0.25, filter, {9, 8, 7});
        for (int y = 0; y < 4; ++y)
            for (int x = 0; x < 8; ++x) {
                const std::uint8_t* from = x + 2 < 8 ? image.at(x + 2, y) : kImageNetMeanRgb.data();
                EXPECT_TRUE(std::equal(from, from + 3, across.at(x, y)));
                const Rgb fill = {9, 8, 7};
                from = y > 0 ? image.at(x, y - 1) : fill.data();
                EXPECT_TRUE(std::equal(from, from + 3, down.at(x, y)));
            }
    }
}

// By half a pixel a row: the first row by a quarter, the second by three quarters.
TEST(Shear, MovesRowsByTheirHeight) {
    Image image(4, 2);
    for (int y = 0; y < 2; ++y)
        for (int x = 0; x < 4; ++x) std::fill_n(image.at(x, y), 3, static_cast<std::uint8_t>(40 * x));
    const Image result = shear_x(image, 0.5, Filter::kBilinear);
    for (int x = 0; x < 3; ++x) {
        EXPECT_EQ(result.at(x, 0)[0], 40 * x + 10);
        EXPECT_EQ(result.at(x, 1)[0], 40 * x + 30);
    }
    EXPECT_EQ(result.at(3, 0)[0], 120);                  // between the last pixel's middle and the border
    EXPECT_EQ(result.at(3, 1)[0], kImageNetMeanRgb[0]);  // beyond
}

TEST(Affine, FillMayCoverEverything) {
    const Image image = speckled(6, 5, 6), gap = one_color(6, 5, kImageNetMeanRgb);
    for (const Filter filter : kFilters) {
        for (const double far : {1.0, -1.0, 1e9, -1e300, std::numeric_limits<double>::infinity()})
            EXPECT_TRUE(same(translate_x(image, far, filter), gap)) << far;
        EXPECT_TRUE(same(affine(image, {.xx = std::nan("")}, filter), gap));
    }
}

TEST(Affine, FarBordersAreOutside) {
    const Image image = speckled(4, 4, 7);
    for (const Filter filter : kFilters) {  // the last pixel comes from 4, the one before from 3
        const Image across = translate_x(image, 0.125, filter), down = translate_y(image, 0.125, filter);
        EXPECT_TRUE(std::equal(kImageNetMeanRgb.begin(), kImageNetMeanRgb.end(), across.at(3, 1)));
        EXPECT_FALSE(std::equal(kImageNetMeanRgb.begin(), kImageNetMeanRgb.end(), across.at(2, 1)));
        EXPECT_TRUE(std::equal(kImageNetMeanRgb.begin(), kImageNetMeanRgb.end(), down.at(1, 3)));
        EXPECT_FALSE(std::equal(kImageNetMeanRgb.begin(), kImageNetMeanRgb.end(), down.at(1, 2)));
    }
}

TEST(Affine, OneColorStaysWhereItIsTheGapsToo) {
    const Image plain = one_color(10, 12, kImageNetMeanRgb);
    for (const Filter filter : kFilters) {
        EXPECT_TRUE(same(rotate(plain, 33.3, filter), plain));
        EXPECT_TRUE(same(shear_x(plain, 0.3, filter), plain));
        EXPECT_TRUE(same(translate_y(plain, 0.123, filter), plain));
    }
}

TEST(Rgb, MeanIsImageNets) {
    EXPECT_EQ(kImageNetMeanRgb, (Rgb{124, 116, 104}));
}

}  // namespace
}  // namespace dynvit
