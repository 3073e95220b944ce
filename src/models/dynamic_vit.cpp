#include "dynvit/models/dynamic_vit.hpp"

#include <ATen/ATen.h>

#include "dynvit/models/gumbel_decision.hpp"

namespace dynvit {
namespace {

constexpr const char* kPredictionModules = "score_predictor";

}  // namespace

bool is_of_prediction_module(const std::string& name) {
    return name.starts_with(std::string(kPredictionModules) + '.');
}

DynamicVitImpl::DynamicVitImpl(const ModelSettings& settings, at::Generator generator)
    : VisionTransformerImpl(settings, generator) {
    if (settings.stages() == 0) return;
    for (std::int64_t s = 0; s < settings.stages(); ++s)
        score_predictor_->push_back(PredictionModule(settings.embed_dim));
    register_module(kPredictionModules, score_predictor_);
    draw_weights(*score_predictor_, generator);
}

TrainingOutput DynamicVitImpl::forward_train(const at::Tensor& images, const TrainingNoise& noise, double temperature) {
    TORCH_CHECK(std::ssize(noise.gumbel) == settings_.stages(), "one Gumbel tensor a stage is needed");
    TrainingOutput output;
    ResidualStream stream{embed(images)};  // (B, N + 1, C)
    at::Tensor decision =
        at::ones({images.size(0), settings_.patches()}, stream.x.options().dtype(at::kFloat));  // (B, N)
    at::Tensor policy;  // (B, N + 1), after a first stage
    for (std::int64_t i = 0, stage = 0; i < settings_.depth; ++i) {
        if (stage < settings_.stages() && settings_.pruning_loc[stage] == i) {
            stream = {stream.sum()};
            const at::Tensor log_prob = score_predictor(stage)(stream.x, decision, 1);
            decision = gumbel_decision(log_prob, decision, noise.gumbel[stage], temperature);
            policy = at::cat({at::ones_like(decision.slice(1, 0, 1)), decision}, 1);
            output.log_probs.push_back(log_prob);
            output.decisions.push_back(decision);
            ++stage;
        }
        stream = run_block(i, stream, policy, noise.drop_path);
    }
    const std::vector<at::Tensor> parts = normalize(stream).split_with_sizes({1, settings_.patches()}, 1);
    output.logits = classify(parts[0].squeeze(1));
    output.features = parts[1];
    return output;
}

PrunedTokens DynamicVitImpl::forward_pruned(const at::Tensor& images, const TokenScores& scores,
                                            const std::vector<std::int64_t>& counts, const at::Tensor& drop_path) {
    const auto run = [&](std::int64_t index, const at::Tensor& x) {
        return run_block(index, {x}, {}, drop_path).sum();
    };
    return remove_tokens(settings_, embed(images), run, scores, counts);
}

ResidualStream DynamicVitImpl::run_block(std::int64_t index, const ResidualStream& stream, const at::Tensor& policy,
                                         const at::Tensor& drop_path) {
    if (!drop_path.defined()) return block(index)->run(stream, policy, {}, {});
    return block(index)->run(stream, policy, drop_path[2 * index], drop_path[2 * index + 1]);
}

TrainingNoise DynamicVitImpl::draw_noise(std::int64_t batch, at::Generator generator, const at::Device& device) const {
    TrainingNoise noise;
    for (std::int64_t s = 0; s < settings_.stages(); ++s) {
        noise.gumbel.push_back(sample_gumbel({batch, settings_.patches(), 2}, generator, device));
    }
    if (settings_.drop_path > 0) {  // the rate grows linearly from 0 in the first block
        const at::Tensor keep = (1 - at::linspace(0, settings_.drop_path, settings_.depth))
                                    .repeat_interleave(2)
                                    .view({-1, 1, 1, 1})
                                    .to(device, /*non_blocking=*/true);
        const at::Tensor uniform =
            at::empty({2 * settings_.depth, batch, 1, 1}, at::device(device)).uniform_(0, 1, generator);
        noise.drop_path = (uniform < keep).to(at::kFloat) / keep;
    }
    return noise;
}

}  // namespace dynvit
