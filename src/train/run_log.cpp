#include "dynvit/train/run_log.hpp"

#include <chrono>
#include <nlohmann/json.hpp>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/models/keep_ratio.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kPictures = 6;

double seconds_since_1970() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

RunLog::RunLog(const RunFolder& run, const Experiment& experiment, std::int64_t step)
    : run_(run), experiment_(experiment), first_step_(step > 0 ? step + 1 : 0) {}

TensorBoardWriter* RunLog::tensorboard() {
    if (!experiment_.train.tensorboard) return nullptr;
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
    board->scalar("top1/" + name, step, static_cast<float>(result.top1()));
    board->scalar("top5/" + name, step, static_cast<float>(result.top5()));
    board->scalar("val_loss/" + name, step, static_cast<float>(result.loss));
}

void RunLog::pictures(std::int64_t step, DynamicVit model, const EvalOptions& options) {
    const ModelSettings& settings = model->settings();
    TensorBoardWriter* const board = tensorboard();
    if (!board || settings.stages() == 0) return;
    if (!samples_) {
        try {
            samples_ = sample_pictures(experiment_.data, settings, kPictures);
            make_names_unique(*samples_);
        } catch (const Error& error) {
            log::warn(str("no pictures for TensorBoard: ", error.what()));
            samples_.emplace();
        }
    }
    const auto engine = std::make_shared<const InferenceModel>(*model, options.precision);
    const auto policy = make_policy("predicted", engine);
    const auto tokens = tokens_per_stage(experiment_.train.stage_targets(settings.stages()), settings.patches());
    for (const NamedImage& sample : *samples_) {
        const Image drawn = draw_stages(*engine, *policy, tokens, sample.image).row;
        try {
            board->image("kept tokens/" + sample.name, step, drawn);
        } catch (const Error& error) {  // a name that TensorBoard cannot show
            log::warn(error.what());
        }
    }
}

}  // namespace dynvit
