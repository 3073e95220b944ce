#include "dynvit/data/resize.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "dynvit/core/error.hpp"

// The loader spends its time in the two passes below. Both keep eight 32-bit sums in one vector (GCC's and Clang's
// vector types; a machine with shorter vectors gets several instructions for each), and are compiled twice on x86-64,
// the second time for AVX2, because the baseline has no 32-bit multiplication of vectors. Bytes are taken out of 32-bit
// words by shifts, which needs no instruction of its own for widening.

#if defined(__x86_64__) && defined(__GNUC__)
#define DYNVIT_RESIZE_AVX2 1
#endif

namespace dynvit {
namespace {

constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

// Weights are fixed-point with 22 fraction bits: 8 bits of the pixel and 2 bits of headroom (sum of |weights| < 4, with
// sign) fill the 32 bits of a sum.
constexpr int kFractionBits = 22;
constexpr std::int32_t kHalf = std::int32_t{1} << (kFractionBits - 1);

typedef std::int32_t Sums __attribute__((vector_size(32)));
typedef std::uint32_t Words __attribute__((vector_size(32)));

double bilinear_weight(double x) {
    x = std::abs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/// Keys' cubic convolution kernel with a = -0.5.
double bicubic_weight(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

/// For each output position the inputs it is made of: `taps` weights, of which the first `count` belong to inputs
/// first, first + 1, ... and the rest are zero.
struct Weights {
    struct Span {
        int first, count;
    };
    int taps = 0;
    std::vector<Span> spans;
    std::vector<std::int32_t> fixed;  // output size x taps

    const std::int32_t* of(int output) const { return fixed.data() + static_cast<std::size_t>(output) * taps; }
};

Weights make_weights(int in_size, int out_size, Filter filter) {
    const auto weight = filter == Filter::kBilinear ? bilinear_weight : bicubic_weight;
    const double radius = filter == Filter::kBilinear ? 1.0 : 2.0;
    const double scale = static_cast<double>(in_size) / out_size;
    const double stretch = std::max(scale, 1.0);  // antialiasing: the kernel widens when the picture shrinks
    const double support = radius * stretch;

    Weights weights;
    weights.taps = std::min(static_cast<int>(std::ceil(support)) * 2 + 1, in_size);
    weights.spans.resize(out_size);
    weights.fixed.assign(static_cast<std::size_t>(out_size) * weights.taps, 0);
    std::vector<double> exact(weights.taps);
    for (int output = 0; output < out_size; ++output) {
        const double center = (output + 0.5) * scale;
        const int first = std::max(0, static_cast<int>(center - support + 0.5));
        const int last = std::min(in_size, static_cast<int>(center + support + 0.5));
        double sum = 0;
        for (int i = first; i < last; ++i) {
            exact[i - first] = weight((i - center + 0.5) * (1.0 / stretch));
            sum += exact[i - first];
        }
        std::int32_t* fixed = weights.fixed.data() + static_cast<std::size_t>(output) * weights.taps;
        for (int i = 0; i < last - first; ++i) {
            const double scaled = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << kFractionBits);
            fixed[i] = static_cast<std::int32_t>(scaled + (scaled < 0 ? -0.5 : 0.5));  // half away from zero
        }
        weights.spans[output] = {first, last - first};
    }
    return weights;
}

/// Four bytes, the first one lowest.
[[gnu::always_inline]] inline std::uint32_t load_word(const std::uint8_t* from) {
    static_assert(std::endian::native == std::endian::little);
    std::uint32_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

/// Three bytes, where a fourth one cannot be read.
[[gnu::always_inline]] inline std::uint32_t load_pixel(const std::uint8_t* from) {
    return from[0] | std::uint32_t{from[1]} << 8 | std::uint32_t{from[2]} << 16;
}

/// Sums to 8 bits: the fraction goes (kHalf was added before), the rest is clamped. In place: the calling convention of
/// a vector would depend on the instruction set.
[[gnu::always_inline]] inline void finish(Sums& sums) {
    sums >>= kFractionBits;
    sums = sums < 0 ? Sums{} : sums;
    sums = sums > 255 ? Sums{} + 255 : sums;
}

/// Adds a pixel of each of two rows, each times `weight`, to the sums: lanes 0 to 3 and 4 to 7.
[[gnu::always_inline]] inline void add_pixels(Sums& sums, std::uint32_t a, std::uint32_t b, std::int32_t weight) {
    const Words both = {a, a, a, a, b, b, b, b};
    const Words shifts = {0, 8, 16, 24, 0, 8, 16, 24};
    sums += reinterpret_cast<Sums>((both >> shifts) & 255) * weight;
}

/// Rows `first_row` ... of `in` to rows 0 ... of `out`, which has the new width. The sums are two pixels of four bytes,
/// one from each of two rows; the fourth byte belongs to the next pixel and is thrown away.
[[gnu::always_inline]] inline void horizontal_pass(const Image& in, int first_row, const Weights& weights, Image& out) {
    const std::size_t in_stride = std::size_t{3} * in.width;
    const std::uint8_t* const end = in.pixels.data() + in.pixels.size();
    for (int y = 0; y < out.height; y += 2) {
        const std::uint8_t* upper = in.at(0, first_row + y);
        const bool pair = y + 1 < out.height;
        const std::uint8_t* lower = pair ? upper + in_stride : upper;
        std::uint8_t* upper_out = out.at(0, y);
        std::uint8_t* lower_out = pair ? out.at(0, y + 1) : upper_out;
        for (int x = 0; x < out.width; ++x, upper_out += 3, lower_out += 3) {
            const Weights::Span span = weights.spans[x];
            const std::int32_t* weight = weights.of(x);
            const std::uint8_t* a = upper + 3 * span.first;
            const std::uint8_t* b = lower + 3 * span.first;
            // The picture's very last pixel has no fourth byte to read.
            const int whole = b + 3 * span.count < end ? span.count : span.count - 1;
            Sums sums = Sums{} + kHalf;
            int i = 0;
            for (; i < whole; ++i, a += 3, b += 3) add_pixels(sums, load_word(a), load_word(b), weight[i]);
            if (i < span.count) add_pixels(sums, load_pixel(a), load_pixel(b), weight[i]);
            finish(sums);
            for (int c = 0; c < 3; ++c) {
                upper_out[c] = static_cast<std::uint8_t>(sums[c]);
                lower_out[c] = static_cast<std::uint8_t>(sums[4 + c]);
            }
        }
    }
}

/// `in` holds the rows from `first_row` on; `out` has its width and the new height. All bytes of a row are treated
/// alike: 32 at a time, as eight words; sums[i] belongs to byte i of each word.
[[gnu::always_inline]] inline void vertical_pass(const Image& in, int first_row, const Weights& weights, Image& out) {
    const int row_bytes = 3 * in.width;
    for (int y = 0; y < out.height; ++y) {
        const Weights::Span span = weights.spans[y];
        const std::int32_t* weight = weights.of(y);
        const std::uint8_t* from = in.at(0, span.first - first_row);
        std::uint8_t* to = out.at(0, y);
        int x = 0;
        for (; x + static_cast<int>(sizeof(Words)) <= row_bytes; x += sizeof(Words)) {
            Sums sums[4];
            for (Sums& sum : sums) sum = Sums{} + kHalf;
            const std::uint8_t* row = from + x;
            for (int i = 0; i < span.count; ++i, row += row_bytes) {
                Words words;
                std::memcpy(&words, row, sizeof words);
                for (int byte = 0; byte < 4; ++byte)
                    sums[byte] += reinterpret_cast<Sums>((words >> (8 * byte)) & 255) * weight[i];
            }
            Words result = {};
            for (int byte = 0; byte < 4; ++byte) {
                finish(sums[byte]);
                result |= reinterpret_cast<Words>(sums[byte]) << (8 * byte);
            }
            std::memcpy(to + x, &result, sizeof result);
        }
        for (; x < row_bytes; ++x) {
            std::int32_t sum = kHalf;
            for (int i = 0; i < span.count; ++i) sum += from[static_cast<std::size_t>(i) * row_bytes + x] * weight[i];
            to[x] = static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
        }
    }
}

void horizontal_baseline(const Image& in, int first_row, const Weights& weights, Image& out) {
    horizontal_pass(in, first_row, weights, out);
}

void vertical_baseline(const Image& in, int first_row, const Weights& weights, Image& out) {
    vertical_pass(in, first_row, weights, out);
}

#ifdef DYNVIT_RESIZE_AVX2
[[gnu::target("avx2")]] void horizontal_avx2(const Image& in, int first_row, const Weights& weights, Image& out) {
    horizontal_pass(in, first_row, weights, out);
}

[[gnu::target("avx2")]] void vertical_avx2(const Image& in, int first_row, const Weights& weights, Image& out) {
    vertical_pass(in, first_row, weights, out);
}
#endif

using Pass = void (*)(const Image&, int, const Weights&, Image&);

struct Passes {
    Pass horizontal, vertical;
};

Passes passes_for_this_machine() {
#ifdef DYNVIT_RESIZE_AVX2
    if (__builtin_cpu_supports("avx2")) return {horizontal_avx2, vertical_avx2};
#endif
    return {horizontal_baseline, vertical_baseline};
}

void check_size(const char* what, std::int64_t width, std::int64_t height) {
    if (width < 1 || height < 1 || width > kMaxPixels / height)
        throw Error("image", what, " ", width, " x ", height, ": expected 1 to 2^28 pixels");
}

/// Pillow 13's choice: rows are merged first where that takes away more than twice as many rows as columns go. Each
/// pass rounds, so the order shows in the last bit. (Pillow up to 12 always began with the columns.)
bool vertical_goes_first(const Image& image, int width, int height) {
    const std::int64_t fewer_rows = std::int64_t{image.height} - height;
    const std::int64_t fewer_columns = std::int64_t{image.width} - width;
    return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
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

Image resize(const Image& image, int width, int height, Filter filter) {
    check_size("resize from", image.width, image.height);
    check_size("resize to", width, height);
    const Passes passes = passes_for_this_machine();
    const bool horizontal = width != image.width, vertical = height != image.height;
    Weights columns, rows;
    if (horizontal) columns = make_weights(image.width, width, filter);
    if (vertical) rows = make_weights(image.height, height, filter);

    if (vertical && (!horizontal || vertical_goes_first(image, width, height))) {
        Image flat(image.width, height);
        passes.vertical(image, 0, rows, flat);
        if (!horizontal) return flat;
        Image result(width, height);
        passes.horizontal(flat, 0, columns, result);
        return result;
    }
    if (!horizontal) return image;
    // Only the rows that the second pass will read.
    const int first_row = vertical ? rows.spans.front().first : 0;
    const int end_row = vertical ? rows.spans.back().first + rows.spans.back().count : image.height;
    Image narrow(width, end_row - first_row);
    passes.horizontal(image, first_row, columns, narrow);
    if (!vertical) return narrow;
    Image result(width, height);
    passes.vertical(narrow, first_row, rows, result);
    return result;
}

Image resize_short_side(const Image& image, int size, Filter filter) {
    check_size("resize from", image.width, image.height);
    const std::int64_t short_side = std::min(image.width, image.height);
    const std::int64_t long_side = std::max(image.width, image.height);
    const std::int64_t new_long = size * long_side / short_side;
    const bool portrait = image.height > image.width;
    const std::int64_t width = portrait ? size : new_long, height = portrait ? new_long : size;
    check_size("resize to", width, height);
    return resize(image, static_cast<int>(width), static_cast<int>(height), filter);
}

Image center_crop(const Image& image, int width, int height) {
    check_size("crop to", width, height);
    return crop(image, {static_cast<int>(center_offset(image.width, width)),
                        static_cast<int>(center_offset(image.height, height)), width, height});
}

}  // namespace dynvit
