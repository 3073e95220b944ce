#include "dynvit/data/rand_augment.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/fields.hpp"
#include "dynvit/data/affine.hpp"
#include "dynvit/data/color_ops.hpp"

namespace dynvit {
namespace {

struct OperationEntry {
    const char* name;
    double weight;  // timm's transform set "weights"
};

// In the order of Operation.
constexpr std::array<OperationEntry, kOperations> kEntries = {{
    {"AutoContrast", 0.25},
    {"Equalize", 0.05},
    {"Invert", 0.05},
    {"Rotate", 3},
    {"Posterize", 0.05},
    {"Solarize", 0.05},
    {"SolarizeAdd", 0.05},
    {"Color", 0.25},
    {"Contrast", 0.05},
    {"Brightness", 0.05},
    {"Sharpness", 0.25},
    {"ShearX", 2},
    {"ShearY", 2},
    {"TranslateX", 1},
    {"TranslateY", 1},
}};

constexpr double kFullLevel = 10;
constexpr double kUniformAbove = 100;  // a standard deviation that means a uniform magnitude

// ------------------------------------------------------------------------------------------------------------- parsing

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> sections;
    std::size_t from = 0;
    for (std::size_t dash; (dash = text.find('-', from)) != std::string::npos; from = dash + 1)
        sections.push_back(text.substr(from, dash - from));
    sections.push_back(text.substr(from));
    return sections;
}

/// Reads the whole text as a number; false if it is none.
template <class Number>
bool read_number(const std::string& text, Number& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size();
}

/// A section that has a number.
struct Section {
    const char* key;
    bool whole;
    Limits limits;
};

constexpr double kHighest = 1000;  // level: far beyond any use, and far from overflow in every level map

constexpr Section kSections[] = {
    {"m", true, {.low = 0, .high = kHighest}},    {"n", true, {.low = 1, .high = 100}},
    {"p", false, {.low = 0, .high = 1}},          {"mstd", false, {.low = 0}},
    {"mmax", true, {.low = 1, .high = kHighest}}, {"inc", true, {.low = 0, .high = 1}},
};

constexpr const char* kWeights = "tweights";

/// Numbers by section; tweights has 1.
using Values = std::map<std::string, double>;

/// Reads one section into `values`. Returns what is wrong with it, or nothing.
std::string read_section(const std::string& text, Values& values) {
    const std::string found = str("found section '", text, "', expected ");
    if (text.starts_with('t')) {
        if (text != kWeights)
            return str(found, "'", kWeights, "', the one set of operations besides inc0's and inc1's");
        return values.emplace(text, 1).second ? "" : found + "each section once";
    }
    const std::string key = text.substr(0, std::min(text.find_first_of("0123456789"), text.size()));
    const auto section = std::ranges::find(kSections, key, [](const Section& known) { return std::string(known.key); });
    if (section == std::end(kSections)) return str(found, "m, n, p, mstd, mmax or inc with a number, or ", kWeights);

    const std::string digits = text.substr(key.size());
    std::int64_t integer = 0;
    double value = 0;
    const bool is_number = section->whole ? read_number(digits, integer) : read_number(digits, value);
    if (section->whole) value = static_cast<double>(integer);
    if (!is_number || !section->limits.allow(value)) {
        return str(found, key, " and a ", section->whole ? "whole number " : "number ", section->limits.text());
    }
    return values.emplace(key, value).second ? "" : found + "each section once";
}

RandAugment from_values(const Values& values) {
    const auto value_or = [&](const std::string& key, double otherwise) {
        const auto found = values.find(key);
        return found == values.end() ? otherwise : found->second;
    };
    RandAugment augment;
    augment.count = static_cast<int>(value_or("n", augment.count));
    augment.magnitude = value_or("m", augment.magnitude);
    augment.magnitude_std = value_or("mstd", augment.magnitude_std);
    if (augment.magnitude_std > kUniformAbove) augment.magnitude_std = std::numeric_limits<double>::infinity();
    augment.magnitude_max = value_or("mmax", augment.magnitude_max);
    augment.probability = value_or("p", augment.probability);
    augment.weighted = values.contains(kWeights);
    augment.increasing = augment.weighted || value_or("inc", 0) > 0;
    return augment;
}

/// What the string says, and what is wrong with it, if anything.
std::pair<RandAugment, std::string> parse(const std::string& text) {
    const std::vector<std::string> sections = split(text);
    if (sections.front() != "rand") {
        return {{}, str("found '", sections.front(), "' first, expected 'rand', as in rand-m9-mstd0.5-inc1")};
    }
    Values values;
    for (std::size_t i = 1; i < sections.size(); ++i) {
        const std::string fault = read_section(sections[i], values);
        if (!fault.empty()) return {{}, fault};
    }
    const RandAugment augment = from_values(values);
    if (augment.weighted && augment.count > kOperations) {
        return {{},
                str("found section 'n", augment.count, "', expected at most n", kOperations, ", as ", kWeights,
                    " draws no operation twice")};
    }
    return {augment, ""};
}

// ------------------------------------------------------------------------------------------------------------- drawing

/// An operation by weight, of those that are left.
std::size_t draw_weighted(const std::array<double, kOperations>& weights, Random& random) {
    double place = random.uniform() * std::accumulate(weights.begin(), weights.end(), 0.0);
    std::size_t last = 0;  // with a weight: rounding may leave `place` at the very end
    for (std::size_t i = 0; i < weights.size(); ++i) {
        if (weights[i] == 0) continue;
        last = i;
        if (place < weights[i]) break;
        place -= weights[i];
    }
    return last;
}

}  // namespace

const char* operation_name(Operation operation) {
    return kEntries[static_cast<std::size_t>(operation)].name;
}

RandAugment parse_rand_augment(const std::string& text) {
    const auto [augment, fault] = parse(text);
    if (!fault.empty()) throw Error("rand_augment", "'", text, "': ", fault);
    return augment;
}

std::string find_rand_augment_fault(const std::string& text) {
    return parse(text).second;
}

std::vector<Operation> draw_operations(const RandAugment& augment, Random& random) {
    std::array<double, kOperations> weights;
    std::ranges::transform(kEntries, weights.begin(), &OperationEntry::weight);
    const int count = augment.weighted ? std::min(augment.count, kOperations) : augment.count;
    std::vector<Operation> operations;
    for (int i = 0; i < count; ++i) {
        const std::size_t drawn = augment.weighted ? draw_weighted(weights, random)
                                                   : static_cast<std::size_t>(random.integer(0, kOperations));
        weights[drawn] = 0;
        operations.push_back(static_cast<Operation>(drawn));
    }
    return operations;
}

double draw_level(const RandAugment& augment, Random& random) {
    double level = augment.magnitude;
    if (std::isinf(augment.magnitude_std))
        level = random.uniform(0, level);
    else if (augment.magnitude_std > 0)
        level += augment.magnitude_std * random.normal();
    return std::clamp(level, 0.0, augment.magnitude_max);
}

double level_argument(Operation operation, double level, bool increasing, bool negative) {
    const double share = level / kFullLevel;
    const double sign = negative ? -1 : 1;
    switch (operation) {
        case Operation::kAutoContrast:
        case Operation::kEqualize:
        case Operation::kInvert:
            return 0;
        case Operation::kRotate:
            return sign * share * 30;
        case Operation::kPosterize: {
            const double bits = std::trunc(share * 4);
            return increasing ? 4 - bits : bits;
        }
        case Operation::kSolarize: {
            const double threshold = std::min(256.0, std::trunc(share * 256));
            return increasing ? 256 - threshold : threshold;
        }
        case Operation::kSolarizeAdd:
            return std::min(128.0, std::trunc(share * 110));
        case Operation::kColor:
        case Operation::kContrast:
        case Operation::kBrightness:
        case Operation::kSharpness:
            return increasing ? std::max(0.1, 1 + sign * (share * 0.9)) : share * 1.8 + 0.1;
        case Operation::kShearX:
        case Operation::kShearY:
            return sign * share * 0.3;
        case Operation::kTranslateX:
        case Operation::kTranslateY:
            return sign * share * 0.45;
    }
    return 0;
}

Image apply(Operation operation, double argument, Filter filter, Image image, Rgb fill) {
    switch (operation) {
        case Operation::kAutoContrast:
            return auto_contrast(std::move(image));
        case Operation::kEqualize:
            return equalize(std::move(image));
        case Operation::kInvert:
            return invert(std::move(image));
        case Operation::kRotate:
            return rotate(image, argument, filter, fill);
        case Operation::kPosterize:
            return posterize(std::move(image), static_cast<int>(argument));
        case Operation::kSolarize:
            return solarize(std::move(image), static_cast<int>(argument));
        case Operation::kSolarizeAdd:
            return solarize_add(std::move(image), static_cast<int>(argument));
        case Operation::kColor:
            return adjust_color(std::move(image), argument);
        case Operation::kContrast:
            return adjust_contrast(std::move(image), argument);
        case Operation::kBrightness:
            return adjust_brightness(std::move(image), argument);
        case Operation::kSharpness:
            return adjust_sharpness(image, argument);
        case Operation::kShearX:
            return shear_x(image, argument, filter, fill);
        case Operation::kShearY:
            return shear_y(image, argument, filter, fill);
        case Operation::kTranslateX:
            return translate_x(image, argument, filter, fill);
        case Operation::kTranslateY:
            return translate_y(image, argument, filter, fill);
    }
    return image;
}

Image apply(const RandAugment& augment, Image image, Random& random) {
    for (const Operation operation : draw_operations(augment, random)) {
        if (!random.chance(augment.probability)) continue;
        const double level = draw_level(augment, random);
        const double argument = level_argument(operation, level, augment.increasing, random.chance(0.5));
        Filter filter = random.chance(0.5) ? Filter::kBilinear : Filter::kBicubic;
        filter = augment.filter.value_or(filter);
        image = apply(operation, argument, filter, std::move(image), augment.fill);
    }
    return image;
}

}  // namespace dynvit
