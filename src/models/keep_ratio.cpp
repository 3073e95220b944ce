#include "dynvit/models/keep_ratio.hpp"

#include <cmath>

namespace dynvit {

std::vector<double> stage_ratios(double base, std::int64_t stages) {
    std::vector<double> ratios;
    double ratio = 1.0;
    for (std::int64_t s = 0; s < stages; ++s) ratios.push_back(ratio *= base);
    return ratios;
}

std::vector<std::int64_t> tokens_per_stage(const std::vector<double>& ratios, std::int64_t patches) {
    constexpr double kRoundings = 1e-9;  // 0.29 x 100 comes out a little below 29; no ratio that is meant is so close
    std::vector<std::int64_t> tokens;
    for (const double ratio : ratios) {
        tokens.push_back(static_cast<std::int64_t>(std::floor(ratio * static_cast<double>(patches) + kRoundings)));
    }
    return tokens;
}

}  // namespace dynvit
