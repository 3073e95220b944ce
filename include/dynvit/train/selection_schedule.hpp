// How tokens are selected as training goes on: drawn at first, in the end as at inference.
#pragma once

#include <vector>

#include "dynvit/core/fields.hpp"
#include "dynvit/core/random.hpp"

namespace dynvit {

struct SelectionSettings {
    double temperature = 1.0;
    double deterministic_from = 1.0;
    std::vector<double> keep_ratio_range;

    void fields(FieldVisitor& v);
};

/// How one step selects.
struct StepSelection {
    bool deterministic = false;   // the highest scores, the others removed; else drawn, the others masked
    std::vector<double> targets;  // a share of all patches a stage
    bool operator==(const StepSelection&) const = default;
};

/// The base ratios that keep_ratio_range draws from, ascending: a small set, so that steps at one of them come again.
/// Empty where it is.
std::vector<double> drawn_ratios(const SelectionSettings& settings);

/// Until `deterministic_from` of the run, decisions are drawn (Gumbel-Softmax) and train the prediction modules. After
/// it each stage keeps its best tokens exactly as at inference: the backbone learns to work with what it will get, and
/// the modules rest, or learn from the saliency loss. There, keep_ratio_range draws one of drawn_ratios() for each
/// step, so that one model serves all ratios.
/// @param targets of the experiment, a stage: used wherever no ratio is drawn
/// @param step of `steps`, from 0
/// @param random the step's own generator
StepSelection step_selection(const SelectionSettings& settings, const std::vector<double>& targets, std::int64_t step,
                             std::int64_t steps, Random random);

}  // namespace dynvit
