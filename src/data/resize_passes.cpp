#include "resize_passes.hpp"

#include <algorithm>
#include <cstring>

// The loader spends its time here. AVX2 multiplies 16-bit numbers in pairs and adds each pair's products (pmaddwd),
// which is the fastest multiplication it has, but a weight has 24 bits. So a weight is split into low * 1 + high *
// 2^12, both parts fit 16 bits, each has a sum of its own, and the two sums together are exactly the sum of the whole
// products.

#if defined(__x86_64__) && defined(__GNUC__)
#define DYNVIT_RESIZE_AVX2 1
#include <immintrin.h>
#endif

namespace dynvit {
namespace {

constexpr std::int32_t kHalf = std::int32_t{1} << (kFractionBits - 1);

std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

void horizontal_plain(const ImageView& in, const Weights& weights, Image& out) {
    for (int y = 0; y < out.height; ++y)
        for (int x = 0; x < out.width; ++x) {
            const Weights::Span span = weights.spans[x];
            const std::int32_t* weight = weights.of(x);
            const std::uint8_t* from = in.at(span.first, y);
            std::int32_t sums[3] = {kHalf, kHalf, kHalf};
            for (int i = 0; i < span.count; ++i, from += 3)
                for (int c = 0; c < 3; ++c) sums[c] += from[c] * weight[i];
            for (int c = 0; c < 3; ++c) out.at(x, y)[c] = rounded(sums[c]);
        }
}

void vertical_plain(const ImageView& in, const Weights& weights, Image& out) {
    std::vector<std::int32_t> sums(std::size_t{3} * out.width);
    for (int y = 0; y < out.height; ++y) {
        const Weights::Span span = weights.spans[y];
        std::fill(sums.begin(), sums.end(), kHalf);
        for (int i = 0; i < span.count; ++i) {
            const std::uint8_t* from = in.at(0, span.first + i);
            const std::int32_t weight = weights.of(y)[i];
            for (std::size_t x = 0; x < sums.size(); ++x) sums[x] += from[x] * weight;
        }
        std::transform(sums.begin(), sums.end(), out.at(0, y), rounded);
    }
}

#ifdef DYNVIT_RESIZE_AVX2

#define DYNVIT_AVX2 [[gnu::target("avx2")]]
#define DYNVIT_AVX2_INLINE [[gnu::target("avx2"), gnu::always_inline]] inline

constexpr int kLowBits = 12;

/// A weight's parts: low + high * 2^kLowBits, low between -2^11 and 2^11 - 1.
struct Parts {
    std::int16_t low, high;
};

Parts split(std::int32_t weight) {
    constexpr std::int32_t kMiddle = std::int32_t{1} << (kLowBits - 1);
    const std::int32_t high = (weight + kMiddle) >> kLowBits;
    return {static_cast<std::int16_t>(weight - high * (1 << kLowBits)), static_cast<std::int16_t>(high)};
}

/// Two weights side by side, for a 32-bit lane that holds two pixels' bytes.
struct PairedWeights {
    std::int32_t low, high;
};

PairedWeights paired(std::int32_t first, std::int32_t second) {
    const auto side_by_side = [](std::int16_t a, std::int16_t b) {
        return static_cast<std::int32_t>(static_cast<std::uint16_t>(a) | std::uint32_t{static_cast<std::uint16_t>(b)}
                                                                             << 16);
    };
    const Parts a = split(first), b = split(second);
    return {side_by_side(a.low, b.low), side_by_side(a.high, b.high)};
}

/// The two parts' sums of products.
struct Sums {
    __m256i low, high;
};

DYNVIT_AVX2_INLINE Sums no_sums() {
    return {_mm256_set1_epi32(kHalf), _mm256_setzero_si256()};
}

DYNVIT_AVX2_INLINE void add_products(Sums& sums, __m256i pixels, const PairedWeights& weights) {
    sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(pixels, _mm256_set1_epi32(weights.low)));
    sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(pixels, _mm256_set1_epi32(weights.high)));
}

/// What rounded() gives, but for the clamping, which packing does.
DYNVIT_AVX2_INLINE __m256i shifted(const Sums& sums) {
    return _mm256_srai_epi32(_mm256_add_epi32(sums.low, _mm256_slli_epi32(sums.high, kLowBits)), kFractionBits);
}

// ---- columns --------------------------------------------------------------------------------------------------------

/// Weights in groups of four pixels. So that none reaches beyond the row's end, spans near it begin earlier, with
/// weights of zero.
struct GroupedWeights {
    int groups = 0;  // of each output; 0: the row is too short for this
    std::vector<int> firsts;
    std::vector<PairedWeights> pairs;  // output size x groups x 2
};

GroupedWeights grouped(const Weights& weights, int in_size) {
    int longest = 0;
    for (const Weights::Span& span : weights.spans) longest = std::max(longest, span.count);
    const int groups = (longest + 3) / 4;
    const int last_first = in_size - 4 * groups;
    if (last_first < 0) return {};
    const std::size_t count = weights.spans.size();
    GroupedWeights result{groups, std::vector<int>(count), std::vector<PairedWeights>(2 * count * groups)};
    PairedWeights* pair = result.pairs.data();
    for (std::size_t output = 0; output < count; ++output) {
        const Weights::Span span = weights.spans[output];
        const int first = result.firsts[output] = std::min(span.first, last_first);
        const auto weight = [&, of = weights.of(static_cast<int>(output))](int input) {
            return input < span.first || input >= span.first + span.count ? 0 : of[input - span.first];
        };
        for (int input = first; input < first + 4 * groups; input += 2)
            *pair++ = paired(weight(input), weight(input + 1));
    }
    return result;
}

constexpr int kRows = 4;  // at a time, for each weight that is fetched

/// A pixel of each of the rows, a 32-bit word a row, in the order 0, 2, 1, 3.
DYNVIT_AVX2_INLINE __m128i weighted_pixels(const std::uint8_t* const (&rows)[kRows], std::size_t start,
                                           const PairedWeights* pairs, int groups) {
    // A row in each half: of two pixels red and red, green and green, blue and blue, as 16-bit numbers.
    const __m256i first_two = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                               0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m256i last_two = _mm256_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,  //
                                              6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m128i twelve_bytes = _mm_setr_epi32(-1, -1, -1, 0);  // four pixels; the row's last ones have no more
    Sums sums[kRows / 2] = {no_sums(), no_sums()};
    for (int group = 0; group < groups; ++group, start += 12, pairs += 2)
        for (int two = 0; two < kRows / 2; ++two) {
            const __m128i upper = _mm_maskload_epi32(reinterpret_cast<const int*>(rows[2 * two] + start), twelve_bytes);
            const __m128i lower =
                _mm_maskload_epi32(reinterpret_cast<const int*>(rows[2 * two + 1] + start), twelve_bytes);
            const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(upper), lower, 1);
            add_products(sums[two], _mm256_shuffle_epi8(bytes, first_two), pairs[0]);
            add_products(sums[two], _mm256_shuffle_epi8(bytes, last_two), pairs[1]);
        }
    const __m256i words = _mm256_packs_epi32(shifted(sums[0]), shifted(sums[1]));
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/// kBytes of each word: four are the fastest to store, where the fourth one is written over by the next pixel.
template <std::size_t kBytes>
DYNVIT_AVX2_INLINE void store_pixels(std::uint8_t* const (&rows)[kRows], std::size_t start, __m128i pixels) {
    const int words[kRows] = {_mm_extract_epi32(pixels, 0), _mm_extract_epi32(pixels, 2), _mm_extract_epi32(pixels, 1),
                              _mm_extract_epi32(pixels, 3)};
    for (int row = 0; row < kRows; ++row) std::memcpy(rows[row] + start, &words[row], kBytes);
}

DYNVIT_AVX2 void horizontal_avx2(const ImageView& in, const Weights& weights, Image& out) {
    const GroupedWeights columns = grouped(weights, in.width);
    if (columns.groups == 0) return horizontal_plain(in, weights, out);
    for (int y = 0; y < out.height; y += kRows) {
        const std::uint8_t* from[kRows];  // the last row again where fewer are left
        std::uint8_t* to[kRows];
        for (int row = 0; row < kRows; ++row) {
            from[row] = in.at(0, std::min(y + row, out.height - 1));
            to[row] = out.at(0, std::min(y + row, out.height - 1));
        }
        const PairedWeights* pairs = columns.pairs.data();
        for (int x = 0; x < out.width; ++x, pairs += 2 * columns.groups) {
            const std::size_t start = std::size_t{3} * columns.firsts[x];
            const __m128i pixels = weighted_pixels(from, start, pairs, columns.groups);
            if (x + 1 < out.width)
                store_pixels<4>(to, std::size_t{3} * x, pixels);
            else
                store_pixels<3>(to, std::size_t{3} * x, pixels);
        }
    }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

constexpr int kBytes = 32;  // of a row at a time

DYNVIT_AVX2_INLINE __m256i weighted_bytes(const std::uint8_t* from, std::size_t stride, const PairedWeights* pairs,
                                          int count) {
    const __m256i zero = _mm256_setzero_si256();
    Sums sums[4] = {no_sums(), no_sums(), no_sums(), no_sums()};
    for (int i = 0; i < count; i += 2, from += 2 * stride, ++pairs) {
        const std::uint8_t* second = i + 1 < count ? from + stride : from;  // its weight is zero
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
        const __m256i lower = _mm256_unpacklo_epi8(a, b), upper = _mm256_unpackhi_epi8(a, b);
        add_products(sums[0], _mm256_unpacklo_epi8(lower, zero), *pairs);
        add_products(sums[1], _mm256_unpackhi_epi8(lower, zero), *pairs);
        add_products(sums[2], _mm256_unpacklo_epi8(upper, zero), *pairs);
        add_products(sums[3], _mm256_unpackhi_epi8(upper, zero), *pairs);
    }
    return _mm256_packus_epi16(_mm256_packs_epi32(shifted(sums[0]), shifted(sums[1])),
                               _mm256_packs_epi32(shifted(sums[2]), shifted(sums[3])));
}

DYNVIT_AVX2 void vertical_avx2(const ImageView& in, const Weights& weights, Image& out) {
    const int row_bytes = 3 * in.width;
    if (row_bytes < kBytes) return vertical_plain(in, weights, out);
    std::vector<PairedWeights> pairs((weights.taps + 1) / 2);
    for (int y = 0; y < out.height; ++y) {
        const Weights::Span span = weights.spans[y];
        for (int i = 0; i < span.count; i += 2) {
            const std::int32_t* weight = weights.of(y) + i;
            pairs[i / 2] = paired(weight[0], i + 1 < span.count ? weight[1] : 0);
        }
        // The last bytes are done once more with what is before them, where they are fewer than kBytes.
        for (int x = 0; x < row_bytes; x += kBytes) {
            const int start = std::min(x, row_bytes - kBytes);
            const __m256i bytes = weighted_bytes(in.at(0, span.first) + start, in.stride, pairs.data(), span.count);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.at(0, y) + start), bytes);
        }
    }
}

#endif

}  // namespace

Passes plain_passes() {
    return {horizontal_plain, vertical_plain};
}

Passes best_passes() {
#ifdef DYNVIT_RESIZE_AVX2
    if (__builtin_cpu_supports("avx2")) return {horizontal_avx2, vertical_avx2};
#endif
    return plain_passes();
}

}  // namespace dynvit
