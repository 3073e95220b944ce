// Everything that a training step reads and moves.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/infer/inference_model.hpp"
#include "dynvit/train/adamw.hpp"
#include "dynvit/train/blend.hpp"
#include "dynvit/train/ema.hpp"
#include "dynvit/train/experiment.hpp"
#include "dynvit/train/loss_scaler.hpp"

namespace dynvit {

/// A file of weights that a run was started from.
struct SourceFile {
    std::string setting;  // "weights" or "teacher", a key of train
    std::string path;
    std::string sha256;
    bool stays = false;  // a resumed run reads it again: what it says is not in the checkpoint
};

struct Learner {
    DynamicVit student;
    std::unique_ptr<const InferenceModel> teacher;  // dense, in the run's precision; null where no loss asks for one
    AdamW optimizer;
    LossScaler scaler;
    std::optional<Ema> ema;
    std::optional<Blend> blend;
    std::vector<SourceFile> sources;
    Preprocessing preprocessing = {};  // of the pictures that it learns from, and so the trained model's

    /// The model that is evaluated and saved: the student, or its blend with the starting weights as it stands now.
    DynamicVit outcome() { return blend ? blend->with(*student) : student; }

    /// What training has moved: "parameter.NAME", "ema.NAME", the optimizer's and the scaler's state.
    TensorMap state() const;
    /// Throws Error naming the file and what of it is of another model.
    void load_state(const TensorMap& state, const std::string& file);
};

/// The experiment's student from its starting weights, its teacher, and fresh state for the rest.
/// Throws Error for weights that don't fit.
Learner make_learner(const Experiment& experiment, const at::Device& device);

}  // namespace dynvit
