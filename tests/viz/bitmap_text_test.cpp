// Compares drawn text with itself: enlarged, on a larger picture, letter by letter.
#include "dynvit/viz/bitmap_text.hpp"

#include <algorithm>
#include <set>

#include "dynvit/viz/kept_tokens.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

constexpr Color kRed = {200, 10, 20};

Image drawn(const std::string& text, int width = 60, int height = 40, int x = 0, int y = 0, int scale = 1) {
    Image image(width, height);
    draw_text(image, x, y, text, kRed, scale);
    return image;
}

/// The smallest window that holds all pixels that are not black; empty for none.
Window ink(const Image& image) {
    int left = image.width, right = 0, top = image.height, bottom = 0;
    for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
            if (image.at(x, y)[0] == 0) continue;
            left = std::min(left, x);
            right = std::max(right, x + 1);
            top = std::min(top, y);
            bottom = std::max(bottom, y + 1);
        }
    }
    return right ? Window{left, top, right - left, bottom - top} : Window{};
}

std::string printable() {
    std::string letters;
    for (char letter = ' '; letter <= '~'; ++letter) letters += letter;
    return letters;
}

TEST(BitmapText, EveryPrintableCharacterHasAGlyphOfItsOwn) {
    std::set<std::string> glyphs;  // their pixels
    for (const char letter : printable()) {
        const Image image = drawn({letter});
        EXPECT_TRUE(glyphs.emplace(image.pixels.begin(), image.pixels.end()).second) << letter;
        EXPECT_EQ(ink(image).width > 0, letter != ' ') << letter;
        EXPECT_LE(ink(image).width, 5) << letter;
        EXPECT_LE(ink(image).top + ink(image).height, 9) << letter;
        if ((letter >= 'A' && letter <= 'Z' && letter != 'Q') || (letter >= '0' && letter <= '9')) {
            EXPECT_EQ(ink(image).top, 0) << letter;
            EXPECT_EQ(ink(image).height, text_height(1)) << letter;
        }
    }
    EXPECT_EQ(glyphs.size(), 95U);
}

TEST(BitmapText, OtherCharactersAreQuestionMarks) {
    for (const std::string other : {"\x01", "\n", "\x7f", "\xff", "\u00b5", "\u20ac", "\U0001f600"}) {
        EXPECT_EQ(drawn("a" + other + "b").pixels, drawn("a?b").pixels) << other;
        EXPECT_EQ(text_width("a" + other + "b"), text_width("a?b")) << other;
    }
}

TEST(BitmapText, WidthIsThatOfTheInk) {
    for (const int scale : {1, 2, 3}) {
        for (const std::string text : {"i", "W", "deit-s, 0.7", "[g|j]", "a  b"}) {
            const Window window = ink(drawn(text, 300, 60, 7, 5, scale));
            EXPECT_EQ(window.left, 7) << text;
            EXPECT_EQ(window.width, text_width(text, scale)) << text;
            EXPECT_LE(window.top + window.height, 5 + line_height(scale)) << text;
        }
        EXPECT_EQ(text_width("", scale), 0);
    }
    for (const char letter : printable()) {
        EXPECT_EQ(text_width({'o', letter, 'o'}, 1), 2 * text_width("o", 1) + 2 + text_width({letter}, 1)) << letter;
    }
    EXPECT_EQ(text_width("o"), text_width("o", 2));
}

TEST(BitmapText, ScaleRepeatsPixels) {
    const std::string text = "Pg&";
    for (const int scale : {2, 3, 5}) {
        EXPECT_EQ(drawn(text, 20 * scale, 10 * scale, 0, 0, scale).pixels, enlarge(drawn(text, 20, 10), scale).pixels);
    }
}

TEST(BitmapText, TextIsClipped) {
    const int size = 30, border = 100;
    for (const int x : {-100, -45, -7, 3, 14, 29, 30, 90}) {
        for (const int y : {-30, -18, -5, 4, 20, 29, 30, 80}) {
            const Image whole = drawn("Wj8", size + 2 * border, size + 2 * border, x + border, y + border, 2);
            const Image part = drawn("Wj8", size, size, x, y, 2);
            for (int row = 0; row < size; ++row) {
                EXPECT_TRUE(std::equal(part.at(0, row), part.at(0, row) + 3 * size, whole.at(border, row + border)))
                    << x << ' ' << y << ' ' << row;
            }
        }
    }
    Image nothing;
    draw_text(nothing, 0, 0, "text", kRed);
    EXPECT_TRUE(nothing.pixels.empty());
}

TEST(BitmapText, RectanglesAreClipped) {
    Image image(4, 3);
    fill_rectangle(image, {-5, 1, 7, 50}, kRed);
    fill_rectangle(image, {3, 0, 1, -1}, kRed);
    fill_rectangle(image, {9, 9, 1, 1}, kRed);
    for (int y = 0; y < 3; ++y) {
        for (int x = 0; x < 4; ++x) EXPECT_EQ(image.at(x, y)[0], x < 2 && y >= 1 ? kRed[0] : 0) << x << ' ' << y;
    }
}

TEST(BitmapText, LinesAreCutAtSpaces) {
    EXPECT_EQ(wrap_text("one two three", 1000), std::vector<std::string>{"one two three"});
    EXPECT_EQ(wrap_text("one two three", text_width("one two")), (std::vector<std::string>{"one two", "three"}));
    EXPECT_EQ(wrap_text("one two three", text_width("one two") - 1), (std::vector<std::string>{"one", "two", "three"}));
    EXPECT_EQ(wrap_text("one two  ", text_width("one")), (std::vector<std::string>{"one", "two"}));
    EXPECT_TRUE(wrap_text("", 10).empty());
    EXPECT_TRUE(wrap_text("  ", 10).empty());
}

TEST(BitmapText, WordsThatAreTooLongAreCut) {
    const std::string word = printable().substr(1);
    const int width = 120;
    std::string joined;
    for (const std::string& line : wrap_text(word, width)) {
        EXPECT_LE(text_width(line), width);
        EXPECT_GT(text_width(line), width / 2);
        joined += line;
    }
    EXPECT_EQ(joined, word);
    EXPECT_EQ(wrap_text("abc", 0), (std::vector<std::string>{"a", "b", "c"}));
}

}  // namespace
}  // namespace dynvit
