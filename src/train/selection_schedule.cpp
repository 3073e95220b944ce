#include "dynvit/train/selection_schedule.hpp"

#include "dynvit/core/error.hpp"
#include "dynvit/models/keep_ratio.hpp"

namespace dynvit {
namespace {

// Few enough that a GPU can keep a recording of a step at each, see RecordedStep.
constexpr std::int64_t kDrawnRatios = 10;

}  // namespace

void SelectionSettings::fields(FieldVisitor& v) {
    v.field("temperature", temperature, "of the Gumbel-Softmax that the gradient sees", above(0));
    v.field("deterministic_from", deterministic_from,
            "share of the run after which tokens are removed as at inference, and the modules learn from loss.saliency "
            "alone; 1: never",
            between(0, 1));
    v.field("keep_ratio_range", keep_ratio_range,
            "there, each step draws its rho, one of ten spread evenly over [least, most]; []: train.keep_ratio",
            above_up_to(0, 1));
    if (keep_ratio_range.empty()) return;
    const std::string found = str("found [", join(keep_ratio_range, ", "), "], expected ");
    if (keep_ratio_range.size() != 2 || keep_ratio_range[0] > keep_ratio_range[1]) {
        v.reject("keep_ratio_range", found + "[least, most]");
    }
    if (deterministic_from >= 1) v.reject("keep_ratio_range", found + "deterministic_from below 1 with it");
}

std::vector<double> drawn_ratios(const SelectionSettings& s) {
    std::vector<double> ratios;
    for (std::int64_t i = 0; i < kDrawnRatios && !s.keep_ratio_range.empty(); ++i) {
        const double share = static_cast<double>(i) / static_cast<double>(kDrawnRatios - 1);
        ratios.push_back((1 - share) * s.keep_ratio_range[0] + share * s.keep_ratio_range[1]);
    }
    return ratios;
}

StepSelection step_selection(const SelectionSettings& s, const std::vector<double>& targets, std::int64_t step,
                             std::int64_t steps, Random random) {
    const bool deterministic =
        !targets.empty() && static_cast<double>(step) >= s.deterministic_from * static_cast<double>(steps);
    const std::vector<double> ratios = drawn_ratios(s);
    if (!deterministic || ratios.empty()) return {deterministic, targets};
    const double base = ratios[static_cast<std::size_t>(random.integer(0, std::ssize(ratios)))];
    return {true, stage_ratios(base, static_cast<std::int64_t>(targets.size()))};
}

}  // namespace dynvit
