// One step: batches in, weights moved.
#pragma once

#include <memory>

#include "dynvit/data/loader.hpp"
#include "dynvit/train/learner.hpp"
#include "dynvit/train/losses.hpp"

namespace dynvit {

/// When and how the step is made.
struct StepPlan {
    std::int64_t step = 0;  // from 0
    double lr = 0.0, backbone_lr = 0.0;
    StepSelection selection;
};

/// What a step reports, on the device: nothing waits for it. Of several processes, of all their pictures.
struct StepOutput {
    Losses losses;                        // means over the step's batches
    std::vector<at::Tensor> keep_ratios;  // a stage: share of the patches that went on, 0-dimensional
    at::Tensor bad_loss;                  // (1): 1 where the loss was not finite
    at::Tensor skipped;                   // (1): 1 where it or a gradient was not, and the weights were left alone

    /// Every tensor of it that is defined.
    std::vector<at::Tensor*> tensors();
};

class ProcessGroup;
class RecordedStep;

/// Makes steps: student, teacher and losses of each batch, their gradients' sum, one AdamW step and the running
/// average's. On a GPU steps whose shapes and targets come again are recorded and from then on started as a whole,
/// unless settings.record_steps is off. Several processes that each have their rows of the batches make the step that
/// one process would make of the whole ones: what is random belongs to a picture's place in the whole batch, and
/// gradients are added up before the optimizer moves.
class TrainStep {
  public:
    /// All must stay where they are. @param group of the processes; null: this one is alone
    TrainStep(Learner& learner, const TrainSettings& settings, const ProcessGroup* group = nullptr);
    ~TrainStep();

    /// Everything random is drawn from (settings.seed, plan.step).
    /// @param batches as many as settings.accumulate
    StepOutput operator()(const StepPlan& plan, const std::vector<Batch>& batches);

  private:
    Learner& learner_;
    const TrainSettings& settings_;
    const ProcessGroup* group_;
    const at::Device device_;
    std::unique_ptr<RecordedStep> recorded_;  // null where nothing is recorded
};

}  // namespace dynvit
