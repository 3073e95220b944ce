// Compares with Pillow (golden tensors), with PNG files put together here byte by byte and JPEG files of one colour,
// whose pixels are known; windows with the same pixels of the whole picture, decoded by libjpeg alone at the same
// scale.
#include "dynvit/io/image.hpp"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <jpeglib.h>
#include <nlohmann/json.hpp>

#include "dynvit/core/files.hpp"
#include "dynvit/core/random.hpp"
#include "dynvit/io/safetensors.hpp"
#include "jpeg_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Bytes = std::vector<std::uint8_t>;
using test::error_of;

Bytes golden_file(const std::string& name) {
    return read_file(test::golden("images/" + name), "test");
}

std::string decoding_error(const Bytes& bytes) {
    const std::string text = error_of([&] { decode_image(bytes, "a.jpg"); });
    EXPECT_EQ(text.find("[image] a.jpg: "), 0u) << text;
    for (const char letter : text) EXPECT_TRUE(letter >= 0x20 && letter < 0x7f) << text;
    return text;
}

// ---- a PNG encoder of the test's own: no compression, no filters ----------------------------------------------------

void append_number(Bytes& bytes, std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(value >> shift));
}

std::uint32_t crc(const std::uint8_t* data, std::size_t count) {
    std::uint32_t value = ~0u;
    for (std::size_t i = 0; i < count; ++i) {
        value ^= data[i];
        for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
    }
    return ~value;
}

void append_chunk(Bytes& png, const std::string& type, const Bytes& data) {
    append_number(png, static_cast<std::uint32_t>(data.size()));
    const std::size_t start = png.size();
    png.insert(png.end(), type.begin(), type.end());
    png.insert(png.end(), data.begin(), data.end());
    append_number(png, crc(png.data() + start, png.size() - start));
}

/// A zlib stream of stored blocks.
Bytes stored(const Bytes& data) {
    Bytes stream = {0x78, 0x01};
    std::uint32_t a = 1, b = 0;
    for (std::size_t start = 0; start < data.size(); start += 65535) {
        const std::size_t count = std::min<std::size_t>(65535, data.size() - start);
        stream.push_back(start + count == data.size());
        for (const std::size_t length : {count, ~count})
            for (int shift : {0, 8}) stream.push_back(static_cast<std::uint8_t>(length >> shift));
        stream.insert(stream.end(), data.begin() + start, data.begin() + start + count);
    }
    for (const std::uint8_t byte : data) {
        a = (a + byte) % 65521;
        b = (b + a) % 65521;
    }
    append_number(stream, b << 16 | a);
    return stream;
}

struct PngKind {
    int colour_type;  // 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA
    int depth;        // bits a sample
    bool interlaced = false;

    int samples() const { return std::vector<int>{1, 0, 3, 1, 2, 0, 4}.at(colour_type); }
};

using Sample = std::function<int(int x, int y, int c)>;

/// @param extra chunks between header and pixels, such as the palette
Bytes make_png(int width, int height, const PngKind& kind, const Sample& sample, const Bytes& extra = {}) {
    struct Pass {
        int x, y, dx, dy;
    };
    std::vector<Pass> passes = {{0, 0, 1, 1}};
    if (kind.interlaced)
        passes = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    Bytes rows;
    for (const Pass& pass : passes)
        for (int y = pass.y; y < height && pass.x < width; y += pass.dy) {
            rows.push_back(0);
            unsigned pending = 0;
            int bits = 0;
            for (int x = pass.x; x < width; x += pass.dx)
                for (int c = 0; c < kind.samples(); ++c) {
                    pending = pending << kind.depth | static_cast<unsigned>(sample(x, y, c));
                    for (bits += kind.depth; bits >= 8; bits -= 8)
                        rows.push_back(static_cast<std::uint8_t>(pending >> (bits - 8)));
                }
            if (bits) rows.push_back(static_cast<std::uint8_t>(pending << (8 - bits)));
        }
    Bytes png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    Bytes header;
    append_number(header, width);
    append_number(header, height);
    for (const int byte : {kind.depth, kind.colour_type, 0, 0, int{kind.interlaced}})
        header.push_back(static_cast<std::uint8_t>(byte));
    append_chunk(png, "IHDR", header);
    png.insert(png.end(), extra.begin(), extra.end());
    append_chunk(png, "IDAT", stored(rows));
    append_chunk(png, "IEND", {});
    return png;
}

Bytes chunk(const std::string& type, const Bytes& data) {
    Bytes bytes;
    append_chunk(bytes, type, data);
    return bytes;
}

// ---- a JPEG of one colour
// --------------------------------------------------------------------------------------------

/// @param stored the colour space in the file; @param adobe whether to write the Adobe marker
Bytes make_jpeg(const std::vector<std::uint8_t>& colour, J_COLOR_SPACE given, J_COLOR_SPACE stored, bool adobe) {
    jpeg_compress_struct info{};
    jpeg_error_mgr errors{};
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* data = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &data, &size);
    info.image_width = info.image_height = 16;
    info.input_components = static_cast<int>(colour.size());
    info.in_color_space = given;
    jpeg_set_defaults(&info);
    jpeg_set_colorspace(&info, stored);
    jpeg_set_quality(&info, 100, TRUE);
    info.write_Adobe_marker = adobe;
    jpeg_start_compress(&info, TRUE);
    Bytes line;
    for (int x = 0; x < 16; ++x) line.insert(line.end(), colour.begin(), colour.end());
    JSAMPROW row = line.data();
    while (info.next_scanline < info.image_height) jpeg_write_scanlines(&info, &row, 1);
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    const Bytes bytes(data, data + size);
    std::free(data);
    return bytes;
}

// ---- good files -----------------------------------------------------------------------------------------------------

TEST(Image, EveryColourModeIsPillowsConvertToRgb) {
    const TensorMap golden = read_safetensors(test::golden("images/expected.safetensors")).tensors;
    int compared = 0;
    for (const auto& [name, expected] : golden) {
        if (!name.starts_with("rgb.")) continue;
        const Image image = read_image(test::golden("images/" + name.substr(4)));
        ASSERT_EQ(expected.sizes(), (std::vector<std::int64_t>{image.height, image.width, 3})) << name;
        const std::uint8_t* wanted = expected.const_data_ptr<std::uint8_t>();
        const int allowed = name.ends_with(".png") ? 0 : 1;  // another libjpeg may round the inverse DCT otherwise
        std::size_t different = 0;
        for (std::size_t i = 0; i < image.pixels.size(); ++i) {
            const int difference = std::abs(image.pixels[i] - wanted[i]);
            ASSERT_LE(difference, allowed) << name << " byte " << i;
            different += difference != 0;
        }
        EXPECT_LE(different * 100, image.pixels.size()) << name;
        ++compared;
    }
    EXPECT_EQ(compared, 11);
}

TEST(Image, PhotographsHaveTheMeansThatPillowFound) {
    DYNVIT_NEEDS_SHARED(shared);
    const Safetensors golden = read_safetensors(shared / "golden/photographs/preprocess.safetensors");
    const auto files = nlohmann::json::parse(golden.metadata.at("files")).get<std::vector<std::string>>();
    ASSERT_EQ(files.size(), 6u);
    for (std::size_t i = 0; i < files.size(); ++i) {
        const Image image = read_image(shared / "data/imagenet-val-300/val" / files[i]);
        const float* wanted = golden.tensors.at(str("decoded_mean.", i)).const_data_ptr<float>();
        for (int c = 0; c < 3; ++c) {
            double sum = 0;
            for (std::size_t at = c; at < image.pixels.size(); at += 3) sum += image.pixels[at];
            // 1 % of the bytes may be off by 1, see above.
            EXPECT_NEAR(sum / (static_cast<double>(image.pixels.size()) / 3), wanted[c], 0.01) << files[i];
        }
    }
}

TEST(Image, EveryPhotographDecodes) {
    DYNVIT_NEEDS_SHARED(shared);
    int decoded = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(shared / "data/imagenet-val-300/val")) {
        if (!entry.is_regular_file()) continue;
        EXPECT_NO_THROW(read_image(entry.path())) << entry.path();
        ++decoded;
    }
    EXPECT_EQ(decoded, 300);
}

TEST(Image, GreyPngOfEveryDepth) {
    for (const int depth : {1, 2, 4, 8, 16})
        for (const bool interlaced : {false, true}) {
            const int levels = 1 << depth;
            const auto sample = [&](int x, int y, int) { return (x * 7919 + y * 104729) % levels; };
            const Image image = decode_image(make_png(19, 11, {0, depth, interlaced}, sample), "grey");
            ASSERT_EQ(image.width, 19);
            ASSERT_EQ(image.height, 11);
            for (int y = 0; y < 11; ++y)
                for (int x = 0; x < 19; ++x) {
                    // 16 bits: clipped; fewer than 8: the full range spread out.
                    const int level = sample(x, y, 0);
                    const int wanted = depth == 16 ? std::min(level, 255) : level * 255 / (levels - 1);
                    for (int c = 0; c < 3; ++c)
                        ASSERT_EQ(image.at(x, y)[c], wanted) << depth << " bits, " << x << ' ' << y;
                }
        }
}

TEST(Image, ColourPngAndAlphaOfEveryDepth) {
    for (const int colour_type : {2, 4, 6})
        for (const int depth : {8, 16})
            for (const bool interlaced : {false, true}) {
                const auto sample = [&](int x, int y, int c) {
                    return (x * 7919 + y * 104729 + c * 15485863) % (1 << depth);
                };
                const Image image = decode_image(make_png(21, 13, {colour_type, depth, interlaced}, sample), "colour");
                for (int y = 0; y < 13; ++y)
                    for (int x = 0; x < 21; ++x)
                        for (int c = 0; c < 3; ++c)
                            ASSERT_EQ(image.at(x, y)[c], sample(x, y, colour_type == 4 ? 0 : c) >> (depth - 8));
            }
}

TEST(Image, PaletteOfEveryDepthWithAndWithoutTransparency) {
    for (const int depth : {1, 2, 4, 8})
        for (const bool interlaced : {false, true})
            for (const bool transparent : {false, true}) {
                const int count = (1 << depth) - (depth == 8 ? 7 : 0);  // not full, where it need not be
                Bytes palette;
                for (int i = 0; i < 3 * count; ++i) palette.push_back(static_cast<std::uint8_t>(i * 37 + 11));
                Bytes extra = chunk("PLTE", palette);
                if (transparent) {
                    const Bytes chunk_bytes = chunk("tRNS", {0, 128});
                    extra.insert(extra.end(), chunk_bytes.begin(), chunk_bytes.end());
                }
                const auto sample = [&](int x, int y, int) { return (x * 7919 + y * 104729) % count; };
                const Image image = decode_image(make_png(23, 9, {3, depth, interlaced}, sample, extra), "palette");
                for (int y = 0; y < 9; ++y)
                    for (int x = 0; x < 23; ++x)
                        for (int c = 0; c < 3; ++c)
                            ASSERT_EQ(image.at(x, y)[c], palette[3 * sample(x, y, 0) + c])
                                << depth << ' ' << x << ' ' << y;
            }
}

TEST(Image, OneTransparentColourIsStillThatColour) {
    const Bytes grey = make_png(
        2, 1, {0, 8}, [](int x, int, int) { return 100 + x; }, chunk("tRNS", {0, 100}));
    EXPECT_EQ(decode_image(grey, "grey").pixels, (Bytes{100, 100, 100, 101, 101, 101}));
    const Bytes rgb = make_png(
        2, 1, {2, 8}, [](int x, int, int c) { return 10 * x + c; }, chunk("tRNS", {0, 0, 0, 1, 0, 2}));
    EXPECT_EQ(decode_image(rgb, "rgb").pixels, (Bytes{0, 1, 2, 10, 11, 12}));
}

TEST(Image, ChunksThatDoNotConcernThePixelsAreNotJudged) {
    Bytes extra = chunk("iCCP", {'x', 0, 0, 1, 2, 3});  // a broken colour profile
    for (const Bytes& more : {chunk("gAMA", {0, 0, 0, 1}), chunk("tEXt", {0}), chunk("quUx", {1, 2})})
        extra.insert(extra.end(), more.begin(), more.end());
    const Bytes png = make_png(
        2, 1, {0, 8}, [](int x, int, int) { return 50 * x; }, extra);
    EXPECT_EQ(decode_image(png, "png").pixels, (Bytes{0, 0, 0, 50, 50, 50}));
}

// One colour at quality 100: its transform has one coefficient, a multiple of 8 quantized by 1, so CMYK is stored
// without loss; YCC is rounded once each way, 1 a channel at most there and 2 after the product with black.
TEST(Image, CmykAndYcckJpegsAreInvertedInks) {
    for (const Bytes& ink : {Bytes{255, 255, 255, 255}, Bytes{0, 255, 255, 255}, Bytes{255, 255, 255, 0},
                             Bytes{200, 100, 50, 180}, Bytes{10, 20, 30, 40}}) {
        int wanted[3];
        for (int c = 0; c < 3; ++c) wanted[c] = ink[c] * ink[3] / 255;
        for (const auto& [stored, adobe] : {std::pair{JCS_CMYK, true}, {JCS_CMYK, false}, {JCS_YCCK, true}}) {
            const Image image = decode_image(make_jpeg(ink, JCS_CMYK, stored, adobe), "cmyk");
            ASSERT_EQ(image.pixels.size(), 16u * 16 * 3);
            for (std::size_t i = 0; i < image.pixels.size(); ++i)
                ASSERT_NEAR(image.pixels[i], wanted[i % 3], stored == JCS_YCCK ? 2 : 1)
                    << "ink " << int{ink[0]} << ", stored as " << stored << ", Adobe " << adobe;
        }
    }
}

TEST(Image, RgbJpegWithoutColourTransform) {
    const Image image = decode_image(make_jpeg({200, 100, 50}, JCS_RGB, JCS_RGB, true), "rgb");
    for (std::size_t i = 0; i < image.pixels.size(); ++i) ASSERT_EQ(image.pixels[i], (std::array{200, 100, 50}[i % 3]));
}

TEST(Image, StrayBytesThatCostNoPixelAreForgiven) {
    Bytes bytes = golden_file("rgb_444.jpg");
    const Image before = decode_image(bytes, "before");
    bytes.insert(bytes.end() - 2, {0x12, 0x34, 0x56});  // before the end marker
    bytes.insert(bytes.end(), {'t', 'r', 'a', 'i', 'l'});
    EXPECT_EQ(decode_image(bytes, "after").pixels, before.pixels);
}

TEST(Image, TheNameDoesNotDecideTheKind) {
    const test::TemporaryFolder folder;
    std::filesystem::copy_file(test::golden("images/rgb.png"), folder / "a.jpg");
    EXPECT_EQ(read_image(folder / "a.jpg").pixels, read_image(test::golden("images/rgb.png")).pixels);
}

// ---- windows --------------------------------------------------------------------------------------------------------

Image speckled(int width, int height) {
    Image image(width, height);
    Random random(mix_seed({static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height)}));
    for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(random.integer(0, 256));
    return image;
}

/// The whole picture at eighths / 8 of its size, by libjpeg.
Image decode_scaled(const Bytes& bytes, int eighths) {
    jpeg_decompress_struct info{};
    jpeg_error_mgr errors{};
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, bytes.data(), bytes.size());
    jpeg_read_header(&info, TRUE);
    info.out_color_space = JCS_RGB;
    info.scale_num = static_cast<unsigned>(eighths);
    info.scale_denom = 8;
    jpeg_start_decompress(&info);
    Image image(static_cast<int>(info.output_width), static_cast<int>(info.output_height));
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = image.at(0, static_cast<int>(info.output_scanline));
        jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_destroy_decompress(&info);
    return image;
}

Window random_window(int width, int height, Random& random) {
    Window window;
    window.width = static_cast<int>(random.integer(1, width + 1));
    window.height = static_cast<int>(random.integer(1, height + 1));
    window.left = static_cast<int>(random.integer(0, width - window.width + 1));
    window.top = static_cast<int>(random.integer(0, height - window.height + 1));
    return window;
}

/// Fails unless every pixel that `part.box` touches is the one of `whole`, in which it lies at (left, top).
void expect_pixels(const DecodedWindow& part, const Image& whole, double left, double top) {
    const int x0 = static_cast<int>(left), y0 = static_cast<int>(top);
    const int from_x = static_cast<int>(part.box.left), from_y = static_cast<int>(part.box.top);
    ASSERT_EQ(part.box.left - static_cast<float>(from_x), left - x0);
    ASSERT_EQ(part.box.top - static_cast<float>(from_y), top - y0);
    const int width = static_cast<int>(std::ceil(part.box.right)) - from_x;
    const int height = static_cast<int>(std::ceil(part.box.bottom)) - from_y;
    ASSERT_LE(from_x + width, part.image.width);
    ASSERT_LE(from_y + height, part.image.height);
    for (int y = 0; y < height; ++y)
        ASSERT_EQ(std::memcmp(part.image.at(from_x, from_y + y), whole.at(x0, y0 + y), std::size_t{3} * width), 0)
            << "row " << y << " of " << width << " x " << height << " at (" << x0 << ", " << y0 << ")";
}

const std::vector<test::JpegKind> kKinds = {{.horizontal = 2, .vertical = 2},
                                            {.horizontal = 2, .vertical = 1},
                                            {.horizontal = 1, .vertical = 2},
                                            {.horizontal = 1, .vertical = 1},
                                            {.horizontal = 2, .vertical = 2, .restart_rows = 1},
                                            {.horizontal = 4, .vertical = 1},
                                            {.grey = true},
                                            {.progressive = true}};

TEST(Window, AtFullSizeHasTheWholePicturesPixels) {
    Random random(1);
    for (const test::JpegKind& kind : kKinds)
        for (const auto& [width, height] : {std::pair{97, 75}, {64, 48}, {5, 3}, {1, 40}}) {
            const Bytes bytes = test::encode_jpeg(speckled(width, height), kind);
            const Image whole = decode_image(bytes, "whole");
            for (int i = 0; i < 60; ++i) {
                const Window window = random_window(width, height, random);
                const DecodedWindow part = decode_window(bytes, "part", window, width, height);
                EXPECT_EQ(part.box.right - part.box.left, window.width);
                EXPECT_EQ(part.box.bottom - part.box.top, window.height);
                expect_pixels(part, whole, window.left, window.top);
            }
        }
}

TEST(Window, AtAReducedScaleHasTheReducedPicturesPixels) {
    Random random(2);
    for (const test::JpegKind& kind : kKinds) {
        if (kind.progressive || kind.horizontal > 2) continue;  // decoded whole
        for (const auto& [width, height] : {std::pair{203, 151}, {160, 96}}) {
            const Bytes bytes = test::encode_jpeg(speckled(width, height), kind);
            for (const int eighths : {4, 2, 1}) {
                const Image whole = decode_scaled(bytes, eighths);
                for (int i = 0; i < 30; ++i) {
                    Window window = random_window(width, height, random);
                    if (window.width < 16 || window.height < 16) continue;
                    const int times = 8 / eighths;  // the target that this scale just reaches
                    const int chroma = kind.grey || kind.horizontal == kind.vertical ? 1 : 2;
                    const DecodedWindow part = decode_window(bytes, "part", window, window.width / times / chroma,
                                                             window.height / times / chroma);
                    EXPECT_EQ((part.box.right - part.box.left) * 8, window.width * eighths);
                    EXPECT_EQ((part.box.bottom - part.box.top) * 8, window.height * eighths);
                    expect_pixels(part, whole, window.left * eighths / 8.0, window.top * eighths / 8.0);
                }
            }
        }
    }
}

TEST(Window, IsReducedOnlyAsFarAsTheTargetAllows) {
    const Bytes bytes = test::encode_jpeg(speckled(200, 200));
    for (const auto& [width, height, scale] : std::vector<std::tuple<int, int, double>>{{161, 10, 1},
                                                                                        {81, 80, 1},
                                                                                        {80, 81, 1},
                                                                                        {80, 80, 0.5},
                                                                                        {41, 40, 0.5},
                                                                                        {40, 40, 0.25},
                                                                                        {20, 20, 0.125},
                                                                                        {1, 1, 0.125}}) {
        const DecodedWindow part = decode_window(bytes, "part", {7, 9, 160, 160}, width, height);
        EXPECT_EQ(part.box.right - part.box.left, 160 * scale) << width << " x " << height;
        EXPECT_EQ(part.box.bottom - part.box.top, 160 * scale) << width << " x " << height;
    }
}

TEST(Window, OfKindsThatAreDecodedWholeIsTheWindow) {
    for (const char* name : {"progressive.jpg", "cmyk.jpg", "rgb.png", "palette.png"}) {
        const Bytes bytes = golden_file(name);
        const Image whole = decode_image(bytes, name);
        const DecodedWindow part = decode_window(bytes, name, {3, 2, 11, 7}, 2, 2);
        EXPECT_EQ(part.image.pixels, whole.pixels) << name;
        EXPECT_EQ(part.box.left, 3);
        EXPECT_EQ(part.box.top, 2);
        EXPECT_EQ(part.box.right, 14);
        EXPECT_EQ(part.box.bottom, 9);
    }
}

TEST(Window, OutsideThePictureIsAnError) {
    for (const char* name : {"rgb_420.jpg", "progressive.jpg", "rgb.png"}) {
        const Bytes bytes = golden_file(name);
        const PictureSize size = picture_size(bytes, name);
        for (const Window& window : {Window{-1, 0, 4, 4}, Window{0, -1, 4, 4}, Window{0, 0, 0, 4}, Window{0, 0, 4, -1},
                                     Window{size.width - 3, 0, 4, 4}, Window{0, size.height - 3, 4, 4},
                                     Window{2147483647, 0, 2147483647, 4}, Window{0, 0, 4, 2147483647}})
            EXPECT_NE(error_of([&] { decode_window(bytes, name, window, 4, 4); }).find("not inside the picture of "),
                      std::string::npos)
                << name;
    }
}

TEST(PictureSize, IsTheDecodedPictures) {
    for (const char* name : {"rgb_420.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png", "palette.png"}) {
        const Bytes bytes = golden_file(name);
        const Image image = decode_image(bytes, name);
        const PictureSize size = picture_size(bytes, name);
        EXPECT_EQ(size.width, image.width) << name;
        EXPECT_EQ(size.height, image.height) << name;
        EXPECT_NE(error_of([&] { picture_size(std::span(bytes).first(20), "cut"); }).find("[image] cut: damaged "),
                  std::string::npos);
    }
    EXPECT_NE(error_of([] { picture_size({}, "none"); }).find("an empty file"), std::string::npos);
}

// ---- writing --------------------------------------------------------------------------------------------------------

TEST(Image, PngComesBack) {
    const test::TemporaryFolder folder;
    for (const auto& [width, height] : std::vector<std::pair<int, int>>{{1, 1}, {3, 200}, {301, 7}}) {
        Image image(width, height);
        Random random(mix_seed({5, static_cast<std::uint64_t>(width)}));
        for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(random.bits() >> 40);
        const Image decoded = decode_image(encode_png(image), "encoded");
        EXPECT_EQ(decoded.width, width);
        EXPECT_EQ(decoded.height, height);
        EXPECT_EQ(decoded.pixels, image.pixels);
        EXPECT_EQ(encode_png(image), encode_png(image));
        write_png(folder / "p.png", image);
        EXPECT_EQ(read_image(folder / "p.png").pixels, image.pixels);
    }
}

TEST(Image, APictureThatCannotBeWrittenIsNamed) {
    const test::TemporaryFolder folder;
    const std::filesystem::path nowhere = folder / "none" / "p.png";
    EXPECT_NE(error_of([&] { write_png(nowhere, Image(2, 2)); }).find(nowhere.string()), std::string::npos);
    write_png(folder / "p.png", Image(2, 2));
    EXPECT_NE(error_of([&] { write_png(folder / "p.png", Image()); }).find("no pixels"), std::string::npos);
    EXPECT_EQ(read_image(folder / "p.png").width, 2);
    Image torn(2, 2);
    torn.pixels.pop_back();
    EXPECT_NE(error_of([&] { encode_png(torn); }).find("11 bytes are not 2 x 2"), std::string::npos);
}

// ---- bad files ------------------------------------------------------------------------------------------------------

TEST(Image, WhatIsNoPictureSaysWhatItIs) {
    const auto error = [](const std::string& text) { return decoding_error(Bytes(text.begin(), text.end())); };
    const std::string place = "[image] a.jpg: found ";
    const std::string expected = ", expected a picture: JPEG, PNG, WebP, GIF, BMP or TIFF";
    EXPECT_EQ(error("hello world"), place + "text (11 bytes) that starts with 'hello world'" + expected);
    EXPECT_EQ(error(""), place + "an empty file" + expected + ": a download or copy that did not finish");
    EXPECT_EQ(error(std::string("GIF\x01\n\0\xff", 7)),
              place + "data of an unknown kind (7 bytes) that starts with 'GIF\\x01\\x0a\\x00\\xff'" + expected);
    EXPECT_EQ(error("<!DOCTYPE html>\n<html>"), place + "an HTML page (22 bytes)" + expected +
                                                    ": a download that brought a web page in place of the file");
    EXPECT_EQ(error(std::string("\0\0\0\x18"
                                "ftypheic",
                                12)),
              place + "a HEIF picture (.heic) (12 bytes)" + expected);
}

TEST(Image, JpegsOfOtherKindsAreNotDamaged) {
    Bytes jpeg = golden_file("grey.jpg");
    const Bytes marker = {0xff, 0xc0};  // start of frame; behind it two bytes of length and the precision
    const auto frame = std::search(jpeg.begin(), jpeg.end(), marker.begin(), marker.end());
    ASSERT_NE(frame, jpeg.end());
    frame[4] = 12;
    EXPECT_EQ(decoding_error(jpeg), "[image] a.jpg: not supported: a JPEG of 12 bits a sample, expected 8");
    frame[4] = 8;
    frame[1] = 0xc5;  // hierarchical
    EXPECT_EQ(decoding_error(jpeg).find("[image] a.jpg: not supported: a hierarchical"), 0u);
}

TEST(Image, MissingFilesFoldersAndEmptyFilesAreNamed) {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "empty.jpg").close();
    EXPECT_EQ(
        error_of([&] { read_image(folder / "empty.jpg"); }),
        "[image] " + (folder / "empty.jpg").string() +
            ": found an empty file, expected a picture: JPEG, PNG, WebP, GIF, BMP or TIFF: a download or copy that "
            "did not finish");
    for (const std::filesystem::path& path : {folder / "none.png", folder.path()}) {
        const std::string text = error_of([&] { read_image(path); });
        EXPECT_EQ(text.find("[image] "), 0u) << text;
        EXPECT_NE(text.find(path.string()), std::string::npos) << text;
    }
}

TEST(Image, EveryTruncationIsAnError) {
    for (const char* name : {"rgb_420.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg", "one_bit.png", "palette.png"}) {
        const Bytes whole = golden_file(name);
        for (std::size_t length = 0; length < whole.size(); ++length)
            decoding_error(Bytes(whole.begin(), whole.begin() + length));
        EXPECT_NO_THROW(decode_image(whole, name));
    }
    EXPECT_NE(decoding_error([] {
                  Bytes cut = golden_file("rgb_420.jpg");
                  cut.resize(cut.size() / 2);
                  return cut;
              }())
                  .find("damaged JPEG: Premature end of JPEG file"),
              std::string::npos);
}

TEST(Image, APictureTooLargeIsAnErrorBeforeItTakesMemory) {
    const auto sized = [](std::uint32_t width, std::uint32_t height) {
        Bytes png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
        Bytes header;
        append_number(header, width);
        append_number(header, height);
        header.insert(header.end(), {8, 2, 0, 0, 0});
        append_chunk(png, "IHDR", header);
        append_chunk(png, "IDAT", stored({0, 1, 2, 3}));
        append_chunk(png, "IEND", {});
        return png;
    };
    EXPECT_NE(decoding_error(sized(16385, 16384)).find("16385 x 16384 pixels are more than the limit of 2^28"),
              std::string::npos);
    EXPECT_NE(decoding_error(sized(1 << 28, 1 << 28)).find("more than the limit"), std::string::npos);
    EXPECT_NE(decoding_error(sized(16384, 16384)).find("bytes cannot hold 16384 x 16384 pixels"), std::string::npos);
    EXPECT_NE(decoding_error(sized(0, 5)).find("damaged PNG"), std::string::npos);
    EXPECT_NE(decoding_error(sized(0x7fffffff, 1)).find("damaged PNG"), std::string::npos);
    EXPECT_NE(decoding_error(sized(0xffffffff, 1)).find("damaged PNG"), std::string::npos);

    Bytes jpeg = golden_file("grey.jpg");
    const Bytes marker = {0xff, 0xc0};  // start of frame
    const auto frame = std::search(jpeg.begin(), jpeg.end(), marker.begin(), marker.end());
    ASSERT_NE(frame, jpeg.end());
    std::copy_n(Bytes{0xff, 0xdc, 0xff, 0xdc}.begin(), 4, frame + 5);  // height and width: libjpeg's own limit
    EXPECT_NE(decoding_error(jpeg).find("65500 x 65500 pixels are more than the limit"), std::string::npos);
    std::copy_n(Bytes{0x40, 0, 0x40, 0}.begin(), 4, frame + 5);
    EXPECT_NE(decoding_error(jpeg).find("damaged JPEG: 1367 bytes cannot hold 16384 x 16384"), std::string::npos);
    frame[1] = 0xc9;  // arithmetic coding, whose decisions may cost next to nothing
    EXPECT_NE(decoding_error(jpeg).find("1367 bytes cannot hold 16384 x 16384 pixels, expected at most 2^24"),
              std::string::npos);
}

TEST(Image, PngsThatLieAreErrors) {
    const auto index = [](int x, int, int) { return x; };
    const Bytes two_colours = chunk("PLTE", {1, 2, 3, 4, 5, 6});
    EXPECT_EQ(decode_image(make_png(2, 1, {3, 8}, index, two_colours), "two").pixels, (Bytes{1, 2, 3, 4, 5, 6}));
    EXPECT_NE(decoding_error(make_png(3, 1, {3, 8}, index, two_colours)).find("not in the palette"), std::string::npos);
    decoding_error(make_png(2, 1, {3, 8}, index));                               // no palette
    decoding_error(make_png(2, 1, {3, 8}, index, chunk("PLTE", {1, 2, 3, 4})));  // not a multiple of 3
    decoding_error(make_png(2, 1, {0, 8}, index, chunk("ABCD", {})));            // an unknown critical chunk
    decoding_error(make_png(2, 1, {0, 8}, index, chunk("IHDR", Bytes(13, 1))));  // a second header
    decoding_error(make_png(2, 1, {2, 4}, [](int, int, int) { return 1; }));     // no such depth for RGB

    Bytes short_rows = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    append_chunk(short_rows, "IHDR", {0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 0});
    append_chunk(short_rows, "IDAT", stored({0, 1, 2, 0}));
    append_chunk(short_rows, "IEND", {});
    decoding_error(short_rows);
}

/// Whatever the bytes say, the picture is decoded or refused with an Error; nothing else leaves the decoder.
bool decodes(const Bytes& bytes) {
    try {
        const Image image = decode_image(bytes, "fuzz");
        EXPECT_EQ(image.pixels.size(), std::size_t{3} * image.width * image.height);
        return true;
    } catch (const Error&) {
        return false;
    }
}

TEST(Image, AnyOneWrongByteIsDecodedOrRefused) {
    for (const char* name : {"rgb_420.jpg", "grey.jpg", "progressive.jpg", "one_bit.png"}) {
        const Bytes whole = golden_file(name);
        int refused = 0;
        for (std::size_t at = 0; at < whole.size(); ++at)
            for (const int value : {0x00, 0x01, 0x7f, 0xff, whole[at] ^ 0x10}) {
                Bytes bytes = whole;
                bytes[at] = static_cast<std::uint8_t>(value);
                refused += !decodes(bytes);
            }
        EXPECT_GT(refused, 0) << name;
    }
}

// What is above the cut may be decoded; then it is right.
TEST(Window, OfATruncatedFileIsRightOrAnError) {
    const Bytes whole = golden_file("rgb_420.jpg");
    const Image picture = decode_image(whole, "whole");
    const Window upper{3, 2, 12, 5}, lower{3, picture.height - 5, 12, 5};
    int decoded = 0;
    for (std::size_t length = 0; length < whole.size(); ++length) {
        const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        try {
            expect_pixels(decode_window(cut, "cut", upper, 12, 5), picture, upper.left, upper.top);
            ++decoded;
        } catch (const Error&) {  // NOLINT(bugprone-empty-catch): too little of the file is there
        }
        if (length < whole.size() / 2) error_of([&] { decode_window(cut, "cut", lower, 12, 5); });
    }
    EXPECT_GT(decoded, 0);
}

TEST(Window, OfAPictureThatIsLessThanItSaysIsAnError) {
    Bytes jpeg = golden_file("rgb_420.jpg");
    const Bytes marker = {0xff, 0xc0};  // start of frame
    const auto frame = std::search(jpeg.begin(), jpeg.end(), marker.begin(), marker.end());
    ASSERT_NE(frame, jpeg.end());
    std::copy_n(Bytes{0x20, 0x00, 0x20, 0x00}.begin(), 4, frame + 5);  // height and width
    for (const Window& window : {Window{0, 8000, 100, 100}, Window{8000, 100, 192, 100}, Window{0, 0, 8192, 8192}})
        for (const int target : {1, 100})
            EXPECT_NE(error_of([&] { decode_window(jpeg, "lies", window, target, target); }).find("damaged JPEG"),
                      std::string::npos);
}

TEST(Window, OfAFileWithOneWrongByteIsDecodedOrRefused) {
    for (const char* name : {"rgb_420.jpg", "rgb_444.jpg", "grey.jpg"}) {
        const Bytes whole = golden_file(name);
        const PictureSize size = picture_size(whole, name);
        const Window window{size.width / 3, size.height / 3, size.width / 2, size.height / 2};
        int refused = 0;
        for (std::size_t at = 0; at < whole.size(); ++at)
            for (const int value : {0x00, 0xff, whole[at] ^ 0x10})
                for (const int target : {window.width, 1}) {
                    Bytes bytes = whole;
                    bytes[at] = static_cast<std::uint8_t>(value);
                    try {
                        const DecodedWindow part = decode_window(bytes, "fuzz", window, target, 1);
                        ASSERT_EQ(part.image.pixels.size(), std::size_t{3} * part.image.width * part.image.height);
                        ASSERT_GE(part.box.left, 0);
                        ASSERT_GE(part.box.top, 0);
                        ASSERT_LE(part.box.right, part.image.width);
                        ASSERT_LE(part.box.bottom, part.image.height);
                    } catch (const Error&) {
                        ++refused;
                    }
                }
        EXPECT_GT(refused, 0) << name;
    }
}

TEST(Image, AnyWrongByteBehindARightChecksumIsDecodedOrRefused) {
    for (const int depth : {1, 8}) {
        Bytes extra = chunk("PLTE", {1, 2, 3, 4, 5, 6});
        const Bytes transparency = chunk("tRNS", {0, 128});
        extra.insert(extra.end(), transparency.begin(), transparency.end());
        const Bytes whole = make_png(
            9, 5, {3, depth, true}, [](int x, int y, int) { return (x + y) % 2; }, extra);
        ASSERT_TRUE(decodes(whole));
        int refused = 0, decoded = 0;
        for (std::size_t start = 8; start < whole.size();) {
            const std::size_t length = whole[start + 2] << 8 | whole[start + 3];
            for (std::size_t at = start + 4; at < start + 8 + length; ++at)
                for (int value = 0; value < 256; ++value) {
                    Bytes bytes = whole;
                    bytes[at] = static_cast<std::uint8_t>(value);
                    Bytes sum;
                    append_number(sum, crc(bytes.data() + start + 4, length + 4));
                    std::copy(sum.begin(), sum.end(), bytes.begin() + static_cast<std::ptrdiff_t>(start + 8 + length));
                    (decodes(bytes) ? decoded : refused)++;
                }
            start += 12 + length;
        }
        EXPECT_GT(refused, 1000);
        EXPECT_GT(decoded, 1000);
    }
}

}  // namespace
}  // namespace dynvit
