// A model that is ready to classify, and the way in which it drops tokens, which may change between calls.
#pragma once

#include <memory>

#include "dynvit/infer/pruned_vit.hpp"

namespace dynvit {

struct SessionOutput {
    at::Tensor logits;                              // (B, outputs), see ModelSettings
    std::vector<std::vector<std::int64_t>> counts;  // a stage: patch tokens that each image goes on with, (B): those
                                                    // that it keeps, and, but for kAbove, one that it fuses the others
                                                    // into; kAveraged: none
    std::vector<at::Tensor> kept;  // a stage: the kept tokens' places in the flattened grids (B, N), int64, image after
                                   // image; ascending where no tokens are matched

    /// What image `index` keeps at `stage`: places on its own grid of `patches` patches, ascending, without
    /// a fused token.
    std::vector<std::int64_t> kept_of(std::int64_t index, std::size_t stage, std::int64_t patches) const;
};

class RecordedForward;

/// Classifies batches of pictures. Calls of `run` may come from several threads at once while no plan changes; by a
/// policy that draws, what each of them gets depends on their order.
class InferenceSession {
  public:
    /// See set_plan.
    explicit InferenceSession(std::shared_ptr<const InferenceModel> model, PruningPlan plan = {},
                              const PolicyInputs& inputs = {});
    /// @param model whose weights are copied; see InferenceModel
    explicit InferenceSession(const DynamicVitImpl& model, PruningPlan plan = {}, at::ScalarType precision = at::kFloat,
                              const PolicyInputs& inputs = {}, const Preprocessing& preprocessing = {});

    ~InferenceSession();
    InferenceSession(const InferenceSession&) = delete;
    InferenceSession& operator=(const InferenceSession&) = delete;

    /// Drops tokens otherwise from the next call on. @param inputs what the plan's policy learns from or draws by
    /// Throws Error as complete_plan and make_policy do.
    void set_plan(PruningPlan plan, const PolicyInputs& inputs = {});
    /// The same by a policy that has learnt before, or one of the caller's own: it scores in place of the plan's.
    void set_plan(PruningPlan plan, std::unique_ptr<SelectionPolicy> policy);
    /// As it is carried out, see complete_plan.
    const PruningPlan& plan() const { return plan_; }
    const PolicyEntry& policy() const { return *entry_; }

    const ModelSettings& settings() const { return model_->settings(); }
    at::Device device() const { return model_->device(); }
    const Preprocessing& preprocessing() const { return model_->preprocessing(); }

    /// Multiply-accumulates of an image, 10^9. @param counts of per_image, where each image has its own cost: what it
    /// keeps at each stage; elsewhere the plan's, and none need be given
    double gmacs(const std::vector<std::int64_t>& counts = {}) const;
    /// The same by parts, see count_macs_per_stage.
    std::vector<double> gmacs_per_stage(const std::vector<std::int64_t>& counts = {}) const;

    /// On a GPU, with every policy but those of kAbove and those that draw, the second batch of a size records the
    /// whole pass, and later ones replay it. Of one image, a DeiT-S is recorded with other roundings (see
    /// OneImageBlocks).
    /// @param images (B, 3, H, W): uint8, or normalized numbers; on any device
    SessionOutput run(const at::Tensor& images) const;

    /// For each patch of each image where the token is that it has become part of, by a pass of its own: a stage, (B,
    /// N), int64. Its own place: it is kept; another's: it was merged into that one; N: fused; -1: deleted.
    /// @param images as for run. The plan must not be dense, and its policy one that keeps_tokens.
    std::vector<at::Tensor> sources(const at::Tensor& images) const;

  private:
    void use(PruningPlan plan, std::unique_ptr<SelectionPolicy> policy);
    SessionOutput fixed_shapes(const at::Tensor& inputs, OneImageBlocks* one_image = nullptr) const;
    // What runs the blocks of a recorded pass and decides, ready to do so; null where model and policy do.
    OneImageBlocks* one_image_blocks(std::int64_t batch);

    std::shared_ptr<const InferenceModel> model_;
    PruningPlan plan_;
    const PolicyEntry* entry_ = nullptr;         // the plan's policy
    std::unique_ptr<SelectionPolicy> policy_;    // null where it scores no tokens
    std::unique_ptr<OneImageBlocks> one_image_;  // of recorded passes alone, which take turns
    std::unique_ptr<RecordedForward> recorded_;  // captures `this`: a session stays where it is
};

}  // namespace dynvit
