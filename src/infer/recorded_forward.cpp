#include "recorded_forward.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit {
namespace {

// Each keeps its inputs and outputs; a program with ever new batch sizes must not fill the GPU with them.
constexpr std::size_t kMostRecordings = 16;

// One after the other: (n) each, of one type. They may lie so already.
at::Tensor joined(const std::vector<at::Tensor>& tensors) {
    if (tensors.empty()) return {};
    std::int64_t end = tensors.front().storage_offset();
    for (const at::Tensor& tensor : tensors) {
        const bool follows = tensor.is_alias_of(tensors.front()) && tensor.storage_offset() == end;
        if (!follows || !tensor.is_contiguous()) return at::cat(tensors);
        end += tensor.numel();
    }
    return tensors.front().as_strided({end - tensors.front().storage_offset()}, {1});
}

}  // namespace

RecordedForward::RecordedForward(std::shared_ptr<const InferenceModel> model, Forward forward, Prepare prepare)
    : model_(std::move(model)), forward_(std::move(forward)), prepare_(std::move(prepare)) {}

std::optional<RecordedForward::Recording> RecordedForward::record(const at::Tensor& images) {
    try {
        if (!graphs_) graphs_.emplace(model_->device());
        prepare_(images.size(0));
        Recording recording{0, model_->prepare(images), {}, {}, {}};
        recording.graph = graphs_->record([&] {
            recording.outputs = forward_(recording.inputs, /*recording=*/true);
            recording.kept = joined(recording.outputs.kept);  // one copy of all is faster than one of each
        });
        for (const at::Tensor& kept : recording.outputs.kept) recording.kept_sizes.push_back(kept.size(0));
        return recording;
    } catch (const c10::Error& error) {
        log::warn(str("batches of ", images.size(0), " run without being recorded: ", error.what_without_backtrace()));
        refused_.insert(images.size(0));
        return std::nullopt;
    }
}

SessionOutput RecordedForward::operator()(const at::Tensor& images) {
    const std::int64_t batch = images.size(0);
    std::unique_lock<std::mutex> lock(mutex_);
    if (recordings_.size() == kMostRecordings && !recordings_.contains(batch)) {
        recordings_.clear();
        graphs_.reset();
    }
    const auto [place, is_new] = recordings_.try_emplace(batch);
    std::optional<Recording>& recording = place->second;
    if (!is_new && batch > 0 && !recording && !refused_.contains(batch)) recording = record(images);
    if (!recording) {
        lock.unlock();
        return forward_(model_->prepare(images), /*recording=*/false);
    }
    SessionOutput outputs;
    graphs_->run(
        recording->graph, [&] { model_->prepare_into(recording->inputs, images); },
        [&] {
            outputs = recording->outputs;
            outputs.logits = outputs.logits.clone();
            if (recording->kept.defined()) {
                outputs.kept = recording->kept.clone().split_with_sizes(recording->kept_sizes);
            }
        });
    return outputs;
}

}  // namespace dynvit
