#include "dynvit/data/resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <vector>

#include "dynvit/core/error.hpp"
#include "resize_passes.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

double bilinear_weight(double x) {
    x = std::abs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/// Keys' cubic convolution kernel with a = -0.5.
double bicubic_weight(double x) {
    constexpr double kA = -0.5;
    x = std::abs(x);
    if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * kA;
    return 0.0;
}

double sinc(double x) {
    return x == 0 ? 1.0 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x);
}

/// A sinc that ends at 3, windowed by a slower one.
double lanczos_weight(double x) {
    return std::abs(x) < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct Kernel {
    double (*weight)(double);
    double radius;
};

Kernel kernel_of(Filter filter) {
    switch (filter) {
        case Filter::kBilinear:
            return {bilinear_weight, 1};
        case Filter::kBicubic:
            return {bicubic_weight, 2};
        case Filter::kLanczos:
            return {lanczos_weight, 3};
    }
    return {bicubic_weight, 2};
}

/// How a stretch [from, to) of `in_size` inputs becomes `out_size` outputs.
struct Axis {
    int in_size;
    float from, to;
    int out_size;

    /// Whether nothing is to be done.
    bool same() const { return in_size == out_size && from == 0 && to == static_cast<float>(in_size); }
};

Weights make_weights(const Axis& axis, Filter filter) {
    const auto [weight, radius] = kernel_of(filter);
    const double scale =
        static_cast<double>(axis.to - axis.from) / axis.out_size;  // the difference in single precision
    const double stretch = std::max(scale, 1.0);  // antialiasing: the kernel widens when the picture shrinks
    const double support = radius * stretch;

    Weights weights;
    weights.taps = std::min(static_cast<int>(std::ceil(support)) * 2 + 1, axis.in_size);
    weights.spans.resize(axis.out_size);
    weights.fixed.assign(static_cast<std::size_t>(axis.out_size) * weights.taps, 0);
    std::vector<double> exact(weights.taps);
    for (int output = 0; output < axis.out_size; ++output) {
        const double center = axis.from + (output + 0.5) * scale;
        const int first = std::max(0, static_cast<int>(center - support + 0.5));
        const int last = std::min(axis.in_size, static_cast<int>(center + support + 0.5));
        double sum = 0;
        for (int i = first; i < last; ++i) {
            exact[i - first] = weight((i - center + 0.5) * (1.0 / stretch));
            sum += exact[i - first];
        }
        std::int32_t* fixed = weights.of(output);
        for (int i = 0; i < last - first; ++i) {
            const double scaled = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << kFractionBits);
            fixed[i] = static_cast<std::int32_t>(scaled + (scaled < 0 ? -0.5 : 0.5));  // half away from zero
        }
        weights.spans[output] = {first, last - first};
    }
    return weights;
}

/// The outputs in the opposite order.
void mirror(Weights& weights) {
    std::reverse(weights.spans.begin(), weights.spans.end());
    const int count = static_cast<int>(weights.spans.size());
    for (int left = 0, right = count - 1; left < right; ++left, --right)
        std::swap_ranges(weights.of(left), weights.of(left) + weights.taps, weights.of(right));
}

void mirror(Image& image) {
    for (int y = 0; y < image.height; ++y)
        for (int left = 0, right = image.width - 1; left < right; ++left, --right)
            std::swap_ranges(image.at(left, y), image.at(left, y) + 3, image.at(right, y));
}

Image copy_of(const ImageView& view) {
    Image image(view.width, view.height);
    for (int y = 0; y < view.height; ++y) std::memcpy(image.at(0, y), view.at(0, y), std::size_t{3} * view.width);
    return image;
}

ImageView rows_of(const ImageView& view, int first, int count) {
    return {view.at(0, first), view.width, count, view.stride};
}

void check_size(const char* what, std::int64_t width, std::int64_t height) {
    if (width < 1 || height < 1 || width > kMaxPixels / height)
        throw Error("image", what, " ", width, " x ", height, ": expected 1 to 2^28 pixels");
}

/// Pillow 13's choice: rows are merged first where that takes away more than twice as many rows as columns go. Each
/// pass rounds, so the order shows in the last bit. (Pillow up to 12 always began with the columns.)
bool vertical_goes_first(const PictureSize& from, int width, int height) {
    const std::int64_t fewer_rows = std::int64_t{from.height} - height;
    const std::int64_t fewer_columns = std::int64_t{from.width} - width;
    return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

Image horizontally(const Passes& passes, const ImageView& image, const Weights& columns) {
    Image result(static_cast<int>(columns.spans.size()), image.height);
    passes.horizontal(image, columns, result);
    return result;
}

Image vertically(const Passes& passes, const ImageView& image, const Weights& rows) {
    Image result(image.width, static_cast<int>(rows.spans.size()));
    passes.vertical(image, rows, result);
    return result;
}

void check_box(const SourceBox& box, const ImageView& image) {
    const bool inside = box.left >= 0 && box.top >= 0 && box.right <= static_cast<float>(image.width) &&
                        box.bottom <= static_cast<float>(image.height);
    if (!inside || !(box.left < box.right) || !(box.top < box.bottom))
        throw Error("image", "resize the box (", box.left, ", ", box.top, ", ", box.right, ", ", box.bottom,
                    "): expected one inside ", image.width, " x ", image.height, " pixels");
}

/// How far in torchvision's centre crop starts: half the surplus, halves to even; half of what is missing, rounded
/// down, before the picture.
std::int64_t center_offset(std::int64_t size, std::int64_t wanted) {
    const std::int64_t surplus = size - wanted;
    if (surplus < 0) return -(-surplus / 2);
    const std::int64_t half = surplus / 2;
    return surplus % 2 == 1 && half % 2 == 1 ? half + 1 : half;
}

}  // namespace

Filter filter_of(const std::string& interpolation) {
    if (interpolation == "bilinear") return Filter::kBilinear;
    if (interpolation == "bicubic") return Filter::kBicubic;
    if (interpolation == "lanczos") return Filter::kLanczos;
    throw Error("image", "found the interpolation '", interpolation, "', expected one of bicubic, bilinear, lanczos");
}

ImageView part(const ImageView& image, const Window& window) {
    const bool inside = window.left >= 0 && window.top >= 0 && window.width <= image.width - window.left &&
                        window.height <= image.height - window.top;
    if (!inside || window.width < 1 || window.height < 1)
        throw Error("image", "the part ", window.width, " x ", window.height, " at (", window.left, ", ", window.top,
                    "): expected one inside ", image.width, " x ", image.height, " pixels");
    return {image.at(window.left, window.top), window.width, window.height, image.stride};
}

Image crop(const Image& image, const Window& window) {
    check_size("crop to", window.width, window.height);
    Image result(window.width, window.height);
    // 64 bits: a window may start anywhere.
    const std::int64_t left = window.left, top = window.top;
    const std::int64_t x0 = std::max<std::int64_t>(left, 0);
    const std::int64_t x1 = std::min<std::int64_t>(left + window.width, image.width);
    const std::int64_t y0 = std::max<std::int64_t>(top, 0);
    const std::int64_t y1 = std::min<std::int64_t>(top + window.height, image.height);
    if (x0 >= x1) return result;
    for (std::int64_t y = y0; y < y1; ++y)
        std::memcpy(result.at(static_cast<int>(x0 - left), static_cast<int>(y - top)),
                    image.at(static_cast<int>(x0), static_cast<int>(y)), static_cast<std::size_t>(3 * (x1 - x0)));
    return result;
}

ResizePlan resize_plan(const PictureSize& from, int width, int height, Filter filter, bool mirrored) {
    const auto whole = [filter](int in_size, int out_size) {
        return make_weights({in_size, 0, static_cast<float>(in_size), out_size}, filter);
    };
    ResizePlan plan{whole(from.width, width), whole(from.height, height), vertical_goes_first(from, width, height)};
    if (mirrored) mirror(plan.columns);
    return plan;
}

Image resize(const ImageView& image, const SourceBox& box, int width, int height, Filter filter, bool mirrored) {
    check_size("resize from", image.width, image.height);
    check_size("resize to", width, height);
    check_box(box, image);
    const Passes passes = best_passes();
    const Axis across{image.width, box.left, box.right, width}, down{image.height, box.top, box.bottom, height};
    Weights columns, rows;
    if (!across.same()) {
        columns = make_weights(across, filter);
        if (mirrored) mirror(columns);
    }
    if (!down.same()) rows = make_weights(down, filter);

    Image result;
    if (across.same()) {
        result = down.same() ? copy_of(image) : vertically(passes, image, rows);
        if (mirrored) mirror(result);
    } else if (down.same()) {
        result = horizontally(passes, image, columns);
    } else if (vertical_goes_first({image.width, image.height}, width, height)) {
        result = horizontally(passes, vertically(passes, image, rows), columns);
    } else {
        // Only the rows that the second pass will read.
        const int first = rows.spans.front().first, last = rows.spans.back().first + rows.spans.back().count;
        for (Weights::Span& span : rows.spans) span.first -= first;
        result = vertically(passes, horizontally(passes, rows_of(image, first, last - first), columns), rows);
    }
    return result;
}

Image resize(const ImageView& image, int width, int height, Filter filter) {
    const SourceBox whole{0, 0, static_cast<float>(image.width), static_cast<float>(image.height)};
    return resize(image, whole, width, height, filter);
}

namespace {

struct Sides {
    std::int64_t width, height;
};

/// What resize_to_cover makes of a picture.
Sides covering(const PictureSize& from, int width, int height) {
    if (width == height) {
        const std::int64_t longer = std::max(from.width, from.height);
        const std::int64_t new_long = width * longer / std::min(from.width, from.height);
        return from.height > from.width ? Sides{width, new_long} : Sides{new_long, width};
    }
    const double ratio = std::min(static_cast<double>(from.width) / width, static_cast<double>(from.height) / height);
    const auto side = [ratio](int length) { return static_cast<std::int64_t>(std::nearbyint(length / ratio)); };
    return {side(from.width), side(from.height)};
}

}  // namespace

bool cover_fits(const PictureSize& from, int width, int height) {
    const Sides to = covering(from, width, height);
    return to.width <= kMaxPixels / to.height;
}

Image resize_short_side(const Image& image, int size, Filter filter) {
    return resize_to_cover(image, size, size, filter);
}

Image resize_to_cover(const Image& image, int width, int height, Filter filter) {
    check_size("resize from", image.width, image.height);
    const Sides to = covering({image.width, image.height}, width, height);
    check_size("resize to", to.width, to.height);
    return resize(image, static_cast<int>(to.width), static_cast<int>(to.height), filter);
}

Image center_crop(const Image& image, int width, int height) {
    check_size("crop to", width, height);
    return crop(image, {static_cast<int>(center_offset(image.width, width)),
                        static_cast<int>(center_offset(image.height, height)), width, height});
}

}  // namespace dynvit
