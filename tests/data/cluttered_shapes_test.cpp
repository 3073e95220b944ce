// The drawn data set: the same everywhere, balanced, and its objects as large as the header promises.
#include "dynvit/data/cluttered_shapes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "support.hpp"

namespace dynvit {
namespace {

double covered_share(const Sample& sample) {
    return std::accumulate(sample.object_mask.begin(), sample.object_mask.end(), 0.0) /
           static_cast<double>(sample.object_mask.size());
}

TEST(ClutteredShapes, PictureDependsOnSeedAndIndexOnly) {
    const ClutteredShapes one({.image_size = 48, .count = 20, .seed = 5});
    const ClutteredShapes same({.image_size = 48, .count = 5000, .seed = 5});
    const Sample first = one.get(13);
    one.get(2);
    for (const Sample& again : {one.get(13), same.get(13)}) {
        EXPECT_EQ(again.image.pixels, first.image.pixels);
        EXPECT_EQ(again.object_mask, first.object_mask);
        EXPECT_EQ(again.label, first.label);
        EXPECT_EQ(again.name, first.name);
    }
}

TEST(ClutteredShapes, OtherSeedsAndIndicesGiveOtherPictures) {
    std::set<std::vector<std::uint8_t>> pictures, masks;
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        const ClutteredShapes shapes({.image_size = 32, .count = 20, .seed = seed});
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            const Sample sample = shapes.get(i);
            pictures.insert(sample.image.pixels);
            masks.insert(sample.object_mask);
        }
    }
    EXPECT_EQ(pictures.size(), 200u);
    EXPECT_EQ(masks.size(), 200u);
}

TEST(ClutteredShapes, LabelsAreBalancedAndNamed) {
    const ClutteredShapes shapes({.image_size = 32, .count = 100, .seed = 1});
    ASSERT_EQ(shapes.size(), 100u);
    const std::vector<std::string>& names = shapes.class_names();
    EXPECT_EQ(names.size(), 10u);
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 10u);
    std::array<int, 10> count{};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const Sample sample = shapes.get(i);
        EXPECT_EQ(sample.label, static_cast<std::int64_t>(i % 10));
        ++count[static_cast<std::size_t>(sample.label)];
    }
    for (const int of_class : count) EXPECT_EQ(of_class, 10);
}

TEST(ClutteredShapes, PictureAndMaskHaveTheSizeAskedFor) {
    for (const int size : {32, 33, 96, 224}) {
        const Sample sample = ClutteredShapes({.image_size = size, .count = 1}).get(0);
        EXPECT_EQ(sample.image.width, size);
        EXPECT_EQ(sample.image.height, size);
        EXPECT_EQ(sample.image.pixels.size(), static_cast<std::size_t>(3 * size * size));
        EXPECT_EQ(sample.object_mask.size(), static_cast<std::size_t>(size * size));
        EXPECT_TRUE(std::all_of(sample.object_mask.begin(), sample.object_mask.end(), [](int v) { return v < 2; }));
    }
}

TEST(ClutteredShapes, ObjectCoversATwentiethToAQuarter) {
    for (const int size : {32, 96}) {
        const ClutteredShapes shapes({.image_size = size, .count = 2000, .seed = 3});
        int usual = 0;
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            const double share = covered_share(shapes.get(i));
            EXPECT_GE(share, 0.06) << "picture " << i << " of size " << size;
            EXPECT_LE(share, 0.25) << "picture " << i << " of size " << size;
            usual += share >= 0.075 && share <= 0.165;
        }
        EXPECT_GT(usual, 1500) << "size " << size;
    }
}

TEST(ClutteredShapes, ObjectLiesWhollyInside) {
    const int size = 96;
    const ClutteredShapes shapes({.image_size = size, .count = 1000, .seed = 4});
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const std::vector<std::uint8_t> mask = shapes.get(i).object_mask;
        int on_border = 0;
        for (int k = 0; k < size; ++k)
            on_border += mask[k] + mask[(size - 1) * size + k] + mask[k * size] + mask[k * size + size - 1];
        EXPECT_EQ(on_border, 0) << "picture " << i;
    }
}

// A class's mask area must not tell it from another: all means lie close to the common one. The area is spread over
// 0.075 ... 0.21 with a standard deviation of about 0.033; of 400 pictures a class the mean's is 0.0017; five of them.
TEST(ClutteredShapes, SizeSaysNothingAboutTheClass) {
    const ClutteredShapes shapes({.image_size = 48, .count = 4000, .seed = 6});
    std::array<double, 10> mean{};
    for (std::size_t i = 0; i < shapes.size(); ++i) mean[i % 10] += covered_share(shapes.get(i)) / 400;
    const double common = std::accumulate(mean.begin(), mean.end(), 0.0) / 10;
    for (const double of_class : mean) EXPECT_NEAR(of_class, common, 0.0085);
}

// The mean colour of the objects is the same for all classes, but for chance.
// A channel's mean over an object varies by about 60 of 255; of 400 pictures the mean varies by 3; five of them.
TEST(ClutteredShapes, ColorSaysNothingAboutTheClass) {
    const ClutteredShapes shapes({.image_size = 32, .count = 4000, .seed = 7});
    std::array<std::array<double, 3>, 10> mean{};
    std::array<double, 3> common{};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const Sample sample = shapes.get(i);
        const double pixels = covered_share(sample) * 32 * 32;
        for (std::size_t p = 0; p < sample.object_mask.size(); ++p)
            for (std::size_t c = 0; c < 3; ++c)
                if (sample.object_mask[p]) mean[i % 10][c] += sample.image.pixels[3 * p + c] / pixels / 400;
    }
    for (std::size_t c = 0; c < 3; ++c)
        for (const auto& of_class : mean) common[c] += of_class[c] / 10;
    for (std::size_t k = 0; k < 10; ++k)
        for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(mean[k][c], common[c], 15) << shapes.class_names()[k];
}

// The object's mean colour against that of the pixels up to four away from it.
TEST(ClutteredShapes, ObjectStandsOutFromItsSurroundings) {
    constexpr int kSize = 96, kReach = 4;
    const ClutteredShapes shapes({.image_size = kSize, .count = 500, .seed = 8});
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const Sample sample = shapes.get(i);
        const auto inside = [&](int x, int y) {
            return x >= 0 && y >= 0 && x < kSize && y < kSize && sample.object_mask[y * kSize + x];
        };
        std::array<double, 3> object{}, around{};
        double object_pixels = 0, around_pixels = 0;
        for (int y = 0; y < kSize; ++y)
            for (int x = 0; x < kSize; ++x) {
                const bool near =
                    inside(x - kReach, y) || inside(x + kReach, y) || inside(x, y - kReach) || inside(x, y + kReach);
                if (!inside(x, y) && !near) continue;
                (inside(x, y) ? object_pixels : around_pixels) += 1;
                for (std::size_t c = 0; c < 3; ++c) (inside(x, y) ? object : around)[c] += sample.image.at(x, y)[c];
            }
        double squared = 0;
        for (std::size_t c = 0; c < 3; ++c) {
            const double difference = object[c] / object_pixels - around[c] / around_pixels;
            squared += difference * difference;
        }
        EXPECT_GT(std::sqrt(squared), 40) << "picture " << i;  // of 441, black to white
    }
}

TEST(ClutteredShapes, RefusesWhatItCannotDraw) {
    using test::error_of;
    EXPECT_EQ(error_of([] { ClutteredShapes({.image_size = 31}); }),
              "[cluttered_shapes] image_size is 31, at least 32 is needed");
    EXPECT_EQ(error_of([] { ClutteredShapes({.count = 0}); }), "[cluttered_shapes] count is 0, at least 1 is needed");
    EXPECT_EQ(error_of([] { ClutteredShapes({.count = 3}).get(3); }), "[cluttered_shapes] picture 3 of 3");
}

}  // namespace
}  // namespace dynvit
