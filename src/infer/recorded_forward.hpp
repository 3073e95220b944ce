// A forward pass that is recorded for each batch size it is asked for again.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "dynvit/infer/inference_session.hpp"
#include "dynvit/ops/device_graphs.hpp"

namespace dynvit {

/// Replays whole forward passes of fixed shapes. May be used from several threads: they take turns.
class RecordedForward {
  public:
    /// From what InferenceModel::prepare makes to the outputs, waiting for nothing in between. What is recorded never
    /// runs twice at once; what is not may.
    using Forward = std::function<SessionOutput(const at::Tensor& inputs, bool recording)>;
    /// Makes what a recorded pass of such a batch needs and may not make itself.
    using Prepare = std::function<void(std::int64_t batch)>;

    RecordedForward(std::shared_ptr<const InferenceModel> model, Forward forward, Prepare prepare);

    /// Runs the forward pass: as it is for a batch size that is met for the first time, recorded after that. One that
    /// can't be recorded, for want of memory say, goes on running as it is.
    SessionOutput operator()(const at::Tensor& images);

  private:
    struct Recording {
        std::size_t graph;
        at::Tensor inputs;
        SessionOutput outputs;  // but for `kept`, which are
        at::Tensor kept;        // parts of this one, undefined without a stage
        std::vector<std::int64_t> kept_sizes;
    };

    /// Empty where it fails.
    std::optional<Recording> record(const at::Tensor& images);

    std::shared_ptr<const InferenceModel> model_;
    Forward forward_;
    Prepare prepare_;
    std::mutex mutex_;
    std::optional<DeviceGraphs> graphs_;
    std::map<std::int64_t, std::optional<Recording>> recordings_;  // of each batch size met; empty after the first time
    std::set<std::int64_t> refused_;                               // batch sizes whose recording failed
};

}  // namespace dynvit
