#include "token_merge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "panels.hpp"

// Rows are scaled to length 1, so that one product of matrices gives their cosines; see panels.hpp.
namespace dynvit::cpu {
namespace {

constexpr float kLeastNorm = 1e-12f;

/// Writes rows scaled to length 1, one after another, as float32.
template <int lanes, class T>
DYNVIT_INLINE void unit_rows(const PickedRows<T>& rows, float* to) {
    for (std::int64_t i = 0; i < rows.count; ++i, to += rows.columns) {
        const T* from = rows.matrix + rows.places[i] * rows.stride;
        Vector<lanes> squares = {}, x;
        for (std::int64_t c = 0; c < rows.columns; c += lanes) {
            load<lanes>(from + c, rows.columns - c, x);
            squares += x * x;
        }
        float square = 0;
        for (int lane = 0; lane < lanes; ++lane) square += squares[lane];
        const float factor = 1 / std::max(std::sqrt(square), kLeastNorm);
        for (std::int64_t c = 0; c < rows.columns; c += lanes) {
            load<lanes>(from + c, rows.columns - c, x);
            x *= factor;
            store<lanes>(x, rows.columns - c, to + c);
        }
    }
}

/// The greatest cosine of each of kRows queries, and its candidate. Those beyond the last one repeat it, so that none
/// of them is the first.
/// @param products panels of kRows rows @param count of the queries that are there
template <int lanes>
DYNVIT_INLINE void take_greatest(const float* products, std::int64_t panels, std::int64_t count, float* cosines,
                                 std::int64_t* nearest) {
    using Bits = typename Lanes<lanes>::Bits;
    for (std::int64_t row = 0; row < count; ++row) {
        Vector<lanes> greatest = Vector<lanes>{} - std::numeric_limits<float>::infinity();
        Bits found = {};  // the panel of each lane's
        for (std::int64_t panel = 0; panel < panels; ++panel) {
            Vector<lanes> x;
            load<lanes>(products + (panel * kRows + row) * lanes, x);
            found = x > greatest ? Bits{} + static_cast<std::uint32_t>(panel) : found;
            greatest = x > greatest ? x : greatest;
        }
        cosines[row] = -std::numeric_limits<float>::infinity();
        nearest[row] = 0;
        for (int lane = 0; lane < lanes; ++lane) {
            const std::int64_t candidate = std::int64_t{found[lane]} * lanes + lane;
            if (greatest[lane] > cosines[row] || (greatest[lane] == cosines[row] && candidate < nearest[row])) {
                cosines[row] = greatest[lane];
                nearest[row] = candidate;
            }
        }
        cosines[row] = std::min(cosines[row], 1.0f);  // rounding may have made it greater
    }
}

template <int lanes, class T>
DYNVIT_INLINE void find_nearest_with(const PickedRows<T>& queries, const PickedRows<T>& candidates, float* cosines,
                                     std::int64_t* nearest) {
    const std::int64_t depth = queries.columns, panels = panels_of(candidates.count, lanes);
    // The first part is whole cache lines, so that no vector of the others lies across two.
    const std::int64_t unit = panels_of(std::max(queries.count, candidates.count) * depth, 16) * 16,
                       packed_queries = panels_of(depth, lanes) * kRows * lanes;
    float* rows = scratch(unit + panels * depth * lanes + packed_queries + panels * kRows * lanes);
    float* columns = rows + unit;
    float* packed = columns + panels * depth * lanes;
    float* products = packed + packed_queries;
    unit_rows<lanes>(candidates, rows);
    pack_transposed<lanes>(rows, depth, candidates.count, depth, columns);
    unit_rows<lanes>(queries, rows);
    for (std::int64_t first = 0; first < queries.count; first += kRows) {
        const std::int64_t count = std::min(kRows, queries.count - first);
        pack<lanes>(rows + first * depth, depth, count, depth, 1, kRows, packed);
        multiply<lanes>(packed, columns, depth, panels, products);
        take_greatest<lanes>(products, panels, count, cosines + first, nearest + first);
    }
}

template <int lanes, class T>
DYNVIT_INLINE void weighted_mean(const PickedRows<T>& rows, const float* sizes, float total, T* mean) {
    for (std::int64_t c = 0; c < rows.columns; c += lanes) {
        Vector<lanes> sum = {};
        for (std::int64_t i = 0; i < rows.count; ++i) {
            const std::int64_t place = rows.places[i];
            Vector<lanes> x;
            load<lanes>(rows.matrix + place * rows.stride + c, rows.columns - c, x);
            sum += sizes ? sizes[place] * x : x;
        }
        sum /= total;
        store<lanes>(sum, rows.columns - c, mean + c);
    }
}

}  // namespace

template <class T>
void find_nearest(const PickedRows<T>& queries, const PickedRows<T>& candidates, float* cosines,
                  std::int64_t* nearest) {
    if (candidates.count == 0) {
        std::fill_n(cosines, queries.count, -std::numeric_limits<float>::infinity());
        std::fill_n(nearest, queries.count, 0);
        return;
    }
    run_for_processor([&]<int lanes>()
                          DYNVIT_INLINED { find_nearest_with<lanes>(queries, candidates, cosines, nearest); });
}

template <class T>
float average_rows(const PickedRows<T>& rows, const float* sizes, T* mean) {
    float total = 0;
    for (std::int64_t i = 0; i < rows.count; ++i) total += sizes ? sizes[rows.places[i]] : 1;
    if (rows.count == 1) {
        std::copy_n(rows.matrix + rows.places[0] * rows.stride, rows.columns, mean);
    } else {
        run_for_processor([&]<int lanes>() DYNVIT_INLINED { weighted_mean<lanes>(rows, sizes, total, mean); });
    }
    return total;
}

template <class T>
void sum_rows(const PickedRows<T>& rows, const float* weights, T* sum) {
    run_for_processor([&]<int lanes>() DYNVIT_INLINED { weighted_mean<lanes>(rows, weights, 1, sum); });
}

template void find_nearest(const PickedRows<float>&, const PickedRows<float>&, float*, std::int64_t*);
template void find_nearest(const PickedRows<BFloat16Bits>&, const PickedRows<BFloat16Bits>&, float*, std::int64_t*);
template float average_rows(const PickedRows<float>&, const float*, float*);
template float average_rows(const PickedRows<BFloat16Bits>&, const float*, BFloat16Bits*);
template void sum_rows(const PickedRows<float>&, const float*, float*);
template void sum_rows(const PickedRows<BFloat16Bits>&, const float*, BFloat16Bits*);

}  // namespace dynvit::cpu
