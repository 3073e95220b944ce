// Which tokens of packed sequences go on, another number of each.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

struct PackedTokens {
    at::Tensor x;              // (T, C): of each sequence its [CLS], then its patch tokens
    PackedLayout layout;       // of x
    at::Tensor positions;      // (T - B), int64: a name for each patch token, sequence after sequence
    at::Tensor probabilities;  // of what was chosen from, likewise, float32: pi_keep; undefined before any choice
};

/// Each [CLS] and, in their order, the patch tokens whose probability to be kept is above the threshold.
/// @param log_probability (T), float32: log pi_keep, of no meaning for a [CLS]
PackedTokens keep_above_plain(const PackedTokens& from, const at::Tensor& log_probability, double threshold);

/// The same by kernels on a GPU that the CUDA kernels were built for, of up to 4096 patch tokens a sequence; no
/// gradient passes. Waits for the device once, to know how many tokens are left.
PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold);

}  // namespace dynvit
