#include "dynvit/train/selection_schedule.hpp"

#include "dynvit/models/keep_ratio.hpp"

namespace dynvit {

void SelectionSettings::fields(FieldVisitor& v) {
    v.field("temperature", temperature, "of the Gumbel-Softmax that the gradient sees", above(0));
    v.field("deterministic_from", deterministic_from,
            "share of the run after which tokens are removed as at inference, and the modules learn from loss.saliency "
            "alone; 1: never",
            between(0, 1));
    v.field("keep_ratio_range", keep_ratio_range,
            "there, each step draws its rho from [least, most]; []: train.keep_ratio", above_up_to(0, 1));
    if (!keep_ratio_range.empty() && (keep_ratio_range.size() != 2 || keep_ratio_range[0] > keep_ratio_range[1])) {
        v.reject("keep_ratio_range", "expected [least, most]");
    }
    if (v.reads() && !keep_ratio_range.empty() && deterministic_from >= 1) {
        v.reject("keep_ratio_range", "is set, expected deterministic_from below 1 with it");
    }
}

StepSelection step_selection(const SelectionSettings& s, const std::vector<double>& targets, std::int64_t step,
                             std::int64_t steps, Random random) {
    const bool deterministic =
        !targets.empty() && static_cast<double>(step) >= s.deterministic_from * static_cast<double>(steps);
    if (!deterministic || s.keep_ratio_range.empty()) return {deterministic, targets};
    const double base = random.uniform(s.keep_ratio_range[0], s.keep_ratio_range[1]);
    return {true, stage_ratios(base, static_cast<std::int64_t>(targets.size()))};
}

}  // namespace dynvit
