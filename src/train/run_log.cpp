#include "dynvit/train/run_log.hpp"

#include <chrono>
#include <nlohmann/json.hpp>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/infer/eval_report.hpp"

namespace dynvit {
namespace {

double seconds_since_1970() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

RunLog::RunLog(const RunFolder& run, const Experiment& experiment, std::int64_t step, DrawKept draw_kept)
    : run_(run), experiment_(experiment), first_step_(step > 0 ? step + 1 : 0), draw_kept_(std::move(draw_kept)) {}

TensorBoardWriter* RunLog::tensorboard() {
    if (!experiment_.train.tensorboard || !run_.writes()) return nullptr;
    if (!writer_) {
        writer_.emplace(run_.path() / "tensorboard", first_step_, seconds_since_1970);
        writer_->text("config", first_step_, "```\n" + write_config(experiment_) + "```");
    }
    return &*writer_;
}

void RunLog::train(const nlohmann::json& line) {
    run_.log_metrics(line);
    TensorBoardWriter* const board = tensorboard();
    if (!board) return;
    const std::int64_t step = line.at("step");
    for (const auto& [name, value] : line.items()) {
        if (value.is_number() && name != "step") board->scalar("train/" + name, step, value.get<float>());
    }
    const nlohmann::json& kept = line.at("keep_ratio");
    for (std::size_t s = 0; s < kept.size(); ++s) {
        if (kept[s].is_number()) board->scalar(str("keep_ratio/stage ", s + 1), step, kept[s].get<float>());
    }
}

void RunLog::eval(std::int64_t step, const EvalResult& result, const std::string& weights) {
    nlohmann::json line = eval_json(result);
    line["kind"] = "eval";
    line["step"] = step;
    line["weights"] = weights;
    run_.log_metrics(line);
    TensorBoardWriter* const board = tensorboard();
    if (!board) return;
    const std::string name = str(result.policy == "dense" ? "dense" : "pruned", weights == "ema" ? " (ema)" : "");
    if (result.multi_label) {
        board->scalar("map/" + name, step, static_cast<float>(result.map));
    } else {
        board->scalar("top1/" + name, step, static_cast<float>(result.top1()));
        board->scalar("top5/" + name, step, static_cast<float>(result.top5()));
    }
    board->scalar("val_loss/" + name, step, static_cast<float>(result.loss));
}

void RunLog::pictures(std::int64_t step, const DynamicVitImpl& model) {
    TensorBoardWriter* const board = tensorboard();
    if (!board || !draw_kept_) return;
    for (const auto& [name, image] : draw_kept_(model)) {
        try {
            board->image("kept tokens/" + name, step, image);
        } catch (const Error& error) {  // a name that TensorBoard cannot show
            log::warn(error.what());
        }
    }
}

}  // namespace dynvit
