// Training, from settings to a run folder.
#pragma once

#include <functional>

#include "dynvit/dist/process_group.hpp"
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

/// How a run is made, beside its settings.
struct TrainOptions {
    Resume resume = Resume::kNo;
    DrawKept draw_kept = {};          // gives TensorBoard pictures of the evaluated model; may be empty
    std::function<bool()> stop = {};  // asked after each step and each evaluation whether to end there; may be empty
    ProcessGroup* group = nullptr;    // of the processes that make the run together; null: this one is alone
    std::int64_t threads = 0;         // processor threads, in place of train.threads; 0: those
};

/// Trains as the experiment says and leaves a run folder. Where its settings did not say model.num_classes, that is the
/// number of the training data's classes. A run that is stopped ends with a checkpoint. Several processes, each of
/// which calls this with the same settings, share each batch and each evaluation, and come to what one process would
/// come to; rank 0 alone writes the run folder. On one machine's CPU, equal settings and seed give equal bytes, also
/// when the run was stopped between two steps and resumed. Throws Error for what a user can put right.
TrainResult train(Experiment experiment, const std::filesystem::path& output, const TrainOptions& options = {});

}  // namespace dynvit
