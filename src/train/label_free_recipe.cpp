#include "dynvit/train/label_free_recipe.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

// What the recipe was found with: DeiT-Ti, 3,420 photographs, on a GPU.
constexpr std::int64_t kSteps = 1560, kBatch = 256, kLeastImages = 64;
constexpr double kRate = 2e-3, kWidth = 192, kActivations = 197.0 * 768 * 12;  // of an image: DeiT-B fits as well
constexpr double kLeastRatio = 0.5, kLeastMatched = 0.6;  // matching leaves half of the tokens at least
// On a processor minutes, not hours.
constexpr std::int64_t kProcessorSteps = 300, kProcessorBatch = 64;

std::int64_t step_count(const LabelFreeInputs& inputs) {
    if (inputs.steps > 0) return inputs.steps;
    return inputs.on_gpu ? kSteps : kProcessorSteps;
}

void place_stages(ModelSettings& model, const StageWishes& wishes) {
    if (model.stages() == 0) {
        model.pruning_loc = default_stages(model.depth);
        model.stage_place = "after_attention";
        model.reduction = "merge";
        model.merge_threshold = -1;
    }
    if (!wishes.pruning_loc.empty()) model.pruning_loc = wishes.pruning_loc;
    if (!wishes.stage_place.empty()) model.stage_place = wishes.stage_place;
    if (!wishes.reduction.empty()) model.reduction = wishes.reduction;
    if (model.stages() == 0) throw Error("prune", "found a model of one block, expected two at least");
}

// Images of a step at a time: as many as the recipe has, or as fit into the memory of as many of a DeiT-B.
std::int64_t fitting_batch(const LabelFreeInputs& inputs) {
    const ModelSettings& s = inputs.model;
    const double activations = static_cast<double>((s.prefix_tokens() + s.patches()) * s.embed_dim * s.depth);
    const std::int64_t most = inputs.on_gpu ? kBatch : kProcessorBatch;
    const auto fitting = static_cast<std::uint64_t>(
        std::clamp(static_cast<double>(kBatch) * kActivations / activations, 1.0, static_cast<double>(most)));
    return static_cast<std::int64_t>(std::bit_floor(fitting));
}

}  // namespace

DataSettings label_free_data(const LabelFreeInputs& inputs) {
    DataSettings data;
    data.preprocessing = inputs.preprocessing;
    data.root = inputs.pictures;
    data.labelled = false;
    data.train_folders = {"."};
    data.hold_out = 0.1;
    data.max_images = step_count(inputs) * std::max(kLeastImages, fitting_batch(inputs));
    data.scale = {0.25, 1};
    data.flip = 0.5;
    return data;
}

Experiment label_free_recipe(const LabelFreeInputs& inputs) {
    if (inputs.count < 1) throw Error("prune", inputs.pictures, ": found no picture to train on");
    Experiment e;
    e.model = inputs.model;
    e.model.drop_path = 0;
    place_stages(e.model, inputs.stages);
    e.data = label_free_data(inputs);

    TrainSettings& train = e.train;
    train.weights = inputs.weights;
    train.batch_size = std::min(fitting_batch(inputs), inputs.count);
    train.accumulate = std::max<std::int64_t>(1, std::min(kLeastImages, inputs.count) / train.batch_size);
    const std::int64_t an_epoch = inputs.count / (train.batch_size * train.accumulate);
    const std::int64_t steps = step_count(inputs);
    train.epochs = std::max<std::int64_t>(1, (steps + an_epoch - 1) / an_epoch);
    train.max_steps = inputs.steps;
    train.precision = inputs.on_gpu ? "bfloat16" : "float32";
    train.seed = static_cast<std::int64_t>(inputs.seed);
    train.blend = 0.75;
    train.eval_every = 0;
    train.save_every = std::max<std::int64_t>(1, train.epochs / 12);
    train.schedule.lr = kRate * std::sqrt(kWidth / static_cast<double>(e.model.embed_dim));
    train.schedule.min_lr = 1e-6;
    train.schedule.warmup_epochs = std::min<std::int64_t>(5, train.epochs / 10);
    train.schedule.backbone_lr_scale = 0.025;
    train.schedule.backbone_freeze_epochs = 0;
    train.optimizer.frozen_blocks = e.model.pruning_loc.front();
    const bool classifies = e.model.classifies();
    train.loss.weights = {{"classification", 0},
                          {"kl", classifies ? 2 : 0},
                          {"embedding", classifies ? 0 : 30},
                          {"distill", 0.5},
                          {"ratio", 0},
                          {"saliency", e.model.predicts() ? 1 : 0}};
    train.selection.deterministic_from = 0;
    train.selection.keep_ratio_range = {e.model.matches() ? kLeastMatched : kLeastRatio, 0.95};
    return e;
}

}  // namespace dynvit
