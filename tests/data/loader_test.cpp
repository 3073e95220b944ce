// Batches against a plain loop over the data set: same contents in the same order, whatever the number of workers.
#include "dynvit/data/loader.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "dynvit/data/training_order.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;

constexpr int kWidth = 5, kHeight = 3;

/// Pictures whose every byte tells index, place and channel. Counts how often each was read.
class Numbered : public Dataset {
  public:
    explicit Numbered(std::size_t size) : size_(size), reads_(size) {}

    std::size_t size() const override { return size_; }
    const std::vector<std::string>& class_names() const override { return names_; }

    Sample get(std::size_t index) const override {
        ++reads_[index];
        if (index == failing || broken.contains(index)) throw Error("numbered", "sample ", index, " is broken");
        Sample sample;
        sample.image = Image(kWidth, kHeight);
        for (std::size_t i = 0; i < sample.image.pixels.size(); ++i)
            sample.image.pixels[i] = static_cast<std::uint8_t>(31 * index + i);
        sample.label = static_cast<std::int64_t>(1000 + index);
        sample.name = name(index);
        if (index % 2 == 0) sample.object_mask.assign(kWidth * kHeight, static_cast<std::uint8_t>(index % 4 == 0));
        return sample;
    }

    std::string name(std::size_t index) const override { return str("numbered/", index); }
    std::vector<std::size_t> shard_sizes() const override { return shards; }

    int reads(std::size_t index) const { return reads_[index]; }

    std::size_t failing = SIZE_MAX;
    std::set<std::size_t> broken;
    std::vector<std::size_t> shards;

  private:
    std::size_t size_;
    std::vector<std::string> names_ = {"a"};
    mutable std::vector<std::atomic<int>> reads_;
};

Image unchanged(Sample& sample, Random&) {
    return std::move(sample.image);
}

/// Adds a number of the sample's own generator to each byte.
Image noisy(Sample& sample, Random& random) {
    for (std::uint8_t& byte : sample.image.pixels) byte = static_cast<std::uint8_t>(byte + random.integer(0, 256));
    return std::move(sample.image);
}

std::vector<Batch> all_batches(const Dataset& dataset, const SampleTransform& transform, const LoaderOptions& options) {
    Loader loader(dataset, transform, options);
    std::vector<Batch> batches;
    while (std::optional<Batch> batch = loader.next()) batches.push_back(std::move(*batch));
    EXPECT_FALSE(loader.next().has_value());  // the end stays the end
    return batches;
}

template <class T>
std::vector<T> values(const at::Tensor& tensor) {
    return {tensor.const_data_ptr<T>(), tensor.const_data_ptr<T>() + tensor.numel()};
}

void expect_equal(const std::vector<Batch>& got, const std::vector<Batch>& expected) {
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        SCOPED_TRACE(str("batch ", i));
        EXPECT_EQ(got[i].indices, expected[i].indices);
        EXPECT_EQ(got[i].names, expected[i].names);
        EXPECT_EQ(got[i].images.sizes(), expected[i].images.sizes());
        EXPECT_EQ(values<std::uint8_t>(got[i].images), values<std::uint8_t>(expected[i].images));
        EXPECT_EQ(values<std::int64_t>(got[i].labels), values<std::int64_t>(expected[i].labels));
        EXPECT_EQ(got[i].object_masks, expected[i].object_masks);
    }
}

std::vector<std::size_t> indices_of(const std::vector<Batch>& batches) {
    std::vector<std::size_t> indices;
    for (const Batch& batch : batches) indices.insert(indices.end(), batch.indices.begin(), batch.indices.end());
    return indices;
}

TEST(Loader, BatchHoldsTheSamplesPlanes) {
    const Numbered dataset(10);
    const std::vector<Batch> batches = all_batches(dataset, unchanged, {.batch_size = 4, .workers = 3});
    ASSERT_EQ(batches.size(), 3u);
    std::size_t index = 0;
    for (const Batch& batch : batches) {
        const std::int64_t size = batch.images.size(0);
        EXPECT_EQ(batch.images.sizes(), (std::vector<std::int64_t>{size, 3, kHeight, kWidth}));
        EXPECT_EQ(batch.images.scalar_type(), at::kByte);
        EXPECT_TRUE(batch.images.is_contiguous());
        ASSERT_EQ(batch.labels.sizes(), (std::vector<std::int64_t>{size}));
        ASSERT_EQ(batch.object_masks.size(), static_cast<std::size_t>(size));
        const std::uint8_t* byte = batch.images.const_data_ptr<std::uint8_t>();
        for (std::int64_t i = 0; i < size; ++i, ++index) {
            const Sample sample = dataset.get(index);
            EXPECT_EQ(batch.indices[i], index);
            EXPECT_EQ(batch.names[i], sample.name);
            EXPECT_EQ(batch.labels.const_data_ptr<std::int64_t>()[i], sample.label);
            EXPECT_EQ(batch.object_masks[i], sample.object_mask);
            for (int c = 0; c < 3; ++c)
                for (int y = 0; y < kHeight; ++y)
                    for (int x = 0; x < kWidth; ++x) ASSERT_EQ(*byte++, sample.image.at(x, y)[c]);
        }
    }
    EXPECT_EQ(index, 10u);
}

TEST(Loader, WorkersAndPrefetchChangeNothing) {
    const Numbered dataset(101);
    LoaderOptions options{.batch_size = 8, .workers = 1, .prefetch = 1, .shuffle = true, .seed = 3, .epoch = 2};
    const std::vector<Batch> expected = all_batches(dataset, noisy, options);
    for (const int workers : {1, 2, 7})
        for (const int prefetch : {1, 3, 50}) {
            SCOPED_TRACE(str(workers, " workers, prefetch ", prefetch));
            options.workers = workers;
            options.prefetch = prefetch;
            expect_equal(all_batches(dataset, noisy, options), expected);
        }
}

TEST(Loader, SamplesGeneratorDependsOnSeedEpochAndIndex) {
    const Numbered dataset(6);
    const LoaderOptions options{.batch_size = 1};
    const auto pictures = [&](const LoaderOptions& with) {
        std::vector<std::vector<std::uint8_t>> all(dataset.size());
        for (const Batch& batch : all_batches(dataset, noisy, with))
            for (std::size_t i = 0; i < batch.indices.size(); ++i)
                all[batch.indices[i]] = values<std::uint8_t>(batch.images[static_cast<std::int64_t>(i)]);
        return all;
    };
    const auto first = pictures(options);
    LoaderOptions other = options;
    other.shuffle = true;  // another order and other batches: the same pictures
    other.batch_size = 4;
    EXPECT_EQ(pictures(other), first);
    other = options;
    other.epoch = 1;
    const auto next_epoch = pictures(other);
    other = options;
    other.seed = 1;
    const auto other_seed = pictures(other);
    for (std::size_t i = 0; i < dataset.size(); ++i) {
        EXPECT_NE(next_epoch[i], first[i]);
        EXPECT_NE(other_seed[i], first[i]);
    }
}

TEST(Loader, ShuffleIsAPermutationOfItsOwnEachEpoch) {
    const Numbered dataset(60);
    std::set<std::vector<std::size_t>> orders;
    for (std::int64_t epoch = 0; epoch < 5; ++epoch)
        for (std::uint64_t seed = 0; seed < 2; ++seed) {
            std::vector<std::size_t> order = indices_of(
                all_batches(dataset, unchanged, {.batch_size = 7, .shuffle = true, .seed = seed, .epoch = epoch}));
            orders.insert(order);
            std::sort(order.begin(), order.end());
            for (std::size_t i = 0; i < dataset.size(); ++i) ASSERT_EQ(order.at(i), i);
            EXPECT_EQ(order.size(), dataset.size());
        }
    EXPECT_EQ(orders.size(), 10u);
}

TEST(Loader, ResumedEpochIsTheTailOfTheWholeOne) {
    const Numbered dataset(50);
    LoaderOptions options{.batch_size = 6, .workers = 3, .shuffle = true, .seed = 9, .epoch = 4};
    std::vector<Batch> whole = all_batches(dataset, noisy, options);
    ASSERT_EQ(whole.size(), 9u);
    for (const std::int64_t first : {1, 5, 8, 9}) {
        options.first_batch = first;
        const Numbered fresh(50);
        expect_equal(all_batches(fresh, noisy, options), std::vector<Batch>(whole.begin() + first, whole.end()));
        for (std::int64_t i = 0; i < first; ++i)
            for (const std::size_t index : whole[i].indices) EXPECT_EQ(fresh.reads(index), 0);
    }
}

TEST(Loader, LastBatchIsShortOrLeftOut) {
    const Numbered dataset(10);
    const auto sizes = [&](const LoaderOptions& options) {
        std::vector<std::int64_t> sizes;
        for (const Batch& batch : all_batches(dataset, unchanged, options)) sizes.push_back(batch.images.size(0));
        EXPECT_EQ(std::ssize(sizes), batch_count(dataset.size(), options));
        return sizes;
    };
    using Sizes = std::vector<std::int64_t>;
    EXPECT_EQ(sizes({.batch_size = 4}), (Sizes{4, 4, 2}));
    EXPECT_EQ(sizes({.batch_size = 4, .drop_last = true}), (Sizes{4, 4}));
    EXPECT_EQ(sizes({.batch_size = 5, .drop_last = true}), (Sizes{5, 5}));
    EXPECT_EQ(sizes({.batch_size = 11}), (Sizes{10}));
    EXPECT_EQ(sizes({.batch_size = 11, .drop_last = true}), Sizes{});
}

TEST(Loader, EmptyDatasetHasNoBatches) {
    EXPECT_TRUE(all_batches(Numbered(0), unchanged, {}).empty());
    EXPECT_EQ(batch_count(0, {}), 0);
}

TEST(Loader, ErrorArrivesAtItsBatch) {
    for (const int workers : {1, 2, 7}) {
        Numbered dataset(20);
        dataset.failing = 10;  // in the third batch of four
        Loader loader(dataset, unchanged, {.batch_size = 4, .workers = workers, .prefetch = 5});
        EXPECT_EQ(loader.next()->indices.front(), 0u);
        EXPECT_EQ(loader.next()->indices.front(), 4u);
        EXPECT_EQ(test::error_of([&] { loader.next(); }), "[numbered] sample 10 is broken");
        EXPECT_EQ(loader.next()->indices.front(), 12u);  // the others are as good as ever
        EXPECT_EQ(loader.next()->indices.front(), 16u);
        EXPECT_FALSE(loader.next().has_value());
    }
}

TEST(Loader, TransformsErrorOfAnyTypeArrives) {
    const Numbered dataset(3);
    Loader loader(dataset, [](Sample&, Random&) -> Image { throw std::out_of_range("42"); }, {.batch_size = 2});
    EXPECT_THROW(loader.next(), std::out_of_range);
    EXPECT_THROW(loader.next(), std::out_of_range);
    EXPECT_FALSE(loader.next().has_value());
}

TEST(Loader, FirstFailingSampleOfABatchIsNamed) {
    const Numbered dataset(32);
    const auto fail_from_five = [](Sample& sample, Random&) {
        if (sample.label >= 1005) throw Error("test", sample.name);
        return std::move(sample.image);
    };
    for (int i = 0; i < 20; ++i) {
        Loader loader(dataset, fail_from_five, {.batch_size = 32, .workers = 7});
        EXPECT_EQ(test::error_of([&] { loader.next(); }), "[test] numbered/5");
    }
}

TEST(Loader, PicturesOfTwoSizesAreRefused) {
    const Numbered dataset(12);
    const auto odd_one = [](Sample& sample, Random&) { return sample.label == 1009 ? Image(6, 2) : Image(4, 4); };
    const auto maskless = [&](Sample& sample, Random& random) {
        sample.object_mask.clear();
        return odd_one(sample, random);
    };
    for (const int workers : {1, 2, 7}) {
        Loader loader(dataset, maskless, {.batch_size = 6, .workers = workers});
        EXPECT_TRUE(loader.next().has_value());
        EXPECT_EQ(
            test::error_of([&] { loader.next(); }),
            "[loader] numbered/9: the transform made 6 x 2 pixels, while the batch's first sample (numbered/6) has "
            "4 x 4");
    }
}

TEST(Loader, MaskOfAnotherSizeIsRefused) {
    const Numbered dataset(1);
    Loader loader(dataset, [](Sample&, Random&) { return Image(2, 2); }, {});
    EXPECT_EQ(test::error_of([&] { loader.next(); }),
              "[loader] numbered/0: the object mask has 15 values, the transformed picture 2 x 2 pixels");
}

TEST(Loader, LeavingEarlyStopsTheWorkers) {
    const Numbered dataset(1000);
    for (int taken = 0; taken < 3; ++taken)
        for (int i = 0; i < 20; ++i) {
            Loader loader(dataset, unchanged, {.batch_size = 4, .workers = 4, .prefetch = 2});
            for (int batch = 0; batch < taken; ++batch) ASSERT_TRUE(loader.next().has_value());
        }
    // Never more was begun than what was taken and the queue may hold.
    for (std::size_t index = 4 * (2 + 2); index < dataset.size(); ++index) ASSERT_EQ(dataset.reads(index), 0);
}

TEST(Loader, RefusesImpossibleOptions) {
    const Numbered dataset(10);
    const auto open = [&](const LoaderOptions& options) {
        return [&dataset, options] { Loader(dataset, unchanged, options); };
    };
    EXPECT_EQ(error_of(open({.batch_size = 0})), "[loader] batch_size is 0, at least 1 is needed");
    EXPECT_EQ(error_of(open({.workers = 0})), "[loader] workers is 0, at least 1 is needed");
    EXPECT_EQ(error_of(open({.prefetch = 0})), "[loader] prefetch is 0, at least 1 is needed");
    EXPECT_EQ(error_of(open({.batch_size = 5, .first_batch = 3})),
              "[loader] first_batch is 3, the epoch has 2 batches");
    EXPECT_EQ(error_of(open({.first_batch = -1})), "[loader] first_batch is -1, the epoch has 1 batches");
    EXPECT_EQ(error_of(open({.shuffle_window = -1})), "[loader] shuffle_window is -1, at least 0 is needed");
    EXPECT_EQ(error_of(open({.repeats = 0})), "[loader] repeats is 0, at least 1 is needed");
}

// --- Several epochs ---

TEST(LoaderEpochs, FollowOneAnotherAsIfEachHadALoader) {
    Numbered dataset(47);
    dataset.broken = {7, 30};
    dataset.shards = {10, 10, 20, 7};
    LoaderOptions options{.batch_size = 5, .workers = 1, .shuffle = true, .seed = 4, .epoch = 3};
    options.shuffle_window = 15;
    options.repeats = 2;
    options.on_corrupt = OnCorrupt::kReplace;
    for (const std::int64_t epoch_batches : {0, 7}) {
        std::vector<Batch> expected;
        for (options.epoch = 3; options.epoch < 6; ++options.epoch) {
            const std::vector<Batch> one = all_batches(dataset, noisy, options);
            expected.insert(expected.end(), one.begin(), epoch_batches > 0 ? one.begin() + epoch_batches : one.end());
        }
        LoaderOptions whole = options;
        whole.epoch = 3;
        whole.epochs = 3;
        whole.epoch_batches = epoch_batches;
        for (const int workers : {1, 3, 8}) {
            SCOPED_TRACE(str(workers, " workers"));
            whole.workers = workers;
            whole.first_batch = 0;
            expect_equal(all_batches(dataset, noisy, whole), expected);
            whole.first_batch = 4;
            expect_equal(all_batches(dataset, noisy, whole), {expected.begin() + 4, expected.end()});
        }
    }
}

TEST(LoaderEpochs, NoneAreTheEnd) {
    const Numbered dataset(10);
    EXPECT_TRUE(all_batches(dataset, unchanged, {.batch_size = 5, .epochs = 0}).empty());
    EXPECT_TRUE(all_batches(dataset, unchanged, {.batch_size = 5, .epochs = 0, .first_batch = 1}).empty());
    EXPECT_TRUE(all_batches(Numbered(0), unchanged, {.epochs = 3}).empty());
    EXPECT_EQ(error_of([&] { Loader(dataset, unchanged, {.epochs = -1}); }),
              "[loader] epochs is -1, at least 0 is needed");
    EXPECT_EQ(error_of([&] { Loader(dataset, unchanged, {.epoch_batches = -1}); }),
              "[loader] epoch_batches is -1, at least 0 is needed");
}

TEST(LoaderEpochs, WorkersStayAndWorkAhead) {
    constexpr std::size_t kSize = 6;
    const Numbered dataset(kSize);
    std::mutex mutex;
    std::set<std::thread::id> threads;
    std::size_t made = 0;
    std::promise<void> second_begun;
    const auto watch = [&](Sample& sample, Random&) {
        const std::scoped_lock lock(mutex);
        threads.insert(std::this_thread::get_id());
        if (++made == kSize + 1) second_begun.set_value();
        return std::move(sample.image);
    };
    Loader loader(dataset, watch, {.batch_size = 3, .workers = 2, .prefetch = 1, .epochs = 20});
    for (int batch = 0; batch < 2; ++batch) ASSERT_TRUE(loader.next().has_value());
    EXPECT_EQ(second_begun.get_future().wait_for(std::chrono::minutes(5)), std::future_status::ready)
        << "nobody has asked for a batch of the second epoch yet";
    while (loader.next()) continue;
    EXPECT_EQ(made, 20 * kSize);
    EXPECT_LE(threads.size(), 2u);
}

// --- Corrupt samples ---

using Pixels = std::vector<std::uint8_t>;

Pixels picture(const Batch& batch, std::size_t place) {
    return values<std::uint8_t>(batch.images[static_cast<std::int64_t>(place)]);
}

std::vector<std::string> names_of(const std::vector<CorruptSample>& corrupt) {
    std::vector<std::string> names;
    for (const CorruptSample& sample : corrupt) names.push_back(sample.name);
    return names;
}

/// noisy(), for samples of which some break only when they are transformed, as pictures do.
Image noisy_or_broken(Sample& sample, Random& random) {
    Image image = noisy(sample, random);
    if (sample.label % 10 == 4) throw Error("test", sample.name, ": damaged");
    return image;
}

TEST(LoaderCorrupt, ReplacementIsAnotherSampleInTheSamePlace) {
    Numbered whole(40), dataset(40);
    dataset.broken = {3, 11, 27, 28};
    const LoaderOptions options{
        .batch_size = 6, .shuffle = true, .seed = 5, .epoch = 1, .on_corrupt = OnCorrupt::kReplace};
    const std::vector<Batch> expected = all_batches(whole, noisy, options), got = all_batches(dataset, noisy, options);
    ASSERT_EQ(got.size(), expected.size());
    int replaced = 0;
    for (std::size_t b = 0; b < got.size(); ++b) {
        ASSERT_EQ(got[b].images.sizes(), expected[b].images.sizes());
        for (std::size_t i = 0; i < got[b].indices.size(); ++i) {
            const std::size_t index = got[b].indices[i], due = expected[b].indices[i];
            EXPECT_EQ(values<std::int64_t>(got[b].labels)[i], static_cast<std::int64_t>(1000 + index));
            EXPECT_EQ(got[b].names[i], str("numbered/", index));
            EXPECT_FALSE(dataset.broken.contains(index));
            if (dataset.broken.contains(due)) {
                ++replaced;
                // Numbered's pictures differ by a constant, and so they do under the noise of one generator.
                const auto shift = static_cast<std::uint8_t>(31 * (index - due));
                Pixels shifted = picture(expected[b], i);
                for (std::uint8_t& byte : shifted) byte = static_cast<std::uint8_t>(byte + shift);
                EXPECT_EQ(picture(got[b], i), shifted);
            } else {
                EXPECT_EQ(index, due);
                EXPECT_EQ(picture(got[b], i), picture(expected[b], i));
            }
        }
    }
    EXPECT_EQ(replaced, 4);
}

TEST(LoaderCorrupt, WorkersChangeNothing) {
    for (const OnCorrupt on_corrupt : {OnCorrupt::kReplace, OnCorrupt::kSkip}) {
        Numbered dataset(90);
        dataset.broken = {0, 7, 8, 9, 50, 89};
        LoaderOptions options{.batch_size = 7, .workers = 1, .shuffle = true, .epoch = 3, .on_corrupt = on_corrupt};
        options.repeats = 2;
        const auto pass = [&] {
            Loader loader(dataset, noisy_or_broken, options);
            std::vector<Batch> batches;
            while (std::optional<Batch> batch = loader.next()) batches.push_back(std::move(*batch));
            return std::pair(std::move(batches), names_of(loader.corrupt()));
        };
        const auto [expected, corrupt] = pass();
        EXPECT_GE(corrupt.size(), 4u);  // of the 15 that break, those among the first half of the order
        for (const int workers : {3, 8}) {
            options.workers = workers;
            const auto [batches, names] = pass();
            expect_equal(batches, expected);
            EXPECT_EQ(names, corrupt);
        }
        options.first_batch = 5;
        expect_equal(pass().first, {expected.begin() + 5, expected.end()});
    }
}

TEST(LoaderCorrupt, ReplacementDependsOnSeedAndEpoch) {
    Numbered dataset(1000);
    dataset.broken = {500};
    std::set<std::size_t> replacements;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch)
        for (std::uint64_t seed = 0; seed < 3; ++seed) {
            const LoaderOptions options{
                .batch_size = 1000, .seed = seed, .epoch = epoch, .on_corrupt = OnCorrupt::kReplace};
            replacements.insert(indices_of(all_batches(dataset, unchanged, options)).at(500));
        }
    EXPECT_GE(replacements.size(), 8u);  // nine draws of 999: two equal ones are likely enough, three are not
}

TEST(LoaderCorrupt, EachIsListedOnceWithItsReason) {
    Numbered dataset(12);
    dataset.broken = {1, 6};
    LoaderOptions options{.batch_size = 4, .on_corrupt = OnCorrupt::kReplace};
    options.repeats = 3;
    Loader loader(dataset, noisy_or_broken, options);  // 0 0 0 1 | 1 1 2 2 | 2 3 3 3
    EXPECT_TRUE(loader.corrupt().empty());
    while (loader.next()) continue;
    const std::vector<CorruptSample> corrupt = loader.corrupt();
    std::set<std::size_t> indices;
    for (const CorruptSample& sample : corrupt) {
        EXPECT_TRUE(indices.insert(sample.index).second) << "twice: " << sample.name;
        EXPECT_EQ(sample.name, str("numbered/", sample.index));
        EXPECT_EQ(sample.reason, sample.index == 4 ? "[test] numbered/4: damaged"
                                                   : str("[numbered] sample ", sample.index, " is broken"));
    }
    ASSERT_FALSE(corrupt.empty());
    EXPECT_EQ(corrupt.front().index, 1u);
    for (const std::size_t index : indices) EXPECT_TRUE(index == 1 || index == 4 || index == 6) << index;
}

TEST(LoaderCorrupt, GivesUpWhereNothingCanBeRead) {
    Numbered dataset(5);
    dataset.broken = {0, 1, 2, 3, 4};
    Loader loader(dataset, unchanged, {.batch_size = 5, .on_corrupt = OnCorrupt::kReplace});
    const std::string text = error_of([&] { loader.next(); });
    const std::string start =
        "[loader] numbered/0: cannot be used, nor can any of 8 others that were tried in its place; the last: "
        "[numbered] sample ";
    EXPECT_EQ(text.substr(0, start.size()), start);
}

TEST(LoaderCorrupt, SkippedSamplesLeaveSmallerBatches) {
    Numbered dataset(14);
    dataset.broken = {0, 2, 4, 5, 6, 7, 11, 12, 13};  // the whole second batch and the whole last one
    const LoaderOptions options{.batch_size = 4, .workers = 3, .on_corrupt = OnCorrupt::kSkip};
    Loader loader(dataset, unchanged, options);
    std::vector<std::vector<std::size_t>> found;
    while (const std::optional<Batch> batch = loader.next()) {
        found.push_back(batch->indices);
        const auto size = static_cast<std::int64_t>(batch->indices.size());
        EXPECT_EQ(batch->images.sizes(), (std::vector<std::int64_t>{size, 3, kHeight, kWidth}));
        EXPECT_TRUE(batch->images.is_contiguous());
        EXPECT_EQ(batch->labels.size(0), size);
        ASSERT_EQ(batch->names.size(), batch->indices.size());
        ASSERT_EQ(batch->object_masks.size(), batch->indices.size());
        for (std::size_t i = 0; i < batch->indices.size(); ++i) {
            const Sample sample = dataset.get(batch->indices[i]);
            EXPECT_EQ(values<std::int64_t>(batch->labels)[i], sample.label);
            EXPECT_EQ(batch->names[i], sample.name);
            EXPECT_EQ(batch->object_masks[i], sample.object_mask);
            EXPECT_EQ(picture(*batch, i)[0], sample.image.pixels[0]);
            EXPECT_EQ(picture(*batch, i).back(), sample.image.pixels.back());
        }
    }
    EXPECT_EQ(found, (std::vector<std::vector<std::size_t>>{{1, 3}, {8, 9, 10}}));
    std::vector<std::size_t> corrupt;
    for (const CorruptSample& sample : loader.corrupt()) corrupt.push_back(sample.index);
    EXPECT_EQ(corrupt, (std::vector<std::size_t>{0, 2, 4, 5, 6, 7, 11, 12, 13}));
}

/// Those pictures with the classes that the index has bits of.
class NumberedRows : public Numbered {
  public:
    using Numbered::Numbered;
    const std::vector<std::string>& class_names() const override { return names_; }
    bool multi_label() const override { return true; }
    Sample get(std::size_t index) const override {
        Sample sample = Numbered::get(index);
        sample.labels = bits(index);
        return sample;
    }
    static std::vector<std::int64_t> bits(std::size_t index) {
        std::vector<std::int64_t> found;
        for (std::int64_t bit = 0; bit < 4; ++bit) {
            if (index >> bit & 1) found.push_back(bit);
        }
        return found;
    }

  private:
    std::vector<std::string> names_ = {"1", "2", "4", "8"};
};

TEST(LoaderRows, HoldEverySamplesClasses) {
    NumberedRows dataset(11);
    dataset.broken = {1, 5};
    for (const OnCorrupt on_corrupt : {OnCorrupt::kSkip, OnCorrupt::kReplace}) {
        std::size_t rows = 0;
        for (const Batch& batch : all_batches(
                 dataset, unchanged, {.batch_size = 4, .workers = 3, .shuffle = true, .on_corrupt = on_corrupt})) {
            ASSERT_EQ(batch.labels.sizes(), (std::vector<std::int64_t>{std::ssize(batch.indices), 4}));
            EXPECT_EQ(batch.labels.scalar_type(), at::kByte);
            for (std::size_t i = 0; i < batch.indices.size(); ++i, ++rows) {
                std::vector<std::uint8_t> expected(4);
                for (const std::int64_t bit : NumberedRows::bits(batch.indices[i])) expected[bit] = 1;
                EXPECT_EQ(values<std::uint8_t>(batch.labels[static_cast<std::int64_t>(i)].contiguous()), expected);
            }
        }
        EXPECT_EQ(rows, on_corrupt == OnCorrupt::kSkip ? 9u : 11u);
    }
}

TEST(LoaderCorrupt, OnlyErrorsOfTheSampleAreForgiven) {
    const Numbered dataset(3);
    for (const OnCorrupt on_corrupt : {OnCorrupt::kReplace, OnCorrupt::kSkip}) {
        const LoaderOptions options{.on_corrupt = on_corrupt};
        Loader bug(
            dataset, [](Sample&, Random&) -> Image { throw std::out_of_range("42"); }, options);
        EXPECT_THROW(bug.next(), std::out_of_range);
        Loader misfit(
            dataset, [](Sample&, Random&) { return Image(2, 2); }, options);
        EXPECT_NE(error_of([&] { misfit.next(); }).find("the object mask has 15 values"), std::string::npos);
    }
}

// --- Repeated augmentation ---

TEST(LoaderRepeats, EachSampleComesInARowAndTheEpochStaysAsLong) {
    const Numbered dataset(20);
    LoaderOptions options{.batch_size = 6, .shuffle = true, .seed = 2, .epoch = 7};
    const std::vector<std::size_t> once = indices_of(all_batches(dataset, noisy, options));
    options.repeats = 3;
    const std::vector<std::size_t> repeated = indices_of(all_batches(dataset, noisy, options));
    ASSERT_EQ(repeated.size(), 20u);
    for (std::size_t i = 0; i < repeated.size(); ++i) EXPECT_EQ(repeated[i], once[i / 3]);
}

TEST(LoaderRepeats, FirstRepetitionIsTheUnrepeatedPictureAndTheOthersAreNew) {
    const Numbered dataset(30);
    LoaderOptions options{.batch_size = 30, .shuffle = true};
    const Batch once = all_batches(dataset, noisy, options).at(0);
    options.repeats = 3;
    const Batch repeated = all_batches(dataset, noisy, options).at(0);
    for (std::size_t i = 0; i < 10; ++i) {
        EXPECT_EQ(picture(repeated, 3 * i), picture(once, i));
        EXPECT_NE(picture(repeated, 3 * i + 1), picture(once, i));
        EXPECT_NE(picture(repeated, 3 * i + 2), picture(once, i));
        EXPECT_NE(picture(repeated, 3 * i + 2), picture(repeated, 3 * i + 1));
    }
}

TEST(LoaderRepeats, WorkersAndResumingChangeNothing) {
    Numbered dataset(47);
    dataset.shards = {10, 10, 20, 7};
    LoaderOptions options{.batch_size = 5, .workers = 1, .shuffle = true, .epoch = 1, .shuffle_window = 15};
    options.repeats = 3;
    const std::vector<Batch> expected = all_batches(dataset, noisy, options);
    for (const int workers : {3, 8}) {
        options.workers = workers;
        options.first_batch = 0;
        expect_equal(all_batches(dataset, noisy, options), expected);
        options.first_batch = 4;  // in the middle of a sample's repetitions
        expect_equal(all_batches(dataset, noisy, options), {expected.begin() + 4, expected.end()});
    }
}

TEST(LoaderShards, OrderIsTheTrainingOrder) {
    Numbered dataset(47);
    dataset.shards = {10, 10, 20, 7};
    const LoaderOptions options{
        .batch_size = 5, .workers = 3, .shuffle = true, .seed = 4, .epoch = 6, .shuffle_window = 15};
    EXPECT_EQ(indices_of(all_batches(dataset, unchanged, options)),
              training_order(47, dataset.shards, options.shuffle_window, options.seed, options.epoch));
}

}  // namespace
}  // namespace dynvit
