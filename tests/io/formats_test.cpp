// Picture files of every format and kind (tests/golden/formats/make.py) against what Pillow made of them; the same
// files cut short, with wrong bytes, and claiming more pixels than they hold.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "dynvit/io/image.hpp"
#include "dynvit/io/safetensors.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Bytes = std::vector<std::uint8_t>;
using test::error_of;

Bytes bytes_of(const at::Tensor& tensor) {
    const auto* data = tensor.const_data_ptr<std::uint8_t>();
    return {data, data + tensor.numel()};
}

struct File {
    std::string name;
    Bytes bytes;
    at::Tensor rgb;  // (H, W, 3); undefined for a refused one
};

/// The files whose tensors' names begin with "file." or "refused.".
std::vector<File> files(const std::string& kind) {
    const TensorMap golden = read_safetensors(test::golden("formats/pictures.safetensors")).tensors;
    std::vector<File> found;
    for (const auto& [key, tensor] : golden) {
        if (!key.starts_with(kind)) continue;
        const std::string name = key.substr(kind.size());
        const auto rgb = golden.find("rgb." + name);
        found.push_back({name, bytes_of(tensor), rgb == golden.end() ? at::Tensor() : rgb->second});
    }
    return found;
}

File file(const std::string& name) {
    for (File& candidate : files("file."))
        if (candidate.name == name) return candidate;
    ADD_FAILURE() << "no golden file " << name;
    return {};
}

/// How far a byte may lie from Pillow's: the inverse DCT of another libjpeg may round otherwise.
int tolerance(const std::string& name) {
    return name.starts_with("jpeg") ? 1 : 0;
}

TEST(Formats, EveryKindIsPillowsConvertToRgb) {
    const std::vector<File> all = files("file.");
    for (const File& file : all) {
        const Image image = decode_image(file.bytes, file.name);
        ASSERT_EQ(file.rgb.sizes(), (std::vector<std::int64_t>{image.height, image.width, 3})) << file.name;
        const Bytes wanted = bytes_of(file.rgb);
        int most = 0;
        for (std::size_t i = 0; i < wanted.size(); ++i) most = std::max(most, std::abs(image.pixels[i] - wanted[i]));
        EXPECT_LE(most, tolerance(file.name)) << file.name;
        const PictureSize size = picture_size(file.bytes, file.name);
        EXPECT_EQ(size.width, image.width) << file.name;
        EXPECT_EQ(size.height, image.height) << file.name;
        const DecodedWindow part = decode_window(file.bytes, file.name, {1, 2, 3, 4}, 1, 1);
        EXPECT_EQ(part.image.pixels, image.pixels) << file.name;
        EXPECT_EQ(part.box.left, 1) << file.name;
        EXPECT_EQ(part.box.bottom, 6) << file.name;
    }
    EXPECT_EQ(all.size(), 98u);
}

TEST(Formats, WhatIsNotSupportedIsRefusedInALine) {
    const std::vector<File> all = files("refused.");
    for (const File& file : all) {
        const std::string place = "[image] " + file.name + ": not supported: a ";
        const std::string text = error_of([&] { decode_image(file.bytes, file.name); });
        EXPECT_EQ(text.substr(0, place.size()), place);
        EXPECT_EQ(text.find('\n'), std::string::npos);
        EXPECT_EQ(error_of([&] { picture_size(file.bytes, file.name); }), text);
    }
    EXPECT_EQ(all.size(), 11u);
}

/// Decoded, or refused with an Error; nothing else may leave the decoder.
bool decodes(const Bytes& bytes) {
    try {
        const Image image = decode_image(bytes, "cut");
        EXPECT_EQ(image.pixels.size(), std::size_t{3} * image.width * image.height);
        return true;
    } catch (const Error& error) {
        const std::string text = error.what();
        EXPECT_TRUE(std::ranges::all_of(text, [](char letter) { return letter >= 0x20 && letter < 0x7f; })) << text;
        return false;
    }
}

TEST(Formats, EveryTruncationIsDecodedOrRefused) {
    for (const File& file : files("file.")) {
        const bool more_frames = file.name == "animated.gif";  // the first stands whole before the others
        for (std::size_t length = 0; length < file.bytes.size(); ++length) {
            const bool whole = decodes({file.bytes.begin(), file.bytes.begin() + static_cast<std::ptrdiff_t>(length)});
            if (length < file.bytes.size() / 2 && !more_frames)
                EXPECT_FALSE(whole) << file.name << " of " << length << " bytes";
        }
    }
}

TEST(Formats, AnyOneWrongByteIsDecodedOrRefused) {
    constexpr std::size_t kPlaces = 150;
    for (const File& file : files("file.")) {
        const std::size_t step = file.bytes.size() / kPlaces + 1;
        std::size_t refused = 0;
        for (std::size_t at = 0; at < file.bytes.size(); at += at < 100 ? 1 : step)
            for (const int value : {0x00, 0xff, file.bytes[at] ^ 0x10}) {
                Bytes bytes = file.bytes;
                bytes[at] = static_cast<std::uint8_t>(value);
                refused += !decodes(bytes);
            }
        EXPECT_GT(refused, 0u) << file.name;
    }
}

/// A copy of a golden file with other bytes from `at` on.
Bytes changed(const std::string& name, std::size_t at, const Bytes& values) {
    Bytes bytes = file(name).bytes;
    std::ranges::copy(values, bytes.begin() + static_cast<std::ptrdiff_t>(at));
    return bytes;
}

std::string decoding_error(const Bytes& bytes) {
    return error_of([&] { decode_image(bytes, "p"); });
}

// The sizes are 16,384 x 16,384, at the limit: nothing but the file's length can say that the pixels are not there.
TEST(Formats, APictureTooLargeForItsFileIsAnErrorBeforeItTakesMemory) {
    const Bytes side = {0x00, 0x40}, side4 = {0x00, 0x40, 0x00, 0x00};
    const auto twice = [](Bytes bytes) {
        bytes.insert(bytes.end(), bytes.begin(), bytes.end());
        return bytes;
    };
    const std::string cannot = "cannot hold 16384 x 16384 pixels";
    EXPECT_NE(decoding_error(changed("24_bits.bmp", 18, twice(side4))).find("expected 16384 x 16384 pixels of 24 bits"),
              std::string::npos);
    EXPECT_NE(decoding_error(changed("rle8.bmp", 18, twice(side4))).find(cannot), std::string::npos);
    // A lossy frame's size stands in its own header, behind the chunk's and the start code.
    EXPECT_NE(decoding_error(changed("lossy.webp", 26, {0xff, 0x3f, 0xff, 0x3f})).find("cannot hold 16383 x 16383"),
              std::string::npos);
    Bytes gif = file("interlaced.gif").bytes;
    const auto frame = std::ranges::search(gif, Bytes{',', 0, 0, 0, 0}).begin();
    ASSERT_NE(frame, gif.end());
    std::ranges::copy(twice(side), frame + 5);
    EXPECT_NE(decoding_error(gif).find("damaged GIF: "), std::string::npos);
    EXPECT_NE(decoding_error(gif).find(cannot), std::string::npos) << decoding_error(gif);
    // A directory's first entries are width and length, 12 bytes each with their values in the last 4.
    for (const char* name : {"rgb.tif", "planes_deflate.tif"}) {
        Bytes tiff = file(name).bytes;
        std::ranges::copy(side4, tiff.begin() + 18);
        std::ranges::copy(side4, tiff.begin() + 30);
        EXPECT_NE(decoding_error(tiff).find("TIFF"), std::string::npos) << name;
        EXPECT_NE(decoding_error(tiff).find(cannot), std::string::npos) << decoding_error(tiff);
    }
}

// Their formats need not say anything of pixels that are missing or all alike.
TEST(Formats, ASmallFileHoldsNoLargePicture) {
    const auto expected = [](const Bytes& bytes) {
        return str("[image] p: ", bytes.size(),
                   " bytes cannot hold 16384 x 16384 pixels, expected at most 2^24, or 2^14 a byte");
    };
    const Bytes gif = changed("frame_in_canvas.gif", 6, {0x00, 0x40, 0x00, 0x40});
    const Bytes webp = changed("lossless.webp", 21, {0xff, 0xff, 0xff, 0x0f});
    const Bytes bmp = changed("rle4.bmp", 18, {0x00, 0x40, 0, 0, 0x00, 0x40, 0, 0});
    for (const Bytes& bytes : {gif, webp, bmp}) EXPECT_EQ(decoding_error(bytes), expected(bytes));
    // 4,096 x 4,096 is what any file may hold.
    const Image canvas = decode_image(changed("frame_in_canvas.gif", 6, {0x00, 0x10, 0x00, 0x10}), "p");
    EXPECT_EQ(canvas.pixels.size(), std::size_t{3} << 24);
}

TEST(Formats, APictureAboveTheLimitIsRefused) {
    const Bytes side4 = {0x00, 0x80, 0x00, 0x00};  // 32,768
    for (const char* name : {"24_bits.bmp", "rgb.tif"}) {
        Bytes bytes = file(name).bytes;
        for (const std::ptrdiff_t at : {18, name[0] == '2' ? 22 : 30}) std::ranges::copy(side4, bytes.begin() + at);
        EXPECT_NE(decoding_error(bytes).find("32768 x 32768 pixels are more than the limit of 2^28"),
                  std::string::npos);
    }
    // The canvas of an animation: 24 bits a side, less one.
    EXPECT_NE(decoding_error(changed("frame_in_canvas.webp", 24, {0xff, 0x7f, 0, 0xff, 0x7f, 0}))
                  .find("32768 x 32768 pixels are more than the limit"),
              std::string::npos);
    EXPECT_NE(decoding_error(changed("plain.gif", 6, {0xff, 0xff, 0xff, 0xff})).find("65535 x 65535 pixels are more"),
              std::string::npos);
}

TEST(Formats, SixteenBitGreyIsClippedAndSaidOnce) {
    const File grey = file("grey_16_bits.png");
    testing::internal::CaptureStderr();
    decode_image(grey.bytes, "a.png");
    decode_image(grey.bytes, "b.png");
    decode_image(file("grey_16_bits_low.png").bytes, "c.png");
    const std::string log = testing::internal::GetCapturedStderr();
    // Another test of this process may have met such a picture before.
    EXPECT_EQ(log.find("b.png"), std::string::npos) << log;
    EXPECT_EQ(log.find("c.png"), std::string::npos) << log;
    if (!log.empty()) EXPECT_NE(log.find("a.png: 16-bit grey: "), std::string::npos) << log;
}

}  // namespace
}  // namespace dynvit
