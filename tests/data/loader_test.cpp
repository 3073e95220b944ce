// Batches against a plain loop over the data set: same contents in the same order, whatever the number of workers.
#include "dynvit/data/loader.hpp"

#include <algorithm>
#include <atomic>
#include <set>

#include "support.hpp"

namespace dynvit {
namespace {

constexpr int kWidth = 5, kHeight = 3;

/// Pictures whose every byte tells index, place and channel. Counts how often each was read.
class Numbered : public Dataset {
  public:
    explicit Numbered(std::size_t size) : size_(size), reads_(size) {}

    std::size_t size() const override { return size_; }
    const std::vector<std::string>& class_names() const override { return names_; }

    Sample get(std::size_t index) const override {
        ++reads_[index];
        if (index == failing) throw Error("numbered", "sample ", index, " is broken");
        Sample sample;
        sample.image = Image(kWidth, kHeight);
        for (std::size_t i = 0; i < sample.image.pixels.size(); ++i)
            sample.image.pixels[i] = static_cast<std::uint8_t>(31 * index + i);
        sample.label = static_cast<std::int64_t>(1000 + index);
        sample.name = str("numbered/", index);
        if (index % 2 == 0) sample.object_mask.assign(kWidth * kHeight, static_cast<std::uint8_t>(index % 4 == 0));
        return sample;
    }

    int reads(std::size_t index) const { return reads_[index]; }

    std::size_t failing = SIZE_MAX;

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
    using test::error_of;
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
}

}  // namespace
}  // namespace dynvit
