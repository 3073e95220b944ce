#include "dynvit/train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dynvit {

double learning_rate(const ScheduleSettings& s, std::int64_t step, std::int64_t steps_per_epoch, std::int64_t epochs) {
    const std::int64_t total = steps_per_epoch * epochs;
    const auto warmup =
        std::min<std::int64_t>(std::llround(s.warmup_epochs * static_cast<double>(steps_per_epoch)), total);
    if (step < warmup) return warmup > 1 ? s.lr * static_cast<double>(step) / static_cast<double>(warmup - 1) : s.lr;
    const double progress = static_cast<double>(step - warmup) / static_cast<double>(total - warmup);
    return s.min_lr + 0.5 * (s.lr - s.min_lr) * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

double backbone_learning_rate(const ScheduleSettings& s, std::int64_t step, std::int64_t steps_per_epoch,
                              std::int64_t epochs) {
    if (static_cast<double>(step) < s.backbone_freeze_epochs * static_cast<double>(steps_per_epoch)) return 0.0;
    const double rate = learning_rate(s, step, steps_per_epoch, epochs);
    return s.backbone_schedule == "capped" ? std::min(s.backbone_lr_scale * s.lr, rate) : s.backbone_lr_scale * rate;
}

}  // namespace dynvit
