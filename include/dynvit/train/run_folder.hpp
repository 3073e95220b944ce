// What a training run leaves behind.
//
//     RUN/config.yaml                    the resolved settings, with comments
//     RUN/.lock                          held by the process that is at work here
//     RUN/metrics.jsonl                  a line a log step and an evaluation
//     RUN/checkpoints/last.safetensors   the weights, with the model's settings and its
//                                        Preprocessing
//     RUN/checkpoints/ema.safetensors    their running average, where there is one
//     RUN/checkpoints/best.safetensors   those (or the averages) with the best accuracy, as train.best_by says
//     RUN/checkpoints/state.safetensors  all that training has moved, and hashes of the files that it started from:
//                                        --resume reads the teacher's, and for train.blend the starting weights', again
//     RUN/tensorboard/                   the same numbers, and pictures of kept tokens, for TensorBoard
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>

#include "dynvit/core/file_lock.hpp"
#include "dynvit/train/learner.hpp"

namespace dynvit {

/// How far a run is. Everything random is drawn from (seed, step), so no generator's state needs keeping.
struct RunProgress {
    std::int64_t step = 0;     // steps done
    double best_top1 = -1.0;   // percent, of train.best_by, or mean average precision; -1: not evaluated
    std::int64_t skipped = 0;  // steps whose loss or gradient was not finite
    std::int64_t steps_per_epoch = 0;
    std::int64_t threads = 0;  // processor threads that the steps had; 0: not known
};

/// Whether a run begins in its folder or goes on there; kAuto: it goes on where a checkpoint is, else it begins.
enum class Resume { kNo, kYes, kAuto };

class RunFolder {
  public:
    /// Makes the folder and holds it while it lives: RUN/.lock is locked. Throws Error if it cannot be made; if another
    /// process holds it; with kNo, if a run is already in it; with kYes, if none is.
    /// @param writes false: of a process that reads checkpoints only; nothing is made or locked, and what would be
    /// written is not
    RunFolder(std::filesystem::path path, Resume resume, bool writes = true);

    bool writes() const { return lock_.has_value(); }

    /// Whether a run goes on in it, from the checkpoint that restore() reads.
    bool resumes() const { return resumes_; }

    void save_config(const Experiment& experiment) const;

    /// Adds a line to metrics.jsonl. Lines of steps that a resumed run does again are dropped when it starts.
    void log_metrics(const nlohmann::json& line) const;

    /// Writes last.safetensors, ema.safetensors and, with `best`, best.safetensors with weights of type `type`, then
    /// state.safetensors: a failure in between leaves a run that resumes from the checkpoint before. Throws Error
    /// naming the file.
    /// @param best the model that best.safetensors becomes; empty: it stays as it is
    void save(Learner& learner, const RunProgress& progress, const DynamicVit& best,
              at::ScalarType type = at::kFloat) const;

    /// Puts the learner where the run stopped. Throws Error naming the file if it is of another model, or of a run
    /// whose epochs have another number of steps; and for a file of weights that the run goes on reading and that is no
    /// longer what it was when the checkpoint was written.
    RunProgress restore(Learner& learner, std::int64_t steps_per_epoch) const;

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path last() const { return path_ / "checkpoints" / "last.safetensors"; }
    std::filesystem::path ema() const { return path_ / "checkpoints" / "ema.safetensors"; }
    std::filesystem::path best() const { return path_ / "checkpoints" / "best.safetensors"; }
    std::filesystem::path state() const { return path_ / "checkpoints" / "state.safetensors"; }

  private:
    std::filesystem::path path_;
    bool resumes_;
    std::optional<FileLock> lock_;  // none: the process doesn't write
};

}  // namespace dynvit
