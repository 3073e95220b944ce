#include "recorded_forward.hpp"

#include <ATen/ATen.h>

namespace dynvit {
namespace {

// Each keeps its inputs and outputs; a program with ever new batch sizes must not fill the GPU with them.
constexpr std::size_t kMostRecordings = 16;

}  // namespace

RecordedForward::RecordedForward(std::shared_ptr<const InferenceModel> model, Forward forward)
    : model_(std::move(model)), forward_(std::move(forward)) {}

const RecordedForward::Recording& RecordedForward::record(const at::Tensor& images) {
    if (!graphs_) graphs_.emplace(model_->device());
    Recording recording{0, model_->prepare(images), {}};
    recording.graph = graphs_->record([&] { recording.outputs = forward_(recording.inputs); });
    return recordings_[images.size(0)].emplace(std::move(recording));
}

SessionOutput RecordedForward::operator()(const at::Tensor& images) {
    const std::int64_t batch = images.size(0);
    std::unique_lock<std::mutex> lock(mutex_);
    const auto found = recordings_.find(batch);
    if (found == recordings_.end() || batch == 0) {
        if (recordings_.size() == kMostRecordings) {
            recordings_.clear();
            graphs_.reset();
        }
        recordings_.emplace(batch, std::nullopt);
        lock.unlock();
        return forward_(model_->prepare(images));
    }
    const Recording& recording = found->second ? *found->second : record(images);
    SessionOutput outputs;
    graphs_->run(
        recording.graph, [&] { model_->prepare_into(recording.inputs, images); },
        [&] {
            outputs = recording.outputs;
            outputs.logits = outputs.logits.clone();
            for (at::Tensor& kept : outputs.kept) kept = kept.clone();
        });
    return outputs;
}

}  // namespace dynvit
