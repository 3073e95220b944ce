// dynvit visualize: which patches each stage keeps.
#include <ATen/ATen.h>

#include <algorithm>
#include <iostream>
#include <set>

#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/infer/autocast.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/viz/kept_tokens.hpp"

namespace dynvit::tool {
namespace {

namespace fs = std::filesystem;

constexpr int kPanelWidth = 192;    // smaller pictures are enlarged to about this many pixels
constexpr std::size_t kSheetRows = 32;
constexpr const char* kSheetName = "contact_sheet";

struct Arguments {
    ModelArguments model;
    std::vector<std::string> images;
    std::string output, policy = "predicted";
    std::int64_t samples = 12;
};

struct Picture {
    std::string name;
    Image image;  // of the model's size
};

// Files as they are given; folders give the pictures below them, sorted.
std::vector<fs::path> find_pictures(const std::vector<std::string>& given) {
    std::vector<fs::path> found;
    for (const fs::path path : given) {
        if (!fs::is_directory(path)) {
            found.push_back(path);
            continue;
        }
        const std::vector<fs::path> below = pictures_below(path);
        if (below.empty()) throw Error("visualize", path.string(), ": no JPEG or PNG picture is in this folder");
        found.insert(found.end(), below.begin(), below.end());
    }
    return found;
}

std::vector<Picture> read_pictures(const Arguments& arguments, const Experiment& experiment) {
    const ModelSettings& model = experiment.model;
    std::vector<Picture> pictures;
    std::set<std::string> names = {kSheetName};
    const auto add = [&](std::string name, Image image) {
        for (int copy = 2; !names.insert(name).second; ++copy) name = str(name.substr(0, name.rfind('~')), '~', copy);
        pictures.push_back({std::move(name), std::move(image)});
    };
    if (arguments.images.empty()) {
        const auto dataset = make_dataset(experiment.data, Split::kVal, model.image_height(), model.image_width());
        const SampleTransform transform = make_transform(experiment.data, Split::kVal, model.image_height(), model.image_width());
        Random unused(0);
        const auto count = std::min(dataset->size(), static_cast<std::size_t>(arguments.samples));
        for (std::size_t i = 0; i < count; ++i) {
            Sample sample = dataset->get(i * dataset->size() / count + i % (dataset->size() / count));  // spread over the classes
            const std::string name = fs::path(sample.name).stem().string();
            add(name, transform(sample, unused));
        }
        return pictures;
    }
    const EvalTransform transform{static_cast<int>(model.image_width()), static_cast<int>(model.image_height()),
                                  static_cast<int>(experiment.data.resize)};
    for (const fs::path& path : find_pictures(arguments.images)) add(path.stem().string(), apply(transform, read_image(path)));
    return pictures;
}

at::Tensor as_batch(const Image& image) {  // (1, 3, H, W), uint8
    return at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()), {1, image.height, image.width, 3}, at::kByte)
        .permute({0, 3, 1, 2})
        .contiguous();
}

void run(const Arguments& arguments) {
    const ModelArguments::Choice choice = arguments.model.choose();
    const Experiment& experiment = choice.experiment;
    const ModelSettings& settings = experiment.model;
    if (settings.stages() == 0) throw Error("visualize", "the model has no prediction modules: it keeps every token");
    if (arguments.images.empty() && arguments.model.config.config.empty()) {
        throw Error("visualize", "--images is missing: pictures, or folders of them");
    }
    if (arguments.model.keep_ratios.size() > 1) throw Error("visualize", "found several keep ratios, expected one");
    const std::vector<double>& given = arguments.model.keep_ratios;
    const std::vector<std::int64_t> tokens =
        tokens_per_stage(given.empty() ? experiment.train.stage_targets(settings.stages())
                                       : stage_ratios(given.front(), settings.stages()),
                         settings.patches());

    const EvalOptions options = arguments.model.options();
    DynamicVit model = arguments.model.load(choice);
    const auto policy = make_policy(arguments.policy, model);
    make_directory(arguments.output, "visualize");
    std::vector<Image> rows;
    std::size_t written = 0;
    for (const Picture& picture : read_pictures(arguments, experiment)) {
        const Autocast autocast(options.device, options.precision);
        const PrunedOutput result = pruned_forward(*model, normalize_images(as_batch(picture.image), options.device), *policy, tokens);
        std::vector<Image> panels = {picture.image};
        for (const at::Tensor& kept : result.kept) {
            const at::Tensor places = kept[0].cpu().contiguous();
            const std::int64_t* first = places.const_data_ptr<std::int64_t>();
            panels.push_back(draw_kept_tokens(picture.image, {first, first + places.numel()}, settings));
        }
        const int factor = std::max(1, kPanelWidth / picture.image.width);
        for (Image& panel : panels) panel = enlarge(panel, factor);
        Image row = beside(panels);
        write_png(fs::path(arguments.output) / (picture.name + ".png"), row);
        if (rows.size() < kSheetRows) rows.push_back(std::move(row));
        ++written;
    }
    write_png(fs::path(arguments.output) / str(kSheetName, ".png"), below(rows));
    std::cout << written << " pictures, each beside what stages 1 to " << settings.stages() << " keep, and contact_sheet.png in "
              << arguments.output << '\n';
}

}  // namespace

void add_visualize(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("visualize", "Draw which patches each stage keeps");
    arguments->model.add_to(*command);
    command->add_option("-i,--images", arguments->images, "pictures, or folders of them; else validation pictures of the config");
    command->add_option("-n,--samples", arguments->samples, "how many validation pictures, where --images is not given")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command->add_option("--policy", arguments->policy, "who selects: predicted, random")->capture_default_str();
    command->add_option("-o,--output", arguments->output, "folder for the PNG files")->required();
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
