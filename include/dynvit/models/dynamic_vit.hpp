// The paper's model: a Vision Transformer with prediction modules before some of its blocks.
#pragma once

#include <vector>

#include "dynvit/models/prediction_module.hpp"
#include "dynvit/models/vision_transformer.hpp"

namespace dynvit {

/// Everything random that a training forward pass uses, drawn beforehand.
struct TrainingNoise {
    std::vector<at::Tensor> gumbel;  // a stage: (B, N, 2)
    at::Tensor drop_path;            // (2 depth, B, 1, 1): factors of each branch; undefined without stochastic depth
};

/// What a training forward pass gives.
struct TrainingOutput {
    at::Tensor logits;                  // (B, classes)
    at::Tensor features;                // (B, N, C): patch tokens after the final norm, dropped ones too
    std::vector<at::Tensor> log_probs;  // a stage: (B, N, 2)
    std::vector<at::Tensor> decisions;  // a stage: (B, N), 1 or 0, with the gradient of the draw
};

class DynamicVitImpl : public VisionTransformerImpl {
  public:
    DynamicVitImpl(const ModelSettings& settings, at::Generator generator);

    /// All tokens through all blocks; from each stage on, dropped tokens are masked in attention.
    /// @param images (B, 3, H, W), normalized
    TrainingOutput forward_train(const at::Tensor& images, const TrainingNoise& noise);

    TrainingNoise draw_noise(std::int64_t batch, at::Generator generator, const at::Device& device) const;

    /// The prediction module of a stage, from 0.
    PredictionModule score_predictor(std::int64_t stage) { return score_predictor_->ptr<PredictionModuleImpl>(stage); }

  private:
    torch::nn::ModuleList score_predictor_;
};
TORCH_MODULE(DynamicVit);

}  // namespace dynvit
