#include "dynvit/data/affine.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numbers>

// The values are to be Pillow's to the last bit, whose arithmetic is double and drops fractions: the order of
// operations below is Pillow's. A pixel's channels go side by side in one vector (GCC's and Clang's vector types), and
// the code is compiled twice on x86-64, the second time for AVX2. AVX2 alone has no fused multiply-add, which would
// round differently.

#if defined(__x86_64__) && defined(__GNUC__)
#define DYNVIT_AFFINE_AVX2 1
#endif

namespace dynvit {
namespace {

using Bytes [[gnu::vector_size(16)]] = std::int32_t;
using Pixel [[gnu::vector_size(32)]] = double;  // red, green, blue, and a fourth value that nobody looks at

/// Reads a pixel and the byte after it. In place, as all functions of vectors here: the calling convention of a vector
/// would depend on the instruction set.
[[gnu::always_inline]] inline void load(const std::uint8_t* from, Pixel& pixel) {
    static_assert(std::endian::native == std::endian::little);
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    const Bytes bytes = (Bytes{word, word, word, word} >> Bytes{0, 8, 16, 24}) & 255;
    // One instruction, where __builtin_convertvector takes four with GCC 12.
    pixel = Pixel{static_cast<double>(bytes[0]), static_cast<double>(bytes[1]), static_cast<double>(bytes[2]),
                  static_cast<double>(bytes[3])};
}

/// Keys' cubic through b and c at t = 0 and 1.
[[gnu::always_inline]] inline void cubic(const Pixel& a, const Pixel& b, const Pixel& c, const Pixel& d, double t,
                                         Pixel& result) {
    const Pixel p2 = c - a, p3 = 2 * (a - b) + c - d, p4 = b - a - c + d;
    result = b + t * (p2 + t * (p3 + t * p4));
}

/// The picture's value tx and ty right and down of the middle of the pixel `at`, 0 <= tx, ty < 1. Rows are `stride`
/// bytes apart. Shears and shifts have whole numbers along one axis, where there is nothing to interpolate.
struct Bicubic {
    [[gnu::always_inline]] static inline void row(const std::uint8_t* at, double tx, Pixel& result) {
        load(at, result);
        if (tx == 0) return;
        Pixel a, c, d;
        load(at - 3, a);
        load(at + 3, c);
        load(at + 6, d);
        cubic(a, result, c, d, tx, result);
    }

    [[gnu::always_inline]] static inline void interpolate(const std::uint8_t* at, std::ptrdiff_t stride, double tx,
                                                          double ty, Pixel& result) {
        row(at, tx, result);
        if (ty == 0) return;
        Pixel a, c, d;
        row(at - stride, tx, a);
        row(at + stride, tx, c);
        row(at + 2 * stride, tx, d);
        cubic(a, result, c, d, ty, result);
    }
};

struct Bilinear {
    [[gnu::always_inline]] static inline void row(const std::uint8_t* at, double tx, Pixel& result) {
        Pixel right;
        load(at, result);
        load(at + 3, right);
        result += (right - result) * tx;
    }

    [[gnu::always_inline]] static inline void interpolate(const std::uint8_t* at, std::ptrdiff_t stride, double tx,
                                                          double ty, Pixel& result) {
        Pixel below;
        row(at, tx, result);
        row(at + stride, tx, below);
        result += (below - result) * ty;
    }
};

/// The largest whole number that is not above `value`, which is at least -1.
int floor_of(double value) {
    return value < 0 ? -1 : static_cast<int>(value);
}

/// 4 x 4 pixels around a pixel that lies near the border, the outermost ones repeated.
struct Patch {
    static constexpr std::ptrdiff_t kStride = 3 * 4;
    std::uint8_t bytes[4 * kStride + 1];  // load() reads one more

    Patch(const Image& image, int x, int y) {
        std::uint8_t* to = bytes;
        for (int j = y - 1; j <= y + 2; ++j)
            for (int i = x - 1; i <= x + 2; ++i, to += 3)
                std::memcpy(to, image.at(std::clamp(i, 0, image.width - 1), std::clamp(j, 0, image.height - 1)), 3);
        *to = 0;
    }

    const std::uint8_t* middle() const { return bytes + kStride + 3; }
};

template <class Interpolation>
[[gnu::always_inline]] inline void transform(const Image& image, const Affine& map, Rgb fill, Image& result) {
    const std::ptrdiff_t stride = std::ptrdiff_t{3} * image.width;
    const double width = image.width, height = image.height;
    for (int j = 0; j < result.height; ++j) {
        const double y = j + 0.5;
        const double row_x = map.xy * y, row_y = map.yy * y;
        std::uint8_t* out = result.at(0, j);
        for (int i = 0; i < result.width; ++i, out += 3) {
            const double x = i + 0.5;
            double from_x = map.xx * x + row_x + map.x0, from_y = map.yx * x + row_y + map.y0;
            if (!(from_x >= 0 && from_x < width && from_y >= 0 && from_y < height)) {
                std::memcpy(out, fill.data(), 3);
                continue;
            }
            from_x -= 0.5;
            from_y -= 0.5;
            const int left = floor_of(from_x), top = floor_of(from_y);
            const double tx = from_x - left, ty = from_y - top;
            Pixel value;
            if (left >= 1 && top >= 1 && left + 3 < image.width && top + 2 < image.height) {
                Interpolation::interpolate(image.at(left, top), stride, tx, ty, value);
            } else {
                const Patch patch(image, left, top);
                Interpolation::interpolate(patch.middle(), Patch::kStride, tx, ty, value);
            }
            value = value > 0 ? value : Pixel{};
            value = value < 255 ? value : Pixel{} + 255;
            for (int c = 0; c < 3; ++c) out[c] = static_cast<std::uint8_t>(static_cast<int>(value[c]));
        }
    }
}

[[gnu::always_inline]] inline void transform(const Image& image, const Affine& map, Filter filter, Rgb fill,
                                             Image& result) {
    if (filter == Filter::kBicubic)
        transform<Bicubic>(image, map, fill, result);
    else
        transform<Bilinear>(image, map, fill, result);
}

void transform_baseline(const Image& image, const Affine& map, Filter filter, Rgb fill, Image& result) {
    transform(image, map, filter, fill, result);
}

#ifdef DYNVIT_AFFINE_AVX2
[[gnu::target("avx2")]] void transform_avx2(const Image& image, const Affine& map, Filter filter, Rgb fill,
                                            Image& result) {
    transform(image, map, filter, fill, result);
}
#endif

/// Rounded to 15 digits after the point, as Python's round() does: the nearest such decimal number's nearest double.
double round15(double value) {
    char text[32];
    const char* end = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, 15).ptr;
    std::from_chars(text, end, value);
    return value;
}

}  // namespace

Image affine(const Image& image, const Affine& map, Filter filter, Rgb fill) {
    TORCH_CHECK(filter != Filter::kLanczos, "an affine map is sampled bilinear or bicubic");
    Image result(image.width, image.height);
#ifdef DYNVIT_AFFINE_AVX2
    if (__builtin_cpu_supports("avx2")) {
        transform_avx2(image, map, filter, fill, result);
        return result;
    }
#endif
    transform_baseline(image, map, filter, fill, result);
    return result;
}

Image rotate(const Image& image, double degrees, Filter filter, Rgb fill) {
    double positive = std::fmod(degrees, 360.0);
    if (positive < 0) positive += 360.0;
    const double angle = -(positive * (std::numbers::pi / 180.0));
    Affine map;
    map.xx = map.yy = round15(std::cos(angle));
    map.xy = round15(std::sin(angle));
    map.yx = round15(-std::sin(angle));
    const double middle_x = image.width / 2.0, middle_y = image.height / 2.0;
    map.x0 = map.xx * -middle_x + map.xy * -middle_y + middle_x;
    map.y0 = map.yx * -middle_x + map.yy * -middle_y + middle_y;
    return affine(image, map, filter, fill);
}

Image shear_x(const Image& image, double factor, Filter filter, Rgb fill) {
    return affine(image, {.xy = factor}, filter, fill);
}

Image shear_y(const Image& image, double factor, Filter filter, Rgb fill) {
    return affine(image, {.yx = factor}, filter, fill);
}

Image translate_x(const Image& image, double share, Filter filter, Rgb fill) {
    return affine(image, {.x0 = share * image.width}, filter, fill);
}

Image translate_y(const Image& image, double share, Filter filter, Rgb fill) {
    return affine(image, {.y0 = share * image.height}, filter, fill);
}

}  // namespace dynvit
