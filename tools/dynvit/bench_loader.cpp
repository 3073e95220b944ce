// dynvit bench loader: how fast pictures are prepared for training.
#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/data/image_folder.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    ConfigArguments config;
    std::string data, json;
    std::vector<std::int64_t> workers = {1};
    std::int64_t image_size = 224;
    std::int64_t batch_size = 64;
    std::int64_t images = 0;
    double seconds = 5;
};

/// A data set over and over again, so that one pass of a loader lasts as long as wanted.
class Repeated : public Dataset {
  public:
    Repeated(const Dataset& dataset, std::size_t size) : dataset_(dataset), size_(size) {}
    std::size_t size() const override { return size_; }
    Sample get(std::size_t index) const override { return dataset_.get(index % dataset_.size()); }
    std::string name(std::size_t index) const override { return dataset_.name(index % dataset_.size()); }
    const std::vector<std::string>& class_names() const override { return dataset_.class_names(); }
    bool multi_label() const override { return dataset_.multi_label(); }

  private:
    const Dataset& dataset_;
    std::size_t size_;
};

struct LoaderSpeed {
    std::int64_t workers = 0;
    std::int64_t images = 0;
    double seconds = 0;
    double core_seconds = 0;  // of the whole process: what the workers computed, also where they had to share a core

    double per_second() const { return static_cast<double>(images) / seconds; }
    double per_core() const { return static_cast<double>(images) / core_seconds; }
};

double core_seconds() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Takes batches as fast as they come. Counted from the second batch on, when all workers are at work.
LoaderSpeed measure(const Dataset& dataset, const SampleTransform& transform, const Arguments& arguments,
                    std::int64_t workers) {
    using Clock = std::chrono::steady_clock;
    const std::int64_t batch = arguments.batch_size;
    const std::int64_t counted = (arguments.images + batch - 1) / batch * batch;
    constexpr std::int64_t kEndless = std::int64_t{1} << 22;  // pictures, a minute of 64 quick cores
    const Repeated repeated(dataset, static_cast<std::size_t>(counted > 0 ? counted + batch : kEndless));
    LoaderOptions options;
    options.batch_size = batch;
    options.workers = static_cast<int>(workers);
    Loader loader(repeated, transform, options);
    loader.next();
    LoaderSpeed speed{.workers = workers};
    const Clock::time_point start = Clock::now();
    const double start_core = core_seconds();
    while (counted > 0 || speed.seconds < arguments.seconds) {
        const std::optional<Batch> next = loader.next();
        if (!next) break;
        speed.images += next->images.size(0);
        speed.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    }
    speed.core_seconds = core_seconds() - start_core;
    return speed;
}

/// The experiment's data, or the defaults with the folder that --data names.
Experiment experiment_of(const Arguments& arguments) {
    if (arguments.data.empty() == arguments.config.config.empty()) {
        throw Error("bench", "give --config, or --data with a folder that holds a folder of pictures a class");
    }
    if (arguments.data.empty()) return arguments.config.read();
    // What an experiment cannot do without: pictures, and a teacher or no losses that need one.
    const std::string least = "data: {root: .}\ntrain: {loss: {kl: 0, distill: 0}}";
    return read_config<Experiment>({least, "arguments", arguments.config.overrides});
}

void run(const Arguments& arguments) {
    const Experiment experiment = experiment_of(arguments);
    const bool configured = arguments.data.empty();
    const std::int64_t height = configured ? experiment.model.image_height() : arguments.image_size;
    const std::int64_t width = configured ? experiment.model.image_width() : arguments.image_size;
    const std::unique_ptr<Dataset> dataset = configured ? make_dataset(experiment.data, Split::kTrain, height, width)
                                                        : std::make_unique<ImageFolder>(arguments.data);
    const SampleTransform transform = make_transform(experiment.data, Split::kTrain, height, width);

    const auto line = [](const std::string& workers, const std::string& images, const std::string& rate,
                         const std::string& core, const std::string& cost) {
        char text[128];
        std::snprintf(text, sizeof text, "%7s %9s %11s %17s %20s\n", workers.c_str(), images.c_str(), rate.c_str(),
                      core.c_str(), cost.c_str());
        return std::string(text);
    };
    print(line("workers", "pictures", "pictures/s", "pictures/s a core", "core's ms a picture"));
    nlohmann::json report = {{"data", configured ? experiment.data.root : arguments.data},
                             {"height", height},
                             {"width", width},
                             {"results", nlohmann::json::array()}};
    for (const std::int64_t workers : arguments.workers) {
        const LoaderSpeed speed = measure(*dataset, transform, arguments, workers);
        print(line(str(workers), str(speed.images), fixed(speed.per_second(), 1), fixed(speed.per_core(), 1),
                   fixed(1000 / speed.per_core(), 3)));
        report["results"].push_back({{"workers", workers},
                                     {"images", speed.images},
                                     {"seconds", speed.seconds},
                                     {"core_seconds", speed.core_seconds},
                                     {"images_per_second", speed.per_second()},
                                     {"images_per_core_second", speed.per_core()}});
    }
    write_json(arguments.json, std::move(report), "bench");
}

}  // namespace

void add_bench_loader(CLI::App& bench) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = bench.add_subcommand("loader", "Pictures a second that the training loader prepares");
    arguments->config.add_to(*command);
    command->add_option("--data", arguments->data,
                        "in place of --config: a folder that holds a folder of pictures a "
                        "class");
    command->add_option("--image-size", arguments->image_size, "with --data: the pictures' height and width, pixels")
        ->check(within(between(1, 4096)))
        ->capture_default_str();
    add_list(*command, "-j,--workers", arguments->workers, "threads that prepare pictures; several: 1,2,4",
             within(between(1, kMostThreads)))
        ->capture_default_str();
    command->add_option("-b,--batch-size", arguments->batch_size, "pictures at a time")
        ->check(within(between(1, 65536)))
        ->capture_default_str();
    command->add_option("--seconds", arguments->seconds, "how long to measure")
        ->check(within(above(0)))
        ->capture_default_str();
    command->add_option("--images", arguments->images, "in place of --seconds: how many pictures, whole batches")
        ->check(within(between(1, 1 << 25)));
    command->add_option("--json", arguments->json, "write the results to this file too");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
