// What a run reports: means over steps, and the steps that were skipped.
#pragma once

#include <c10/core/Event.h>

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/train/train_step.hpp"

namespace dynvit {

/// Means of what steps report, kept on the device until a log line needs them. Skipped steps count for nothing.
class Meters {
  public:
    void add(const StepOutput& output);

    /// Losses by name and "keep_ratio", a list of a number a stage, over the steps since the last call; null where
    /// every step was skipped.
    nlohmann::json take();

  private:
    struct Mean {
        at::Tensor sum, steps;
    };
    std::map<std::string, Mean> means_;
    std::size_t stages_ = 0;
};

/// Watches for steps whose loss or gradient was not finite, without waiting for the device at each.
class SkippedSteps {
  public:
    /// @param names of the step's pictures
    void add(std::int64_t step, const StepOutput& output, std::vector<std::string> names);

    struct Skipped {
        std::int64_t step;
        std::vector<std::string> names;
        bool bad_loss = false;  // else a gradient alone
    };
    /// Those added before the last call of this function that were skipped: the device has had a while to find out, so
    /// that nothing waits for the steps made since.
    std::vector<Skipped> take_earlier();
    /// All that were skipped and not told yet. Waits for the device.
    std::vector<Skipped> take();

    /// The most steps skipped one after the other, among those that the last call told of and what led up to them.
    std::int64_t in_a_row() const { return longest_; }

  private:
    // Steps whose flags are on their way to the host.
    struct Asked {
        std::vector<Skipped> steps;
        at::Tensor flags;  // (steps): 1 for a bad gradient, 2 for a bad loss
        std::optional<c10::Event> there;
    };
    void ask();
    std::vector<Skipped> answer();

    std::vector<Skipped> steps_;
    std::vector<at::Tensor> flags_;
    std::optional<Asked> asked_;
    std::int64_t streak_ = 0, longest_ = 0;
};

}  // namespace dynvit
