#include "recorded_step.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit {
namespace {

// The first step sets up what later ones use; a recording pays off after a few more.
constexpr std::int64_t kRepeatsBefore = 2;

// Every tensor of a batch's inputs, in one order.
std::vector<at::Tensor*> tensors_of(StepInputs& inputs) {
    std::vector<at::Tensor*> tensors = {&inputs.images, &inputs.target, &inputs.noise.drop_path};
    for (at::Tensor& gumbel : inputs.noise.gumbel) tensors.push_back(&gumbel);
    std::erase_if(tensors, [](const at::Tensor* tensor) { return !tensor->defined(); });
    return tensors;
}

void copy_into(std::vector<StepInputs>& held, std::vector<StepInputs> inputs) {
    for (std::size_t b = 0; b < held.size(); ++b) {
        const std::vector<at::Tensor*> to = tensors_of(held[b]), from = tensors_of(inputs[b]);
        for (std::size_t i = 0; i < to.size(); ++i) to[i]->copy_(*from[i]);
    }
}

StepOutput cloned(StepOutput output) {
    Losses& l = output.losses;
    std::vector<at::Tensor*> tensors = {&l.classification, &l.kl,    &l.distill,       &l.ratio,
                                        &l.saliency,       &l.total, &output.bad_loss, &output.skipped};
    for (at::Tensor& ratio : output.keep_ratios) tensors.push_back(&ratio);
    for (at::Tensor* tensor : tensors) {
        if (tensor->defined()) *tensor = tensor->clone();
    }
    return output;
}

}  // namespace

std::optional<RecordedStep::Recording> RecordedStep::record(const Work& work, const std::vector<StepInputs>& inputs) {
    try {
        graphs_.emplace(device_);
        Recording recording{0, inputs, {}};
        for (StepInputs& batch : recording.inputs) {
            for (at::Tensor* tensor : tensors_of(batch)) *tensor = tensor->clone();
            batch.images = batch.images.to(precision_);
        }
        recording.graph = graphs_->record([&] { recording.outputs = work(recording.inputs); });
        return recording;
    } catch (const c10::Error& error) {
        log::warn(str("training steps run without being recorded: ", error.what_without_backtrace()));
        graphs_.reset();
        refused_ = true;
        return std::nullopt;
    }
}

StepOutput RecordedStep::run(const Work& work, const StepSelection& selection, const std::vector<StepInputs>& inputs) {
    Shape shape{selection, {}};
    for (const StepInputs& batch : inputs) shape.sizes.push_back(batch.images.sizes().vec());
    if (shape != shape_) {
        shape_ = std::move(shape);
        repeated_ = 0;
        recording_.reset();
        graphs_.reset();
    } else {
        ++repeated_;
    }
    if (!recording_ && !refused_ && repeated_ >= kRepeatsBefore) recording_ = record(work, inputs);
    if (!recording_) return work(inputs);
    StepOutput outputs;
    graphs_->run(
        recording_->graph, [&] { copy_into(recording_->inputs, inputs); },
        [&] { outputs = cloned(recording_->outputs); });
    return outputs;
}

}  // namespace dynvit
