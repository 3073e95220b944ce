#include "dynvit/train/schedule.hpp"

#include <cmath>
#include <numbers>

namespace dynvit {

double learning_rate(const ScheduleSettings& s, std::int64_t step, std::int64_t steps_per_epoch, std::int64_t epochs) {
    const std::int64_t total = steps_per_epoch * epochs;
    const auto warmup = std::min<std::int64_t>(std::llround(s.warmup_epochs * static_cast<double>(steps_per_epoch)), total);
    if (step < warmup) return warmup > 1 ? s.lr * static_cast<double>(step) / static_cast<double>(warmup - 1) : s.lr;
    const double progress = static_cast<double>(step - warmup) / static_cast<double>(total - warmup);
    return s.min_lr + 0.5 * (s.lr - s.min_lr) * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

double backbone_scale(const ScheduleSettings& s, std::int64_t step, std::int64_t steps_per_epoch) {
    const bool frozen = static_cast<double>(step) < s.backbone_freeze_epochs * static_cast<double>(steps_per_epoch);
    return frozen ? 0.0 : s.backbone_lr_scale;
}

}  // namespace dynvit
