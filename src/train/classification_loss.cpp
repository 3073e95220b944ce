// How far the classes are from the labels.
#include <ATen/ATen.h>

#include "dynvit/infer/multi_label.hpp"
#include "dynvit/train/losses.hpp"

namespace dynvit {

at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& target) {
    return -(target * at::log_softmax(logits, -1, at::kFloat)).sum(-1).mean();
}

at::Tensor binary_classification_loss(const at::Tensor& logits, const at::Tensor& target, double threshold) {
    const at::Tensor wanted = threshold < 1 ? target.gt(threshold).to(target.scalar_type()) : target;
    return at::binary_cross_entropy_with_logits(logits.to(at::kFloat), wanted);
}

at::Tensor soft_targets(const at::Tensor& labels, std::int64_t classes, double smoothing) {
    if (labels.dim() == 2) {
        const at::Tensor rows = widen_rows(labels, classes).to(at::kFloat);
        return rows * (1.0 - smoothing) + smoothing / static_cast<double>(classes);
    }
    const at::Tensor spread = at::full({labels.size(0), classes}, smoothing / static_cast<double>(classes),
                                       labels.options().dtype(at::kFloat));
    return spread.scatter_add(1, labels.unsqueeze(1), at::full({labels.size(0), 1}, 1.0 - smoothing, spread.options()));
}

namespace {

constexpr const char* kClassificationKind = "classification_kind";
constexpr const char* kBinary = "binary";

}  // namespace

bool LossSettings::binary() const {
    return choices.at(kClassificationKind) == kBinary;
}

Loss make_classification_loss() {
    Loss loss{"classification", 1.0, "weight of the cross-entropy with the labels"};
    loss.choice = {
        kClassificationKind,
        "classes that exclude each other, or each by itself (sigmoid; the mean over the classes): any number "
        "of them in a picture, or DeiT III's recipe; kl is of the same kind",
        std::vector<std::string>{"cross_entropy", kBinary}};
    loss.compute = [](const LossInputs& in) {
        return in.settings.binary()
                   ? binary_classification_loss(in.student.logits, in.target, in.settings.target_threshold)
                   : classification_loss(in.student.logits, in.target);
    };
    loss.needs_labels = true;
    loss.needs_head = true;
    return loss;
}

}  // namespace dynvit
