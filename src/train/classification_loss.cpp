// How far the classes are from the labels.
#include <ATen/ATen.h>

#include "dynvit/train/losses.hpp"

namespace dynvit {

at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& target) {
    return -(target * at::log_softmax(logits, -1, at::kFloat)).sum(-1).mean();
}

at::Tensor soft_targets(const at::Tensor& labels, std::int64_t classes, double smoothing) {
    const at::Tensor spread = at::full({labels.size(0), classes}, smoothing / static_cast<double>(classes),
                                       labels.options().dtype(at::kFloat));
    return spread.scatter_add(1, labels.unsqueeze(1), at::full({labels.size(0), 1}, 1.0 - smoothing, spread.options()));
}

Loss make_classification_loss() {
    Loss loss{"classification", 1.0, "weight of the cross-entropy with the labels"};
    loss.compute = [](const LossInputs& in) { return classification_loss(in.student.logits, in.target); };
    loss.needs_labels = true;
    loss.needs_head = true;
    return loss;
}

}  // namespace dynvit
