// Everything that one run is: the sum of its parts' settings.
#pragma once

#include "dynvit/data/data_settings.hpp"
#include "dynvit/models/pruning_plan.hpp"
#include "dynvit/train/adamw.hpp"
#include "dynvit/train/ema.hpp"
#include "dynvit/train/losses.hpp"
#include "dynvit/train/mixup.hpp"
#include "dynvit/train/schedule.hpp"
#include "dynvit/train/selection_schedule.hpp"

namespace dynvit {

struct TrainSettings {
    std::int64_t epochs = 30;
    std::int64_t max_steps = 0;
    std::int64_t batch_size = 128;
    std::int64_t accumulate = 1;
    std::vector<double> keep_ratio = {kDefaultKeepRatio};
    double target_gmacs = 0.0;
    std::string weights;
    std::string teacher;
    double blend = 1.0;
    std::string precision = "float32";
    std::string device = "auto";
    std::int64_t threads = 0;
    bool record_steps = true;
    std::int64_t seed = 0;
    std::int64_t log_every = 50;
    std::int64_t eval_every = 1;
    std::int64_t save_every = 1;
    std::string save_as = "float32";
    std::string best_by = "pruned";
    double stop_at = 0.0;
    std::int64_t max_skipped_steps = 10;
    bool tensorboard = true;
    double timeout = 60.0;
    ScheduleSettings schedule;
    OptimizerSettings optimizer;
    LossSettings loss;
    SelectionSettings selection;
    MixupSettings mixup;
    EmaSettings ema;

    void fields(FieldVisitor& visitor);

    /// The target of each stage: keep_ratio itself if it has as many, else rho, rho^2, ... of its only number.
    std::vector<double> stage_targets(std::int64_t stages) const;
};

/// The YAML file of `dynvit train` and of every command's --config.
struct Experiment {
    ModelSettings model;
    DataSettings data;
    TrainSettings train;
    bool num_classes_given = true;  // false: read from settings that do not say model.num_classes

    void fields(FieldVisitor& visitor);

    /// What the settings left open, and all that depends on it. Throws Error where train.target_gmacs is too little.
    void set_num_classes(std::int64_t count);
};

}  // namespace dynvit
