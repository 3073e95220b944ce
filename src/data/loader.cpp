#include "dynvit/data/loader.hpp"

#include <ATen/ops/empty.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr std::uint64_t kOrderTag = 0x6f72646572;     // keeps the order's random numbers apart from ...
constexpr std::uint64_t kSampleTag = 0x73616d706c65;  // ... those of the samples

struct Size {
    int width = 0, height = 0;
    bool operator==(const Size&) const = default;
};

/// A batch in the making. Each sample writes to its own place; only `remaining` and `images` are shared.
struct Pending {
    Batch batch;
    std::int64_t* labels = nullptr;  // the batch's
    std::size_t remaining = 0;       // samples that are not finished; guarded by State::mutex

    std::mutex allocation;  // guards images and allocated until all samples are finished
    Size allocated;

    std::vector<Size> sizes;  // of each picture
    std::vector<std::string> names;
    std::vector<std::exception_ptr> failures;
};

/// Copies an interleaved picture into three planes.
void copy_to_planes(const Image& image, std::uint8_t* planes) {
    const std::size_t pixels = static_cast<std::size_t>(image.width) * image.height;
    const std::uint8_t* from = image.pixels.data();
    std::uint8_t *red = planes, *green = planes + pixels, *blue = planes + 2 * pixels;
    for (std::size_t i = 0; i < pixels; ++i) {
        red[i] = from[3 * i];
        green[i] = from[3 * i + 1];
        blue[i] = from[3 * i + 2];
    }
}

/// Throws what went wrong at the batch's first failing place, whichever worker met it first.
void check(const Pending& pending) {
    for (std::size_t i = 0; i < pending.sizes.size(); ++i) {
        if (pending.failures[i]) std::rethrow_exception(pending.failures[i]);
        const Size got = pending.sizes[i], first = pending.sizes[0];
        if (got != first)
            throw Error("loader", pending.names[i], ": the transform made ", got.width, " x ", got.height,
                        " pixels, while the batch's first sample (", pending.names[0], ") has ", first.width, " x ",
                        first.height);
    }
}

}  // namespace

std::int64_t batch_count(std::size_t samples, const LoaderOptions& options) {
    if (options.batch_size < 1) throw Error("loader", "batch_size is ", options.batch_size, ", at least 1 is needed");
    const auto count = static_cast<std::int64_t>(samples);
    return count / options.batch_size + (!options.drop_last && count % options.batch_size != 0 ? 1 : 0);
}

struct Loader::State {
    State(const Dataset& data, SampleTransform function, const LoaderOptions& settings)
        : dataset(data), transform(std::move(function)), options(settings) {
        batches = batch_count(dataset.size(), options);
        if (options.workers < 1) throw Error("loader", "workers is ", options.workers, ", at least 1 is needed");
        if (options.prefetch < 1) throw Error("loader", "prefetch is ", options.prefetch, ", at least 1 is needed");
        if (options.first_batch < 0 || options.first_batch > batches)
            throw Error("loader", "first_batch is ", options.first_batch, ", the epoch has ", batches, " batches");
        TORCH_CHECK(transform, "a loader needs a transform");

        order.resize(dataset.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (options.shuffle) Random(mix_seed({options.seed, epoch(), kOrderTag})).shuffle(order);
        opened = delivered = options.first_batch;
    }

    ~State() {
        {
            const std::lock_guard lock(mutex);
            stop = true;
        }
        room.notify_all();
        for (std::thread& thread : threads) thread.join();
    }

    /// Apart from the constructor, so that the destructor joins what was started if a further thread cannot be.
    void start() {
        for (int i = 0; i < options.workers; ++i) threads.emplace_back([this] { work(); });
    }

    std::uint64_t epoch() const { return static_cast<std::uint64_t>(options.epoch); }

    /// Whether a sample may be begun: one of the newest batch, or the first of a further one if the queue has room.
    bool has_work() const {
        return position < last_size() || (opened < batches && opened < delivered + options.prefetch);
    }

    std::size_t last_size() const { return pending.empty() ? 0 : pending.back()->sizes.size(); }

    void open_batch() {
        const std::int64_t begin = opened * options.batch_size;
        const std::int64_t end = std::min<std::int64_t>(begin + options.batch_size, std::ssize(order));
        const auto size = static_cast<std::size_t>(end - begin);
        auto next = std::make_unique<Pending>();
        next->batch.indices.assign(order.begin() + begin, order.begin() + end);
        next->batch.labels = at::empty({end - begin}, at::kLong);
        next->labels = next->batch.labels.mutable_data_ptr<std::int64_t>();
        next->batch.object_masks.resize(size);
        next->remaining = size;
        next->sizes.resize(size);
        next->names.resize(size);
        next->failures.resize(size);
        pending.push_back(std::move(next));
        position = 0;
        ++opened;
    }

    void work() {
        std::unique_lock lock(mutex);
        while (true) {
            room.wait(lock, [&] { return stop || opening_failed || has_work() || opened == batches; });
            if (stop || opening_failed || !has_work()) return;
            if (position >= last_size()) {
                try {
                    open_batch();
                } catch (...) {  // no memory
                    opening_failed = std::current_exception();
                    room.notify_all();
                    finished.notify_all();
                    return;
                }
                room.notify_all();  // the others help
            }
            Pending& current = *pending.back();
            const std::size_t place = position++;
            lock.unlock();
            make_sample(current, place);
            lock.lock();
            if (--current.remaining == 0) finished.notify_all();
        }
    }

    void make_sample(Pending& current, std::size_t place) const {
        try {
            const std::size_t index = current.batch.indices[place];
            Sample sample = dataset.get(index);
            Random random(mix_seed({options.seed, epoch(), index, kSampleTag}));
            current.labels[place] = sample.label;
            current.names[place] = sample.name;
            const Image image = transform(sample, random);
            const std::size_t pixels = static_cast<std::size_t>(image.width) * image.height;
            if (!sample.object_mask.empty() && sample.object_mask.size() != pixels)
                throw Error("loader", sample.name, ": the object mask has ", sample.object_mask.size(),
                            " values, the transformed picture ", image.width, " x ", image.height, " pixels");
            current.sizes[place] = {image.width, image.height};
            current.batch.object_masks[place] = std::move(sample.object_mask);
            if (std::uint8_t* to = room_for(current, {image.width, image.height}, place)) copy_to_planes(image, to);
        } catch (...) {
            current.failures[place] = std::current_exception();
        }
    }

    /// Where the picture at `place` goes in the batch's tensor, which the first sample to come makes; null if that one
    /// had another size (check() will say so).
    std::uint8_t* room_for(Pending& current, Size size, std::size_t place) const {
        const std::lock_guard lock(current.allocation);
        at::Tensor& images = current.batch.images;
        if (!images.defined()) {
            const auto count = static_cast<std::int64_t>(current.sizes.size());
            images = at::empty({count, 3, size.height, size.width},
                               at::TensorOptions(at::kByte).pinned_memory(options.pin_memory));  // (B, 3, H, W)
            current.allocated = size;
        }
        if (current.allocated != size) return nullptr;
        return images.mutable_data_ptr<std::uint8_t>() + place * 3 * size.width * size.height;
    }

    std::optional<Batch> next() {
        std::unique_ptr<Pending> front;
        {
            std::unique_lock lock(mutex);
            if (delivered == batches) return std::nullopt;
            finished.wait(lock, [&] {
                return (!pending.empty() && pending.front()->remaining == 0) || (pending.empty() && opening_failed);
            });
            if (pending.empty()) std::rethrow_exception(opening_failed);
            front = std::move(pending.front());
            pending.pop_front();
            if (pending.empty()) position = 0;
            ++delivered;
        }
        room.notify_all();
        check(*front);
        return std::move(front->batch);
    }

    const Dataset& dataset;
    const SampleTransform transform;
    const LoaderOptions options;
    std::int64_t batches = 0;
    std::vector<std::size_t> order;

    std::mutex mutex;  // guards what follows
    std::condition_variable room, finished;
    std::deque<std::unique_ptr<Pending>> pending;  // from the next to be delivered to the newest
    std::size_t position = 0;                      // the newest batch's next sample to be begun
    std::int64_t opened = 0, delivered = 0;        // numbers of the next batch to be begun and to be handed out
    bool stop = false;
    std::exception_ptr opening_failed;

    std::vector<std::thread> threads;
};

Loader::Loader(const Dataset& dataset, SampleTransform transform, const LoaderOptions& options)
    : state_(std::make_unique<State>(dataset, std::move(transform), options)) {
    state_->start();
}

Loader::~Loader() = default;

std::optional<Batch> Loader::next() {
    return state_->next();
}

}  // namespace dynvit
