// The GPU's JPEG decoder against the processor's. All but the first test need such a GPU and say so where there is
// none.
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "data/picture_support.hpp"
#include "dynvit/core/config.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/data/data_settings.hpp"
#include "dynvit/data/window_decoder.hpp"
#include "jpeg_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Bytes = std::vector<std::uint8_t>;
using test::error_of;

constexpr int kWidth = 64, kHeight = 48;  // of the crops

/// A decoder, or why there is none.
struct Opened {
    Opened(int width, int height) {
        try {
            decoder = make_gpu_decoder(width, height);
        } catch (const Error& error) {
            reason = error.what();
        }
    }
    std::unique_ptr<WindowDecoder> decoder;
    std::string reason;
};

#define DYNVIT_NEEDS_DECODER(opened, width, height) \
    Opened opened(width, height);                   \
    if (!opened.decoder) GTEST_SKIP() << "needs a GPU with a JPEG decoder: " << opened.reason

struct Difference {
    double mean = 0;
    int most = 0;
};

Difference difference(const Image& a, const Image& b) {
    Difference result;
    EXPECT_EQ(a.pixels.size(), b.pixels.size());
    for (std::size_t i = 0; i < a.pixels.size(); ++i) {
        const int apart = std::abs(a.pixels[i] - b.pixels[i]);
        result.mean += apart;
        result.most = std::max(result.most, apart);
    }
    result.mean /= static_cast<double>(a.pixels.size());
    return result;
}

// Two inverse DCTs may round a sample to neighbouring values. A colour is a sample of luma and at most 1.772 of chroma,
// rounded: 3 apart, or 4 where fewer digits are kept. Bicubic weights add up to 1.25 in absolute value, each way, and
// each pass rounds: 8. Interpolated chroma is rounded once more: 10.
constexpr int kMostOfFullChroma = 8, kMostOfSubsampledChroma = 10;
constexpr double kMostOnAverage = 1;

/// By the processor, every pixel decoded.
Image expected_crop(const Bytes& bytes, const Window& window, bool mirrored, int width, int height) {
    const Image whole = decode_image(bytes, "whole");
    return resize(part(whole, window), box_of({0, 0, window.width, window.height}), width, height, Filter::kBicubic,
                  mirrored);
}

Window random_window(int width, int height, Random& random) {
    return random_resized_crop(width, height, TrainTransform{}, random);
}

/// Waves of colour, 40 pixels long and more.
Image waves(int width, int height) {
    Image image(width, height);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            for (int c = 0; c < 3; ++c) {
                const double value = 50 * std::sin(2 * M_PI * x / (40 + 16 * c)) + 50 * std::cos(2 * M_PI * y / 60);
                image.at(x, y)[c] = static_cast<std::uint8_t>(std::lround(128 + value));
            }
    return image;
}

/// Grey squares of 8 x 8 pixels. At quality 100 each is one coefficient, which is stored without loss, and every
/// decoder gives it back.
Image squares(int width, int height, std::uint64_t seed) {
    Image image(width, height);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            Random random(mix_seed({seed, static_cast<std::uint64_t>(x / 8), static_cast<std::uint64_t>(y / 8)}));
            std::fill_n(image.at(x, y), 3, static_cast<std::uint8_t>(random.integer(0, 256)));
        }
    return image;
}

Bytes golden_file(const std::string& name) {
    return read_file(test::golden("images/" + name), "test");
}

TEST(GpuDecode, WithoutAGpuIsOneLineThatNamesTheSetting) {
    if (torch::cuda::is_available()) GTEST_SKIP() << "there is a GPU";
    DataSettings settings = read_config<DataSettings>({"root: x\ngpu_decode: true\n", "a.yaml", {}});
    const std::string text = error_of([&] { make_transform(settings, Split::kTrain, 48, 64); });
    EXPECT_EQ(text.find("[data] data.gpu_decode: "), 0u) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_NO_THROW(make_transform(settings, Split::kVal, 48, 64));
}

TEST(GpuDecode, WindowsOfExactPicturesAreTheProcessors) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    Random random(1);
    for (const test::JpegKind& kind :
         {test::JpegKind{.quality = 100, .horizontal = 1, .vertical = 1}, test::JpegKind{.quality = 100, .grey = true}})
        for (const auto& [width, height] : {std::pair{320, 240}, {203, 517}, {1201, 190}, {150, 1500}}) {
            const Bytes bytes = test::encode_jpeg(squares(width, height, 3), kind);
            std::vector<Window> windows = {{0, 0, width, height},        // all of it; rows first in the high ones
                                           {5, 7, kWidth, kHeight},      // copied
                                           {3, 1, kWidth, 2 * kHeight},  // copied one way
                                           {11, 13, 20, 17},             // larger than it was
                                           {width - 1, height - 1, 1, 1}};
            for (int i = 0; i < 20; ++i) windows.push_back(random_window(width, height, random));
            for (const Window& window : windows)
                for (const bool mirrored : {false, true}) {
                    const std::optional<Image> got = opened.decoder->decode(bytes, window, mirrored);
                    ASSERT_TRUE(got) << width << " x " << height << (kind.grey ? ", grey" : "");
                    test::expect_same(*got, expected_crop(bytes, window, mirrored, kWidth, kHeight),
                                      str(window.width, " x ", window.height, " at (", window.left, ", ", window.top,
                                          ") of ", width, " x ", height, kind.grey ? ", grey" : ""));
                }
        }
}

TEST(GpuDecode, ColoursAreCloseToTheProcessors) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    Random random(2);
    for (const auto& [horizontal, vertical] : {std::pair{1, 1}, {2, 1}, {1, 2}, {2, 2}}) {
        const Bytes bytes =
            test::encode_jpeg(waves(500, 375), {.quality = 95, .horizontal = horizontal, .vertical = vertical});
        for (int i = 0; i < 20; ++i) {
            const Window window = random_window(500, 375, random);
            const std::optional<Image> got = opened.decoder->decode(bytes, window, i % 2 == 1);
            if (!got) {
                EXPECT_NE(horizontal, vertical) << "4:4:4 and 4:2:0 are expected to be supported";
                break;
            }
            const Difference apart = difference(*got, expected_crop(bytes, window, i % 2 == 1, kWidth, kHeight));
            EXPECT_LE(apart.mean, kMostOnAverage) << horizontal << " x " << vertical;
            EXPECT_LE(apart.most, horizontal * vertical == 1 ? kMostOfFullChroma : kMostOfSubsampledChroma)
                << horizontal << " x " << vertical;
        }
    }
}

TEST(GpuDecode, PhotographsAreCloseToTheProcessors) {
    DYNVIT_NEEDS_SHARED(shared);
    DYNVIT_NEEDS_DECODER(opened, 224, 224);
    Random random(3);
    int taken = 0, all = 0;
    Difference worst;
    double sum = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(shared / "data/imagenet-val-300/val")) {
        if (!entry.is_regular_file()) continue;
        const Bytes bytes = read_file(entry.path(), "test");
        const PictureSize size = picture_size(bytes, entry.path().string());
        const Window window = random_window(size.width, size.height, random);
        const bool mirrored = random.chance(0.5);
        ++all;
        const std::optional<Image> got = opened.decoder->decode(bytes, window, mirrored);
        if (!got) continue;
        ++taken;
        const Difference apart = difference(*got, expected_crop(bytes, window, mirrored, 224, 224));
        EXPECT_LE(apart.mean, 2) << entry.path();  // repeated chroma at sharp, colourful edges
        EXPECT_LE(apart.most, 50) << entry.path();
        worst = {std::max(worst.mean, apart.mean), std::max(worst.most, apart.most)};
        sum += apart.mean;
    }
    std::printf("%d of %d photographs on the GPU; apart: %.3f on average, %.3f in the worst, %d at most\n", taken, all,
                sum / std::max(taken, 1), worst.mean, worst.most);
    EXPECT_GT(taken, all * 9 / 10);
}

TEST(GpuDecode, OtherFilesAreLeftToTheProcessor) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    const Image image = waves(320, 240);
    Bytes cut = test::encode_jpeg(image);
    cut.resize(cut.size() / 2);
    const std::map<std::string, Bytes> files = {
        {"progressive", test::encode_jpeg(image, {.progressive = true})},
        {"a scan a channel", test::encode_jpeg(image, {.scan_a_channel = true})},
        {"RGB", test::encode_jpeg(image, {.rgb = true})},
        {"CMYK", golden_file("cmyk.jpg")},
        {"PNG", encode_png(image)},
        {"cut off", cut},
        {"nothing", {}}};
    for (const auto& [what, bytes] : files) EXPECT_FALSE(opened.decoder->decode(bytes, {0, 0, 16, 16}, false)) << what;
    EXPECT_FALSE(opened.decoder->decode(test::encode_jpeg(image), {0, 0, 321, 16}, false)) << "not inside";
}

TEST(GpuDecode, SmallPicturesComeOutEitherWay) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    for (const auto& [width, height] : {std::pair{1, 1}, {16, 16}, {63, 64}, {64, 64}, {65, 100}, {7, 2000}}) {
        Sample sample;
        sample.encoded = test::encode_jpeg(squares(width, height, 4), {.quality = 100, .grey = true});
        sample.name = str(width, " x ", height);
        const TrainTransform transform{.width = kWidth, .height = kHeight, .exact_decode = true};
        Random gpu(5), cpu(5);
        test::expect_same(apply(transform, sample, gpu, opened.decoder.get()), apply(transform, sample, cpu),
                          sample.name);
    }
}

TEST(GpuDecode, ManyThreadsGetWhatOneGets) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    struct Task {
        Bytes bytes;
        Window window;
        bool mirrored;
        std::optional<Image> alone;
    };
    std::vector<Task> tasks;
    Random random(6);
    for (int i = 0; i < 60; ++i) {
        const int width = static_cast<int>(random.integer(100, 900)),
                  height = static_cast<int>(random.integer(100, 900));
        const test::JpegKind kind{.quality = 60 + i % 40, .grey = i % 7 == 0, .progressive = i % 10 == 9};
        tasks.push_back({test::encode_jpeg(test::speckled(width, height, i), kind),
                         random_window(width, height, random),
                         i % 2 == 0,
                         {}});
    }
    for (Task& task : tasks) task.alone = opened.decoder->decode(task.bytes, task.window, task.mirrored);

    constexpr int kThreads = 48, kRounds = 40;
    std::vector<int> wrong(kThreads, 0);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            for (int round = 0; round < kRounds; ++round) {
                const Task& task = tasks[(7 * t + round) % tasks.size()];
                const std::optional<Image> got = opened.decoder->decode(task.bytes, task.window, task.mirrored);
                wrong[t] += got.has_value() != task.alone.has_value() || (got && !test::same(*got, *task.alone));
            }
        });
    for (std::thread& thread : threads) thread.join();
    for (int t = 0; t < kThreads; ++t) EXPECT_EQ(wrong[t], 0) << "thread " << t;
}

TEST(GpuDecode, ALoadersBatchesAreTheProcessors) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    const test::TemporaryFolder root;
    const auto write = [&](const std::string& name, const Bytes& bytes) {
        const std::filesystem::path path = root / ("train/" + name);
        std::filesystem::create_directories(path.parent_path());
        write_file_atomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "test");
    };
    for (int i = 0; i < 12; ++i) {
        const Image image = squares(200 + 9 * i, 300 - 5 * i, i);
        write(str("a/", i, ".jpg"), test::encode_jpeg(image, {.quality = 100, .grey = true}));
        write(str("b/", i, ".jpg"), test::encode_jpeg(image, {.quality = 100, .grey = true, .progressive = true}));
        write(str("c/", i, ".png"), encode_png(image));
    }
    Bytes cut = test::encode_jpeg(squares(200, 200, 1));
    cut.resize(cut.size() / 3);
    write("a/cut.jpg", cut);

    const auto pass = [&](const std::string& how) {
        const std::string text = str("root: ", root.path().string(), "\nexact_decode: true\nworkers: 8\n", how);
        const DataSettings settings = read_config<DataSettings>({text, "a.yaml", {}});
        LoaderOptions options = loader_options(settings, Split::kTrain);
        options.batch_size = 8;
        const auto dataset = make_dataset(settings, Split::kTrain, kHeight, kWidth);
        std::vector<Batch> batches;
        std::vector<std::string> reasons;
        Loader loader(*dataset, make_transform(settings, Split::kTrain, kHeight, kWidth), options);
        while (std::optional<Batch> batch = loader.next()) batches.push_back(std::move(*batch));
        for (const CorruptSample& sample : loader.corrupt()) reasons.push_back(sample.reason);
        return std::pair(std::move(batches), reasons);
    };
    const auto [gpu, gpu_corrupt] = pass("gpu_decode: true\n");
    const auto [cpu, cpu_corrupt] = pass("");
    EXPECT_EQ(gpu_corrupt, cpu_corrupt);
    ASSERT_EQ(gpu.size(), cpu.size());
    for (std::size_t b = 0; b < gpu.size(); ++b) {
        EXPECT_EQ(gpu[b].names, cpu[b].names);
        EXPECT_TRUE(gpu[b].images.equal(cpu[b].images)) << "batch " << b;
    }
}

// Bytes that are neither part of a marker nor become one: the file still looks plain, and its data make no sense.
TEST(GpuDecode, DamagedDataDoesNotHarmTheOthers) {
    DYNVIT_NEEDS_DECODER(opened, kWidth, kHeight);
    const TrainTransform transform{.width = kWidth, .height = kHeight, .exact_decode = true};
    std::vector<Sample> samples(33);
    Random random(8);
    for (std::size_t i = 0; i < samples.size(); ++i) {
        samples[i].name = str("sample ", i);
        samples[i].encoded = test::encode_jpeg(squares(320, 240, i), {.quality = 100, .grey = true});
    }
    Bytes& damaged = samples.back().encoded;
    for (std::size_t at = damaged.size() / 2; at + 4 < damaged.size(); at += 5)
        if (damaged[at - 1] != 0xff && damaged[at] != 0xff)
            damaged[at] = static_cast<std::uint8_t>(random.integer(0, 255));

    std::vector<std::string> wrong(samples.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < samples.size(); ++i)
        threads.emplace_back([&, i] {
            for (std::uint64_t seed = 0; seed < 20; ++seed) {
                Random gpu(seed), cpu(seed);
                try {
                    const Image got = apply(transform, samples[i], gpu, opened.decoder.get());
                    if (i + 1 < samples.size() && !test::same(got, apply(transform, samples[i], cpu)))
                        wrong[i] = "another picture";
                } catch (const Error& error) {  // the damaged one's, where nvJPEG notices and the processor decodes
                    if (i + 1 < samples.size()) wrong[i] = error.what();
                }
            }
        });
    for (std::thread& thread : threads) thread.join();
    for (std::size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(wrong[i], "") << samples[i].name;
}

}  // namespace
}  // namespace dynvit
