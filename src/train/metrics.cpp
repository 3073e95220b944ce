#include "dynvit/train/metrics.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

std::string keep_ratio_name(std::size_t stage) {
    return str("keep_ratio.", stage);
}

}  // namespace

void Meters::add(const StepOutput& output) {
    const at::Tensor counted = 1 - output.skipped;  // (1)
    const auto take = [&](const std::string& name, const at::Tensor& value) {
        const at::Tensor finite = at::where(counted > 0, value.detach().to(at::kFloat), 0.0f);  // (1)
        Mean& mean = means_[name];
        mean.sum = mean.sum.defined() ? mean.sum + finite : finite;
        mean.steps = mean.steps.defined() ? mean.steps + counted : counted;
    };
    take("loss", output.losses.total);
    for (const auto& [name, value] : output.losses.each) take(name, value);
    stages_ = output.keep_ratios.size();
    for (std::size_t s = 0; s < stages_; ++s) take(keep_ratio_name(s), output.keep_ratios[s]);
}

nlohmann::json Meters::take() {
    std::vector<at::Tensor> sums, steps;
    for (const auto& [name, mean] : means_) {
        sums.push_back(mean.sum);
        steps.push_back(mean.steps);
    }
    const at::Tensor means = (at::cat(sums) / at::cat(steps)).cpu();  // 0 / 0 where every step was skipped
    std::map<std::string, nlohmann::json> values;
    std::int64_t i = 0;
    for (const auto& [name, mean] : means_) {
        const float value = means[i++].item<float>();
        values[name] = std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
    }
    nlohmann::json line;
    line["keep_ratio"] = nlohmann::json::array();
    for (std::size_t s = 0; s < stages_; ++s) {
        line["keep_ratio"].push_back(values[keep_ratio_name(s)]);
        values.erase(keep_ratio_name(s));
    }
    for (auto& [name, value] : values) line[name] = value;
    means_.clear();
    return line;
}

void SkippedSteps::add(std::int64_t step, const StepOutput& output, std::vector<std::string> names) {
    steps_.push_back({step, std::move(names)});
    flags_.push_back(output.skipped + output.bad_loss);
}

void SkippedSteps::ask() {
    if (flags_.empty()) return;
    const at::Tensor flags = at::cat(flags_);
    asked_ = Asked{std::move(steps_), flags, std::nullopt};
    if (!flags.is_cpu()) {
        asked_->flags = at::empty(flags.sizes(), flags.options().device(at::kCPU).pinned_memory(true));
        asked_->flags.copy_(flags, /*non_blocking=*/true);
        asked_->there.emplace(flags.device().type());
        asked_->there->record(c10::impl::VirtualGuardImpl(flags.device().type()).getStream(flags.device()));
    }
    steps_.clear();
    flags_.clear();
}

std::vector<SkippedSteps::Skipped> SkippedSteps::answer() {
    std::vector<Skipped> found;
    longest_ = streak_;
    if (!asked_) return found;
    if (asked_->there) asked_->there->synchronize();
    for (std::size_t i = 0; i < asked_->steps.size(); ++i) {
        const float flag = asked_->flags[static_cast<std::int64_t>(i)].item<float>();
        streak_ = flag > 0 ? streak_ + 1 : 0;
        longest_ = std::max(longest_, streak_);
        if (flag == 0) continue;
        asked_->steps[i].bad_loss = flag > 1;
        found.push_back(std::move(asked_->steps[i]));
    }
    asked_.reset();
    return found;
}

std::vector<SkippedSteps::Skipped> SkippedSteps::take_earlier() {
    std::vector<Skipped> found = answer();
    ask();
    return found;
}

std::vector<SkippedSteps::Skipped> SkippedSteps::take() {
    std::vector<Skipped> found = answer();
    const std::int64_t longest = longest_;
    ask();
    for (Skipped& step : answer()) found.push_back(std::move(step));
    longest_ = std::max(longest_, longest);
    return found;
}

}  // namespace dynvit
