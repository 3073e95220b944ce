// Learning rates over time.
#pragma once

#include "dynvit/core/fields.hpp"

namespace dynvit {

struct ScheduleSettings {
    double lr = 1e-3;
    double min_lr = 1e-6;
    double warmup_epochs = 5.0;
    double backbone_lr_scale = 0.01;
    double backbone_freeze_epochs = 5.0;
    std::string backbone_schedule = "proportional";

    void fields(FieldVisitor& v) {
        v.field("lr", lr, "learning rate after the warm-up, as it is (not scaled by the batch)", above(0));
        v.field("min_lr", min_lr, "learning rate at the end", at_least(0));
        v.field("warmup_epochs", warmup_epochs, "linear rise from 0, in epochs", at_least(0));
        v.field("backbone_lr_scale", backbone_lr_scale,
                "the backbone's learning rate, in that of the prediction modules", at_least(0));
        v.field("backbone_freeze_epochs", backbone_freeze_epochs, "the backbone's learning rate is 0 for so long",
                at_least(0));
        v.field("backbone_schedule", backbone_schedule,
                "backbone_lr_scale x the learning rate of the step, or x lr and at most that of the step",
                std::vector<std::string>{"proportional", "capped"});
    }
};

/// The learning rate of step `step` of `epochs` x `steps_per_epoch`: linear from 0 to lr over the warm-up, then half a
/// cosine down to min_lr. Follows the reference's schedule step by step.
double learning_rate(const ScheduleSettings& settings, std::int64_t step, std::int64_t steps_per_epoch,
                     std::int64_t epochs);

/// The backbone's at that step: 0 while it is frozen; then backbone_lr_scale times the step's (the reference
/// implementation), or "capped" the smaller of backbone_lr_scale times lr and the step's (the 2021 article).
double backbone_learning_rate(const ScheduleSettings& settings, std::int64_t step, std::int64_t steps_per_epoch,
                              std::int64_t epochs);

}  // namespace dynvit
