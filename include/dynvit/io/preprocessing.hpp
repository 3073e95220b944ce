// How a picture becomes what a model reads: a model's own, and so kept in its file.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"

namespace dynvit {

/// ImageNet's mean and standard deviation of each colour, in units of 1 (= 255).
inline constexpr std::array<double, 3> kImageNetMean = {0.485, 0.456, 0.406};
inline constexpr std::array<double, 3> kImageNetStd = {0.229, 0.224, 0.225};

/// CLIP's.
inline constexpr std::array<double, 3> kClipMean = {0.48145466, 0.4578275, 0.40821073};
inline constexpr std::array<double, 3> kClipStd = {0.26862954, 0.26130258, 0.27577711};

inline constexpr const char* kCenterCrop = "center";
inline constexpr const char* kSquash = "squash";

struct Preprocessing {
    std::array<double, 3> mean = kImageNetMean;
    std::array<double, 3> std = kImageNetStd;
    std::string interpolation = "bicubic";
    std::string crop = kCenterCrop;
    std::int64_t resize = 0;
    double crop_pct = 0.875;

    /// Keys of the struct that it is part of; where it stands in a model's file, the keys of its own text.
    void fields(FieldVisitor& visitor);

    bool same_scaling(const Preprocessing& other) const { return mean == other.mean && std == other.std; }
    bool operator==(const Preprocessing&) const = default;
};

/// What somebody wants otherwise than a file has it; the rest stays.
struct PreprocessingChanges {
    std::vector<double> mean = {}, std = {};  // one number, or one a colour; empty: stays
    std::string interpolation = {}, crop = {};
    std::optional<std::int64_t> resize = {};  // where it is not, but crop_pct is, or "squash": 0
    std::optional<double> crop_pct = {};

    /// Throws Error naming the key for what fields() would refuse.
    Preprocessing over(Preprocessing base) const;
};

/// The {height, width} that a picture is resized to cover, at its own aspect ratio, before the centre crop of height x
/// width: their shorter side is `resize` pixels or, where that is 0, both are the crop's over `crop_pct`, rounded down.
std::array<std::int64_t, 2> size_to_cover(std::int64_t resize, double crop_pct, std::int64_t height,
                                          std::int64_t width);

/// The shorter of these sides: of a square, what the picture's own shorter side becomes.
std::int64_t short_side(const Preprocessing& preprocessing, std::int64_t height, std::int64_t width);

/// "RGB, (value / 255 - mean) / std, mean (0.485, 0.456, 0.406), std (...); short side to 256 pixels, bicubic, then the
/// middle 224 x 224": a line for whoever runs an exported model of that size.
std::string describe(const Preprocessing& preprocessing, std::int64_t height, std::int64_t width);

}  // namespace dynvit
