#include "dynvit/data/loader.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/data/planes.hpp"
#include "dynvit/data/training_order.hpp"

namespace dynvit {
namespace {

constexpr std::uint64_t kSampleTag = 0x73616d706c65;   // keeps the samples' random numbers apart from ...
constexpr std::uint64_t kReplacementTag = 0x7265706c;  // ... the choice of what stands in for a corrupt one
constexpr int kReplacements = 8;                       // tried before the pass fails

struct Size {
    int width = 0, height = 0;
    bool operator==(const Size&) const = default;
};

/// A batch in the making. Each sample writes to its own place; only `remaining` and `images` are shared.
struct Pending {
    Batch batch;
    std::int64_t epoch = 0;
    std::int64_t begin = 0;          // the whole batch's first sample's place in the epoch
    std::int64_t* labels = nullptr;  // the batch's; null where it has rows of classes:
    std::uint8_t* class_rows = nullptr;
    std::size_t classes = 0;    // of a row
    std::size_t remaining = 0;  // samples that are not finished; guarded by State::mutex

    std::mutex allocation;  // guards images and allocated until all samples are finished
    Size allocated;

    std::vector<std::optional<Size>> sizes;  // of each picture; nothing for a sample that is left out
    std::vector<std::exception_ptr> failures;
    std::vector<std::vector<CorruptSample>> corrupt;  // met at each place
};

/// Throws what went wrong at the batch's first failing place, whichever worker met it first.
void check(const Pending& pending) {
    std::optional<std::size_t> first;  // sample that was not left out
    for (std::size_t i = 0; i < pending.sizes.size(); ++i) {
        if (pending.failures[i]) std::rethrow_exception(pending.failures[i]);
        if (!pending.sizes[i]) continue;
        if (!first) first = i;
        const Size got = *pending.sizes[i], expected = *pending.sizes[*first];
        if (got != expected)
            throw Error("loader", pending.batch.names[i], ": the transform made ", got.width, " x ", got.height,
                        " pixels, while the batch's first sample (", pending.batch.names[*first], ") has ",
                        expected.width, " x ", expected.height);
    }
}

/// Closes the gaps that left-out samples make. The tensors stay where they are, so that pinned ones stay pinned.
void close_gaps(Pending& pending) {
    const std::size_t count = pending.sizes.size();
    Batch& batch = pending.batch;
    std::size_t kept = 0;
    for (std::size_t place = 0; place < count; ++place) {
        if (!pending.sizes[place]) continue;
        if (kept != place) {
            const std::size_t bytes = static_cast<std::size_t>(batch.images.numel()) / count;
            std::uint8_t* images = batch.images.mutable_data_ptr<std::uint8_t>();
            std::copy_n(images + place * bytes, bytes, images + kept * bytes);
            if (pending.labels) pending.labels[kept] = pending.labels[place];
            const std::size_t row = pending.classes;
            if (pending.class_rows) std::copy_n(pending.class_rows + place * row, row, pending.class_rows + kept * row);
            batch.indices[kept] = batch.indices[place];
            batch.rows[kept] = batch.rows[place];
            batch.names[kept] = std::move(batch.names[place]);
            batch.object_masks[kept] = std::move(batch.object_masks[place]);
        }
        ++kept;
    }
    if (kept == count) return;
    const auto size = static_cast<std::int64_t>(kept);
    if (batch.images.defined()) batch.images = batch.images.narrow(0, 0, size);
    batch.labels = batch.labels.narrow(0, 0, size);
    batch.indices.resize(kept);
    batch.rows.resize(kept);
    batch.names.resize(kept);
    batch.object_masks.resize(kept);
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
        if (options.epoch_batches > 0) batches = std::min(batches, options.epoch_batches);
        if (options.workers < 1) throw Error("loader", "workers is ", options.workers, ", at least 1 is needed");
        if (options.prefetch < 1) throw Error("loader", "prefetch is ", options.prefetch, ", at least 1 is needed");
        if (options.first_batch < 0 || options.first_batch > batches)
            throw Error("loader", "first_batch is ", options.first_batch, ", the epoch has ", batches, " batches");
        if (options.shuffle_window < 0)
            throw Error("loader", "shuffle_window is ", options.shuffle_window, ", at least 0 is needed");
        if (options.repeats < 1) throw Error("loader", "repeats is ", options.repeats, ", at least 1 is needed");
        if (options.batch_size < 2 * options.share.count && !options.share.whole())
            throw Error("loader", "batch_size is ", options.batch_size, ", at least 2 for each of ",
                        options.share.count, " processes are needed");
        if (!options.share.whole() && !options.drop_last && dataset.size() % options.batch_size != 0)
            throw Error("loader", "a last batch that is not full cannot be shared");
        if (options.epochs < 0) throw Error("loader", "epochs is ", options.epochs, ", at least 0 is needed");
        if (options.epoch_batches < 0)
            throw Error("loader", "epoch_batches is ", options.epoch_batches, ", at least 0 is needed");
        TORCH_CHECK(transform, "a loader needs a transform");

        arrange(options.epoch);
        opened = delivered = options.first_batch;
        end = std::max(options.first_batch, options.epochs * batches);
    }

    /// Puts the samples in an epoch's order.
    void arrange(std::int64_t epoch) {
        arranged = epoch;
        if (options.shuffle) {
            order = training_order(dataset.size(), dataset.shard_sizes(), options.shuffle_window, options.seed, epoch);
        } else {
            order.resize(dataset.size());
            std::iota(order.begin(), order.end(), std::size_t{0});
        }
    }

    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() {
        {
            const std::scoped_lock lock(mutex);
            stop = true;
        }
        room.notify_all();
        for (std::thread& thread : threads) thread.join();
    }

    /// Apart from the constructor, so that the destructor joins what was started if a further thread cannot be.
    void start() {
        for (int i = 0; i < options.workers; ++i) threads.emplace_back([this] { work(); });
    }

    /// Whether a sample may be begun: one of the newest batch, or the first of a further one if the queue has room.
    bool has_work() const { return position < last_size() || (opened < end && opened < delivered + options.prefetch); }

    std::size_t last_size() const { return pending.empty() ? 0 : pending.back()->sizes.size(); }

    void open_batch() {
        const std::int64_t epoch = options.epoch + opened / batches;
        if (epoch != arranged) arrange(epoch);
        const std::int64_t first = opened % batches * options.batch_size;
        const std::int64_t last = std::min<std::int64_t>(first + options.batch_size, std::ssize(order));
        auto next = std::make_unique<Pending>();
        next->epoch = epoch;
        next->begin = first;
        next->batch.whole = last - first;
        next->batch.rows = options.share.rows(last - first);
        const std::size_t size = next->batch.rows.size();
        for (const std::int64_t row : next->batch.rows) {
            next->batch.indices.push_back(order[(first + row) / options.repeats]);
        }
        next->batch.names.resize(size);
        make_labels(*next, static_cast<std::int64_t>(size));
        next->batch.object_masks.resize(size);
        next->remaining = size;
        next->sizes.resize(size);
        next->failures.resize(size);
        next->corrupt.resize(size);
        pending.push_back(std::move(next));
        position = 0;
        ++opened;
    }

    void make_labels(Pending& next, std::int64_t size) const {
        at::Tensor& labels = next.batch.labels;
        if (dataset.multi_label()) {
            next.classes = dataset.class_names().size();
            labels = at::zeros({size, static_cast<std::int64_t>(next.classes)}, at::kByte);
            next.class_rows = labels.mutable_data_ptr<std::uint8_t>();
        } else {
            labels = at::empty({size}, at::kLong);
            next.labels = labels.mutable_data_ptr<std::int64_t>();
        }
    }

    void work() {
        std::unique_lock lock(mutex);
        while (true) {
            room.wait(lock, [&] { return stop || opening_failed || has_work() || opened == end; });
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
            std::optional<Made> made = make_or_replace(current, place);
            if (!made) return;
            auto& [index, sample, image] = *made;
            const std::size_t pixels = static_cast<std::size_t>(image.width) * image.height;
            if (!sample.object_mask.empty() && sample.object_mask.size() != pixels)
                throw Error("loader", sample.name, ": the object mask has ", sample.object_mask.size(),
                            " values, the transformed picture ", image.width, " x ", image.height, " pixels");
            if (std::uint8_t* to = room_for(current, {image.width, image.height}, place)) copy_to_planes(image, to);
            if (current.labels) current.labels[place] = sample.label;
            for (const std::int64_t label : sample.labels) {
                if (current.class_rows) current.class_rows[place * current.classes + label] = 1;
            }
            current.batch.indices[place] = index;
            current.batch.names[place] = std::move(sample.name);
            current.batch.object_masks[place] = std::move(sample.object_mask);
            current.sizes[place] = {image.width, image.height};
        } catch (...) {
            current.failures[place] = std::current_exception();
        }
    }

    struct Made {
        std::size_t index;
        Sample sample;
        Image image;
    };

    Made make(std::size_t index, std::uint64_t seed) const {
        Sample sample = dataset.get(index);
        Random random(seed);
        Image image = transform(sample, random);
        return {index, std::move(sample), std::move(image)};
    }

    /// The sample that belongs at a place or, where that one is corrupt, what the options put there: nothing, or
    /// another.
    std::optional<Made> make_or_replace(Pending& current, std::size_t place) const {
        const std::size_t index = current.batch.indices[place];
        const auto epoch = static_cast<std::uint64_t>(current.epoch);
        const std::uint64_t seed =
            sample_seed(epoch, index, (current.begin + current.batch.rows[place]) % options.repeats);
        if (options.on_corrupt == OnCorrupt::kFail) return make(index, seed);
        std::vector<CorruptSample>& corrupt = current.corrupt[place];
        Random choice(mix_seed({options.seed, epoch, index, kReplacementTag}));
        std::size_t candidate = index;
        for (int tried = 0; tried <= kReplacements; ++tried) {
            try {
                return make(candidate, seed);
            } catch (const Error& error) {
                corrupt.push_back({candidate, dataset.name(candidate), error.what()});
            }
            if (options.on_corrupt == OnCorrupt::kSkip) return std::nullopt;
            candidate = static_cast<std::size_t>(choice.integer(0, static_cast<std::int64_t>(dataset.size())));
        }
        throw Error("loader", corrupt.front().name, ": cannot be used, nor can any of ", kReplacements,
                    " others that were tried in its place; the last: ", corrupt.back().reason);
    }

    std::uint64_t sample_seed(std::uint64_t epoch, std::size_t index, std::int64_t repetition) const {
        if (repetition == 0) return mix_seed({options.seed, epoch, index, kSampleTag});
        return mix_seed({options.seed, epoch, index, kSampleTag, static_cast<std::uint64_t>(repetition)});
    }

    /// Where the picture at `place` goes in the batch's tensor, which the first sample to come makes; null if that one
    /// had another size (check() will say so).
    std::uint8_t* room_for(Pending& current, Size size, std::size_t place) const {
        const std::scoped_lock lock(current.allocation);
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
        while (std::unique_ptr<Pending> front = take_front()) {
            check(*front);
            close_gaps(*front);
            if (!front->batch.indices.empty()) return std::move(front->batch);
        }
        return std::nullopt;
    }

    /// The next batch once its samples are finished; null at the end.
    std::unique_ptr<Pending> take_front() {
        std::unique_ptr<Pending> front;
        {
            std::unique_lock lock(mutex);
            if (delivered == end) return nullptr;
            finished.wait(lock, [&] {
                return (!pending.empty() && pending.front()->remaining == 0) || (pending.empty() && opening_failed);
            });
            if (pending.empty()) std::rethrow_exception(opening_failed);
            front = std::move(pending.front());
            pending.pop_front();
            if (pending.empty()) position = 0;
            ++delivered;
            note_corrupt(*front);
        }
        room.notify_all();
        return front;
    }

    void note_corrupt(Pending& from) {
        for (std::vector<CorruptSample>& met : from.corrupt)
            for (CorruptSample& sample : met)
                if (known_corrupt.insert(sample.index).second) corrupt.push_back(std::move(sample));
    }

    const Dataset& dataset;
    const SampleTransform transform;
    const LoaderOptions options;
    std::int64_t batches = 0;  // an epoch
    std::int64_t end = 0;      // the number of the batch after the last; the first epoch's first has 0

    mutable std::mutex mutex;  // guards what follows
    std::vector<std::size_t> order;
    std::int64_t arranged = 0;  // the epoch that `order` is of
    std::condition_variable room, finished;
    std::vector<CorruptSample> corrupt;            // of the batches handed out
    std::set<std::size_t> known_corrupt;           // their indices
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

std::vector<CorruptSample> Loader::corrupt() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->corrupt;
}

}  // namespace dynvit
