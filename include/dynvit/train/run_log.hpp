// Where a run's numbers and pictures go: metrics.jsonl always, TensorBoard's files beside it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <optional>

#include "dynvit/io/tensorboard_events.hpp"
#include "dynvit/train/run_folder.hpp"
#include "dynvit/viz/stage_panels.hpp"

namespace dynvit {

class RunLog {
  public:
    /// @param step steps done before: a resumed run's
    RunLog(const RunFolder& run, const Experiment& experiment, std::int64_t step);

    /// A line of means over steps; it has "step". Throws Error if a file cannot be written.
    void train(const nlohmann::json& line);

    /// An evaluation's result. @param weights "weights" or "ema"
    void eval(std::int64_t step, const EvalResult& result, const std::string& weights);

    /// A few validation pictures with what each stage keeps, for TensorBoard; nothing without it, without stages, or
    /// where no validation picture is to be had.
    void pictures(std::int64_t step, DynamicVit model, const EvalOptions& options);

  private:
    /// TensorBoard's file, made when there is something to write; null where the experiment wants none.
    TensorBoardWriter* tensorboard();

    const RunFolder& run_;
    const Experiment& experiment_;
    std::int64_t first_step_;
    std::optional<TensorBoardWriter> writer_;
    std::optional<std::vector<NamedImage>> samples_;  // read when they are first drawn
};

}  // namespace dynvit
