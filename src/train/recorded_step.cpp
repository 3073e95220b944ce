#include "recorded_step.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit {
namespace {

// The first step sets up what later ones use; a recording pays off after a few more.
constexpr std::int64_t kRunsBefore = 2;

// Each keeps its outputs and its list of kernels; ever new selections must not fill the GPU with them.
constexpr std::size_t kMostKinds = 16;

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
    for (at::Tensor* tensor : output.tensors()) *tensor = tensor->clone();
    return output;
}

}  // namespace

RecordedStep::Kind* RecordedStep::find(const StepSelection& selection) {
    const auto found = std::ranges::find(kinds_, selection, &Kind::selection);
    if (found != kinds_.end()) return &*found;
    if (kinds_.size() == kMostKinds) return nullptr;
    return &kinds_.emplace_back(Kind{selection});
}

bool RecordedStep::record(Kind& kind, const Work& work, const std::vector<StepInputs>& inputs) {
    try {
        if (!graphs_) graphs_.emplace(device_);
        if (inputs_.empty()) {
            inputs_ = inputs;
            for (StepInputs& batch : inputs_) {
                for (at::Tensor* tensor : tensors_of(batch)) *tensor = tensor->clone();
                batch.images = batch.images.to(precision_);
            }
        }
        kind.graph = graphs_->record([&] { kind.outputs = work(inputs_); });
        return true;
    } catch (const c10::Error& error) {
        log::warn(str("training steps run without being recorded: ", error.what_without_backtrace()));
        forget();
        refused_ = true;
        return false;
    }
}

void RecordedStep::forget() {
    kinds_.clear();
    inputs_.clear();
    graphs_.reset();
}

StepOutput RecordedStep::run(const Work& work, const StepSelection& selection, const std::vector<StepInputs>& inputs) {
    std::vector<std::vector<std::int64_t>> shapes;
    for (const StepInputs& batch : inputs) shapes.push_back(batch.images.sizes().vec());
    if (shapes != shapes_ || selection.deterministic != deterministic_) {
        forget();
        shapes_ = std::move(shapes);
        deterministic_ = selection.deterministic;
    }
    Kind* const kind = refused_ ? nullptr : find(selection);
    if (!kind) return work(inputs);
    if (!kind->graph && kind->runs++ < kRunsBefore) return work(inputs);
    if (!kind->graph && !record(*kind, work, inputs)) return work(inputs);
    StepOutput outputs;
    graphs_->run(
        *kind->graph, [&] { copy_into(inputs_, inputs); }, [&] { outputs = cloned(kind->outputs); });
    return outputs;
}

}  // namespace dynvit
