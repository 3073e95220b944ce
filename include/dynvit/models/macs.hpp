// What a forward pass costs.
#pragma once

#include <cstdint>
#include <vector>

#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// Multiply-accumulate operations of one image's forward pass: patch embedding, attention (both products too), MLPs,
/// prediction modules, head, and what stages compare, merge or fuse. Norms and activations are not counted, as is the
/// field's custom.
/// @param kept patch tokens that each stage keeps, as many as stages; empty: dense, without the prediction modules
/// @param predicts whether the prediction modules run; something cheaper may select in their place
std::int64_t count_macs(const ModelSettings& settings, const std::vector<std::int64_t>& kept = {},
                        bool predicts = true);

/// The same by where tokens are removed: before the first stage, from each stage (its prediction module with it) to the
/// next, the head with the last; stages + 1 numbers.
std::vector<std::int64_t> count_macs_per_stage(const ModelSettings& settings,
                                               const std::vector<std::int64_t>& kept = {}, bool predicts = true);

/// The largest base keep ratio rho, to four digits, whose stages (rho, rho^2, ... of the patches) cost at most `gmacs`
/// x 10^9 multiply-accumulates; at most 1. Negative where even keeping nothing costs more. @param predicts as above
double find_keep_ratio(const ModelSettings& settings, double gmacs, bool predicts = true);

/// Number of parameters with the prediction modules.
std::int64_t count_parameters(const ModelSettings& settings);

}  // namespace dynvit
