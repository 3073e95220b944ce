// Which tokens of packed sequences go on, another number of each.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

struct PackedTokens {
    at::Tensor x;              // (T, C): of each sequence its prefix tokens, then its patch tokens
    PackedLayout layout;       // of x
    at::Tensor positions;      // (T - B prefix), int64: a name for each patch token, sequence after sequence
    at::Tensor probabilities;  // of what was chosen from, likewise, float32: pi_keep; undefined before any choice
};

/// Each sequence's prefix tokens and, in their order, the patch tokens whose probability to be kept is above the
/// threshold.
/// @param log_probability (T), float32: log pi_keep, of no meaning for a prefix token
/// @param prefix tokens that every sequence begins with and that always stay: [CLS], registers
PackedTokens keep_above_plain(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                              std::int64_t prefix = 1);

/// The same by kernels on a GPU that the CUDA kernels were built for, of up to 4096 patch tokens a sequence; no
/// gradient passes. Waits for the device once, to know how many tokens are left.
PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix = 1);

}  // namespace dynvit
