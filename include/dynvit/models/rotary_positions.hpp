// The angles of rotary position embeddings: what each place of the grid says, and what the tokens of a pass read.
#pragma once

#include "dynvit/models/model_settings.hpp"
#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// Cosines and sines of each patch's angles, rows of the grid first; and a last row for tokens that are not turned:
/// prefix tokens, and one that others were fused into. Undefined for a model without rotary positions.
///     "dinov3"  c = 2 (i + 1/2) / H - 1; angle 2 pi c / 100^(k / n) (Simeoni et al., 2025)
///     "eva02"   t = i R / H, R = rope_grid; angle t / 10000^(k / n) (Fang et al., 2023)
/// where i counts rows of H, then the same with columns of W; k = 0 ... n - 1, n = d / 4.
/// @return (N + 1, 2, d / 2), float32, on the processor
at::Tensor rotary_table(const ModelSettings& settings);

/// The table's rows for prefix tokens and then tokens at these positions. @param table undefined: the result is, too
/// @param positions (B, n), int64, as in Tokens @return (B, prefix + n, 2, d / 2)
at::Tensor rotation_at(const at::Tensor& table, const at::Tensor& positions, std::int64_t prefix);

/// The same of all patches: (1, prefix + N, 2, d / 2).
at::Tensor rotation_of_all(const at::Tensor& table, std::int64_t prefix);

/// The same of packed sequences. @param positions (T - B prefix), int64: places, from N on for fused tokens
/// @return (T, 2, d / 2)
at::Tensor rotation_at(const at::Tensor& table, const at::Tensor& positions, const PackedLayout& layout,
                       std::int64_t prefix);

}  // namespace dynvit
