// Evaluation results for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

#include "dynvit/infer/evaluate.hpp"

namespace dynvit {

/// A row of `dynvit eval --json`: policy, keep_ratio, images, gmacs, gmacs_per_stage, tokens_per_stage; of pictures
/// with labels, top1_count, top5_count, top1, top5 (percent), loss; of multi-label ones map (mean average precision,
/// percent), map_classes, loss and, beside a dense row, drop (percent); beside a dense row, agree (pictures), kl (nats)
/// and, with labels, drop and drop_error (percent); of per_image, thresholds and tokens_spread_per_stage; beside
/// neighbours, knn_count (pictures) and knn_top1 (percent); where objects are known, object_kept_per_stage (shares).
nlohmann::json eval_json(const EvalResult& result);

/// What the results' neighbours are: k, pictures, classes.
nlohmann::json neighbours_json(const NeighbourBank& bank);

/// A table with a heading and a line a result; without labels, of the agreement with the dense model.
std::string eval_table(const std::vector<EvalResult>& results);

}  // namespace dynvit
