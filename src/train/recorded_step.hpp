// A training step that is recorded when it repeats.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/ops/device_graphs.hpp"
#include "dynvit/train/train_step.hpp"

namespace dynvit {

/// What a step computes from, one batch of it.
struct StepInputs {
    at::Tensor images;    // (B, 3, H, W), normalized, mixed
    at::Tensor target;    // (B, K), soft; undefined where no loss reads labels
    TrainingNoise noise;  // all else that is random
};

/// Runs steps as they are until one has come several times in a row with inputs of the same shapes and the same
/// selection; records it then, and replays it until another comes.
class RecordedStep {
  public:
    /// @param precision of matrix products: pictures are kept in it
    RecordedStep(const at::Device& device, at::ScalarType precision) : device_(device), precision_(precision) {}

    /// From inputs to outputs; gradients, weights and optimizer move on the way. It waits for nothing.
    using Work = std::function<StepOutput(const std::vector<StepInputs>&)>;

    /// Runs `work`, or what was recorded of it: it must do the same each time.
    StepOutput run(const Work& work, const StepSelection& selection, const std::vector<StepInputs>& inputs);

  private:
    struct Recording {
        std::size_t graph;
        std::vector<StepInputs> inputs;
        StepOutput outputs;
    };
    struct Shape {
        StepSelection selection;
        std::vector<std::vector<std::int64_t>> sizes;
        bool operator==(const Shape&) const = default;
    };

    /// Empty where it fails.
    std::optional<Recording> record(const Work& work, const std::vector<StepInputs>& inputs);

    at::Device device_;
    at::ScalarType precision_;
    std::optional<DeviceGraphs> graphs_;  // of one recording
    std::optional<Recording> recording_;
    Shape shape_;                // of the last step
    std::int64_t repeated_ = 0;  // so many steps before it had it too
    bool refused_ = false;       // the device could not record
};

}  // namespace dynvit
