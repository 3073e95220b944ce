// Matrix products of float32 for the processor, on which the kernels beside this file are built.
//
// Kernels are compiled for AVX-512, for AVX2 and for any processor of the kind, and chosen when the program runs. What
// these call must be inlined, as only the functions named after a processor are compiled for it; vectors go by
// reference, as how to pass them by value depends on the processor too.
//
// Matrices are copied to panels: a panel holds `lanes` columns of a matrix, row after row, so that the products read
// and write whole vectors, one after the other. They work on kRows rows of the left matrix at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "types.hpp"

#define DYNVIT_INLINED __attribute__((always_inline))
#define DYNVIT_INLINE DYNVIT_INLINED inline
#if defined(__x86_64__)
#define DYNVIT_FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define DYNVIT_FOR_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace dynvit::cpu {

template <int lanes>
struct Lanes {
    typedef float Float __attribute__((vector_size(lanes * sizeof(float)), may_alias));
    typedef std::uint32_t Bits __attribute__((vector_size(lanes * sizeof(std::uint32_t)), may_alias));
    typedef std::uint16_t Half __attribute__((vector_size(lanes * sizeof(std::uint16_t)), may_alias));
    static constexpr auto kIndices = std::make_integer_sequence<int, lanes>();
    static constexpr int kColumns = lanes == 16 ? 4 : 2;  // vectors of a row summed at once
};
template <int lanes>
using Vector = typename Lanes<lanes>::Float;

constexpr std::int64_t panels_of(std::int64_t columns, std::int64_t lanes) {
    return (columns + lanes - 1) / lanes;
}

template <int lanes>
DYNVIT_INLINE void load(const float* from, Vector<lanes>& x) {
    std::memcpy(&x, from, sizeof(x));
}

template <int lanes>
DYNVIT_INLINE void load(const BFloat16Bits* from, Vector<lanes>& x) {
    typename Lanes<lanes>::Half half;
    std::memcpy(&half, from, sizeof(half));
    x = (Vector<lanes>)(__builtin_convertvector(half, typename Lanes<lanes>::Bits) << 16);
}

template <int lanes>
DYNVIT_INLINE void store(const Vector<lanes>& x, float* to) {
    std::memcpy(to, &x, sizeof(x));
}

template <int lanes>
DYNVIT_INLINE void store(const Vector<lanes>& x, BFloat16Bits* to) {
    const auto bits = (typename Lanes<lanes>::Bits)x;
    const auto nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // halves go to even
    const auto rounded = x == x ? nearest : bits >> 16 | 0x40;      // a NaN must not become infinity
    const auto half = __builtin_convertvector(rounded, typename Lanes<lanes>::Half);
    std::memcpy(to, &half, sizeof(half));
}

/// Loads the first `count` values, and zeros after them.
template <int lanes, class T>
DYNVIT_INLINE void load(const T* from, std::int64_t count, Vector<lanes>& x) {
    if (count >= lanes) return load<lanes>(from, x);
    T whole[lanes] = {};
    std::copy_n(from, count, whole);
    load<lanes>(whole, x);
}

template <int lanes, class T>
DYNVIT_INLINE void store(const Vector<lanes>& x, std::int64_t count, T* to) {
    if (count >= lanes) return store<lanes>(x, to);
    T whole[lanes];
    store<lanes>(x, whole);
    std::copy_n(whole, count, to);
}

/// low, high = x[0], y[0], x[1], y[1], ...
template <int lanes, int... i>
DYNVIT_INLINE void interleave(const Vector<lanes>& x, const Vector<lanes>& y, Vector<lanes>& low, Vector<lanes>& high,
                              std::integer_sequence<int, i...>) {
    low = __builtin_shufflevector(x, y, (i % 2 * lanes + i / 2)...);
    high = __builtin_shufflevector(x, y, (i % 2 * lanes + lanes / 2 + i / 2)...);
}

/// Transposes a square. A value's address in it is the bits of its row, then the bits of its column; interleaving the
/// upper half of the rows with the lower half rotates them by one, so log2(lanes) times exchange row and column.
template <int lanes>
DYNVIT_INLINE void transpose(Vector<lanes> (&rows)[lanes]) {
#pragma GCC unroll 4
    for (int step = 1; step < lanes; step *= 2) {
        Vector<lanes> rotated[lanes];
#pragma GCC unroll 8
        for (int i = 0; i < lanes / 2; ++i) {
            interleave<lanes>(rows[i], rows[i + lanes / 2], rotated[2 * i], rotated[2 * i + 1], Lanes<lanes>::kIndices);
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) rows[i] = rotated[i];
    }
}

/// Copies the transpose of `rows` x `columns` values to panels. Rows missing in the last panel repeat the last row.
template <int lanes, class T>
DYNVIT_INLINE void pack_transposed(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                   float* panels) {
    for (std::int64_t row = 0; row < rows; row += lanes) {
        for (std::int64_t column = 0; column < columns; column += lanes) {
            Vector<lanes> square[lanes];
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i) {
                const T* place = from + std::min(row + i, rows - 1) * stride + column;
                load<lanes>(place, columns - column, square[i]);
            }
            transpose<lanes>(square);
            const std::int64_t count = std::min<std::int64_t>(lanes, columns - column);
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i) {
                if (i < count) store<lanes>(square[i], panels + i * lanes);
            }
            panels += count * lanes;
        }
    }
}

/// Copies `rows` x `columns` values, multiplied by `factor`, to panels of `panel_rows` rows. Rows missing repeat the
/// last row.
template <int lanes, class T>
DYNVIT_INLINE void pack(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t columns, float factor,
                        std::int64_t panel_rows, float* panels) {
    for (std::int64_t column = 0; column < columns; column += lanes) {
        for (std::int64_t row = 0; row < panel_rows; ++row, panels += lanes) {
            Vector<lanes> x;
            load<lanes>(from + std::min(row, rows - 1) * stride + column, columns - column, x);
            x *= factor;
            store<lanes>(x, panels);
        }
    }
}

/// out = a b for kRows rows and `columns` panels: a has panels of kRows rows, b of `depth` rows.
template <int lanes, int columns>
DYNVIT_INLINE void multiply_panels(const float* a, const float* b, std::int64_t depth, float* out) {
    Vector<lanes> sums[kRows][columns] = {};
    const std::int64_t panel = depth * lanes;
    for (std::int64_t start = 0; start < depth; start += lanes, a += kRows * lanes) {
        const std::int64_t steps = std::min<std::int64_t>(lanes, depth - start);
        for (std::int64_t step = 0; step < steps; ++step, b += lanes) {
            Vector<lanes> values[columns];
#pragma GCC unroll 4
            for (int column = 0; column < columns; ++column) load<lanes>(b + column * panel, values[column]);
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                const float factor = a[row * lanes + step];
#pragma GCC unroll 4
                for (int column = 0; column < columns; ++column) sums[row][column] += factor * values[column];
            }
        }
    }
#pragma GCC unroll 4
    for (int column = 0; column < columns; ++column) {
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) store<lanes>(sums[row][column], out + (column * kRows + row) * lanes);
    }
}

template <int lanes, int columns = Lanes<lanes>::kColumns>
DYNVIT_INLINE void multiply(const float* a, const float* b, std::int64_t depth, std::int64_t panels, float* out) {
    for (; panels >= columns; panels -= columns, b += columns * depth * lanes, out += columns * kRows * lanes) {
        multiply_panels<lanes, columns>(a, b, depth, out);
    }
    if constexpr (columns > 1) multiply<lanes, columns - 1>(a, b, depth, panels, out);
}

/// x = 2^x for x <= 0, with a relative error of at most 2e-7 (measured) from -125 on; 0 below -127.
template <int lanes>
DYNVIT_INLINE void exponential(Vector<lanes>& x) {
    const Vector<lanes> least = Vector<lanes>{} - 127;
    x = x < least ? least : x;  // in this order a NaN stays
    // Adding 1.5 * 2^23 rounds to a whole number, which is then in the low bits; with the bias 127 they are the
    // exponent of 2^whole (and at -127 a zero).
    constexpr float kWhole = 0x1.8p23f + 127;
    const Vector<lanes> whole = x + kWhole;
    const Vector<lanes> f = x - (whole - kWhole);
    const auto power = (Vector<lanes>)((typename Lanes<lanes>::Bits)whole << 23);
    // 2^f for |f| <= 1/2: the polynomial of degree 5 with the smallest relative error of all with 1 at 0, 9.2e-8 (least
    // squares, reweighted until the greatest error was least).
    x = power * (1 + f * (0.693147f + f * (0.24022242f + f * (0.055507336f + f * (0.009671513f + f * 0.0013264727f)))));
}

/// At least `count` floats.
inline std::vector<CacheLine> cache_lines(std::int64_t count) {
    return std::vector<CacheLine>(static_cast<std::size_t>(panels_of(count, 16)));
}

/// The same, kept for the thread's next call.
inline float* scratch(std::int64_t count) {
    thread_local std::vector<CacheLine> lines;
    if (std::ssize(lines) * 16 < count) lines = cache_lines(count);
    return lines.data()->values;
}

#ifdef DYNVIT_FOR_AVX2
inline bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
inline bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && has_avx2();
}

template <class Work>
DYNVIT_FOR_AVX2 void run_for_avx2(const Work& work) {
    work.template operator()<8>();
}
template <class Work>
DYNVIT_FOR_AVX512 void run_for_avx512(const Work& work) {
    work.template operator()<16>();
}
#endif

/// Runs work<lanes>() as compiled for this processor. @param work a lambda that is DYNVIT_INLINED
template <class Work>
void run_for_processor(const Work& work) {
#ifdef DYNVIT_FOR_AVX2
    if (has_avx512()) return run_for_avx512(work);
    if (has_avx2()) return run_for_avx2(work);
#endif
    work.template operator()<4>();
}

}  // namespace dynvit::cpu
