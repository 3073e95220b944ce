// The choice of the tokens of packed sequences that go on: a different number from each sequence.
#pragma once

#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

struct PackedTokens {
    at::Tensor x;          // (T, C): of each sequence its prefix tokens, then its patch tokens
    PackedLayout layout;   // of x
    at::Tensor positions;  // (T - B prefix), int64: a name for each patch token, sequence after sequence
    /// float32: pi_keep of each patch token among which the last choice was made, sequence after sequence; undefined
    /// before any choice
    at::Tensor probabilities;
    /// (T), float32: how many patches each token stands for, 1 for prefix tokens; undefined: 1 each
    at::Tensor sizes{};
};

/// Keeps each sequence's prefix tokens and, in their order, the patch tokens whose probability to be kept is above the
/// threshold: the definition, for any device.
/// @param log_probability (T), float32: log pi_keep, of no meaning for a prefix token
/// @param threshold a probability, 0 to 1
/// @param prefix number of tokens that every sequence begins with and that always stay: [CLS], registers
/// @return the tokens that were kept, with their sizes if `from` has sizes, and with pi_keep of all patch tokens of
/// `from`
PackedTokens keep_above_plain(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                              std::int64_t prefix = 1);

/// The same, by kernels on a GPU that the CUDA kernels were built for, where sequences have up to 4096 patch tokens and
/// no gradient is wanted. Waits for the device once, to know how many tokens are left. Throws c10::Error where tokens,
/// probabilities and positions do not belong together by their numbers.
PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix = 1);

}  // namespace dynvit
