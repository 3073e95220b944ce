// How any Vision Transformer learns to do with fewer tokens from pictures that nobody has labelled.
#pragma once

#include "dynvit/train/experiment.hpp"

namespace dynvit {

struct LabelFreeInputs {
    ModelSettings model;          // the dense model's; stages that it has stay as they are
    Preprocessing preprocessing;  // of its pictures
    std::string weights;          // its file or folder: where training starts, and the teacher
    std::string pictures;         // a folder; all pictures below it, of which a tenth is held back
    std::int64_t count = 0;       // of those that are trained on
    bool on_gpu = true;           // a processor gets a shorter run of smaller batches
    std::int64_t steps = 0;       // 0: the recipe's own number
    std::uint64_t seed = 0;
};

/// The share of the pictures that the recipe holds back.
inline constexpr double kHeldBack = 0.1;

/// The experiment of configs/label_free_deit_tiny.yaml for another model and other pictures: stages behind a quarter,
/// half and three quarters of the blocks, about 1,600 steps, smaller batches where the activations of larger ones would
/// not fit, a learning rate that falls with the square root of the width, and the embedding in place of the class
/// probabilities where the model has no head. Throws Error for a model of one block, which has no place for a stage,
/// and where there is no picture.
Experiment label_free_recipe(const LabelFreeInputs& inputs);

}  // namespace dynvit
