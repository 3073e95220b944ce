// dynvit bench: how fast a model is, dense beside pruned.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "arguments.hpp"
#include "bench_profile.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/io/json_text.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/runtime/timing.hpp"
#include "dynvit/viz/bar_chart.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ModelArguments model;
    std::vector<std::string> policies, precisions = {"float32"}, pictures;
    std::vector<std::int64_t> batch_sizes = {1, 16};
    double seconds = 2;
    std::size_t profile = 0;
    std::string json, plot, compare;
};

// A line of the table.
struct Row {
    std::string policy, precision;  // "dense", or a plan's
    double keep_ratio = 1.0;
    std::int64_t batch = 0;
    std::shared_ptr<const InferenceSession> session;
    Timing timing;
    std::int64_t peak_bytes = 0;
    std::vector<std::int64_t> tokens;  // a stage; per_image: the mean over the pictures
    double gmacs = 0;                  // of an image, the mean
    std::vector<double> gmacs_per_stage;
    const Row* dense = nullptr;  // the same batch and precision without pruning; null for that one itself

    MedianInterval images_per_second() const {
        const MedianInterval pace = median_interval(timing.pace);
        const auto size = static_cast<double>(batch);
        return {size / pace.median, size / pace.high, size / pace.low};
    }
    // How many times as fast as dense, round by round.
    MedianInterval speedup() const { return dynvit::speedup(timing, dense->timing); }
    double latency_ms(double share) const { return 1e3 * percentile(timing.latency, share); }
};

// The value of a "key : value" line in one of the kernel's files, or `otherwise`.
std::string value_in(const std::filesystem::path& file, const std::string& key, const std::string& otherwise) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const std::size_t colon = line.find(':');
        if (!line.starts_with(key) || colon == std::string::npos) continue;
        const std::size_t value = line.find_first_not_of(" \t", colon + 1);
        if (value != std::string::npos) return line.substr(value);
    }
    return otherwise;
}

std::string name_of(const at::Device& device) {
    if (device.is_cpu()) return value_in("/proc/cpuinfo", "model name", "unknown processor");
    const std::filesystem::path gpus = "/proc/driver/nvidia/gpus";
    std::error_code none;
    std::set<std::string> models;  // which of several different ones LibTorch counts first isn't said there
    for (const auto& gpu : std::filesystem::directory_iterator(gpus, none)) {
        models.insert(value_in(gpu.path() / "information", "Model", "unknown GPU"));
    }
    return models.size() == 1 ? *models.begin() : "unknown GPU";
}

// Pictures to run: those of the arguments over and over, or random ones. @return (count, 3, H, W), uint8
at::Tensor make_images(const Arguments& arguments, const Experiment& experiment, std::int64_t count) {
    const std::int64_t height = experiment.model.image_height(), width = experiment.model.image_width();
    if (arguments.pictures.empty()) {
        return at::randint(0, 256, {count, 3, height, width}, at::make_generator<at::CPUGeneratorImpl>(0), at::kByte);
    }
    const PictureList pictures(find_pictures(arguments.pictures));
    DataSettings data = experiment.data;
    data.kind = "image_folder";
    LoaderOptions loading = loader_options(data, Split::kVal);
    loading.batch_size = std::min<std::int64_t>(count, static_cast<std::int64_t>(pictures.size()));
    Loader loader(pictures, make_transform(data, Split::kVal, height, width), loading);
    const std::optional<Batch> batch = loader.next();
    if (!batch || batch->images.size(0) == 0) throw Error("bench", "none of the first pictures can be read");
    const std::int64_t found = batch->images.size(0);
    return batch->images.repeat({(count + found - 1) / found, 1, 1, 1}).slice(0, 0, count);
}

// What a run keeps and costs. @param images that are timed
void count_costs(Row& row, const at::Tensor& images) {
    const PruningPlan& plan = row.session->plan();
    row.tokens = plan.tokens;
    row.gmacs = row.session->gmacs();
    row.gmacs_per_stage = row.session->gmacs_per_stage();
    if (plan.thresholds.empty()) return;  // as many in every image
    const auto counts = row.session->run(images).counts;
    const auto batch = static_cast<double>(row.batch);
    row.gmacs_per_stage.assign(counts.size() + 1, 0);
    for (std::size_t b = 0; b < static_cast<std::size_t>(row.batch); ++b) {
        std::vector<std::int64_t> kept;
        for (const auto& stage : counts) kept.push_back(stage[b]);
        const std::vector<double> parts = row.session->gmacs_per_stage(kept);
        for (std::size_t s = 0; s < parts.size(); ++s) row.gmacs_per_stage[s] += parts[s] / batch;
    }
    row.gmacs = std::accumulate(row.gmacs_per_stage.begin(), row.gmacs_per_stage.end(), 0.0);
    for (std::size_t s = 0; s < counts.size(); ++s) {
        const std::int64_t sum = std::accumulate(counts[s].begin(), counts[s].end(), std::int64_t{0});
        row.tokens[s] = std::llround(static_cast<double>(sum) / batch);
    }
}

// Everything that is to be timed, but not its times: batch by batch, precision by precision.
std::vector<std::unique_ptr<Row>> make_rows(const Arguments& arguments, const ModelArguments::Choice& choice,
                                            const at::Tensor& images) {
    const ModelSettings& settings = choice.experiment.model;
    ModelArguments asked = arguments.model;
    if (!asked.asks_for_plans()) {
        asked.keep_ratios = {1.0};
        if (settings.stages() > 0) asked.keep_ratios.push_back(kDefaultKeepRatio);
    }
    const std::vector<ModelArguments::Asked> plans = asked.plans(settings, arguments.policies);
    std::vector<PruningPlan> all;
    for (const auto& [plan, keep_ratio] : plans) all.push_back(plan);
    const DynamicVit model = arguments.model.load(choice, all);
    const PolicyInputs inputs{images.slice(0, 0, kCalibrationPictures)};
    std::vector<std::unique_ptr<Row>> kinds;  // without a batch
    for (const std::string& precision : arguments.precisions) {
        const auto weights = std::make_shared<const InferenceModel>(*model, parse_inference_precision(precision),
                                                                    choice.experiment.data.preprocessing);
        for (const auto& [plan, keep_ratio] : plans) {
            auto row = std::make_unique<Row>();
            row->policy = plan.dense() ? "dense" : plan.policy;
            row->precision = precision;
            row->session = std::make_shared<const InferenceSession>(weights, plan, inputs);
            const bool own_number = row->session->policy().selects == Selects::kAveraged;
            row->keep_ratio = own_number ? static_cast<double>(row->session->plan().tokens.front()) /
                                               static_cast<double>(settings.patches())
                                         : keep_ratio;
            kinds.push_back(std::move(row));
        }
    }
    std::vector<std::unique_ptr<Row>> rows;
    for (const std::int64_t batch : arguments.batch_sizes) {
        const std::size_t first = rows.size();
        for (const auto& kind : kinds) {
            rows.push_back(std::make_unique<Row>(*kind));
            rows.back()->batch = batch;
        }
        for (std::size_t i = first; i < rows.size(); ++i) {
            for (std::size_t j = first; j < rows.size() && rows[i]->policy != "dense"; ++j) {
                if (rows[j]->policy == "dense" && rows[j]->precision == rows[i]->precision)
                    rows[i]->dense = rows[j].get();
            }
        }
    }
    return rows;
}

// One batch size after another; what has the same batch is interleaved.
// @param profile kernels to tell of for each
void measure(std::vector<std::unique_ptr<Row>>& rows, const at::Tensor& images, const TimingOptions& options,
             std::size_t profile) {
    std::size_t done = 0;
    Progress bar("measuring", 1000);
    while (done < rows.size()) {
        const std::int64_t batch = rows[done]->batch;
        const at::Tensor normalized = normalize_images(images.slice(0, 0, batch), options.device);
        std::vector<std::function<void()>> cases;
        for (std::size_t i = done; i < rows.size() && rows[i]->batch == batch; ++i) {
            const std::shared_ptr<const InferenceSession> session = rows[i]->session;
            const at::ScalarType precision = parse_inference_precision(rows[i]->precision);
            const at::Tensor inputs = normalized.to(activation_type(precision));
            cases.emplace_back([session, inputs] { session->run(inputs); });
            // Of the first run: on a GPU later ones are replayed in memory that is kept.
            rows[i]->peak_bytes = peak_tensor_bytes(cases.back(), options.device);
        }
        const std::vector<Timing> timings = time_interleaved(cases, options, [&](double share) {
            const double rows_done = static_cast<double>(done) + share * static_cast<double>(cases.size());
            bar.update(static_cast<std::int64_t>(1000 * rows_done / static_cast<double>(rows.size())),
                       str("batch ", batch));
        });
        std::vector<std::string> names;
        for (std::size_t i = 0; i < cases.size(); ++i) {
            const Row& row = *rows[done + i];
            names.push_back(str("batch ", batch, ' ', row.precision, ' ', row.policy, ' ', fixed(row.keep_ratio, 2)));
        }
        print_profiles(cases, names, profile, options.device);
        for (std::size_t i = 0; i < cases.size(); ++i, ++done) {
            rows[done]->timing = timings[i];
            count_costs(*rows[done], normalized);
        }
    }
}

nlohmann::json to_json(const MedianInterval& m) {
    return {{"median", m.median}, {"low", m.low}, {"high", m.high}};
}

nlohmann::json to_json(const Row& row) {
    nlohmann::json json = {
        {"policy", row.policy},
        {"keep_ratio", row.keep_ratio},
        {"precision", row.precision},
        {"batch", row.batch},
        {"images_per_second", to_json(row.images_per_second())},
        {"latency_ms", {{"median", row.latency_ms(0.5)}, {"p95", row.latency_ms(0.95)}, {"p99", row.latency_ms(0.99)}}},
        {"rounds", row.timing.latency.size()},
        {"gmacs", row.gmacs},
        {"gmacs_per_stage", row.gmacs_per_stage},
        {"tokens_per_stage", row.tokens},
        {"peak_tensor_bytes", row.peak_bytes}};
    if (row.dense) json["speedup"] = to_json(row.speedup());
    return json;
}

nlohmann::json make_report(const std::vector<std::unique_ptr<Row>>& rows, const Arguments& arguments,
                           const ModelSettings& settings, const at::Device& device) {
    nlohmann::json report = {{"dynvit", DYNVIT_VERSION},
                             {"libtorch", TORCH_VERSION},
                             {"device", device.str()},
                             {"device_name", name_of(device)},
                             {"threads", at::get_num_threads()},
                             {"model", settings.name},
                             {"weights", arguments.model.weights},
                             {"image_size", {settings.image_height(), settings.image_width()}},
                             {"parameters", count_parameters(settings)},
                             {"rows", nlohmann::json::array()}};
    for (const auto& row : rows) report["rows"].push_back(to_json(*row));
    return report;
}

// What an earlier report says of a row.
struct Earlier {
    std::string policy, precision;
    double keep_ratio, images_per_second;
    std::int64_t batch;

    bool is(const Row& row) const {
        return policy == row.policy && precision == row.precision && keep_ratio == row.keep_ratio && batch == row.batch;
    }
};

// Reads --compare's file; where it is of something else, a line in the log says so. @param report this run's, no rows
std::vector<Earlier> read_earlier(const std::string& file, const nlohmann::json& report) {
    const std::vector<std::uint8_t> bytes = read_file(file, "bench");
    std::vector<Earlier> rows;
    try {
        const nlohmann::json before = parse_json(bytes).value_or(nlohmann::json());
        for (const char* key : {"model", "image_size", "device_name", "threads"}) {
            if (before.at(key) == report.at(key)) continue;
            log::warn(str(file, ": ", key, " was ", before.at(key).dump(), " there and is ", report.at(key).dump(),
                          " here: the change is not this program's alone"));
        }
        for (const nlohmann::json& row : before.at("rows")) {
            rows.push_back({row.at("policy"), row.at("precision"), row.at("keep_ratio"),
                            row.at("images_per_second").at("median"), row.at("batch")});
        }
    } catch (const nlohmann::json::exception&) {
        throw Error("bench", file, ": is not what --json of this command writes");
    }
    return rows;
}

// @param before where there is an earlier run to compare with
void print_table(const std::vector<std::unique_ptr<Row>>& rows, const std::optional<std::vector<Earlier>>& before) {
    const auto line = [&](const std::vector<std::string>& cells) {
        constexpr int kWidths[] = {13, 5, 9, 5, 10, 9, 9, 9, 19, 7, 9, 9};
        std::string text;
        for (std::size_t i = 0; i < cells.size(); ++i) {
            const std::size_t width = static_cast<std::size_t>(kWidths[i]);
            const std::string pad(width - std::min(width, cells[i].size()), ' ');
            text += i == 0 ? cells[i] + pad : ' ' + pad + cells[i];
        }
        return text + '\n';
    };
    std::vector<std::string> heading = {"policy", "ratio",  "precision",      "batch", "images/s", "median ms",
                                        "p95 ms", "p99 ms", "x dense (95 %)", "GMACs", "peak MiB"};
    if (before) heading.emplace_back("x before");
    std::string table = line(heading);
    for (const auto& row : rows) {
        std::string speedup;
        if (row->dense) {
            const MedianInterval s = row->speedup();
            speedup = str(fixed(s.median, 2), " (", fixed(s.low, 2), " - ", fixed(s.high, 2), ')');
        }
        std::vector<std::string> cells = {row->policy,
                                          fixed(row->keep_ratio, 2),
                                          row->precision,
                                          str(row->batch),
                                          fixed(row->images_per_second().median, 1),
                                          fixed(row->latency_ms(0.5), 2),
                                          fixed(row->latency_ms(0.95), 2),
                                          fixed(row->latency_ms(0.99), 2),
                                          speedup,
                                          fixed(row->gmacs, 2),
                                          fixed(static_cast<double>(row->peak_bytes) / (1 << 20), 1)};
        if (before) {
            const auto then = std::ranges::find_if(*before, [&](const Earlier& one) { return one.is(*row); });
            cells.push_back(
                then == before->end() ? "new" : fixed(row->images_per_second().median / then->images_per_second, 2));
        }
        table += line(cells);
    }
    print(table);
}

void draw(const std::vector<std::unique_ptr<Row>>& rows, const std::string& title, const std::string& file) {
    BarChart chart{title, "images a second", {}, {}};
    for (const auto& row : rows) {
        auto place = std::ranges::find(chart.groups, row->policy);
        if (place == chart.groups.end()) place = chart.groups.insert(place, row->policy);
        const MedianInterval speed = row->images_per_second();
        const std::string ratio = row->policy == "dense" ? "" : ' ' + fixed(row->keep_ratio, 2);
        chart.bars.push_back({str("batch ", row->batch, ' ', row->precision, ' ', row->policy, ratio), speed.median,
                              speed.low, speed.high, static_cast<int>(place - chart.groups.begin())});
    }
    write_png(file, draw_bar_chart(chart));
}

void run(Arguments& arguments) {
    const ModelArguments& given = arguments.model;
    if (given.model.empty() && given.config.config.empty() && given.weights.empty()) {
        throw Error("bench", "give --model, --config or --weights");
    }
    const ModelArguments::Choice choice = arguments.model.choose();
    const ModelSettings& settings = choice.experiment.model;
    const std::int64_t most = std::ranges::max(arguments.batch_sizes);
    const at::Tensor images = make_images(arguments, choice.experiment, std::max(most, kCalibrationPictures));
    const TimingOptions options{parse_device(given.device), arguments.seconds};
    check_profile(arguments.profile, options.device);
    std::vector<std::unique_ptr<Row>> rows = make_rows(arguments, choice, images);
    std::optional<std::vector<Earlier>> before;
    if (!arguments.compare.empty()) {
        before = read_earlier(arguments.compare, make_report({}, arguments, settings, options.device));
    }
    measure(rows, images, options, arguments.profile);
    write_json(arguments.json, make_report(rows, arguments, settings, options.device), "bench");
    const std::string title =
        str(settings.name, ' ', settings.image_height(), " x ", settings.image_width(), ", ", name_of(options.device),
            options.device.is_cpu() ? str(", ", at::get_num_threads(), " threads") : "");
    print(title + '\n');
    print_table(rows, before);
    if (!arguments.plot.empty()) draw(rows, title, arguments.plot);
}

}  // namespace

void add_bench(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand(
        "bench",
        "Throughput, latency and memory of a model, dense beside pruned; or the speed of training and of its loader");
    command->require_subcommand(0, 1);
    arguments->model.add_to(*command);
    command->get_option("--weights")->required(false)->description("as for eval; without it weights are drawn");
    command->remove_option(command->get_option("--precision"));
    add_list(*command, "-p,--precision", arguments->precisions,
             "of " + join(inference_precisions(), ", ") + "; several: float32,bfloat16", one_of(inference_precisions()))
        ->capture_default_str();
    add_policy_option(*command, arguments->policies, any_policy);
    add_list(*command, "-b,--batch-size", arguments->batch_sizes, "pictures at a time; several: 1,16",
             within(between(1, kMostBatch)))
        ->capture_default_str();
    command->add_option("--images", arguments->pictures, "pictures, or folders of them, in place of random ones");
    command->add_option("--seconds", arguments->seconds, "how long to measure each row")
        ->check(within(above(0)))
        ->capture_default_str();
    add_profile_option(*command, arguments->profile);
    command->add_option("--json", arguments->json, "write the results to this file too");
    command->add_option("--plot", arguments->plot, "draw images a second into this PNG file");
    command->add_option("--compare", arguments->compare, "an earlier --json: how many times as fast each row is now");
    command->callback([arguments, command] {
        if (command->get_subcommands().empty()) run(*arguments);
    });
    add_bench_loader(*command);
    add_bench_train(*command);
}

}  // namespace dynvit::tool
