// Attention for the processor, one head of one sequence at a time, on raw rows.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace dynvit::cpu {

/// Where one head of one sequence lies: rows of a head's values. @tparam T float or BFloat16Bits
template <class T>
struct HeadRows {
    const T *q, *k, *v;
    std::int64_t stride;  // from a row of q, k or v to the next, in values
    const float* bias;    // (keys): added to the logits of each key, times log2(e); null: nothing
    T* out;               // elsewhere in memory than q, k, v and bias
    std::int64_t out_stride;
};

/// Rows of q and out, rows of k and v, and values of a row.
struct HeadSizes {
    std::int64_t queries, keys, head_dim;
};

/// Computes out = softmax(scale Q K^T + bias / log2(e)) V in float. A NaN gives NaN in every value it touches.
/// Threads may call it at once; each keeps its scratch memory for its next call.
template <class T>
void attention(const HeadRows<T>& rows, const HeadSizes& sizes, float scale);

extern template void attention(const HeadRows<float>&, const HeadSizes&, float);
extern template void attention(const HeadRows<BFloat16Bits>&, const HeadSizes&, float);

}  // namespace dynvit::cpu
