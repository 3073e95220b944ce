// dynvit infer: what is in these pictures, and what the model looked at.
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/io/json_text.hpp"

namespace dynvit::tool {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
    ModelArguments model;
    std::vector<std::string> pictures;
    std::string classes, policy;
    std::vector<double> thresholds;
    PictureArguments reading{.batch_size = 32};
    std::int64_t top = 5;
    bool independent = false;
    bool json = false;
};

PruningPlan plan_of(const Arguments& arguments, const ModelArguments::Choice& choice) {
    if (!arguments.thresholds.empty()) return plan_for_thresholds(choice.experiment.model, arguments.thresholds);
    return arguments.model.plan(choice, arguments.policy);
}

// One picture's answer.
nlohmann::json answer(const std::string& picture, const SessionOutput& output, const at::Tensor& probabilities,
                      std::int64_t index, const std::vector<std::string>& names, std::int64_t top, double milliseconds,
                      std::int64_t patches) {
    const auto [values, classes] = probabilities[index].topk(std::min(top, probabilities.size(1)));
    nlohmann::json line = {{"picture", picture},
                           {"top", nlohmann::json::array()},
                           {"tokens_per_stage", nlohmann::json::array()},
                           {"kept", nlohmann::json::array()},
                           {"milliseconds", milliseconds}};
    for (std::int64_t i = 0; i < values.size(0); ++i) {
        const std::int64_t label = classes[i].item<std::int64_t>();
        line["top"].push_back({{"class", label}, {"probability", values[i].item<double>()}});
        if (!names.empty()) line["top"].back()["name"] = names[static_cast<std::size_t>(label)];
    }
    for (std::size_t s = 0; s < output.counts.size(); ++s) {
        const std::vector<std::int64_t> kept = output.kept_of(index, s, patches);
        line["tokens_per_stage"].push_back(kept.size());
        line["kept"].push_back(kept);
    }
    return line;
}

// Those that came since the line before. @param told how many there were then
void add_notes(nlohmann::json& line, std::size_t& told) {
    const std::vector<std::string> notes = log::notes();
    for (std::size_t n = told; n < notes.size(); ++n) line["notes"].push_back(notes[n]);
    told = notes.size();
}

std::string as_text(const nlohmann::json& line) {
    std::string text = line["picture"].get<std::string>() + '\n';
    for (const nlohmann::json& one : line["top"]) {
        const std::string share = fixed(100 * one["probability"].get<double>(), 2);
        text += str(std::string(8 - std::min<std::size_t>(8, share.size()), ' '), share, " %  ",
                    one.contains("name") ? one["name"].get<std::string>() : str("class ", one["class"]), '\n');
    }
    if (!line["tokens_per_stage"].empty()) {
        text += str("   kept  ", join(line["tokens_per_stage"].get<std::vector<std::int64_t>>(), "/"), '\n');
    }
    return text;
}

void run(Arguments& arguments) {
    const ModelArguments::Choice choice = arguments.model.choose();
    check_classifies(choice.file);
    const ModelSettings& settings = choice.experiment.model;
    const std::vector<std::string> names = choice.class_names(arguments.classes);
    const PruningPlan plan = plan_of(arguments, choice);
    const PictureList pictures(find_pictures(arguments.pictures));
    const EvalOptions options = arguments.model.options();
    const DynamicVit model = arguments.model.load(choice, {plan});
    const bool independent = arguments.independent || choice.experiment.train.loss.binary();

    DataSettings data = choice.experiment.data;
    data.kind = "image_folder";
    arguments.reading.change(data);
    LoaderOptions loading = loader_options(data, Split::kVal);
    loading.batch_size = arguments.reading.batch_size;
    loading.pin_memory = options.device.is_cuda();
    const SampleTransform transform =
        make_transform(data, Split::kVal, settings.image_height(), settings.image_width());
    PolicyInputs inputs;
    if (needs_pictures(plan)) inputs.pictures = calibration_pictures(pictures, transform, loading);
    const InferenceSession session(*model, plan, options.precision, inputs, data.preprocessing);
    Loader loader(pictures, transform, loading);
    Progress bar("pictures", static_cast<std::int64_t>(pictures.size()));
    std::int64_t done = 0;
    double model_seconds = 0;
    std::set<std::string> broken;
    const auto report_broken = [&] {
        for (const CorruptSample& sample : loader.corrupt()) {
            if (broken.insert(sample.name).second) log::warn("left out: " + sample.reason);
        }
    };
    std::size_t told = 0;  // of the run's notes
    while (const std::optional<Batch> batch = loader.next()) {
        const std::int64_t count = batch->images.size(0);
        report_broken();
        if (count > 0) {
            const Clock::time_point start = Clock::now();
            const SessionOutput output = session.run(batch->images);
            const at::Tensor probabilities =
                (independent ? output.logits.to(at::kFloat).sigmoid() : output.logits.softmax(-1, at::kFloat)).cpu();
            const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
            model_seconds += seconds;
            std::string text;
            for (std::int64_t i = 0; i < count; ++i) {
                nlohmann::json line =
                    answer(batch->names[static_cast<std::size_t>(i)], output, probabilities, i, names, arguments.top,
                           1000 * seconds / static_cast<double>(count), settings.patches());
                if (arguments.json) add_notes(line, told);
                text += arguments.json ? json_text(line) + '\n' : as_text(line);
            }
            print(text);
        }
        done += count;
        bar.update(done + std::ssize(broken), "");
    }
    report_broken();
    log::info(str(done, " pictures, ", fixed(done > 0 ? 1000 * model_seconds / static_cast<double>(done) : 0.0, 2),
                  " ms each in the model"));
    if (!broken.empty()) {
        throw Error("infer", broken.size(), " of ", pictures.size(),
                    " pictures could not be read; the others are done");
    }
}

}  // namespace

void add_infer(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command =
        program.add_subcommand("infer", "Classify pictures: the likeliest classes, and what the model looked at");
    arguments->model.add_to(*command);
    command
        ->add_option("pictures", arguments->pictures,
                     "pictures, folders of them, or - for a list of both on standard input, a line each or as find "
                     "-print0 writes it")
        ->required();
    command->add_option("--classes", arguments->classes, "file with a class's folder and name a line, in index order");
    arguments->reading.add_to(*command);
    command->add_option("--top", arguments->top, "so many classes of each picture")
        ->check(within(at_least(1)))
        ->capture_default_str();
    command->add_flag(
        "--independent", arguments->independent,
        "classes do not exclude each other: the probability of each by itself (sigmoid), as a config with "
        "train.loss.classification_kind binary says, too");
    add_policy_option(*command, arguments->policy, any_policy);
    add_list(*command, "--threshold", arguments->thresholds,
             "in place of a keep ratio: keep every token that is likelier needed than this, in each picture "
             "its own number; or one a stage");
    command->add_flag(
        "--json", arguments->json,
        "a JSON object a picture and line, kept patches too, and under \"notes\" what was assumed or passed over "
        "since the line before");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
