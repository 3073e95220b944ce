// What is told of classes that do not exclude each other: any number of them may be in a picture.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Of a class: the mean, over the pictures that have it, of the precision among the pictures that score at least as
/// high. That is the area under the curve of precision over recall, in steps, as scikit-learn's average_precision_score
/// has it; equal scores count as one step.
/// @param scores (M), of any unit @param has_it (M), bool or uint8 @return not a number where no picture has the class
double average_precision(const at::Tensor& scores, const at::Tensor& has_it);

struct MeanAveragePrecision {
    double mean = 0.0;         // over the classes that any picture has; 0 where there is none
    std::int64_t classes = 0;  // so many
};

/// @param scores (M, K), a row a picture @param has (M, K), bool or uint8
MeanAveragePrecision mean_average_precision(const at::Tensor& scores, const at::Tensor& has);

/// KL(reference || the other) of each class's own probability, sigmoid(logit), the sum over the classes: what the
/// divergence of two distributions is where classes are independent of each other.
/// @param logits, reference_logits (B, K) @return (B), float32, nats
at::Tensor independent_kl(const at::Tensor& logits, const at::Tensor& reference_logits);

/// Rows of classes for a model that may have more: (B, classes).
/// @param rows (B, K), K at most `classes`
at::Tensor widen_rows(const at::Tensor& rows, std::int64_t classes);

}  // namespace dynvit
