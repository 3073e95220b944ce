#include "dynvit/io/preprocessing.hpp"

#include <algorithm>
#include <sstream>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr const char* kOneOrThree = "expected one, or one a colour: red, green, blue";

void colors(FieldVisitor& v, const std::string& key, std::array<double, 3>& value, const std::string& comment,
            const Limits& limits) {
    std::vector<double> list(value.begin(), value.end());
    v.field(key, list, comment, limits);
    if (list.size() == 1) list.assign(3, list.front());
    if (list.size() != 3) v.reject(key, str("found ", list.size(), " numbers, ", kOneOrThree));
    std::ranges::copy(list, value.begin());
}

void change(const char* key, const std::vector<double>& given, std::array<double, 3>& value) {
    if (given.empty()) return;
    if (given.size() != 1 && given.size() != 3) {
        throw Error("pictures", key, ": found ", given.size(), " numbers, ", kOneOrThree);
    }
    for (std::size_t c = 0; c < 3; ++c) value[c] = given.size() == 1 ? given.front() : given[c];
}

std::string numbers(const std::array<double, 3>& values) {
    std::ostringstream out;
    out.precision(10);
    out << '(' << values[0] << ", " << values[1] << ", " << values[2] << ')';
    return out.str();
}

}  // namespace

void Preprocessing::fields(FieldVisitor& v) {
    colors(v, "mean", mean, "taken off each colour, in units of 1 = 255: one number, or red, green, blue",
           between(0, 1));
    colors(v, "std", std, "what the rest is divided by, likewise", above_up_to(0, 1));
    v.field("interpolation", interpolation, "how pictures are resized, with Pillow's filters",
            std::vector<std::string>{"bicubic", "bilinear", "lanczos"});
    v.field("crop", crop, "evaluation: the middle of the resized picture, or all of it at any aspect ratio",
            std::vector<std::string>{kCenterCrop, kSquash});
    v.field("resize", resize, "evaluation, center: the short side before the crop, pixels; 0: int(size / crop_pct)",
            between(0, 16384));
    v.field("crop_pct", crop_pct, "evaluation, center: the crop's share of the short side", between(0.1, 1));
    if (crop == kSquash && resize > 0) {
        v.reject("resize",
                 str("found ", resize, ", expected 0 with crop ", kSquash, ", which goes straight to the model's size"),
                 {"crop"});
    }
}

Preprocessing PreprocessingChanges::over(Preprocessing base) const {
    change("mean", mean, base.mean);
    change("std", std, base.std);
    if (!interpolation.empty()) base.interpolation = interpolation;
    if (!crop.empty()) base.crop = crop;
    if (crop == kSquash || crop_pct) base.resize = 0;
    if (resize) base.resize = *resize;
    if (crop_pct) base.crop_pct = *crop_pct;
    return read_config<Preprocessing>({write_config(base, false), "the pictures' settings", {}});  // checks them
}

std::int64_t short_side(const Preprocessing& p, std::int64_t height, std::int64_t width) {
    return std::ranges::min(size_to_cover(p.resize, p.crop_pct, height, width));
}

std::array<std::int64_t, 2> size_to_cover(std::int64_t resize, double crop_pct, std::int64_t height,
                                          std::int64_t width) {
    const auto before = [&](std::int64_t side) {
        if (resize > 0) return side * resize / std::min(height, width);
        return static_cast<std::int64_t>(static_cast<double>(side) / crop_pct);
    };
    return {before(height), before(width)};
}

std::string describe(const Preprocessing& p, std::int64_t height, std::int64_t width) {
    const std::string size = str(width, " x ", height, width == height ? "" : " (width x height)");
    std::string shape = str("resized to ", size, ", ", p.interpolation);
    if (p.crop == kCenterCrop) {
        const auto [cover_height, cover_width] = size_to_cover(p.resize, p.crop_pct, height, width);
        const std::string covering =
            height == width ? str("short side to ", cover_height) : str("to cover ", cover_width, " x ", cover_height);
        shape = str(covering, " pixels, ", p.interpolation, ", then the middle ", size);
    }
    return str("RGB, (value / 255 - mean) / std, mean ", numbers(p.mean), ", std ", numbers(p.std), "; ", shape);
}

}  // namespace dynvit
