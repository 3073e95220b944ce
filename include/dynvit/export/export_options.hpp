// What a model is exported as, whatever the format.
#pragma once

#include <string>
#include <vector>

#include "dynvit/io/preprocessing.hpp"
#include "dynvit/models/pruning_plan.hpp"

namespace dynvit {

/// An exported model takes float32 `images` (B, 3, H, W) of the model's size, any B, normalized: (value / 255 - mean) /
/// standard deviation of each colour, those of `preprocessing`, which the file repeats. It gives `logits`: (B,
/// outputs), of classes or, of a model that does not classify, the embedding.
struct ExportOptions {
    PruningPlan plan = {};  // by the model's own policy, with counts
    bool kept_tokens =
        false;  // also give kept_1, kept_2, ...: a stage's kept places (B, k), int64, as Tokens::positions
    Preprocessing preprocessing = {};
    std::vector<std::string> class_names = {};  // bundle: in index order; empty: not known
};

}  // namespace dynvit
