#include "dynvit/data/augment.hpp"

#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/data/color_jitter.hpp"

namespace dynvit {
namespace {

template <class Value>
struct Choice {
    const char* name;
    Value value;
};

constexpr Choice<std::optional<Filter>> kFilters[] = {
    {"bicubic", Filter::kBicubic}, {"bilinear", Filter::kBilinear}, {"random", std::nullopt}};
constexpr Choice<EraseMode> kModes[] = {{"pixel", EraseMode::kPixel}, {"const", EraseMode::kConst}};

template <class Choices>
std::vector<std::string> names_of(const Choices& choices) {
    std::vector<std::string> names;
    for (const auto& choice : choices) names.emplace_back(choice.name);
    return names;
}

template <class Choices>
auto chosen(const std::string& key, const std::string& name, const Choices& choices) {
    for (const auto& choice : choices)
        if (name == choice.name) return choice.value;
    throw Error("augment", key, ": found '", name, "', expected one of ", join(names_of(choices), ", "));
}

}  // namespace

void AugmentSettings::fields(FieldVisitor& v) {
    v.field("rand_augment", rand_augment, "RandAugment in timm's words, such as rand-m9-mstd0.5-inc1; '': none");
    v.field("rand_augment_filter", rand_augment_filter,
            "RandAugment: how turned, sheared and shifted pictures are sampled", names_of(kFilters));
    v.field("color_jitter", color_jitter,
            "brightness, contrast and saturation change by up to this share; only without RandAugment", at_least(0));
    v.field("erase_probability", erase_probability, "of a box of random size to be erased", between(0, 1));
    v.field("erase_mode", erase_mode, "what the box then holds, noise or the mean colour", names_of(kModes));
    if (rand_augment.empty()) return;
    const std::string fault = find_rand_augment_fault(rand_augment);
    if (!fault.empty()) v.reject("rand_augment", fault);
}

Augmentation make_augmentation(const AugmentSettings& settings, const Preprocessing& preprocessing) {
    Augmentation augmentation;
    if (!settings.rand_augment.empty()) {
        augmentation.rand_augment = parse_rand_augment(settings.rand_augment);
        augmentation.rand_augment->filter = chosen("rand_augment_filter", settings.rand_augment_filter, kFilters);
        augmentation.rand_augment->fill = rgb_of(preprocessing.mean);
    }
    augmentation.color_jitter = settings.color_jitter;
    augmentation.erasing.probability = settings.erase_probability;
    augmentation.erasing.mode = chosen("erase_mode", settings.erase_mode, kModes);
    augmentation.erasing.mean = preprocessing.mean;
    augmentation.erasing.std = preprocessing.std;
    return augmentation;
}

Image apply(const Augmentation& augmentation, Image image, Random& random) {
    if (augmentation.rand_augment)
        image = apply(*augmentation.rand_augment, std::move(image), random);
    else if (augmentation.color_jitter > 0)
        image = color_jitter(std::move(image), augmentation.color_jitter, random);
    return apply(augmentation.erasing, std::move(image), random);
}

}  // namespace dynvit
