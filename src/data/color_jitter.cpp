#include "dynvit/data/color_jitter.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "dynvit/data/color_ops.hpp"

namespace dynvit {

Image color_jitter(Image image, double strength, Random& random) {
    struct Step {
        Image (*adjust)(Image, double);
        double factor;
    };
    std::array<Step, 3> steps = {{{adjust_brightness, 1}, {adjust_contrast, 1}, {adjust_color, 1}}};
    for (Step& step : steps) step.factor = random.uniform(std::max(0.0, 1 - strength), 1 + strength);
    random.shuffle(steps);
    for (const Step& step : steps) image = step.adjust(std::move(image), step.factor);
    return image;
}

}  // namespace dynvit
