#include "dynvit/viz/bitmap_text.hpp"

#include <algorithm>
#include <string_view>

namespace dynvit {
namespace {

constexpr int kRows = 9, kColumns = 5;  // 7 rows above the baseline, 2 below
constexpr int kPerLine = 16;            // glyphs beside each other in the table
constexpr char kFirst = ' ', kLast = '~';
constexpr int kSpace = 3, kBetween = 1;  // columns that a space takes, and those between two glyphs

// Each glyph starts at the left of its cell and is as wide as its ink.
// clang-format off
constexpr std::array<std::string_view, 6 * kRows> kGlyphs = {
    //       !     "     #     $     %     &     '     (     )     *     +     ,     -     .     /
    "      #     # #           #   ##  #  ##   #       #   #                                      # ",
    "      #     # #    # #   #### ##  # #  #  #      #     #      #                              # ",
    "      #     # #   ##### # #      #  #  #  #     #       #   # # #   #                       #  ",
    "      #            # #   ###    #    ##         #       #    ###    #                       #  ",
    "      #            # #    # #  #    # # #       #       #   # # # #####       ###          #   ",
    "                  ##### ####  #  ## #  #        #       #     #     #    #                 #   ",
    "      #            # #    #   #  ##  ## #       #       #           #    #          #     #    ",
    "                                                 #     #                 #                #    ",
    "                                                  #   #                 #                      ",
    // 0     1     2     3     4     5     6     7     8     9     :     ;     <     =     >     ?
    " ##    #     ##    ##      #  ####   ##   ####   ##    ##                                  ##  ",
    "#  #  ##    #  #  #  #    ##  #     #  #     #  #  #  #  #                 #        #     #  # ",
    "#  #   #       #     #   # #  ###   #       #   #  #  #  #  #      #      #          #       # ",
    "#  #   #      #    ##   #  #     #  ###     #    ##    ###               #            #     #  ",
    "#  #   #     #       #  #####    #  #  #   #    #  #     #              #     ####     #   #   ",
    "#  #   #    #     #  #     #  #  #  #  #   #    #  #  #  #         #     #            #        ",
    " ##   ###   ####   ##      #   ##    ##    #     ##    ##   #      #      #   ####   #     #   ",
    "                                                                   #       #        #          ",
    "                                                                  #                            ",
    // @     A     B     C     D     E     F     G     H     I     J     K     L     M     N     O
    " ###    #   ####   ###  ####  ####  ####   ###  #   # ###      #  #   # #     #   # #   #  ### ",
    "#   #  # #  #   # #   # #   # #     #     #   # #   #  #       #  #  #  #     ## ## ##  # #   #",
    "# ###  # #  #   # #     #   # #     #     #     #   #  #       #  # #   #     # # # ##  # #   #",
    "# # # #   # ####  #     #   # ###   ###   #  ## #####  #       #  ##    #     # # # # # # #   #",
    "# ### ##### #   # #     #   # #     #     #   # #   #  #       #  # #   #     #   # #  ## #   #",
    "#     #   # #   # #   # #   # #     #     #   # #   #  #    #  #  #  #  #     #   # #  ## #   #",
    " #### #   # ####   ###  ####  ####  #      ###  #   # ###    ##   #   # ####  #   # #   #  ### ",
    "                                                                                               ",
    "                                                                                               ",
    // P     Q     R     S     T     U     V     W     X     Y     Z     [     \     ]     ^     _
    "####   ###  ####   ###  ##### #   # #   # #   # #   # #   # ##### ##    #     ##     #         ",
    "#   # #   # #   # #   #   #   #   # #   # #   # #   # #   #     # #     #      #    # #        ",
    "#   # #   # #   # #       #   #   # #   # #   #  # #   # #     #  #      #     #               ",
    "####  #   # ####   ###    #   #   #  # #  # # #   #    # #    #   #      #     #               ",
    "#     # # # # #       #   #   #   #  # #  # # #  # #    #    #    #       #    #               ",
    "#     #  ## #  #  #   #   #   #   #  # #  # # # #   #   #   #     #       #    #               ",
    "#      ###  #   #  ###    #    ###    #    # #  #   #   #   ##### #        #   #               ",
    "          #                                                       #        #   #          #####",
    "                                                                  ##          ##               ",
    // `     a     b     c     d     e     f     g     h     i     j     k     l     m     n     o
    "#           #              #         ##         #     #      #    #     #                      ",
    " #          #              #        #           #                 #     #                      ",
    "       ##   ###    ##    ###   ##   ###    ###  ###   #      #    #  #  #     ####  ###    ##  ",
    "         #  #  #  #     #  #  #  #  #     #  #  #  #  #      #    # #   #     # # # #  #  #  # ",
    "       ###  #  #  #     #  #  ####  #     #  #  #  #  #      #    ##    #     # # # #  #  #  # ",
    "      #  #  #  #  #     #  #  #     #     #  #  #  #  #      #    # #   #     # # # #  #  #  # ",
    "       ###  ###    ##    ###   ###  #      ###  #  #  #      #    #  #   #    # # # #  #   ##  ",
    "                                             #               #                                 ",
    "                                           ##               #                                  ",
    // p     q     r     s     t     u     v     w     x     y     z     {     |     }     ~
    "                                                                    #   #     #                ",
    "                        #                                          #    #      #               ",
    "###    ###  # #    ###  ###   #  #  #   # #   # #   # #  #  ####   #    #      #               ",
    "#  #  #  #  ##    #     #     #  #  #   # # # #  # #  #  #    #    #    #      #     #  #      ",
    "#  #  #  #  #      ##   #     #  #   # #  # # #   #   #  #   #    #     #       #   # ##       ",
    "#  #  #  #  #        #  #     #  #   # #  # # #  # #  #  #  #      #    #      #               ",
    "###    ###  #     ###    ##    ###    #    # #  #   #  ###  ####   #    #      #               ",
    "#        #                                               #         #    #      #               ",
    "#        #                                             ##           #   #     #                ",
};
// clang-format on
static_assert(std::ranges::all_of(kGlyphs,
                                  [](std::string_view row) { return row.size() == kPerLine * (kColumns + 1) - 1; }));

bool has_ink(char letter, int column, int row) {
    const int place = letter - kFirst;
    const std::string_view line = kGlyphs[static_cast<std::size_t>(place / kPerLine * kRows + row)];
    return line[static_cast<std::size_t>(place % kPerLine * (kColumns + 1) + column)] == '#';
}

int columns_of(char letter) {
    if (letter == ' ') return kSpace;
    int columns = 0;
    for (int column = 0; column < kColumns; ++column) {
        for (int row = 0; row < kRows; ++row) {
            if (has_ink(letter, column, row)) columns = column + 1;
        }
    }
    return columns;
}

bool continues_a_character(char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;  // UTF-8: 10xxxxxx
}

/// Calls action(letter, column) for each glyph of the text. Returns the columns of them all.
template <class Action>
int for_each_letter(const std::string& text, Action&& action) {
    int column = 0;
    for (const char byte : text) {
        if (continues_a_character(byte)) continue;
        const char letter = byte >= kFirst && byte <= kLast ? byte : '?';
        action(letter, column);
        column += columns_of(letter) + kBetween;
    }
    return std::max(0, column - kBetween);
}

}  // namespace

void fill_rectangle(Image& image, const Window& window, const Color& color) {
    const int left = std::max(window.left, 0), right = std::min(window.left + window.width, image.width);
    const int top = std::max(window.top, 0), bottom = std::min(window.top + window.height, image.height);
    for (int y = top; y < bottom; ++y) {
        for (int x = left; x < right; ++x) std::ranges::copy(color, image.at(x, y));
    }
}

void draw_text(Image& image, int x, int y, const std::string& text, const Color& color, int scale) {
    for_each_letter(text, [&](char letter, int left) {
        for (int row = 0; row < kRows; ++row) {
            for (int column = 0; column < kColumns; ++column) {
                if (!has_ink(letter, column, row)) continue;
                fill_rectangle(image, {x + scale * (left + column), y + scale * row, scale, scale}, color);
            }
        }
    });
}

int text_width(const std::string& text, int scale) {
    return scale * for_each_letter(text, [](char, int) {});
}

std::vector<std::string> wrap_text(const std::string& text, int width, int scale) {
    std::vector<std::string> lines;
    const std::size_t end = text.find_last_not_of(' ') + 1;  // 0 where there is nothing else
    std::size_t start = 0;
    while (start < end) {
        std::size_t length = 1;
        while (start + length < end && text_width(text.substr(start, length + 1), scale) <= width) ++length;
        std::size_t next = start + length;
        if (next < end) {
            const std::size_t space = text.rfind(' ', next);  // at `next` too: the line ends just before it
            if (space != std::string::npos && space > start) {
                length = space - start;
                next = space + 1;
            }
        }
        lines.push_back(text.substr(start, length));
        start = next;
    }
    return lines;
}

}  // namespace dynvit
