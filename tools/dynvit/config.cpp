// dynvit config: the settings that a file means, with their comments.
#include "dynvit/core/config.hpp"
#include "command.hpp"
#include "dynvit/core/files.hpp"

namespace dynvit::tool {

void add_config(CLI::App& program) {
    auto arguments = std::make_shared<ConfigArguments>();
    CLI::App* command = program.add_subcommand("config", "Print all settings, with comments, as a YAML file");
    arguments->add_to(*command);
    command->callback([arguments] {
        const bool defaults = arguments->config.empty() && arguments->overrides.empty();
        print(write_config(defaults ? Experiment() : arguments->read()));
    });
}

}  // namespace dynvit::tool
