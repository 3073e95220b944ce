#include "self_attention.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "panels.hpp"

// Q, K, V and the scores are copied to panels. Both products are one function, which works on kRows queries at a time:
// their scores fit in the first cache.
namespace dynvit::cpu {
namespace {

/// x = the greatest value, or the sum, of all of x in every lane.
template <bool sum, int lanes, int step, int... i>
DYNVIT_INLINE void reduce(Vector<lanes>& x, std::integer_sequence<int, i...> indices) {
    const Vector<lanes> other = __builtin_shufflevector(x, x, (i ^ step)...);
    if constexpr (sum)
        x += other;
    else
        x = x > other ? x : other;
    if constexpr (step > 1) reduce<sum, lanes, step / 2>(x, indices);
}

/// scores = 2^(scores - their greatest), and inverse_sums = 1 / the sum of it, for kRows rows at once.
template <int lanes>
DYNVIT_INLINE void softmax(float* scores, std::int64_t panels, Vector<lanes> (&inverse_sums)[kRows]) {
    Vector<lanes> greatest[kRows];
    for (int row = 0; row < kRows; ++row) load<lanes>(scores + row * lanes, greatest[row]);
    for (std::int64_t panel = 1; panel < panels; ++panel) {
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            Vector<lanes> x;
            load<lanes>(scores + (panel * kRows + row) * lanes, x);
            greatest[row] = x > greatest[row] ? x : greatest[row];
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
        reduce<false, lanes, lanes / 2>(greatest[row], Lanes<lanes>::kIndices);
        inverse_sums[row] = Vector<lanes>{};
    }
    for (std::int64_t panel = 0; panel < panels; ++panel) {
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            float* place = scores + (panel * kRows + row) * lanes;
            Vector<lanes> x;
            load<lanes>(place, x);
            x -= greatest[row];
            exponential<lanes>(x);
            store<lanes>(x, place);
            inverse_sums[row] += x;
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
        reduce<true, lanes, lanes / 2>(inverse_sums[row], Lanes<lanes>::kIndices);
        inverse_sums[row] = 1 / inverse_sums[row];
    }
}

/// Writes what is added to the scores of n keys, in panels from `first_panel` on: the bias, if there is one, and what
/// takes the keys that aren't there out of the softmax.
template <int lanes>
DYNVIT_INLINE void fill_biases(const float* bias, std::int64_t n, std::int64_t first_panel, float* panels) {
    const std::int64_t end = panels_of(n, lanes) * lanes;
    for (std::int64_t key = first_panel * lanes; key < end; ++key) {
        panels[key] = key >= n ? -std::numeric_limits<float>::infinity() : bias ? bias[key] : 0;
    }
}

/// Adds the biases to the scores of kRows rows, from `first_panel` on.
template <int lanes>
DYNVIT_INLINE void add_biases(const float* biases, std::int64_t first_panel, std::int64_t panels, float* scores) {
    for (std::int64_t panel = first_panel; panel < panels; ++panel) {
        Vector<lanes> bias;
        load<lanes>(biases + panel * lanes, bias);
        for (int row = 0; row < kRows; ++row) {
            float* place = scores + (panel * kRows + row) * lanes;
            Vector<lanes> x;
            load<lanes>(place, x);
            x += bias;
            store<lanes>(x, place);
        }
    }
}

template <int lanes, class T>
DYNVIT_INLINE void attention_with(const HeadRows<T>& rows, const HeadSizes& sizes, float scale) {
    const std::int64_t n = sizes.keys, d = sizes.head_dim;
    if (n <= 0 || d <= 0) return;
    const std::int64_t key_panels = panels_of(n, lanes), value_panels = panels_of(d, lanes);
    const std::int64_t block = kRows * lanes;
    float* keys = scratch(key_panels * d * lanes + value_panels * n * lanes + (2 * value_panels + key_panels) * block +
                          key_panels * lanes);
    float* values = keys + key_panels * d * lanes;
    float* packed_queries = values + value_panels * n * lanes;
    float* scores = packed_queries + value_panels * block;
    float* results = scores + key_panels * block;
    float* biases = results + value_panels * block;

    pack_transposed<lanes>(rows.k, rows.stride, n, d, keys);
    pack<lanes>(rows.v, rows.stride, n, d, 1, n, values);
    const std::int64_t first_biased = rows.bias ? 0 : key_panels - 1;  // keys are missing in the last panel alone
    fill_biases<lanes>(rows.bias, n, first_biased, biases);
    constexpr float kLog2E = 1.44269504f;  // e^x = 2^(x log2 e)
    for (std::int64_t first = 0; first < sizes.queries; first += kRows) {
        const std::int64_t count = std::min(kRows, sizes.queries - first);
        pack<lanes>(rows.q + first * rows.stride, rows.stride, count, d, scale * kLog2E, kRows, packed_queries);
        multiply<lanes>(packed_queries, keys, d, key_panels, scores);
        add_biases<lanes>(biases, first_biased, key_panels, scores);
        Vector<lanes> inverse_sums[kRows];
        softmax<lanes>(scores, key_panels, inverse_sums);
        multiply<lanes>(scores, values, n, value_panels, results);
        for (std::int64_t panel = 0; panel < value_panels; ++panel) {
            for (std::int64_t row = 0; row < count; ++row) {
                Vector<lanes> x;
                load<lanes>(results + (panel * kRows + row) * lanes, x);
                x *= inverse_sums[row];
                store<lanes>(x, d - panel * lanes, rows.out + (first + row) * rows.out_stride + panel * lanes);
            }
        }
    }
}

}  // namespace

template <class T>
void attention(const HeadRows<T>& rows, const HeadSizes& sizes, float scale) {
    run_for_processor([&]<int lanes>() DYNVIT_INLINED { attention_with<lanes>(rows, sizes, scale); });
}

template void attention(const HeadRows<float>&, const HeadSizes&, float);
template void attention(const HeadRows<BFloat16Bits>&, const HeadSizes&, float);

}  // namespace dynvit::cpu
