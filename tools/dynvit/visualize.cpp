// dynvit visualize: which patches each stage keeps.
#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
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
    std::string output, policy;
    PreprocessingChanges preprocessing;
    std::int64_t samples = 12;
};

ReadPictures read_pictures(const Arguments& arguments, const Experiment& experiment) {
    const ModelSettings& model = experiment.model;
    ReadPictures read;
    if (arguments.images.empty()) {
        read = sample_pictures(experiment.data, model, arguments.samples);
    } else {
        const EvalTransform transform =
            eval_transform(experiment.data.preprocessing, model.image_height(), model.image_width());
        for (const fs::path& path : find_pictures(arguments.images)) {
            try {
                read.pictures.push_back({path.stem().string(), apply(transform, read_image(path), path.string())});
            } catch (const Error& error) {
                read.left_out.emplace_back(error.what());
            }
        }
    }
    for (const std::string& reason : read.left_out) log::warn("left out: " + reason);
    if (read.pictures.empty() && !read.left_out.empty()) {
        throw Error("visualize", "none of the ", read.left_out.size(),
                    " pictures can be read; the first: ", read.left_out.front());
    }
    make_names_unique(read.pictures, {kSheetName, kFrequencyName});  // a file each
    return read;
}

// What a policy learns from: the first of the pictures that are drawn.
at::Tensor calibration_pictures(const std::vector<NamedImage>& pictures) {
    std::vector<Image> images;
    for (const NamedImage& picture : pictures) {
        if (std::ssize(images) < kCalibrationPictures) images.push_back(picture.image);
    }
    return stack_images(images);
}

void run(Arguments& arguments) {
    ModelArguments::Choice choice = arguments.model.choose();
    Preprocessing& preprocessing = choice.experiment.data.preprocessing;
    preprocessing = arguments.preprocessing.over(preprocessing);
    const Experiment& experiment = choice.experiment;
    const ModelSettings& settings = experiment.model;
    if (settings.stages() == 0) throw Error("visualize", "the model has no prediction modules: it keeps every token");
    if (arguments.images.empty() && arguments.model.config.config.empty()) {
        throw Error("visualize", "--images is missing: pictures, or folders of them");
    }
    PruningPlan plan = arguments.model.plan(choice, arguments.policy);
    const PruningPlan asked = plan;
    if (plan.dense()) {  // to be drawn all the same
        plan.policy = arguments.policy.empty() ? own_policy(settings) : arguments.policy;
        plan.tokens.assign(settings.pruning_loc.size(), settings.patches());
    }
    const auto [pictures, left_out] = read_pictures(arguments, experiment);
    PolicyInputs inputs;
    if (needs_pictures(plan)) inputs.pictures = calibration_pictures(pictures);
    const InferenceSession session(*arguments.model.load(choice, {asked}), plan, arguments.model.options().precision,
                                   inputs, preprocessing);
    make_directory(arguments.output, "visualize");
    std::vector<Image> rows;
    std::vector<std::vector<std::int64_t>> counts(settings.pruning_loc.size(),
                                                  std::vector<std::int64_t>(settings.patches()));
    std::int64_t written = 0;
    for (const NamedImage& picture : pictures) {
        StagePanels drawn = draw_stages(session, picture.image);
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
    print(str(written, " pictures, each beside what stages 1 to ", settings.stages(),
              " keep, contact_sheet.png, and keep_frequency.png (how often each place is kept) in ", arguments.output,
              '\n'));
    if (!left_out.empty()) {
        throw Error("visualize", left_out.size(), " of ", left_out.size() + pictures.size(),
                    " pictures could not be read; the others are drawn");
    }
}

}  // namespace

void add_visualize(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("visualize", "Draw which patches each stage keeps");
    arguments->model.add_to(*command);
    command->add_option("-i,--images", arguments->images,
                        "pictures, or folders of them; else validation pictures of the config");
    command->add_option("-n,--samples", arguments->samples, "how many validation pictures, where --images is not given")
        ->check(within(at_least(1)))
        ->capture_default_str();
    add_preprocessing_options(*command, arguments->preprocessing);
    add_policy_option(*command, arguments->policy, keeps_tokens);
    command->add_option("-o,--output", arguments->output, "folder for the PNG files")->required();
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
