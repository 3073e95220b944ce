// Training pictures blended two by two (mixup, Zhang et al., 2018; CutMix, Yun et al., 2019), on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include "dynvit/core/fields.hpp"
#include "dynvit/core/random.hpp"

namespace dynvit {

struct MixupSettings {
    double mixup = 0.0;
    double cutmix = 0.0;
    double probability = 1.0;
    double switch_probability = 0.5;
    std::string mode = "batch";

    void fields(FieldVisitor& v) {
        v.field("mixup", mixup, "alpha of the Beta distribution of mixup's share; 0: no mixup", at_least(0));
        v.field("cutmix", cutmix, "alpha of that of CutMix; 0: no CutMix", at_least(0));
        v.field("probability", probability, "of mixing at all", between(0, 1));
        v.field("switch_probability", switch_probability, "of CutMix in place of mixup, where both are on",
                between(0, 1));
        v.field("mode", mode, "one draw for the whole batch, for each pair, or for each picture",
                std::vector<std::string>{"batch", "pair", "elem"});
    }

    bool on() const { return (mixup > 0 || cutmix > 0) && probability > 0; }
};

/// What one picture keeps of itself; the rest comes from its partner.
struct MixShare {
    double share = 1.0;                                     // lambda, of the target too
    std::int64_t top = 0, bottom = 0, left = 0, right = 0;  // CutMix: the partner's window; empty for mixup

    bool cut() const { return bottom > top && right > left; }
};

/// Draws a batch's shares. As timm does: picture b's partner is b of the batch turned round; a window's centre is
/// uniform, its sides are sqrt(1 - lambda) of the picture's, cut off at the border, and lambda becomes what is left
/// outside it.
/// @return `batch` shares, all alike in mode "batch", those of b and its partner alike in mode "pair"
std::vector<MixShare> draw_mix(const MixupSettings& settings, std::int64_t batch, std::int64_t height,
                               std::int64_t width, Random& random);

/// @param images (B, 3, H, W), any float type @return the same shape
at::Tensor mix_images(const at::Tensor& images, const std::vector<MixShare>& shares);

/// @param target (B, K), soft @return lambda target + (1 - lambda) the partner's
at::Tensor mix_targets(const at::Tensor& target, const std::vector<MixShare>& shares);

}  // namespace dynvit
