#include "prediction_head.hpp"

#include <algorithm>
#include <cmath>

#include "panels.hpp"

namespace dynvit::cpu {
namespace {

/// x = x Phi(x), with an absolute error of at most 1.5e-7 in Phi: erfc by Abramowitz & Stegun, 7.1.26.
template <int lanes>
DYNVIT_INLINE void gelu(Vector<lanes>& x) {
    constexpr float kHalfLog2E = 0.72134752f, kSlope = 0.3275911f * 0.70710678f;
    const Vector<lanes> size = x < 0 ? -x : x;
    const Vector<lanes> t = 1 / (1 + kSlope * size);
    Vector<lanes> tail = -kHalfLog2E * x * x;
    exponential<lanes>(tail);
    // Half of erfc(|x| / sqrt(2)): Phi(-|x|).
    tail *= t * (0.127414796f + t * (-0.142248368f + t * (0.7107068705f + t * (-0.7265760135f + t * 0.5307027145f))));
    x *= x < 0 ? tail : 1 - tail;
}

/// out = a W^T + b, panels of kRows rows both; with GELU behind it, or not.
template <int lanes, bool with_gelu>
DYNVIT_INLINE void run_layer(const PackedLayer& layer, const float* bias, const float* a, float* out) {
    const std::int64_t panels = panels_of(layer.outputs, lanes);
    multiply<lanes>(a, layer.panels.data()->values, layer.inputs, panels, out);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
        Vector<lanes> added;
        load<lanes>(bias + panel * lanes, added);
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row, out += lanes) {
            Vector<lanes> x;
            load<lanes>(out, x);
            x += added;
            if constexpr (with_gelu) gelu<lanes>(x);
            store<lanes>(x, out);
        }
    }
}

template <int lanes, class T>
DYNVIT_INLINE void share_mean_with(const HeadLayers& layers, const T* h, std::int64_t rows, float* shared) {
    const std::int64_t own = layers.own.inputs, count = layers.mean.inputs, stride = own + count;
    const std::int64_t in_panels = panels_of(count, lanes), out_panels = panels_of(layers.mean.outputs, lanes);
    float* packed = scratch((in_panels + out_panels) * kRows * lanes);
    float* results = packed + in_panels * kRows * lanes;
    for (std::int64_t panel = 0; panel < in_panels; ++panel) {
        const std::int64_t column = panel * lanes;
        Vector<lanes> sum = {};
        for (std::int64_t row = 0; row < rows; ++row) {
            Vector<lanes> x;
            load<lanes>(h + row * stride + own + column, count - column, x);
            sum += x;
        }
        sum /= static_cast<float>(rows);
        for (int row = 0; row < kRows; ++row) store<lanes>(sum, packed + (panel * kRows + row) * lanes);
    }
    run_layer<lanes, false>(layers.mean, layers.mean.bias.data()->values, packed, results);
    for (std::int64_t panel = 0; panel < out_panels; ++panel) {
        Vector<lanes> x;
        load<lanes>(results + panel * kRows * lanes, x);
        store<lanes>(x, layers.mean.outputs - panel * lanes, shared + panel * lanes);
    }
}

/// The first of two log-softmax values.
float first_log_softmax(float first, float second) {
    const float above = second - first;
    return above > 0 ? -above - std::log1p(std::exp(-above)) : -std::log1p(std::exp(above));
}

template <int lanes, class T>
DYNVIT_INLINE void keep_log_probability_with(const HeadLayers& layers, const T* h, std::int64_t rows,
                                             const float* shared, float* result) {
    const PackedLayer &own = layers.own, &third = layers.third, &last = layers.last;
    const std::int64_t stride = own.inputs + layers.mean.inputs;
    const std::int64_t widest = std::max({own.inputs, own.outputs, third.outputs, last.outputs});
    const std::int64_t buffer = panels_of(widest, lanes) * kRows * lanes;
    const std::int64_t shared_values = panels_of(own.outputs, lanes) * lanes;
    float* a = scratch(2 * buffer + shared_values);
    float *b = a + buffer, *added = b + buffer;
    std::fill(std::copy_n(shared, own.outputs, added), added + shared_values, 0.0f);
    for (std::int64_t first = 0; first < rows; first += kRows) {
        const std::int64_t count = std::min(kRows, rows - first);
        pack<lanes>(h + first * stride, stride, count, own.inputs, 1, kRows, a);
        run_layer<lanes, true>(own, added, a, b);
        run_layer<lanes, true>(third, third.bias.data()->values, b, a);
        run_layer<lanes, false>(last, last.bias.data()->values, a, b);
        for (std::int64_t row = 0; row < count; ++row) {
            result[first + row] = first_log_softmax(b[row * lanes], b[row * lanes + 1]);
        }
    }
}

}  // namespace

PackedLayer::PackedLayer(std::int64_t inputs, std::int64_t outputs, const float* weight, const float* bias)
    : inputs(inputs), outputs(outputs) {
    run_for_processor([&]<int lanes>() DYNVIT_INLINED {
        const std::int64_t width = panels_of(outputs, lanes) * lanes;
        panels = cache_lines(width * inputs);
        pack_transposed<lanes>(weight, inputs, outputs, inputs, panels.data()->values);
        this->bias = cache_lines(width);
        std::copy_n(bias, outputs, this->bias.data()->values);
    });
}

template <class T>
void share_mean(const HeadLayers& layers, const T* h, std::int64_t rows, float* shared) {
    run_for_processor([&]<int lanes>() DYNVIT_INLINED { share_mean_with<lanes>(layers, h, rows, shared); });
}

template <class T>
void keep_log_probability(const HeadLayers& layers, const T* h, std::int64_t rows, const float* shared, float* result) {
    run_for_processor([&]<int lanes>()
                          DYNVIT_INLINED { keep_log_probability_with<lanes>(layers, h, rows, shared, result); });
}

template void share_mean(const HeadLayers&, const float*, std::int64_t, float*);
template void share_mean(const HeadLayers&, const BFloat16Bits*, std::int64_t, float*);
template void keep_log_probability(const HeadLayers&, const float*, std::int64_t, const float*, float*);
template void keep_log_probability(const HeadLayers&, const BFloat16Bits*, std::int64_t, const float*, float*);

}  // namespace dynvit::cpu
