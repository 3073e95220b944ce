// How far the embedding of a model without a head is from the teacher's.
#include <ATen/ATen.h>

#include "dynvit/train/losses.hpp"

namespace dynvit {

at::Tensor embedding_loss(const at::Tensor& embedding, const at::Tensor& teacher_embedding) {
    return (1 - at::cosine_similarity(embedding.to(at::kFloat), teacher_embedding.to(at::kFloat), 1)).mean();
}

Loss make_embedding_loss() {
    Loss loss{"embedding", 0.0, "weight of 1 - the cosine to the teacher's embedding; for a model without a head"};
    loss.compute = [](const LossInputs& in) { return embedding_loss(in.student.logits, in.teacher->logits); };
    loss.needs_teacher = true;
    loss.needs_head = false;
    return loss;
}

}  // namespace dynvit
