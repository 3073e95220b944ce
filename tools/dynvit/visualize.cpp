// dynvit visualize: which patches each stage keeps.
#include <iostream>

#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/viz/kept_tokens.hpp"
#include "dynvit/viz/stage_panels.hpp"

namespace dynvit::tool {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSheetRows = 32;
constexpr const char* kSheetName = "contact_sheet";
constexpr const char* kFrequencyName = "keep_frequency";

struct Arguments {
    ModelArguments model;
    std::vector<std::string> images;
    std::string output, policy = "predicted";
    std::int64_t samples = 12;
};

std::vector<NamedImage> read_pictures(const Arguments& arguments, const Experiment& experiment) {
    const ModelSettings& model = experiment.model;
    std::vector<NamedImage> pictures;
    if (arguments.images.empty()) {
        pictures = sample_pictures(experiment.data, model, arguments.samples);
    } else {
        const EvalTransform transform{static_cast<int>(model.image_width()), static_cast<int>(model.image_height()),
                                      static_cast<int>(experiment.data.resize)};
        for (const fs::path& path : find_pictures(arguments.images)) {
            pictures.push_back({path.stem().string(), apply(transform, read_image(path))});
        }
    }
    make_names_unique(pictures, {kSheetName, kFrequencyName});  // a file each
    return pictures;
}

void run(Arguments& arguments) {
    const ModelArguments::Choice choice = arguments.model.choose();
    const Experiment& experiment = choice.experiment;
    const ModelSettings& settings = experiment.model;
    if (settings.stages() == 0) throw Error("visualize", "the model has no prediction modules: it keeps every token");
    if (arguments.images.empty() && arguments.model.config.config.empty()) {
        throw Error("visualize", "--images is missing: pictures, or folders of them");
    }
    std::vector<std::int64_t> tokens = arguments.model.tokens(experiment);
    if (tokens.empty()) tokens.assign(settings.pruning_loc.size(), settings.patches());

    const auto model =
        std::make_shared<const InferenceModel>(*arguments.model.load(choice), arguments.model.options().precision);
    const auto policy = make_policy(arguments.policy, model);
    make_directory(arguments.output, "visualize");
    std::vector<Image> rows;
    std::vector<std::vector<std::int64_t>> counts(tokens.size(), std::vector<std::int64_t>(settings.patches()));
    std::int64_t written = 0;
    for (const NamedImage& picture : read_pictures(arguments, experiment)) {
        StagePanels drawn = draw_stages(*model, *policy, tokens, picture.image);
        write_png(fs::path(arguments.output) / (picture.name + ".png"), drawn.row);
        if (rows.size() < kSheetRows) rows.push_back(std::move(drawn.row));
        for (std::size_t s = 0; s < counts.size(); ++s) {
            for (const std::int64_t place : drawn.kept[s]) ++counts[s][static_cast<std::size_t>(place)];
        }
        ++written;
    }
    write_png(fs::path(arguments.output) / str(kFrequencyName, ".png"),
              draw_keep_frequencies(counts, written, settings));
    write_png(fs::path(arguments.output) / str(kSheetName, ".png"), below(rows));
    std::cout << written << " pictures, each beside what stages 1 to " << settings.stages()
              << " keep, contact_sheet.png, and keep_frequency.png (how often each place is kept) in "
              << arguments.output << '\n';
}

}  // namespace

void add_visualize(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("visualize", "Draw which patches each stage keeps");
    arguments->model.add_to(*command);
    command->add_option("-i,--images", arguments->images,
                        "pictures, or folders of them; else validation pictures of the config");
    command->add_option("-n,--samples", arguments->samples, "how many validation pictures, where --images is not given")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command->add_option("--policy", arguments->policy, "who selects: predicted, random, cls_attention")
        ->capture_default_str();
    command->add_option("-o,--output", arguments->output, "folder for the PNG files")->required();
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
