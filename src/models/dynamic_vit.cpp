#include "dynvit/models/dynamic_vit.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/models/gumbel_decision.hpp"
#include "dynvit/models/vit_forward.hpp"

namespace dynvit {
namespace {

constexpr const char* kPredictionModules = "score_predictor";

// The factors of block `index`'s two branches; undefined where nothing is drawn.
at::Tensor of_block(const at::Tensor& drop_path, std::int64_t index) {
    return drop_path.defined() ? drop_path.slice(0, 2 * index, 2 * index + 2) : at::Tensor();
}

}  // namespace

bool is_of_prediction_module(const std::string& name) {
    return name.starts_with(std::string(kPredictionModules) + '.');
}

DynamicVitImpl::DynamicVitImpl(const ModelSettings& settings, at::Generator generator)
    : backbone_(settings, generator) {
    for (const auto& item : backbone_->named_parameters(/*recurse=*/false)) {
        register_parameter(item.key(), item.value());
    }
    for (const auto& item : backbone_->named_buffers(/*recurse=*/false)) register_buffer(item.key(), item.value());
    for (const auto& item : backbone_->named_children()) register_module(item.key(), item.value());
    if (settings.stages() == 0 || !settings.predicts()) return;
    const auto list = register_module(kPredictionModules, std::make_shared<torch::nn::Module>());
    for (std::int64_t s = 0; s < settings.stages(); ++s) {
        score_predictor_.push_back(PredictionModule(settings.embed_dim, generator));
        list->register_module(str(s), score_predictor_.back().ptr());
    }
}

TrainingOutput DynamicVitImpl::forward_train(const at::Tensor& images, const TrainingNoise& noise, double temperature) {
    const ModelSettings& s = settings();
    TORCH_CHECK(std::ssize(noise.gumbel) == s.stages(), "one Gumbel tensor a stage is needed");
    TrainingOutput output;
    ResidualStream stream{backbone_->embed(images)};  // (B, prefix + N, C)
    const auto all = [&](std::int64_t count) {
        return at::ones({images.size(0), count}, stream.x.options().dtype(at::kFloat));
    };
    at::Tensor decision = all(s.patches());  // (B, N)
    at::Tensor policy;                       // (B, prefix + N), after a first stage
    const AttentionContext context{.rotation = backbone_->rotation_of_all(images.device())};
    walk_blocks(
        s, s.stages(),
        [&](std::int64_t stage, std::int64_t) {
            stream = {stream.sum()};
            const at::Tensor log_prob = score_predictor(stage)(stream.x, decision, s.prefix_tokens());
            decision = gumbel_decision(log_prob, decision, noise.gumbel[stage], temperature);
            policy = at::cat({all(s.prefix_tokens()), decision}, 1);
            output.log_probs.push_back(log_prob);
            output.decisions.push_back(decision);
        },
        [&](std::int64_t block, BlockPiece piece) {
            const BlockInputs inputs{
                .policy = policy, .drop_path = of_block(noise.drop_path, block), .context = context};
            stream = backbone_->run_block(block, stream, inputs, piece);
        });
    const VisionTransformerImpl::Output read = backbone_->read_out(stream, decision);
    output.logits = read.logits;
    output.features = read.features;
    return output;
}

PrunedTokens DynamicVitImpl::forward_pruned(const at::Tensor& images, const StageOperation& operation,
                                            const at::Tensor& drop_path) {
    const auto run = [&](std::int64_t block, BlockPiece piece, const at::Tensor& x, const AttentionContext& context) {
        const BlockInputs inputs{.drop_path = of_block(drop_path, block), .context = context};
        return backbone_->run_block(block, {x}, inputs, piece).sum();
    };
    return run_blocks(settings(), backbone_->embed(images), run, operation, backbone_->rotary_table(images.device()));
}

TrainingNoise DynamicVitImpl::draw_noise(std::int64_t batch, at::Generator generator, const at::Device& device) const {
    const ModelSettings& s = settings();
    TrainingNoise noise;
    for (std::int64_t stage = 0; stage < s.stages(); ++stage) {
        noise.gumbel.push_back(sample_gumbel({batch, s.patches(), 2}, generator, device));
    }
    if (s.drop_path > 0) {  // the rate grows linearly from 0 in the first block
        const at::Tensor keep = (1 - at::linspace(0, s.drop_path, s.depth))
                                    .repeat_interleave(2)
                                    .view({-1, 1, 1, 1})
                                    .to(device, /*non_blocking=*/true);
        const at::Tensor uniform = at::empty({2 * s.depth, batch, 1, 1}, at::device(device)).uniform_(0, 1, generator);
        noise.drop_path = (uniform < keep).to(at::kFloat) / keep;
    }
    return noise;
}

}  // namespace dynvit
