#include "dynvit/infer/calibration.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/infer/pruned_vit.hpp"
#include "dynvit/models/vit_forward.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kBatch = 32;

template <class Function>
void for_each_batch(const at::Tensor& pictures, const InferenceModel& model, const Function& function) {
    for (std::int64_t first = 0; first < pictures.size(0); first += kBatch) {
        const at::Tensor batch = pictures.slice(0, first, first + kBatch);
        function(normalize_images(batch, model.device(), model.preprocessing()));
    }
}

}  // namespace

std::vector<double> find_thresholds(const InferenceModel& model, const at::Tensor& pictures,
                                    const std::vector<std::int64_t>& tokens) {
    std::vector<double> thresholds(tokens.size(), 0.0);
    for (std::size_t stage = 0; stage < tokens.size(); ++stage) {  // each depends on what those before it leave
        std::vector<at::Tensor> parts;
        for_each_batch(pictures, model, [&](const at::Tensor& images) {
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

std::vector<at::Tensor> find_static_scores(const InferenceModel& model, const at::Tensor& pictures) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    std::vector<at::Tensor> sums(settings.pruning_loc.size());
    for_each_batch(pictures, model, [&](const at::Tensor& images) {
        at::Tensor x = model.embed(images);
        walk_blocks(
            settings, settings.stages(),
            [&](std::int64_t stage, std::int64_t) {
                const at::Tensor sum = model.keep_log_probability(stage, x).sum(0);
                at::Tensor& total = sums[static_cast<std::size_t>(stage)];
                total = total.defined() ? total + sum : sum;
            },
            [&](std::int64_t block, BlockPiece piece) {  // none reads what comes after the last stage
                if (block < settings.pruning_loc.back() || piece == BlockPiece::kAttention) {
                    x = model.run_block(block, x, {}, piece);
                }
            });
    });
    for (at::Tensor& sum : sums) sum = sum / static_cast<double>(pictures.size(0));
    return sums;
}

}  // namespace dynvit
