#include "dynvit/train/metrics.hpp"

#include <ATen/ATen.h>

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
        if (!value.defined()) return;
        const at::Tensor finite = at::where(counted > 0, value.detach().to(at::kFloat), 0.0f);  // (1)
        Mean& mean = means_[name];
        mean.sum = mean.sum.defined() ? mean.sum + finite : finite;
        mean.steps = mean.steps.defined() ? mean.steps + counted : counted;
    };
    take("loss", output.losses.total);
    take("classification", output.losses.classification);
    take("kl", output.losses.kl);
    take("distill", output.losses.distill);
    take("ratio", output.losses.ratio);
    take("saliency", output.losses.saliency);
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

std::vector<SkippedSteps::Skipped> SkippedSteps::take() {
    std::vector<Skipped> found;
    if (flags_.empty()) return found;
    const at::Tensor flags = at::cat(flags_).cpu();
    longest_ = streak_;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
        const float flag = flags[static_cast<std::int64_t>(i)].item<float>();
        streak_ = flag > 0 ? streak_ + 1 : 0;
        longest_ = std::max(longest_, streak_);
        if (flag == 0) continue;
        steps_[i].bad_loss = flag > 1;
        found.push_back(std::move(steps_[i]));
    }
    steps_.clear();
    flags_.clear();
    return found;
}

}  // namespace dynvit
