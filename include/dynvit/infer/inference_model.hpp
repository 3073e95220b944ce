// A DynamicViT that is only ever run forward.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "dynvit/io/preprocessing.hpp"
#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/ops/attention_heads.hpp"
#include "dynvit/ops/inference_linear.hpp"
#include "dynvit/ops/normed_mlp.hpp"
#include "dynvit/ops/one_image_blocks.hpp"
#include "dynvit/ops/prediction_head.hpp"

namespace dynvit {

/// The weights of a DynamicViT, laid out once for inference. Nothing in it changes: sessions and threads may share one.
class InferenceModel {
  public:
    /// @param model whose weights, and device, are taken; it may change or go afterwards
    /// @param precision kFloat, kBFloat16 or kHalf, of everything but the prediction modules' probabilities and the
    /// logits, which are float32; kQInt8, on a CPU with VNNI only: float32 with the blocks' matrix products in 8
    /// bits (see InferenceLinear: a batch shares one scale, so its images depend on each other a little);
    /// kFloat8_e4m3fn, on a GPU of compute capability 9.0 only: bfloat16 with the blocks' matrix products in float8, a
    /// scale for each token. Throws Error where the device can't do that.
    /// @param preprocessing how uint8 images are scaled
    explicit InferenceModel(const DynamicVitImpl& model, at::ScalarType precision = at::kFloat,
                            Preprocessing preprocessing = {});

    const ModelSettings& settings() const { return settings_; }
    at::Device device() const { return patch_positions_.device(); }
    at::ScalarType precision() const { return precision_; }
    const Preprocessing& preprocessing() const { return preprocessing_; }

    /// @param images (B, 3, H, W): uint8, or normalized numbers @return (B, prefix + N, C), prefix tokens first
    at::Tensor embed(const at::Tensor& images) const;

    /// The two steps of embed. What lies between, pictures in the model's precision or rows of patches, may be written
    /// into a tensor of an earlier prepare() with as many images.
    at::Tensor prepare(const at::Tensor& images) const;
    void prepare_into(const at::Tensor& inputs, const at::Tensor& images) const;
    at::Tensor embed_prepared(const at::Tensor& inputs) const;

    /// Block `index`, from 0, or a piece of it: (B, n, C) -> (B, n, C). @param context of these tokens
    at::Tensor run_block(std::int64_t index, const at::Tensor& x, const AttentionContext& context = {},
                         BlockPiece piece = BlockPiece::kWhole) const;
    /// The same of packed sequences: (T, C) -> (T, C).
    at::Tensor run_block(std::int64_t index, const at::Tensor& x, const PackedLayout& layout,
                         const AttentionContext& context = {}, BlockPiece piece = BlockPiece::kWhole) const;

    /// The rotary table that a context's rotation is taken from, see rotary_positions.hpp; undefined: there is none.
    const at::Tensor& rotary_table() const { return rotary_table_; }
    /// The context of the prefix tokens and all patches.
    AttentionContext context_of_all() const { return {.rotation = rotation_of_all_}; }

    /// The final norm and the head, of what is left behind the last block: (B, prefix + n, C) -> (B, outputs), float32:
    /// of classes or, of a model that does not classify, the embedding (see ModelSettings::outputs).
    /// @param sizes how many patches each token stands for, as in the context
    at::Tensor logits(const at::Tensor& x, const at::Tensor& sizes = {}) const;
    /// The same of packed sequences: (T, C) -> (B, outputs).
    at::Tensor logits(const at::Tensor& x, const PackedLayout& layout, const at::Tensor& sizes = {}) const;

    /// The last block, for what the head reads alone (of a model that pools [CLS], one row of each image behind the
    /// attention), and the logits: (B, prefix + n, C) -> (B, outputs), float32. @param context as for run_block
    at::Tensor last_block_logits(const at::Tensor& x, const AttentionContext& context = {}) const;
    /// The same of packed sequences: (T, C) -> (B, outputs).
    at::Tensor last_block_logits(const at::Tensor& x, const PackedLayout& layout,
                                 const AttentionContext& context = {}) const;

    /// The blocks and prediction modules for one image at a time; null where there is no kernel for them.
    std::unique_ptr<OneImageBlocks> one_image_blocks() const;

    /// How much [CLS] looks at each patch token in block `index`, the mean over the heads: (B, prefix + n, C) -> (B,
    /// n), float32. The model must have a class token. @param context as for run_block
    at::Tensor cls_attention(std::int64_t index, const at::Tensor& x, const AttentionContext& context = {}) const;

    /// What a model that merges tokens compares at a stage, from 0: each token's keys in the block that the stage
    /// stands at, the mean over the heads. (B, n, C) or (T, C) -> (B, n, d) or (T, d)
    at::Tensor mean_keys(std::int64_t stage, const at::Tensor& x) const;

    /// log pi_keep, float32, by the prediction module of a stage, from 0.
    /// @param x (B, prefix + n, C) @return (B, n)
    at::Tensor keep_log_probability(std::int64_t stage, const at::Tensor& x) const;
    /// The same of packed sequences, each with its prefix tokens: (T, C) -> (T), of no meaning for those.
    at::Tensor keep_log_probability(std::int64_t stage, const at::Tensor& x, const PackedLayout& layout) const;

    struct DenseOutput {
        at::Tensor logits;                 // (B, outputs), float32
        at::Tensor features;               // (B, N, C): the patch tokens after the final norm, where there is one
        std::vector<at::Tensor> saliency;  // a stage that was asked for: (B, N), float32
    };

    /// Every token through every block: what a teacher tells.
    /// @param images as embed takes them
    /// @param stages blocks, ascending: for each, the output tells how much the model uses a patch token from that
    /// block on: the mean over those blocks of what [CLS] takes in of it, its attention times the norm of the value
    /// (Kobayashi et al., 2020), the mean over the heads; where the head does not read [CLS], the mean over all tokens
    /// in place of [CLS]
    DenseOutput forward(const at::Tensor& images, const std::vector<std::int64_t>& stages = {}) const;

  private:
    struct Norm {
        at::Tensor weight, bias;
        double epsilon;
        at::Tensor operator()(const at::Tensor& x) const;
        ScaledRows quantized(const at::Tensor& x) const;  // what a layer that multiplies float8 reads
    };
    class Weights;
    struct Ops;
    struct SaliencyOps;
    struct LastBlockOps;

    // The parts of the constructor.
    void add_norm(const Weights& weights, const NormPart& part);
    void lay_out_stem(const Weights& weights);
    void lay_out_blocks(const Weights& weights);
    void lay_out_stages(const Weights& weights);
    void lay_out_reading(const Weights& weights);

    const Norm& norm(const NormPart& part) const { return norms_.at(part.name); }
    HeadNorm head_norm(const NormPart& part) const { return {norm(part).weight, norm(part).bias, part.epsilon}; }
    at::Tensor norm_before_blocks(const at::Tensor& x) const;
    const InferenceLinear& linear(const LinearPart& part) const { return linears_.at(part.name); }
    const NormedMlp* normed_mlp(const MlpPart& part) const {
        const auto found = normed_mlps_.find(part.fc1.name);
        return found == normed_mlps_.end() ? nullptr : &found->second;
    }
    at::Tensor run_block(const Ops& ops, std::int64_t index, const at::Tensor& x, BlockPiece piece) const;
    at::Tensor last_block_logits(const Ops& all, const at::Tensor& x) const;
    at::Tensor keep_log_probability(std::int64_t stage, const at::Tensor& x, const RowGroups& groups) const;

    ModelSettings settings_;
    VitParts parts_;
    at::ScalarType precision_;
    Preprocessing preprocessing_;
    std::unordered_map<std::string, Norm> norms_;
    std::unordered_map<std::string, InferenceLinear> linears_;
    std::unordered_map<std::string, NormedMlp> normed_mlps_;  // by fc1's name, where there is a kernel
    std::vector<PredictionHead> prediction_heads_;            // a stage
    std::vector<InferenceLinear> compared_keys_;              // a stage, where tokens are merged
    at::Tensor prefix_rows_;                       // (1, prefix, C): the prefix tokens with their position embedding
    at::Tensor patch_positions_;                   // (1, N, C)
    std::optional<InferenceLinear> patch_linear_;  // where pictures are prepared as rows of patches; elsewhere:
    at::Tensor patch_weight_, patch_bias_;         // the convolution's
    at::Tensor latent_;                            // (1, C): attention pooling's
    at::Tensor rotary_table_, rotation_of_all_;
};

}  // namespace dynvit
