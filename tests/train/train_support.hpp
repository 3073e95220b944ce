// Settings that tests of training share.
#pragma once

#include <map>
#include <string>

#include "dynvit/train/losses.hpp"

namespace dynvit::test {

/// These weights, and 0 for every other loss.
inline LossSettings losses_of(const std::map<std::string, double>& weights) {
    LossSettings settings;
    for (auto& [name, weight] : settings.weights) weight = 0;
    for (const auto& [name, weight] : weights) settings.weights.at(name) = weight;
    return settings;
}

}  // namespace dynvit::test
