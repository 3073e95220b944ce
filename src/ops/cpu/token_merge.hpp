// Nearest rows and weighted means of rows, for the processor, on raw rows.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace dynvit::cpu {

/// Some rows of a matrix.
/// @tparam T float or BFloat16Bits
template <class T>
struct PickedRows {
    const T* matrix;
    std::int64_t stride, columns;  // from a row to the next; values of a row
    const std::int64_t* places;    // of the rows picked
    std::int64_t count;
};

/// Finds for each query the candidate with the greatest cosine, at most 1; of equal ones the first.
/// @param cosines (queries.count) @param nearest (queries.count): the candidate's number, or 0 if there is no
/// candidate; its cosine is then -infinity
template <class T>
void find_nearest(const PickedRows<T>& queries, const PickedRows<T>& candidates, float* cosines, std::int64_t* nearest);

/// Computes the mean of rows, weighted by their sizes and summed in float32 in their order; a row alone is copied.
/// @param sizes of all rows of the matrix; null: 1 each @return the sum of the sizes
template <class T>
float average_rows(const PickedRows<T>& rows, const float* sizes, T* mean);

/// Computes the sum of rows, each times its weight, in float32 in their order; zero of no rows.
/// @param weights of all rows of the matrix
template <class T>
void sum_rows(const PickedRows<T>& rows, const float* weights, T* sum);

extern template void find_nearest(const PickedRows<float>&, const PickedRows<float>&, float*, std::int64_t*);
extern template void find_nearest(const PickedRows<BFloat16Bits>&, const PickedRows<BFloat16Bits>&, float*,
                                  std::int64_t*);
extern template float average_rows(const PickedRows<float>&, const float*, float*);
extern template float average_rows(const PickedRows<BFloat16Bits>&, const float*, BFloat16Bits*);
extern template void sum_rows(const PickedRows<float>&, const float*, float*);
extern template void sum_rows(const PickedRows<BFloat16Bits>&, const float*, BFloat16Bits*);

}  // namespace dynvit::cpu
