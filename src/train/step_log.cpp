#include "step_log.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"

namespace dynvit {
namespace {

std::vector<std::string> names_of(const std::vector<Batch>& batches) {
    std::vector<std::string> names;
    for (const Batch& batch : batches) names.insert(names.end(), batch.names.begin(), batch.names.end());
    return names;
}

std::string progress_text(const nlohmann::json& line) {
    const auto number = [](const nlohmann::json& value, int digits) {
        return value.is_number() ? fixed(value, digits) : std::string("-");  // "-": every step was skipped
    };
    std::string text = str("loss ", number(line["loss"], 4));
    if (!line["keep_ratio"].empty()) text += "  kept";
    for (const nlohmann::json& ratio : line["keep_ratio"]) text += str(' ', number(ratio, 2));
    return str(text, "  ", number(line["images_per_second"], 0), " img/s");
}

// "a, b, c and 4 more"
std::string some_of(std::vector<std::string> names) {
    constexpr std::size_t kMost = 8;
    const std::string more = names.size() > kMost ? str(" and ", names.size() - kMost, " more") : "";
    names.resize(std::min(names.size(), kMost));
    return join(names, ", ") + more;
}

}  // namespace

StepLog::StepLog(const TrainSettings& settings, const RunFolder& run, RunLog& lines, const Loader& loader,
                 RunProgress& progress)
    : settings_(settings), run_(run), lines_(lines), loader_(loader), progress_(progress), line_step_(progress.step) {}

void StepLog::add(const StepPlan& plan, const StepOutput& output, const std::vector<Batch>& batches, bool last) {
    meters_.add(output);
    skipped_.add(progress_.step, output, names_of(batches));
    if (last || progress_.step % settings_.log_every == 0) {
        tell_skipped();  // a line waits for the device anyway
        write_line(plan);
        tell_corrupt();
    } else if (progress_.step % std::min(settings_.log_every, settings_.max_skipped_steps) == 0) {
        tell(skipped_.take_earlier());
    }
}

void StepLog::tell_skipped() {
    tell(skipped_.take());
}

void StepLog::pause() {
    tell_corrupt();
    since_line_.pause();
}

void StepLog::write_line(const StepPlan& plan) {
    nlohmann::json line = meters_.take();
    line["kind"] = "train";
    line["step"] = progress_.step;
    line["epoch"] = static_cast<double>(progress_.step) / static_cast<double>(progress_.steps_per_epoch);
    line["lr"] = plan.lr;
    line["skipped_steps"] = progress_.skipped;
    const std::int64_t images = (progress_.step - line_step_) * settings_.batch_size * settings_.accumulate;
    line["images_per_second"] = static_cast<double>(images) / since_line_.seconds();
    since_line_.restart();
    line_step_ = progress_.step;
    lines_.train(line);
    text_ = progress_text(line);
}

void StepLog::tell(const std::vector<SkippedSteps::Skipped>& steps) {
    for (const SkippedSteps::Skipped& step : steps) {
        ++progress_.skipped;
        if (!step.bad_loss && settings_.precision == "float16") {  // the scaler looking for its scale
            log::debug(str("step ", step.step, " was skipped: a gradient is too large for float16 at this loss scale"));
            continue;
        }
        log::warn(str("step ", step.step, " was skipped: its ", step.bad_loss ? "loss" : "gradient",
                      " is not finite; its pictures: ", some_of(step.names)));
    }
    if (skipped_.in_a_row() < settings_.max_skipped_steps) return;
    throw Error("train", "the loss or a gradient was not finite in the ", skipped_.in_a_row(), " steps up to ",
                progress_.step,
                std::filesystem::exists(run_.last()) ? "; the last good checkpoint is " + run_.last().string()
                                                     : "; no checkpoint was written");
}

void StepLog::tell_corrupt() {
    for (const CorruptSample& sample : loader_.corrupt()) {
        if (corrupt_.insert(sample.name).second) log::warn("replaced by another picture: " + sample.reason);
    }
}

}  // namespace dynvit
