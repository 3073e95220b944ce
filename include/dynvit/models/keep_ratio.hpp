// How many tokens each stage keeps.
#pragma once

#include <cstdint>
#include <vector>

namespace dynvit {

/// The stages' shares of all patch tokens: rho, rho^2, rho^3, ... for a base ratio rho.
std::vector<double> stage_ratios(double base, std::int64_t stages);

/// floor(ratio N) for each stage, N the number of patch tokens before any pruning. (A product that is whole but for the
/// last bits of its floating point counts as whole.)
std::vector<std::int64_t> tokens_per_stage(const std::vector<double>& ratios, std::int64_t patches);

}  // namespace dynvit
