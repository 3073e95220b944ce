// What a run says of its steps while it makes them.
#pragma once

#include <chrono>
#include <set>
#include <string>
#include <vector>

#include "dynvit/train/metrics.hpp"
#include "dynvit/train/run_log.hpp"

namespace dynvit {

/// Seconds that count: those from the start, or the last restart, on, without the pauses.
class Stopwatch {
  public:
    double seconds() const { return std::chrono::duration<double>(Clock::now() - from_).count(); }
    void restart() { from_ = Clock::now(); }
    void pause() { paused_ = Clock::now(); }
    void go_on() { from_ += Clock::now() - paused_; }

  private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point from_ = Clock::now(), paused_;
};

/// Every train.log_every steps a line of means; and by name each picture that was corrupt and each step that was
/// skipped.
class StepLog {
  public:
    /// All must stay where they are. @param progress of the run: the log counts its skipped steps
    StepLog(const TrainSettings& settings, const RunFolder& run, RunLog& lines, const Loader& loader,
            RunProgress& progress);

    /// Takes in the step that has just been made, the progress.step-th. Throws Error after too many skipped ones.
    /// @param last whether the run ends with it
    void add(const StepPlan& plan, const StepOutput& output, const std::vector<Batch>& batches, bool last);

    /// Tells of every skipped step up to now: what a checkpoint says of them is complete then. Waits for the device.
    void tell_skipped();

    /// Between the two a run does something else than train, which doesn't count as time.
    void pause();
    void go_on() { since_line_.go_on(); }

    const std::string& last_line() const { return text_; }  // for a progress bar
    std::int64_t corrupt_pictures() const { return std::ssize(corrupt_); }

  private:
    void write_line(const StepPlan& plan);
    void tell(const std::vector<SkippedSteps::Skipped>& steps);
    void tell_corrupt();

    const TrainSettings& settings_;
    const RunFolder& run_;
    RunLog& lines_;
    const Loader& loader_;
    RunProgress& progress_;
    Meters meters_;
    SkippedSteps skipped_;
    std::set<std::string> corrupt_;  // names
    Stopwatch since_line_;
    std::int64_t line_step_;  // the step of the last line, or the one before the first
    std::string text_;
};

}  // namespace dynvit
