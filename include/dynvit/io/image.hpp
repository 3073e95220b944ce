// Pictures in: JPEG, PNG, WebP, GIF, BMP and TIFF, always as 8-bit RGB; and out: PNG.
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

/// Pixels of a picture that somebody else keeps, or of a part of it: rows may lie further apart than they are long.
struct ImageView {
    const std::uint8_t* pixels = nullptr;
    int width = 0;
    int height = 0;
    std::size_t stride = 0;  // bytes from a row to the next

    ImageView(const std::uint8_t* pixels, int width, int height, std::size_t stride)
        : pixels(pixels), width(width), height(height), stride(stride) {}
    ImageView(const Image& image)  // NOLINT: every picture is a view of itself
        : ImageView(image.pixels.data(), image.width, image.height, std::size_t{3} * image.width) {}

    const std::uint8_t* at(int x, int y) const { return pixels + y * stride + std::size_t{3} * x; }
};

/// A window of a picture in whole pixels, [left, left + width) x [top, top + height).
struct Window {
    int left = 0, top = 0, width = 0, height = 0;
};

/// A window whose borders may cut pixels, [left, right) x [top, bottom), as Pillow's `box`. Single precision as there.
struct SourceBox {
    float left = 0, top = 0, right = 0, bottom = 0;
};

inline SourceBox box_of(const Window& window) {
    const auto left = static_cast<float>(window.left), top = static_cast<float>(window.top);
    return {left, top, left + static_cast<float>(window.width), top + static_cast<float>(window.height)};
}

/// Decodes a picture to the pixels that Pillow's Image.open(...).convert("RGB") gives. The bytes say which format it
/// is, whatever the name ends in: JPEG, PNG, WebP, GIF, BMP or TIFF (grey, palettes, RGB, CMYK, and YCbCr within JPEG,
/// in strips, tiles or planes). Grey is repeated, CMYK (Adobe's inverted one too) multiplied out, palettes looked up,
/// alpha dropped, the high byte taken of 16-bit samples. Only 16-bit grey is clipped to 255 as Pillow clips it, which
/// turns most of such pictures white: the log says so once. Of an animation or a document the first picture counts. An
/// orientation is obeyed in TIFF and in no other format, as in Pillow. Throws Error naming `name` for anything that is
/// not a whole, valid picture of at most 2^28 pixels (above 2^24 at most 2^14 for each byte of the file, which only
/// blank ones have), and for kinds that are not supported: JPEGs of 12 bits, lossless
/// or hierarchical ones, TIFFs of signed, floating-point or CIELAB samples.
/// @param name what the error calls it, usually its path
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name);

struct PictureSize {
    int width = 0;
    int height = 0;
};

/// What the picture's header says, without decoding pixels. Throws Error as decode_image does for a bad header.
PictureSize picture_size(std::span<const std::uint8_t> bytes, const std::string& name);

/// A part of a picture, perhaps at a reduced scale.
struct DecodedWindow {
    Image image;    // holds the window and, where decoding units stick out, some pixels around it
    SourceBox box;  // where the window lies in `image`, in its pixels
};

/// Decodes no more of a picture than a window that will be resized to target_width x target_height needs. Of a JPEG the
/// rows below the window are not read, and those above and beside it not transformed. The inverse DCT makes 1/2, 1/4 or
/// 1/8 of the window's size where that is at least the target's (4:2:2: twice the target's, because of its chroma). At
/// full size the window's pixels are decode_image's. Other formats and progressive, CMYK or oddly subsampled JPEGs are
/// decoded whole. Throws Error as decode_image does, also for a window that is empty or not inside the picture. Damage
/// below the window goes unnoticed.
DecodedWindow decode_window(std::span<const std::uint8_t> bytes, const std::string& name, const Window& window,
                            int target_width, int target_height);

/// Reads and decodes a file. Throws Error as decode_image and read_file do.
Image read_image(const std::filesystem::path& path);

/// Encodes as PNG (8-bit RGB, no alpha).
std::vector<std::uint8_t> encode_png(const Image& image);

/// Writes a PNG beside `path` and renames it. Throws Error naming the path.
void write_png(const std::filesystem::path& path, const Image& image);

}  // namespace dynvit
