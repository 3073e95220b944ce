// How far the classes are from the teacher's.
#include <ATen/ATen.h>

#include "dynvit/infer/multi_label.hpp"
#include "dynvit/train/losses.hpp"

namespace dynvit {

at::Tensor kl_loss(const at::Tensor& logits, const at::Tensor& teacher_logits, bool reverse) {
    const at::Tensor student = at::log_softmax(logits, -1, at::kFloat);
    const at::Tensor teacher = at::log_softmax(teacher_logits, -1, at::kFloat);
    const at::Tensor divergence = reverse ? student.exp() * (student - teacher) : teacher.exp() * (teacher - student);
    return divergence.sum(-1).mean();
}

at::Tensor binary_kl_loss(const at::Tensor& logits, const at::Tensor& teacher_logits, bool reverse) {
    return (reverse ? independent_kl(teacher_logits, logits) : independent_kl(logits, teacher_logits)).mean();
}

Loss make_kl_loss() {
    Loss loss{"kl", 0.5, "weight of the KL divergence to the teacher's class probabilities"};
    loss.choice = {"kl_direction", "which of the two KL(teacher || student) or its reverse",
                   std::vector<std::string>{"teacher_student", "student_teacher"}};
    loss.compute = [](const LossInputs& in) {
        const auto divergence = in.settings.binary() ? binary_kl_loss : kl_loss;
        return divergence(in.student.logits, in.teacher->logits,
                          in.settings.choices.at("kl_direction") == "student_teacher");
    };
    loss.needs_teacher = true;
    loss.needs_head = true;
    return loss;
}

}  // namespace dynvit
