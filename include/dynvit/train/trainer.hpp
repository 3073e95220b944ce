// Training, from settings to a run folder.
#pragma once

#include <optional>

#include "dynvit/infer/evaluate.hpp"
#include "dynvit/train/run_folder.hpp"

namespace dynvit {

struct TrainResult {
    std::int64_t steps = 0;
    double seconds = 0.0;
    std::vector<EvalResult> last_eval;  // dense and at the target ratio; empty if nothing was evaluated
};

/// Trains as the experiment says and leaves a run folder. On one machine's CPU, equal settings and seed give equal bytes,
/// also when the run was stopped between two steps and resumed.
/// Throws Error for what a user can put right.
TrainResult train(const Experiment& experiment, const std::filesystem::path& output, bool resume);

/// Evaluates on the experiment's validation pictures, a progress bar beside.
std::vector<EvalResult> evaluate_split(DynamicVit model, const std::vector<EvalCase>& cases, const DataSettings& data,
                                       std::int64_t batch_size, const EvalOptions& options);

}  // namespace dynvit
