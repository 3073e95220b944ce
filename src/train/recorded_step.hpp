// Training steps that are recorded when they repeat.
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
    double share = 1.0;   // of the pictures of the whole batch, which several processes share
};

/// Runs a step as it is until its selection has come a few times; records it then, and replays the recording from then
/// on. Each selection has a recording of its own: all read the same inputs and work in the same memory, one after the
/// other. Steps of another shape, or those after the change from drawn to removed tokens, start afresh.
class RecordedStep {
  public:
    /// @param precision of matrix products: pictures are kept in it
    RecordedStep(const at::Device& device, at::ScalarType precision) : device_(device), precision_(precision) {}

    /// From inputs to outputs; gradients, weights and optimizer move on the way. It waits for nothing.
    using Work = std::function<StepOutput(const std::vector<StepInputs>&)>;

    /// Runs `work`, or what was recorded of it: it must do the same each time that it is given this selection.
    /// @return tensors that no later step overwrites
    StepOutput run(const Work& work, const StepSelection& selection, const std::vector<StepInputs>& inputs);

  private:
    /// The steps of one selection.
    struct Kind {
        StepSelection selection;
        std::int64_t runs = 0;  // so many were made as they are
        std::optional<std::size_t> graph = {};
        StepOutput outputs = {};  // what the graph writes; the next graph that runs may overwrite them
    };

    /// The kind of that selection; null for one too many, whose steps run as they are.
    Kind* find(const StepSelection& selection);
    /// False where the device cannot record: all recordings are gone then, and no other is tried.
    bool record(Kind& kind, const Work& work, const std::vector<StepInputs>& inputs);
    void forget();

    at::Device device_;
    at::ScalarType precision_;
    std::optional<DeviceGraphs> graphs_;
    std::vector<Kind> kinds_;
    std::vector<StepInputs> inputs_;                 // what every graph reads; empty before the first recording
    std::vector<std::vector<std::int64_t>> shapes_;  // of the last step's pictures, a batch
    bool deterministic_ = false;                     // the last step's
    bool refused_ = false;                           // the device could not record
};

}  // namespace dynvit
