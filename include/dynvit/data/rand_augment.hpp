// RandAugment (Cubuk et al., 2020) as timm does it: a few operations a picture, drawn at random, all of about one
// strength. Experiments name it by timm's strings, such as "rand-m9-mstd0.5-inc1".
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dynvit/core/random.hpp"
#include "dynvit/data/resize.hpp"
#include "dynvit/data/rgb.hpp"

namespace dynvit {

enum class Operation {
    kAutoContrast,
    kEqualize,
    kInvert,
    kRotate,
    kPosterize,
    kSolarize,
    kSolarizeAdd,
    kColor,
    kContrast,
    kBrightness,
    kSharpness,
    kShearX,
    kShearY,
    kTranslateX,
    kTranslateY,
};

inline constexpr int kOperations = 15;

/// An operation's name in timm without the endings "Increasing" and "Rel".
const char* operation_name(Operation operation);

/// A parsed string. The letters in parentheses are its sections.
struct RandAugment {
    int count = 2;              // (n) operations drawn for a picture
    double magnitude = 10;      // (m) their level; 10 is the strongest that the level maps are made for
    double magnitude_std = 0;   // (mstd) of the level, normal; infinity: uniform between 0 and the magnitude
    double magnitude_max = 10;  // (mmax) levels are clamped to [0, magnitude_max]
    double probability = 0.5;   // (p) of each drawn operation to be applied
    bool increasing = false;    // (inc) every operation does more at a higher level
    bool weighted = false;      // (tweights) timm's weights, and no operation twice; else all are equally likely
    std::optional<Filter> filter = {};  // of geometric operations; none: drawn each time
    Rgb fill = kImageNetMeanRgb;        // of what comes from outside the picture
};

/// Reads timm's string: "rand", then sections between dashes, in any order, none twice: m, n, mmax with a whole number,
/// p and mstd with a number (mstd above 100: uniform), inc0 or inc1, tweights. Weights come with inc1. Where timm
/// passes over a section that it cannot read, this is an error. Leaves `filter` empty. Throws Error("rand_augment",
/// "'STRING': found ..., expected ...").
RandAugment parse_rand_augment(const std::string& text);

/// What parse_rand_augment would complain about, without the string itself; empty if nothing.
std::string find_rand_augment_fault(const std::string& text);

/// The operations of one picture, `count` of them.
std::vector<Operation> draw_operations(const RandAugment& augment, Random& random);

/// A level for one operation, within [0, magnitude_max].
double draw_level(const RandAugment& augment, Random& random);

/// What a level means to an operation (timm's level maps): degrees, bits, a threshold, a value to add, a factor, a
/// share of the side; 0 for operations that take nothing.
/// @param negative the other direction, for operations that have two: geometric ones, and where `increasing` also
/// colour,
///     contrast, brightness and sharpness
double level_argument(Operation operation, double level, bool increasing, bool negative);

/// One operation with its argument; `filter` and `fill`, the colour of gaps, matter to geometric ones only. Keeps the
/// size.
Image apply(Operation operation, double argument, Filter filter, Image image, Rgb fill = kImageNetMeanRgb);

/// Applies random operations, each with its probability, at random levels and in random directions. Keeps the size.
Image apply(const RandAugment& augment, Image image, Random& random);

}  // namespace dynvit
