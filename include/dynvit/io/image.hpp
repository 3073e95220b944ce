// Pictures in and out: JPEG and PNG, always as 8-bit RGB.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace dynvit {

/// An RGB picture: rows from the top, three bytes a pixel, no padding.
struct Image {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;  // height x width x 3

    Image() = default;
    Image(int width, int height) : width(width), height(height), pixels(std::size_t{3} * width * height) {}

    std::uint8_t* at(int x, int y) { return pixels.data() + 3 * (static_cast<std::size_t>(y) * width + x); }
    const std::uint8_t* at(int x, int y) const { return pixels.data() + 3 * (static_cast<std::size_t>(y) * width + x); }
};

/// Decodes a JPEG or PNG to the pixels that Pillow's Image.convert("RGB") gives: grey is repeated, CMYK (Adobe's
/// inverted one too) multiplied out, palettes looked up, alpha dropped, the high byte taken of 16-bit samples (of grey ones
/// too, where Pillow clips to 255 instead and nearly everything turns white).
/// Throws Error naming `name` for anything that is not a whole, valid picture of at most 2^28 pixels.
/// @param name what the error calls it, usually its path
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name);

/// Reads and decodes a file. Throws Error as decode_image and read_file do.
Image read_image(const std::filesystem::path& path);

/// Encodes as PNG (8-bit RGB, no alpha).
std::vector<std::uint8_t> encode_png(const Image& image);

/// Writes a PNG beside `path` and renames it. Throws Error naming the path.
void write_png(const std::filesystem::path& path, const Image& image);

}  // namespace dynvit
