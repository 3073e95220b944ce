// dynvit train: from a YAML file to a run folder.
#include <ATen/Parallel.h>

#include "command.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/dist/process_group.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/train/trainer.hpp"
#include "dynvit/viz/stage_panels.hpp"
#include "stop_signals.hpp"

namespace dynvit::tool {

namespace {

std::string summary(const TrainResult& result, const std::string& output) {
    std::string text = str("trained to step ", result.steps, " in ", clock_text(result.seconds), "; ", output,
                           "/checkpoints/last.safetensors\n");
    if (result.reached_target) text += "stopped early: train.stop_at was reached\n";
    const bool multi_label = !result.last_eval.empty() && result.last_eval.front().multi_label;
    if (result.best_top1 >= 0)
        text += str("best ", multi_label ? "mAP " : "top-1 ", fixed(result.best_top1, 2), " %; ", output,
                    "/checkpoints/best.safetensors\n");
    if (result.skipped_steps > 0)
        text += str(result.skipped_steps, " steps were skipped: their loss or a gradient was not finite\n");
    if (result.corrupt_pictures > 0)
        text += str(result.corrupt_pictures, " corrupt pictures were replaced by others\n");
    if (!result.last_eval.empty()) text += eval_table(result.last_eval);
    if (!result.last_ema_eval.empty()) text += "averaged weights (ema):\n" + eval_table(result.last_ema_eval);
    return text;
}

// Draws a few validation pictures, each beside what every stage keeps of it.
class StagePictures {
  public:
    explicit StagePictures(const Experiment& experiment) : experiment_(experiment) {}

    std::vector<std::pair<std::string, Image>> operator()(const DynamicVitImpl& model) {
        constexpr std::int64_t kPictures = 6;
        const ModelSettings& settings = model.settings();
        if (settings.stages() == 0) return {};
        if (!samples_) {
            try {
                ReadPictures read = sample_pictures(experiment_.data, settings, kPictures);
                for (const std::string& reason : read.left_out) log::warn("not drawn: " + reason);
                samples_ = std::move(read.pictures);
                make_names_unique(*samples_);
            } catch (const Error& error) {
                log::warn(str("no pictures for TensorBoard: ", error.what()));
                samples_.emplace();
            }
        }
        const InferenceSession session(
            model, plan_for_shares(settings, experiment_.train.stage_targets(settings.stages())),
            parse_precision(experiment_.train.precision), {}, experiment_.data.preprocessing);
        std::vector<std::pair<std::string, Image>> drawn;
        for (const NamedImage& sample : *samples_) {
            drawn.emplace_back(sample.name, draw_stages(session, sample.image).row);
        }
        return drawn;
    }

  private:
    const Experiment& experiment_;
    std::optional<std::vector<NamedImage>> samples_;  // read when they are first drawn
};

// The settings; where they do not say how pictures are prepared, as the weights that training starts from have it.
Experiment read_experiment(const ConfigArguments& config) {
    Experiment experiment = config.read();
    const TrainSettings& train = experiment.train;
    const std::string& start = train.weights.empty() ? train.teacher : train.weights;
    if (start.empty() || !std::filesystem::exists(start)) return experiment;  // train() says what is missing
    const ReadOptions reading{.known = {.normalization_known = true}};        // it is the data section's
    const ModelFile file = read_model_file(start, reading);
    experiment = config.read(file.preprocessing);
    if (!experiment.train.loss.need_labels()) take_head_size(experiment, file);  // else the data says it
    return experiment;
}

struct Arguments {
    ConfigArguments config;
    std::string output, resume;
};

// @param given how often the option stands there
Resume resume_of(const Arguments& arguments, std::size_t given) {
    if (given == 0) return Resume::kNo;
    if (arguments.resume.empty()) return Resume::kYes;
    if (arguments.resume == "auto") return Resume::kAuto;
    throw Error("train", "--resume: found '", arguments.resume, "', expected nothing behind it, or auto");
}

// The processes that the launcher started. Only rank 0 speaks; of the others what goes wrong is heard.
ProcessGroup meet_others() {
    const Launch launch = read_launch();
    if (!launch.alone() && launch.rank > 0) {
        log::set_prefix(str("rank ", launch.rank, ": "));
        log::set_level("warn");
    }
    constexpr std::chrono::minutes kUntilTheFirstStep(10);  // reading pictures and weights takes different times
    ProcessGroup group(launch, kUntilTheFirstStep);
    if (!group.alone()) log::info(str(group.size(), " processes, started by ", launch.launcher));
    return group;
}

// What all processes exit with: a signal may have come to one of them.
int shared_exit_code(const ProcessGroup& group, int code) {
    const std::vector<std::string> codes = group.gather(str(code));
    return std::stoi(*std::ranges::max_element(codes, {}, [](const std::string& each) { return std::stoi(each); }));
}

// @param threads_given on the command line, which goes before the settings
// @return the exit code
int run(const Arguments& arguments, Resume resume, bool threads_given) {
    const StopSignals signals;
    ConfigArguments config = arguments.config;
    if (config.config.empty()) {
        const std::filesystem::path there = std::filesystem::path(arguments.output) / "config.yaml";
        if (resume == Resume::kNo || (resume == Resume::kAuto && !std::filesystem::exists(there))) {
            throw Error("train", "--config is missing; `dynvit config` prints a file to start from");
        }
        config.config = there.string();
    }
    const Experiment experiment = read_experiment(config);
    ProcessGroup group = meet_others();
    if (!group.alone() && !parse_device(experiment.train.device).is_cpu()) {
        throw Error("train", "several processes: found train.device ", experiment.train.device,
                    ", expected cpu: GPUs cannot be shared out yet");
    }
    const TrainResult result = train(experiment, arguments.output,
                                     {.resume = resume,
                                      .draw_kept = StagePictures(experiment),
                                      .stop = StopSignals::came,
                                      .group = &group,
                                      .threads = threads_given ? at::get_num_threads() : 0});
    const int code = shared_exit_code(group, result.interrupted && StopSignals::came() ? StopSignals::exit_code() : 0);
    if (result.interrupted && StopSignals::came()) {
        log::warn(str(StopSignals::name(), ": stopped at step ", result.steps, " with a checkpoint; --resume goes on"));
    }
    if (group.leads()) print(summary(result, arguments.output));
    return code;
}

}  // namespace

void add_train(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command =
        program.add_subcommand("train", "Fine-tune a model with prediction modules, or train a dense one");
    arguments->config.add_to(*command);
    command->add_option("-o,--output", arguments->output, "the run's folder")->required();
    command
        ->add_option("-r,--resume", arguments->resume,
                     "go on with the run in that folder; without --config, as it was set; 'auto': begin where no "
                     "checkpoint is there, so that one command suits a queue")
        ->type_name("[auto]")
        ->expected(0, 1);
    command->footer(
        "Ctrl-C, SIGTERM and SIGUSR1 end the step and write a checkpoint; the exit code is 130, 143 or 138. A second "
        "one ends the program at once.");
    command->callback([arguments, command] {
        const bool threads_given = command->get_parent()->count("--threads") > 0;
        if (const int code = run(*arguments, resume_of(*arguments, command->count("--resume")), threads_given);
            code != 0) {
            throw CLI::RuntimeError(code);
        }
    });
}

}  // namespace dynvit::tool
