// Evaluation results for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

#include "dynvit/infer/evaluate.hpp"

namespace dynvit {

/// A row of `dynvit eval --json`: policy, keep_ratio, images, top1_count, top5_count, top1, top5 (percent), loss,
/// gmacs, gmacs_per_stage, tokens_per_stage; beside a dense row, drop and drop_error (percent), agree (pictures), kl
/// (nats); of per_image, thresholds and tokens_spread_per_stage; where objects are known, object_kept_per_stage
/// (shares).
nlohmann::json eval_json(const EvalResult& result);

/// A table with a heading and a line a result.
std::string eval_table(const std::vector<EvalResult>& results);

}  // namespace dynvit
