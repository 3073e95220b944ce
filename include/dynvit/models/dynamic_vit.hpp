// The paper's model: a backbone, and prediction modules at some of its blocks.
#pragma once

#include <vector>

#include "dynvit/models/prediction_module.hpp"
#include "dynvit/models/token_stages.hpp"
#include "dynvit/models/vision_transformer.hpp"

namespace dynvit {

/// Everything random that a training forward pass uses, drawn beforehand.
struct TrainingNoise {
    std::vector<at::Tensor> gumbel;  // a stage: (B, N, 2)
    at::Tensor drop_path;            // (2 depth, B, 1, 1): factors of each branch; undefined without stochastic depth
};

/// What a training forward pass gives.
struct TrainingOutput {
    at::Tensor logits;                  // (B, outputs), see ModelSettings
    at::Tensor features;                // (B, N, C): patch tokens after the final norm, dropped ones too if masked
    std::vector<at::Tensor> log_probs;  // a stage: (B, N, 2); where tokens are removed, (B, n, 2) of those left
    std::vector<at::Tensor> decisions;  // a stage: (B, N), 1 or 0, with the gradient of the draw; empty if removed
    std::vector<at::Tensor>
        positions;         // a stage: (B, n), where the tokens of log_probs are, as in Tokens; empty if masked
    at::Tensor kept = {};  // (B, n), where the tokens of features are, likewise; undefined: all
    /// A stage: (B, N), which of the n tokens of log_probs each patch is part of, -1: none; undefined where a token
    /// stands for the patch at its place alone. Empty if masked.
    std::vector<at::Tensor> owners = {};
};

/// Whether a parameter of that name belongs to a prediction module, and not to the backbone.
bool is_of_prediction_module(const std::string& name);

/// Its parameters have the names of published checkpoints: the backbone's stand beside "score_predictor".
class DynamicVitImpl : public torch::nn::Module {
  public:
    DynamicVitImpl(const ModelSettings& settings, at::Generator generator);

    /// All tokens through all blocks; from each stage on, dropped tokens are masked in attention.
    /// @param images (B, 3, H, W), normalized
    /// @param temperature of the Gumbel-Softmax
    TrainingOutput forward_train(const at::Tensor& images, const TrainingNoise& noise, double temperature = 1.0);

    /// Tokens are removed as at inference: at each stage the operation says which go on, see run_blocks.
    /// @param images (B, 3, H, W), normalized
    /// @param drop_path as in TrainingNoise; undefined: every branch
    PrunedTokens forward_pruned(const at::Tensor& images, const StageOperation& operation,
                                const at::Tensor& drop_path = {});

    /// Everything that forward_train draws for `batch` images. @param generator of the device
    TrainingNoise draw_noise(std::int64_t batch, at::Generator generator, const at::Device& device) const;

    /// The prediction module of a stage, from 0.
    PredictionModule score_predictor(std::int64_t stage) { return score_predictor_[static_cast<std::size_t>(stage)]; }

    VisionTransformerImpl& backbone() { return *backbone_; }
    const ModelSettings& settings() const { return backbone_->settings(); }

  private:
    VisionTransformer backbone_;
    std::vector<PredictionModule> score_predictor_;  // a stage
};
TORCH_MODULE(DynamicVit);

}  // namespace dynvit
