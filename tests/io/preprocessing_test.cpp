// Settings as texts give them, and as a command line changes them, against the values that they mean.
#include "dynvit/io/preprocessing.hpp"

#include "dynvit/core/config.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;
using Colors = std::array<double, 3>;

Preprocessing read(const std::string& text, const Preprocessing& base = {}) {
    return read_config<Preprocessing>({text, "a.yaml", {}}, base);
}

TEST(Preprocessing, IsImageNetsUnlessSomebodySaysOtherwise) {
    const Preprocessing plain = read("");
    EXPECT_EQ(plain.mean, (Colors{0.485, 0.456, 0.406}));
    EXPECT_EQ(plain.std, (Colors{0.229, 0.224, 0.225}));
    EXPECT_EQ(plain.interpolation, "bicubic");
    EXPECT_EQ(plain.crop, "center");
    EXPECT_EQ(plain.resize, 0);
    EXPECT_EQ(plain.crop_pct, 0.875);
    EXPECT_EQ(plain, Preprocessing());
}

TEST(Preprocessing, OneNumberMeansAllColours) {
    const Preprocessing half = read("mean: 0.5\nstd: [0.25]\n");
    EXPECT_EQ(half.mean, (Colors{0.5, 0.5, 0.5}));
    EXPECT_EQ(half.std, (Colors{0.25, 0.25, 0.25}));
    const Preprocessing partly = read("std: 1\n", half);
    EXPECT_EQ(partly.mean, half.mean) << "what nothing is said of stays";
    EXPECT_EQ(partly.std, (Colors{1, 1, 1}));
}

TEST(Preprocessing, ComesBackToTheLastDigit) {
    Preprocessing clip;
    clip.mean = {0.48145466, 0.4578275, 0.40821073};
    clip.std = {0.26862954, 0.26130258, 0.27577711};
    clip.interpolation = "lanczos";
    clip.crop_pct = 0.9;
    EXPECT_EQ(read(write_config(clip)), clip);
    EXPECT_EQ(read(write_config(clip, false)), clip);
}

TEST(Preprocessing, FaultsNameTheKeyAndWhatIsRight) {
    const std::pair<const char*, const char*> faults[] = {
        {"mean: 124", "a.yaml:1: mean: found '124', expected a number of at least 0 and at most 1"},
        {"mean: [0.5, -0.1, 0.5]", "a.yaml:1: mean: found '-0.1', expected a number of at least 0 and at most 1"},
        {"mean: [0.5, 0.5]", "a.yaml:1: mean: found 2 numbers, expected one, or one a colour: red, green, blue"},
        {"mean: []", "a.yaml:1: mean: found 0 numbers, expected one, or one a colour: red, green, blue"},
        {"std: 0", "a.yaml:1: std: found '0', expected a number above 0 and at most 1"},
        {"std: [0.2, -0.2, 0.2]", "a.yaml:1: std: found '-0.2', expected a number above 0 and at most 1"},
        {"std: 58", "a.yaml:1: std: found '58', expected a number above 0 and at most 1"},
        {"interpolation: cubic", "a.yaml:1: interpolation: found 'cubic', expected one of bicubic, bilinear, lanczos"},
        {"crop: middle", "a.yaml:1: crop: found 'middle', expected one of center, squash"},
        {"crop_pct: 0", "a.yaml:1: crop_pct: found '0', expected a number of at least 0.1 and at most 1"},
        {"crop: squash\nresize: 256",
         "a.yaml:2: resize: found 256, expected 0 with crop squash, which goes straight to the model's size"}};
    for (const auto& [text, fault] : faults) EXPECT_EQ(error_of([&] { read(text); }), str("[config] ", fault));
}

TEST(PreprocessingChanges, TakeThePlaceOfWhatTheyName) {
    Preprocessing base = read("mean: 0.5\nstd: 0.5\nresize: 248\ncrop_pct: 0.9\n");
    EXPECT_EQ(PreprocessingChanges().over(base), base);
    Preprocessing expected = base;
    expected.mean = {0.48145466, 0.4578275, 0.40821073};
    expected.std = {0.25, 0.25, 0.25};
    expected.interpolation = "bilinear";
    EXPECT_EQ(
        (PreprocessingChanges{.mean = {0.48145466, 0.4578275, 0.40821073}, .std = {0.25}, .interpolation = "bilinear"}
             .over(base)),
        expected);
    const Preprocessing squashed = PreprocessingChanges{.crop = "squash"}.over(base);
    EXPECT_EQ(squashed.crop, "squash");
    EXPECT_EQ(squashed.resize, 0) << "it was for the crop";
    EXPECT_EQ(PreprocessingChanges{.resize = 0}.over(base).resize, 0);
    EXPECT_EQ(PreprocessingChanges{.crop_pct = 1}.over(base).crop_pct, 1);
}

TEST(PreprocessingChanges, RefuseWhatASettingWould) {
    const auto fault = [](const PreprocessingChanges& changes) { return error_of([&] { changes.over({}); }); };
    EXPECT_EQ(fault({.mean = {0.1, 0.2}}),
              "[pictures] mean: found 2 numbers, expected one, or one a colour: red, green, blue");
    EXPECT_NE(fault({.std = {0}}).find("std: found '0', expected a number above 0 and at most 1"), std::string::npos);
    EXPECT_NE(fault({.crop = "left"}).find("crop: found 'left', expected one of center, squash"), std::string::npos);
    EXPECT_NE(fault({.crop = "squash", .resize = 256}).find("resize: found 256, expected 0 with crop squash"),
              std::string::npos);
    EXPECT_NE(fault({.resize = -1}).find("resize: found '-1', expected a whole number of at least 0"),
              std::string::npos);
}

TEST(Preprocessing, IsSaidInALine) {
    EXPECT_EQ(describe({}, 224, 224),
              "RGB, (value / 255 - mean) / std, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225); short side to "
              "256 pixels, bicubic, then the middle 224 x 224");
    EXPECT_EQ(describe({}, 160, 320),
              "RGB, (value / 255 - mean) / std, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225); to cover 365 x "
              "182 pixels, bicubic, then the middle 320 x 160 (width x height)");
    const Preprocessing other = read("mean: 0.48145466\nstd: 0.5\ninterpolation: bilinear\ncrop: squash\n");
    EXPECT_EQ(describe(other, 96, 160),
              "RGB, (value / 255 - mean) / std, mean (0.48145466, 0.48145466, 0.48145466), std (0.5, 0.5, 0.5); "
              "resized to 160 x 96 (width x height), bilinear");
}

}  // namespace
}  // namespace dynvit
