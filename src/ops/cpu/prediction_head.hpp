// What follows a prediction module's first layer, for the processor, on raw rows.
#pragma once

#include <cstdint>
#include <vector>

#include "types.hpp"

namespace dynvit::cpu {

/// A linear layer of float32 as the products read it.
struct PackedLayer {
    std::int64_t inputs, outputs;
    std::vector<CacheLine> panels, bias;

    /// @param weight (outputs, inputs); @param bias (outputs)
    PackedLayer(std::int64_t inputs, std::int64_t outputs, const float* weight, const float* bias);
};

/// The layers. The second one's input is a row's own half and the mean of the other halves: its weight's two halves
/// are layers of their own; the bias is the mean's, whose output is the same for all rows.
struct HeadLayers {
    PackedLayer own, mean, third, last;
};

/// What the mean of the second halves contributes to the second layer: (outputs of layers.own), float32.
/// @tparam T float or BFloat16Bits
/// @param h `rows` rows, one or more, of layers.own.inputs + layers.mean.inputs values, one after another
template <class T>
void share_mean(const HeadLayers& layers, const T* h, std::int64_t rows, float* shared);

/// log pi_keep of rows that share a mean. Threads may call it at once.
/// @param shared by share_mean; @param result (rows)
template <class T>
void keep_log_probability(const HeadLayers& layers, const T* h, std::int64_t rows, const float* shared, float* result);

extern template void share_mean(const HeadLayers&, const float*, std::int64_t, float*);
extern template void share_mean(const HeadLayers&, const BFloat16Bits*, std::int64_t, float*);
extern template void keep_log_probability(const HeadLayers&, const float*, std::int64_t, const float*, float*);
extern template void keep_log_probability(const HeadLayers&, const BFloat16Bits*, std::int64_t, const float*, float*);

}  // namespace dynvit::cpu
