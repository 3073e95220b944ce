// Attention for the processor, one head of one sequence at a time, on raw rows.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace dynvit::cpu {

/// softmax(scale Q K^T) V, computed in float. A NaN gives NaN in every value it touches.
/// Threads may call it at once; each keeps its scratch memory for its next call.
/// @tparam T float or BFloat16Bits
/// @param q `queries` rows of d values, `stride` values apart; k, v likewise n rows
/// @param out `queries` rows of d values, `out_stride` values apart, elsewhere in memory than q, k and v
template <class T>
void attention(const T* q, std::int64_t queries, const T* k, const T* v, std::int64_t n, std::int64_t stride,
               std::int64_t d, float scale, T* out, std::int64_t out_stride);

extern template void attention(const float*, std::int64_t, const float*, const float*, std::int64_t, std::int64_t,
                               std::int64_t, float, float*, std::int64_t);
extern template void attention(const BFloat16Bits*, std::int64_t, const BFloat16Bits*, const BFloat16Bits*,
                               std::int64_t, std::int64_t, std::int64_t, float, BFloat16Bits*, std::int64_t);

}  // namespace dynvit::cpu
