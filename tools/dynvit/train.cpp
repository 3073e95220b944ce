// dynvit train: from a YAML file to a run folder.
#include <iostream>

#include "command.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/infer/eval_report.hpp"
#include "dynvit/train/trainer.hpp"

namespace dynvit::tool {

void add_train(CLI::App& program) {
    struct Arguments {
        ConfigArguments config;
        std::string output;
        bool resume = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("train", "Fine-tune a model with prediction modules, or train a dense one");
    arguments->config.add_to(*command);
    command->add_option("-o,--output", arguments->output, "the run's folder")->required();
    command->add_flag("-r,--resume", arguments->resume, "go on with the run in that folder; without --config, as it was set");
    command->callback([arguments] {
        ConfigArguments config = arguments->config;
        if (config.config.empty()) {
            if (!arguments->resume) throw Error("train", "--config is missing; `dynvit config` prints a file to start from");
            config.config = (std::filesystem::path(arguments->output) / "config.yaml").string();
        }
        const TrainResult result = train(config.read(), arguments->output, arguments->resume);
        std::cout << "trained to step " << result.steps << " in " << clock_text(result.seconds) << "; "
                  << arguments->output << "/checkpoints/last.safetensors\n"
                  << eval_table(result.last_eval);
    });
}

}  // namespace dynvit::tool
