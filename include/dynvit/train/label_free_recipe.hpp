// How any Vision Transformer learns to do with fewer tokens from pictures that nobody has labelled.
#pragma once

#include "dynvit/train/experiment.hpp"

namespace dynvit {

/// What a user wants of the stages; what is empty is the model's own or, where it has no stages, the recipe's.
struct StageWishes {
    std::vector<std::int64_t> pruning_loc = {};
    std::string stage_place = {}, reduction = {};
};

struct LabelFreeInputs {
    ModelSettings model;          // the dense model's; stages that it has stay as they are
    Preprocessing preprocessing;  // of its pictures
    std::string weights;          // its file or folder: where training starts, and the teacher
    std::string pictures;         // a folder; all pictures below it, of which a tenth is held back
    std::int64_t count = 0;       // of those that are trained on, see label_free_data
    bool on_gpu = true;           // a processor gets a shorter run of smaller batches
    std::int64_t steps = 0;       // 0: the recipe's own number
    std::uint64_t seed = 0;
    StageWishes stages = {};
};

/// Which pictures the recipe trains on and holds back: at most as many as it has steps for, from all over the folder.
DataSettings label_free_data(const LabelFreeInputs& inputs);

/// The experiment of configs/label_free_deit_tiny.yaml for another model and other pictures: stages behind a quarter,
/// half and three quarters of the blocks, about 1,600 steps, smaller batches where the activations of larger ones would
/// not fit, a learning rate that falls with the square root of the width, and the embedding in place of the class
/// probabilities where the outputs are one. Throws Error for a model of one block, which has no place for a stage, and
/// where there is no picture.
Experiment label_free_recipe(const LabelFreeInputs& inputs);

}  // namespace dynvit
