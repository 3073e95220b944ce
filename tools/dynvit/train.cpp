// dynvit train: from a YAML file to a run folder.
#include <iostream>

#include "command.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/train/trainer.hpp"

namespace dynvit::tool {

namespace {

std::string summary(const TrainResult& result, const std::string& output) {
    std::string text = str("trained to step ", result.steps, " in ", clock_text(result.seconds), "; ", output,
                           "/checkpoints/last.safetensors\n");
    if (result.reached_target) text += "stopped early: train.stop_at was reached\n";
    if (result.best_top1 >= 0)
        text += str("best top-1 ", fixed(result.best_top1, 2), " %; ", output, "/checkpoints/best.safetensors\n");
    if (result.skipped_steps > 0)
        text += str(result.skipped_steps, " steps were skipped: their loss or a gradient was not finite\n");
    if (result.corrupt_pictures > 0)
        text += str(result.corrupt_pictures, " corrupt pictures were replaced by others\n");
    if (!result.last_eval.empty()) text += eval_table(result.last_eval);
    if (!result.last_ema_eval.empty()) text += "averaged weights (ema):\n" + eval_table(result.last_ema_eval);
    return text;
}

}  // namespace

void add_train(CLI::App& program) {
    struct Arguments {
        ConfigArguments config;
        std::string output;
        bool resume = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command =
        program.add_subcommand("train", "Fine-tune a model with prediction modules, or train a dense one");
    arguments->config.add_to(*command);
    command->add_option("-o,--output", arguments->output, "the run's folder")->required();
    command->add_flag("-r,--resume", arguments->resume,
                      "go on with the run in that folder; without --config, as it was set");
    command->callback([arguments] {
        ConfigArguments config = arguments->config;
        if (config.config.empty()) {
            if (!arguments->resume)
                throw Error("train", "--config is missing; `dynvit config` prints a file to start from");
            config.config = (std::filesystem::path(arguments->output) / "config.yaml").string();
        }
        const TrainResult result = train(config.read(), arguments->output, arguments->resume);
        std::cout << summary(result, arguments->output);
    });
}

}  // namespace dynvit::tool
