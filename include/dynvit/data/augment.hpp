// What training does to a picture after it is cropped and mirrored: one experiment's augmentation section.
#pragma once

#include <optional>
#include <string>

#include "dynvit/core/fields.hpp"
#include "dynvit/data/rand_augment.hpp"
#include "dynvit/data/random_erasing.hpp"
#include "dynvit/io/preprocessing.hpp"

namespace dynvit {

struct AugmentSettings {
    std::string rand_augment = {};
    std::string rand_augment_filter = "bicubic";
    double color_jitter = 0;
    double erase_probability = 0;
    std::string erase_mode = "pixel";

    void fields(FieldVisitor& visitor);
};

/// The settings, made ready for use by many threads at once.
struct Augmentation {
    std::optional<RandAugment> rand_augment = {};
    double color_jitter = 0;  // its strength; only where there is no RandAugment
    RandomErasing erasing;
};

/// @param preprocessing whose mean colour fills gaps, and whose mean and standard deviation erasing's noise has
/// Throws Error for a string that parse_rand_augment refuses, and for names of filters and modes that fields() refuses.
Augmentation make_augmentation(const AugmentSettings& settings, const Preprocessing& preprocessing = {});

/// Augments a cropped picture in timm's order: RandAugment, or colour jitter where it is off; erasing last. Keeps the
/// size, not the geometry: an object mask no longer fits afterwards where RandAugment is on.
Image apply(const Augmentation& augmentation, Image image, Random& random);

}  // namespace dynvit
