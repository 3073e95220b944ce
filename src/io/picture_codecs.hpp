// The readers of picture formats that image.cpp chooses among. Each one takes a whole file and throws Error naming
// `name`.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "dynvit/io/image.hpp"

namespace dynvit {

inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

/// Throws Error for a picture without pixels or of more than kMaxPixels.
void check_size(std::int64_t width, std::int64_t height, const std::string& name);

/// Throws Error where `unpacked` bytes cannot come out of a file, so that a small file cannot make us allocate a large
/// picture.
/// @param format such as "PNG"
/// @param ratio how many bytes the format makes of one at best
void check_holds(std::span<const std::uint8_t> file, std::uint64_t unpacked, std::uint64_t ratio, PictureSize size,
                 const char* format, const std::string& name);

/// Throws Error for a large picture whose file is so small that there is nothing on it. For formats that may spend
/// nothing on pixels which are missing or all alike: check_holds has no bound for them.
void check_not_blank(std::span<const std::uint8_t> file, PictureSize size, const std::string& name);

/// Warns, once a process, that 16-bit grey was clipped to 255 as Pillow does.
/// @param clipped how many of the picture's pixels were above 255
void note_clipped(const std::string& name, std::int64_t clipped, std::int64_t pixels);

/// One pixel of ink values (255 is full ink) as Pillow makes RGB of it: what the inks leave of what black leaves.
void cmyk_to_rgb(int cyan, int magenta, int yellow, int black, std::uint8_t* rgb);

/// Colours that indices stand for; an index without a colour is black, as in Pillow.
struct Palette {
    std::uint8_t colours[256][3] = {};

    void put(int index, std::uint8_t* rgb) const {
        for (int c = 0; c < 3; ++c) rgb[c] = colours[index][c];
    }
};

// An animation's or a document's first picture, as Pillow's Image.open shows it.
Image decode_webp(std::span<const std::uint8_t> bytes, const std::string& name);
Image decode_gif(std::span<const std::uint8_t> bytes, const std::string& name);
Image decode_bmp(std::span<const std::uint8_t> bytes, const std::string& name);
Image decode_tiff(std::span<const std::uint8_t> bytes, const std::string& name);

PictureSize webp_size(std::span<const std::uint8_t> bytes, const std::string& name);
PictureSize gif_size(std::span<const std::uint8_t> bytes, const std::string& name);
PictureSize bmp_size(std::span<const std::uint8_t> bytes, const std::string& name);
PictureSize tiff_size(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace dynvit
