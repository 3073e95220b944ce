// The pictures that a run learns from and is evaluated on.
#pragma once

#include <memory>

#include "dynvit/data/loader.hpp"
#include "dynvit/train/experiment.hpp"

namespace dynvit {

struct TrainingPictures {
    std::unique_ptr<Dataset> training;
    std::unique_ptr<Dataset> validation;  // null where nothing is evaluated
    std::int64_t steps_per_epoch = 0;
};

/// Where the settings do not say model.num_classes, and a loss reads labels, it becomes the number of the training
/// data's classes, and the log tells.
/// Throws Error where there are too few pictures for a step, where they have no labels or more classes than the model,
/// or where those of validation are numbered otherwise.
TrainingPictures open_pictures(Experiment& experiment);

/// The batches of a run from step `step` to step `last`, those of an epoch's incomplete last step left out.
/// @param share which rows of each batch
Loader training_loader(const Experiment& experiment, const TrainingPictures& pictures, bool pin_memory,
                       std::int64_t step, std::int64_t last, const BatchShare& share);

}  // namespace dynvit
