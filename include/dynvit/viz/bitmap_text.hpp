// Text and rectangles on a picture, with a small font of our own: a plot needs no font file and no library.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "dynvit/io/image.hpp"

namespace dynvit {

using Color = std::array<std::uint8_t, 3>;

/// Fills what the picture holds of the window.
void fill_rectangle(Image& image, const Window& window, const Color& color);

/// Draws a line of text; what lies outside the picture is left out. Capital letters are 7 x `scale` pixels high and up
/// to 5 x `scale` wide. Printable ASCII only: anything else shows as '?', once for a character of several UTF-8 bytes.
/// @param x, y the pixel at the left end and at the capitals' top
/// @param scale the font's pixels are squares of that many pixels; at least 1
void draw_text(Image& image, int x, int y, const std::string& text, const Color& color, int scale = 2);

/// How many pixels wide draw_text draws the text, from the first letter's left to the last one's right; 0 for "".
int text_width(const std::string& text, int scale = 2);

/// Pixels from the capitals' top to the baseline.
constexpr int text_height(int scale = 2) {
    return 7 * scale;
}

/// Pixels from one line's top to the next one's: text_height, 2 x `scale` for what hangs below the baseline, and a gap.
constexpr int line_height(int scale = 2) {
    return 11 * scale;
}

/// Cuts the text into lines at most `width` pixels wide, at spaces where possible. At least a letter a line.
std::vector<std::string> wrap_text(const std::string& text, int width, int scale = 2);

}  // namespace dynvit
