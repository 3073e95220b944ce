// AdamW in the groups that DynamicViT is fine-tuned with.
#pragma once

#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"
#include "dynvit/io/safetensors.hpp"
#include "dynvit/models/vision_transformer.hpp"

namespace dynvit {

struct OptimizerSettings {
    double weight_decay = 0.05;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double clip_grad = 0.0;
    bool train_embeddings = false;
    std::int64_t frozen_blocks = 0;

    /// Whether training moves the parameter of that name.
    bool trains(const std::string& name) const;

    void fields(FieldVisitor& v) {
        v.field("weight_decay", weight_decay, "decoupled; none for biases and other 1-D parameters", at_least(0));
        v.field("beta1", beta1, "decay of the gradient's mean", between(0, 0.999999));
        v.field("beta2", beta2, "decay of its square's mean", between(0, 0.999999999));
        v.field("eps", eps, "added to the denominator", above(0));
        v.field("clip_grad", clip_grad, "largest norm of all gradients together; 0: any", at_least(0));
        v.field("train_embeddings", train_embeddings,
                "cls_token and pos_embed too; the reference leaves them as they are");
        v.field("frozen_blocks", frozen_blocks,
                "so many first blocks, and all before them, stay as they are: those before the first stage see every "
                "token anyway",
                at_least(0));
    }
};

/// AdamW (Loshchilov and Hutter, 2019) over the parameters of a model that it trains. Four groups: prediction modules
/// or backbone, with or without weight decay. All state lives on the parameters' device, the learning rates too; a step
/// makes no host synchronisation and can be recorded.
class AdamW {
  public:
    /// Fresh state for the model's parameters, on their device.
    AdamW(torch::nn::Module& model, const OptimizerSettings& settings);

    /// Of the steps that follow. @param lr the prediction modules'; @param backbone_lr everything else's
    void set_learning_rates(double lr, double backbone_lr);

    /// One step from gradients(). A parameter without one is left alone.
    /// @param skip (1), float32, on the parameters' device: where it is 1, nothing changes; undefined: 0
    void step(const at::Tensor& skip = {});

    /// The gradients that backward passes have left in the parameters since zero_grad(), group by group.
    std::vector<at::Tensor> gradients() const;

    void zero_grad();

    /// Moments and step counts under "exp_avg.NAME", "exp_avg_sq.NAME" and "step.NAME".
    TensorMap state() const;
    /// Puts back what state() gave. Throws Error naming the file and the tensor that is missing or of another shape.
    void load_state(const TensorMap& state, const std::string& file);

  private:
    struct Group {
        bool backbone = false;
        bool decay = false;
        std::vector<std::string> names;
        std::vector<at::Tensor> parameters, exp_avg, exp_avg_sq, steps;
    };

    OptimizerSettings settings_;
    std::vector<Group> groups_;
    at::Tensor lr_, backbone_lr_;  // 0-dimensional
};

/// Scales gradients so that their common norm is at most `max_norm`, without a host synchronisation.
/// @return the norm before, 0-dimensional
at::Tensor clip_grad_norm(const std::vector<at::Tensor>& gradients, double max_norm);

}  // namespace dynvit
