#include "dynvit/infer/calibration.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "dynvit/infer/autocast.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kBatch = 32;

template <class Function>
void for_each_batch(const at::Tensor& pictures, const EvalOptions& options, const Function& function) {
    const Autocast autocast(options.device, options.precision);
    for (std::int64_t first = 0; first < pictures.size(0); first += kBatch) {
        function(normalize_images(pictures.slice(0, first, first + kBatch), options.device));
    }
}

}  // namespace

std::vector<double> find_thresholds(DynamicVitImpl& model, const at::Tensor& pictures,
                                    const std::vector<std::int64_t>& tokens, const EvalOptions& options) {
    std::vector<double> thresholds(tokens.size(), 0.0);
    for (std::size_t stage = 0; stage < tokens.size(); ++stage) {  // each depends on what those before it leave
        std::vector<at::Tensor> parts;
        for_each_batch(pictures, options, [&](const at::Tensor& images) {
            parts.push_back(per_image_forward(model, images, thresholds).keep_probabilities[stage].cpu());
        });
        const at::Tensor falling = std::get<0>(at::cat(parts).to(at::kDouble).sort(0, /*descending=*/true));
        const std::int64_t kept = std::min(tokens[stage] * pictures.size(0), falling.numel());
        const double last = kept > 0 ? falling[kept - 1].item<double>() : 1.0;
        const double next = kept < falling.numel() ? falling[kept].item<double>() : 0.0;
        thresholds[stage] = (last + next) / 2;
    }
    return thresholds;
}

std::vector<at::Tensor> find_static_scores(DynamicVitImpl& model, const at::Tensor& pictures,
                                           const EvalOptions& options) {
    const torch::NoGradGuard no_grad;
    const std::vector<std::int64_t> all(model.settings().pruning_loc.size(), model.settings().patches());
    std::vector<at::Tensor> sums(all.size());
    const auto scores = [&](const StageInput& input) {
        const at::Tensor predicted = model.predicted_scores()(input);  // (B, N)
        at::Tensor& sum = sums[static_cast<std::size_t>(input.stage)];
        sum = sum.defined() ? sum + predicted.sum(0) : predicted.sum(0);
        return predicted;
    };
    for_each_batch(pictures, options, [&](const at::Tensor& images) { model.forward_pruned(images, scores, all); });
    for (at::Tensor& sum : sums) sum = sum / static_cast<double>(pictures.size(0));
    return sums;
}

}  // namespace dynvit
