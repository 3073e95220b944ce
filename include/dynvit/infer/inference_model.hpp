// A DynamicViT that is only ever run forward.
#pragma once

#include <optional>
#include <vector>

#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/ops/inference_linear.hpp"
#include "dynvit/ops/packed_sequences.hpp"

namespace dynvit {

/// The weights of a DynamicViT, laid out once for inference. Nothing in it changes: sessions and threads may share one.
class InferenceModel {
  public:
    /// @param model whose weights, and device, are taken; it may change or go afterwards
    /// @param precision kFloat, kBFloat16 or kHalf, of everything but the prediction modules' probabilities and the
    /// logits, which are float32; kQInt8, on a CPU with VNNI only: float32 with the blocks' matrix products in 8
    /// bits (see InferenceLinear: a batch shares one scale, so its images depend on each other a little). Throws Error
    /// where the device can't do that.
    explicit InferenceModel(const DynamicVitImpl& model, at::ScalarType precision = at::kFloat);

    const ModelSettings& settings() const { return settings_; }
    at::Device device() const { return pos_embed_.device(); }
    at::ScalarType precision() const { return precision_; }

    /// @param images (B, 3, H, W), normalized @return (B, N + 1, C), [CLS] first
    at::Tensor embed(const at::Tensor& images) const;

    /// Block `index`, from 0: (B, n, C) -> (B, n, C).
    at::Tensor run_block(std::int64_t index, const at::Tensor& x) const;
    /// The same of packed sequences: (T, C) -> (T, C).
    at::Tensor run_block(std::int64_t index, const at::Tensor& x, const PackedLayout& layout) const;

    /// How much [CLS] looks at each other token in block `index`, the mean over the heads: (B, n, C) -> (B, n - 1),
    /// float32.
    at::Tensor cls_attention(std::int64_t index, const at::Tensor& x) const;

    /// log pi_keep, float32, by the prediction module of a stage, from 0.
    /// @param patches without [CLS], (B, n, C) @return (B, n)
    at::Tensor keep_log_probability(std::int64_t stage, const at::Tensor& patches) const;
    /// The same of packed sequences: (T, C) -> (T).
    at::Tensor keep_log_probability(std::int64_t stage, const at::Tensor& patches, const PackedLayout& layout) const;

    /// The final norm and the head: (B, C), each image's [CLS], -> (B, classes), float32.
    at::Tensor classify(const at::Tensor& cls) const;

  private:
    struct Norm {
        at::Tensor weight, bias;
        double epsilon;
        at::Tensor operator()(const at::Tensor& x) const;
    };
    struct Block {
        Norm norm1;
        InferenceLinear qkv, proj;
        Norm norm2;
        InferenceLinear fc1, fc2;
    };
    struct Predictor {
        Norm norm;
        InferenceLinear in, out0, out2, out4;
        at::Tensor keep_log_probability(const at::Tensor& local, const at::Tensor& mean) const;
    };

    at::Tensor mlp_of(const Block& block, const at::Tensor& x) const;

    ModelSettings settings_;
    at::ScalarType precision_;
    at::Tensor patch_weight_, patch_bias_, cls_token_, pos_embed_;
    std::vector<Block> blocks_;
    std::vector<Predictor> predictors_;
    std::optional<Norm> norm_;
    std::optional<InferenceLinear> head_;
};

}  // namespace dynvit
