// The losses: the four of DynamicViT (Rao et al., 2021, section 3.3), one for models without a head, one that teaches
// the selection, and the list of all.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"
#include "dynvit/infer/inference_model.hpp"
#include "dynvit/io/safetensors.hpp"

namespace dynvit {

/// The section train.loss. Its keys, defaults and comments come from the list of losses, see all_losses().
struct LossSettings {
    LossSettings();

    std::map<std::string, double> weights;       // of every loss, by its name; 0: it is not computed
    std::map<std::string, std::string> choices;  // of every LossChoice, by its key
    double label_smoothing = 0.1;
    double target_threshold = 1.0;
    std::string distill_mean = "all";

    void fields(FieldVisitor& v);

    /// Whether classes are learnt each by itself, so that a picture may have any number of them.
    bool binary() const;
    bool need_labels() const;
    bool need_teacher() const;
    bool need_saliency() const;
    /// Whether a loss with a weight has a value in a run's last step.
    /// @param draws whether that step draws decisions
    bool teach(bool draws) const;
};

/// Of several processes: from the number of this one's kept tokens, 0-dimensional, to what its sum over them is divided
/// by. Empty: that number.
using TokenCount = std::function<at::Tensor(const at::Tensor& kept)>;

/// What losses are computed from.
struct LossInputs {
    const LossSettings& settings;
    const TrainingOutput& student;
    const InferenceModel::DenseOutput* teacher;  // null where no loss needs one
    const at::Tensor& target;                    // (B, K), soft; undefined where no loss needs labels
    const std::vector<double>& keep_ratios;      // a target a stage
    const TokenCount& token_count;
};

/// One of several ways to compute a loss: a key of train.loss beside the weights.
struct LossChoice {
    std::string key, comment;
    std::vector<std::string> values;  // the first where train.loss says nothing
};

/// An entry of the list: all that the rest of training knows of a loss.
struct Loss {
    std::string name;     // the key of its weight in train.loss, and of its mean in metrics.jsonl
    double weight = 0.0;  // where train.loss says nothing
    std::string comment;  // on the weight
    /// 0-dimensional, on the model's device; undefined where the student's output holds nothing that it speaks of.
    at::Tensor (*compute)(const LossInputs& inputs) = nullptr;
    bool needs_labels = false;
    bool needs_teacher = false;           // the dense model's output on the same images
    bool needs_saliency = false;          // with each stage's saliency in it, and the modules' scores with a gradient
    bool needs_draws = false;             // it has no value where tokens are removed and not drawn
    std::optional<bool> needs_head = {};  // it speaks of classes (true) or of what a model without a head gives (false)
    std::optional<LossChoice> choice = {};
};

/// Every loss, in the order of train.loss and of the sum. To add one: a file that defines make_NAME_loss(), and a line
/// in losses.cpp.
const std::vector<Loss>& all_losses();

/// Names of the losses that have a need: loss_names(&Loss::needs_teacher).
std::vector<std::string> loss_names(bool Loss::*need);

/// A step's losses, each as a 0-dimensional tensor on the model's device.
struct Losses {
    TensorMap each;    // by name; those of weight 0, or without a value, are not there
    at::Tensor total;  // the weighted sum
};

/// All of them.
/// @param target (B, K) soft targets; undefined where no loss needs labels
/// @param teacher the dense model's output on the same images, with the stages' saliency if a loss needs it; empty
/// without teacher losses
/// @param keep_ratios a target a stage
/// @param token_count for the loss that is a mean over tokens
Losses compute_losses(const LossSettings& settings, const TrainingOutput& student,
                      const std::optional<InferenceModel::DenseOutput>& teacher, const at::Tensor& target,
                      const std::vector<double>& keep_ratios, const TokenCount& token_count = {});

/// Cross-entropy with soft targets, mean over images.
/// @param logits (B, K); @param target (B, K), rows that sum to 1
at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& target);

/// Cross-entropy of each class by itself, mean over images and classes, as timm's BinaryCrossEntropy and DeiT III have
/// it.
/// @param logits (B, K); @param target (B, K), 0 to 1
/// @param threshold targets above it count as 1, others as 0, so that both of two mixed pictures' classes are there
/// (DeiT III: 0); 1: they stay as they are
at::Tensor binary_classification_loss(const at::Tensor& logits, const at::Tensor& target, double threshold = 1.0);

/// One-hot labels with `smoothing` of each spread evenly over the classes: 1 - smoothing + smoothing / K where the
/// class is, smoothing / K elsewhere. Rows of several classes likewise.
/// @param labels (B), int64, or a row of classes each: (B, at most K), uint8 @return (B, K)
at::Tensor soft_targets(const at::Tensor& labels, std::int64_t classes, double smoothing);

/// KL(teacher || student), or with `reverse` KL(student || teacher), of the class distributions; mean over images.
at::Tensor kl_loss(const at::Tensor& logits, const at::Tensor& teacher_logits, bool reverse = false);

/// The same of each class's own probability, sigmoid(logit): the sum over the classes, mean over images.
at::Tensor binary_kl_loss(const at::Tensor& logits, const at::Tensor& teacher_logits, bool reverse = false);

/// 1 - the cosine of the embeddings, mean over images. @param embedding, teacher_embedding (B, C)
at::Tensor embedding_loss(const at::Tensor& embedding, const at::Tensor& teacher_embedding);

/// Distance of the kept tokens to the teacher's, mean over kept tokens of all images; 0 where no image keeps any.
/// Squared, mean over channels, or with `kl` the divergence KL(teacher || student) of the channels' softmax.
/// @param features, teacher_features (B, N, C); @param decision of the last stage, (B, N); no gradient flows to it
/// @param count in place of the number of kept tokens; empty: that
at::Tensor token_distillation_loss(const at::Tensor& features, const at::Tensor& teacher_features,
                                   const at::Tensor& decision, bool kl = false, const TokenCount& count = {});

/// Squared distance of each image's share of kept tokens to its stage's target, mean over images and stages.
/// @param decisions a stage: (B, N); @param targets as many, of N
at::Tensor keep_ratio_loss(const std::vector<at::Tensor>& decisions, const std::vector<double>& targets);

/// How far a stage's scores are from the teacher's use of the tokens: with u_i the use of a token times n / the image's
/// sum, over the n tokens that the stage has to choose from, mean_i (u_i log u_i - u_i score_i - u_i + exp(score_i)),
/// the generalized KL divergence of u and exp(score). So scores rank an image's tokens, and have one scale for all
/// images: 0, or pi_keep = 1/2, is the image's mean use. Mean over images.
/// @param log_prob (B, n, 2), the stage's; its score is log pi_keep - log pi_drop
/// @param saliency (B, n), at least 0, in any unit: the teacher's; 0 for a token that is no longer there
at::Tensor saliency_loss(const at::Tensor& log_prob, const at::Tensor& saliency);

}  // namespace dynvit
