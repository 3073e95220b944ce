// An embedded data set, drawn on the fly: one object of ten shapes among distractors and textured clutter. Nothing to
// download, and as the object's pixels are known, a selection of patches can be judged.
#pragma once

#include "dynvit/data/dataset.hpp"

namespace dynvit {

struct ClutteredShapesSettings {
    int image_size = 96;         // pixels, width and height
    std::int64_t count = 10000;  // pictures
    std::uint64_t seed = 0;      // pictures of different seeds have nothing in common
};

/// Picture `index` depends on (seed, index) alone. Classes are balanced: label = index mod 10. The object covers
/// between a twentieth and a quarter of the picture; everything else is distractors (open strokes, blobs and fragments
/// that belong to no class) over textured clutter. sample.object_mask holds the object's pixels.
class ClutteredShapes : public Dataset {
  public:
    explicit ClutteredShapes(
        const ClutteredShapesSettings& settings);  // throws Error for a size below 32 or a count below 1
    std::size_t size() const override { return static_cast<std::size_t>(settings_.count); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override;
    const std::vector<std::string>& class_names() const override;
    std::string classes_from() const override { return "the shapes of cluttered_shapes"; }

  private:
    ClutteredShapesSettings settings_;
};

}  // namespace dynvit
