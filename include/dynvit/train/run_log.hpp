// Where a run's numbers and pictures go: metrics.jsonl always, TensorBoard's files beside it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dynvit/infer/evaluate.hpp"
#include "dynvit/io/image.hpp"
#include "dynvit/io/tensorboard_events.hpp"
#include "dynvit/train/run_folder.hpp"

namespace dynvit {

/// Draws which patches a model keeps: images with their names. A program that wants such pictures in TensorBoard has
/// one; empty: nothing is drawn.
using DrawKept = std::function<std::vector<std::pair<std::string, Image>>(const DynamicVitImpl& model)>;

class RunLog {
  public:
    /// @param step steps done before: a resumed run's
    RunLog(const RunFolder& run, const Experiment& experiment, std::int64_t step, DrawKept draw_kept);

    /// A line of means over steps; it has "step". Throws Error if a file cannot be written.
    void train(const nlohmann::json& line);

    /// An evaluation's result. @param weights "weights" or "ema"
    void eval(std::int64_t step, const EvalResult& result, const std::string& weights);

    /// What the model keeps, for TensorBoard; nothing is drawn without it.
    void pictures(std::int64_t step, const DynamicVitImpl& model);

  private:
    /// TensorBoard's file, made when there is something to write; null where the experiment wants none.
    TensorBoardWriter* tensorboard();

    const RunFolder& run_;
    const Experiment& experiment_;
    std::int64_t first_step_;
    DrawKept draw_kept_;
    std::optional<TensorBoardWriter> writer_;
};

}  // namespace dynvit
