// dynvit export: a model in a format that other programs run.
#include <filesystem>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/export/export_model.hpp"
#include "dynvit/io/weights_format.hpp"
#include "standard_output.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ModelArguments model;
    std::string format, output, classes;
    PreprocessingChanges preprocessing;
    bool kept_tokens = false;
};

void run(Arguments& arguments) {
    if (arguments.model.precision != "float32") {
        throw Error("export", "--precision: found ", arguments.model.precision, ", expected float32");
    }
    const std::filesystem::file_status output = std::filesystem::status(arguments.output);
    if (std::filesystem::is_other(output) || is_standard_output(arguments.output)) {
        throw Error("export", arguments.output, ": is no regular file, expected one: what is written is read back");
    }
    if (arguments.format == "bundle") check_safetensors_ending(arguments.output, "export");
    const ModelArguments::Choice choice = arguments.model.choose();
    const PruningPlan plan = arguments.model.plan(choice);
    const ExportOptions options{plan, arguments.kept_tokens,
                                arguments.preprocessing.over(choice.experiment.data.preprocessing),
                                choice.class_names(arguments.classes)};
    DynamicVit model = arguments.model.load(choice, {plan});
    model->to(at::kCPU);
    export_model(arguments.output, model, options, arguments.format);
    const ModelSettings& settings = choice.experiment.model;
    print(str(arguments.output, ": ", arguments.format, ", ", settings.name, ", ",
              plan.dense() ? "dense" : str("keeps ", join(plan.tokens, "/"), " of ", settings.patches(), " patches"),
              ", ", std::filesystem::file_size(arguments.output), " bytes\n"));
}

}  // namespace

void add_export(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("export", "Write a pruned model for other programs");
    arguments->model.device = "cpu";
    arguments->model.add_to(*command);
    command->add_option("-f,--format", arguments->format, join(export_formats(), " or "))
        ->required()
        ->check(one_of(export_formats()));
    command->add_option("-o,--output", arguments->output, "file to write")->required();
    command->add_option("--classes", arguments->classes,
                        "bundle: file with a class's folder and name a line, in index order, for its class names");
    add_preprocessing_options(*command, arguments->preprocessing);
    command->add_flag("--kept-tokens", arguments->kept_tokens,
                      "each stage's kept patches as further outputs: kept_1, kept_2, ... (places on the grid, "
                      "ascending; of tome in its order; the number of patches for a fused token)");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
