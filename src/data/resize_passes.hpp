// The two passes of resize(): each output row or column is a weighted sum of input ones. Inside only.
#pragma once

#include <cstdint>
#include <vector>

#include "dynvit/data/resize.hpp"

namespace dynvit {

// Weights are fixed-point with 22 fraction bits: 8 bits of the pixel and 2 bits of headroom (sum of |weights| < 4, with
// sign) fill the 32 bits of a sum.
inline constexpr int kFractionBits = 22;

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
    std::int32_t* of(int output) { return fixed.data() + static_cast<std::size_t>(output) * taps; }
};

/// One pass. Horizontal: `out` has the new width and as many rows as `in`; vertical: the new height and `in`'s width.
using Pass = void (*)(const ImageView& in, const Weights& weights, Image& out);

struct Passes {
    Pass horizontal, vertical;
};

/// The definition, for any machine and any size.
Passes plain_passes();

/// The same values faster where this machine has AVX2; the plain ones elsewhere.
Passes best_passes();

/// How a whole picture is resized to width x height: both passes.
struct ResizePlan {
    Weights columns, rows;
    bool rows_first = false;  // the pass that makes new rows goes first
};

/// What resize() does with a picture of `from`'s size, for passes that run elsewhere. Where a side keeps its size, its
/// weights copy it.
ResizePlan resize_plan(const PictureSize& from, int width, int height, Filter filter, bool mirrored);

}  // namespace dynvit
