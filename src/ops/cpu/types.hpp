// What the processor's kernels share with those who call them.
#pragma once

#include <cstdint>

namespace dynvit::cpu {

/// A bfloat16 as its 16 bits.
struct BFloat16Bits {
    std::uint16_t bits;
};

/// So many floats that vectors of them don't lie across two cache lines.
struct alignas(64) CacheLine {
    float values[16];
};

/// Rows that a product works on at a time: with 4 vectors each, sums take 24 of 32 registers; with 2, 12 of 16.
constexpr std::int64_t kRows = 6;

}  // namespace dynvit::cpu
