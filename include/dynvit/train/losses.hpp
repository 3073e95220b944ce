// The four losses of DynamicViT (Rao et al., 2021, section 3.3), one that teaches the selection, and their sum.
#pragma once

#include <optional>

#include "dynvit/infer/inference_model.hpp"

namespace dynvit {

struct LossSettings {
    double classification = 1.0;
    double kl = 0.5;
    double distill = 0.5;
    double ratio = 2.0;
    double saliency = 0.0;
    std::string kl_direction = "teacher_student";
    std::string distill_kind = "mse";
    double label_smoothing = 0.1;

    void fields(FieldVisitor& v) {
        v.field("classification", classification, "weight of the cross-entropy with the labels", at_least(0));
        v.field("kl", kl, "weight of the KL divergence to the teacher's class probabilities", at_least(0));
        v.field("distill", distill, "weight of the distance to the teacher's tokens", at_least(0));
        v.field("ratio", ratio, "weight of the squared distance to the target keep ratios", at_least(0));
        v.field("saliency", saliency,
                "weight of the distance between the modules' scores of the tokens and the teacher's use of them",
                at_least(0));
        v.field("kl_direction", kl_direction, "which of the two KL(teacher || student) or its reverse",
                std::vector<std::string>{"teacher_student", "student_teacher"});
        v.field("distill_kind", distill_kind, "that distance: mean square, or KL divergence over the channels' softmax",
                std::vector<std::string>{"mse", "kl"});
        v.field("label_smoothing", label_smoothing, "share of the target spread over all classes", between(0, 1));
    }

    bool need_teacher() const { return kl > 0 || distill > 0 || saliency > 0; }
};

/// Each as a 0-dimensional tensor on the model's device; undefined where its weight is 0.
struct Losses {
    at::Tensor classification, kl, distill, ratio, saliency;
    at::Tensor total;  // the weighted sum
};

/// Cross-entropy with soft targets, mean over images.
/// @param logits (B, K); @param target (B, K), rows that sum to 1
at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& target);

/// One-hot labels with `smoothing` of each spread evenly over the classes.
/// @param labels (B), int64
at::Tensor soft_targets(const at::Tensor& labels, std::int64_t classes, double smoothing);

/// KL(teacher || student), or with `reverse` KL(student || teacher), of the class distributions; mean over images.
at::Tensor kl_loss(const at::Tensor& logits, const at::Tensor& teacher_logits, bool reverse = false);

/// Distance of the kept tokens to the teacher's, mean over kept tokens of all images; 0 where no image keeps any.
/// Squared, mean over channels, or with `kl` the divergence KL(teacher || student) of the channels' softmax.
/// @param features, teacher_features (B, N, C); @param decision of the last stage, (B, N); no gradient flows to it
at::Tensor token_distillation_loss(const at::Tensor& features, const at::Tensor& teacher_features,
                                   const at::Tensor& decision, bool kl = false);

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

/// All of them.
/// @param target (B, K) soft targets; undefined without classification loss
/// @param teacher the dense model's output on the same images, with the stages' saliency if that has a weight; empty
/// without teacher losses
/// @param keep_ratios a target a stage
Losses compute_losses(const LossSettings& settings, const TrainingOutput& student,
                      const std::optional<InferenceModel::DenseOutput>& teacher, const at::Tensor& target,
                      const std::vector<double>& keep_ratios);

}  // namespace dynvit
