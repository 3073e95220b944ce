// Training, from settings to a run folder.
#pragma once

#include <functional>

#include "dynvit/infer/evaluate.hpp"
#include "dynvit/train/run_log.hpp"

namespace dynvit {

struct TrainResult {
    std::int64_t steps = 0;
    double seconds = 0.0;
    std::vector<EvalResult> last_eval;      // dense and at the target ratio; empty if nothing was evaluated
    std::vector<EvalResult> last_ema_eval;  // the same of the averaged weights, where there are any
    double best_top1 = -1.0;                // percent, of train.best_by, or mean average precision; -1: not evaluated
    std::int64_t skipped_steps = 0;
    std::int64_t corrupt_pictures = 0;
    bool reached_target = false;  // stopped early, at train.stop_at
    bool interrupted = false;     // stopped early, because `stop` said so
};

/// Trains as the experiment says and leaves a run folder. Where its settings did not say model.num_classes, that is the
/// number of the training data's classes. `draw_kept` gives TensorBoard pictures of the evaluated
/// model. `stop` is asked after each step and each evaluation whether to end the run there, with a checkpoint. On one
/// machine's CPU, equal settings and seed give equal bytes, also when the run was stopped between two steps and
/// resumed. Throws Error for what a user can put right.
TrainResult train(Experiment experiment, const std::filesystem::path& output, Resume resume,
                  const DrawKept& draw_kept = {}, const std::function<bool()>& stop = {});

}  // namespace dynvit
