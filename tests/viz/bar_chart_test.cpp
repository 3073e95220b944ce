// Measures the drawn bars in pixels and looks for texts by drawing them.
#include "dynvit/viz/bar_chart.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "support.hpp"

namespace dynvit {
namespace {

constexpr Color kWhite = {255, 255, 255}, kInk = {34, 34, 34}, kFaintInk = {110, 110, 110}, kGrid = {224, 224, 224};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Color color_at(const Image& image, int x, int y) {
    const std::uint8_t* pixel = image.at(x, y);
    return {pixel[0], pixel[1], pixel[2]};
}

int count(const Image& image, const Color& color) {
    int pixels = 0;
    for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) pixels += color_at(image, x, y) == color;
    }
    return pixels;
}

int right_of(const Window& window) {
    return window.left + window.width;
}
int bottom_of(const Window& window) {
    return window.top + window.height;
}

/// The rectangles of a colour, from the top: consecutive rows that have it, and the first row's extent.
std::vector<Window> rectangles(const Image& image, const Color& color) {
    std::vector<Window> found;
    bool inside = false;
    for (int y = 0; y < image.height; ++y) {
        int left = 0;
        while (left < image.width && color_at(image, left, y) != color) ++left;
        if (left == image.width) {
            inside = false;
            continue;
        }
        if (!inside) {
            int right = left;
            while (right < image.width && color_at(image, right, y) == color) ++right;
            found.push_back({left, y, right - left, 0});
        }
        inside = true;
        ++found.back().height;
    }
    return found;
}

/// Where the text stands by itself in that colour; its lower part may hang over nothing else.
std::optional<Window> find_text(const Image& image, const std::string& text, const Color& color = kInk, int scale = 2) {
    Image wanted(text_width(text, scale), 9 * scale);
    std::ranges::fill(wanted.pixels, 255);
    draw_text(wanted, 0, 0, text, color, scale);
    for (int y = 0; y + wanted.height <= image.height; ++y) {
        for (int x = 0; x + wanted.width <= image.width; ++x) {
            int row = 0;
            while (row < wanted.height &&
                   std::equal(wanted.at(0, row), wanted.at(0, row) + 3 * wanted.width, image.at(x, y + row))) {
                ++row;
            }
            if (row == wanted.height) return Window{x, y, wanted.width, wanted.height};
        }
    }
    return std::nullopt;
}

/// The columns of the grid lines, read just above the first bar.
std::vector<int> grid_columns(const Image& image, int above) {
    std::vector<int> columns;
    for (int x = 0; x < image.width; ++x) {
        if (color_at(image, x, above - 1) == kGrid) columns.push_back(x);
    }
    return columns;
}

Image chart_of(std::vector<Bar> bars, std::vector<std::string> groups = {}) {
    return draw_bar_chart({"Title", "unit", std::move(bars), std::move(groups)});
}

TEST(BarChart, LengthsFollowTheValues) {
    for (const double largest : {1e-3, 1.0, 50.0, 1e6, 2e9}) {
        const std::vector<double> shares = {0.37, 1, 0.5, 0.125, 0.01};
        std::vector<Bar> bars;
        for (const double share : shares) bars.push_back({"bar", share * largest});
        const Image image = chart_of(bars);
        const std::vector<Window> drawn = rectangles(image, bar_color(0));
        ASSERT_EQ(drawn.size(), shares.size()) << largest;
        const Window longest = drawn[1];
        EXPECT_GT(longest.width, 700);
        for (std::size_t i = 0; i < shares.size(); ++i) {
            EXPECT_EQ(drawn[i].width, std::lround(shares[i] * longest.width)) << largest << ' ' << i;
            EXPECT_EQ(drawn[i].left, longest.left);
            EXPECT_EQ(drawn[i].height, longest.height);
        }
        // The largest value is a tick's, so the bar ends at the last grid line.
        const std::vector<int> grid = grid_columns(image, drawn[0].top);
        ASSERT_GE(grid.size(), 4U) << largest;
        EXPECT_EQ(right_of(longest), grid.back()) << largest;
        for (std::size_t i = 0; i < grid.size(); ++i) {
            const double share = static_cast<double>(i + 1) / static_cast<double>(grid.size());
            EXPECT_EQ(grid[i], longest.left + std::lround(share * longest.width)) << largest << ' ' << i;
        }
    }
}

// The steps are the smallest of 1, 2, 5 x 10^k that make at most ten; the labels are narrow enough not to matter.
TEST(BarChart, TicksAreRoundAndTheAxisEndsAtOne) {
    struct Case {
        double largest;
        std::size_t steps;
        std::string first, last;
    };
    for (const Case& c : std::vector<Case>{{100, 10, "10", "100"},
                                           {101, 6, "20", "120"},
                                           {0.3, 6, "0.05", "0.30"},
                                           {0.07, 7, "0.01", "0.07"},  // 0.07 / 0.01 comes out above 7
                                           {7, 7, "1", "7"},
                                           {9.99, 10, "1", "10"},
                                           {10.01, 6, "2", "12"},
                                           {8.5e9, 9, "1e9", "9e9"},
                                           {1.1e7, 6, "2e6", "1.2e7"},
                                           {3e-7, 6, "5e-8", "3e-7"}}) {
        const Image image = chart_of({{"", c.largest}});
        const std::vector<Window> drawn = rectangles(image, bar_color(0));
        ASSERT_EQ(drawn.size(), 1U) << c.largest;
        const std::vector<int> grid = grid_columns(image, drawn[0].top);
        EXPECT_EQ(grid.size(), c.steps) << c.largest;
        const auto first = find_text(image, c.first, kFaintInk), last = find_text(image, c.last, kFaintInk);
        ASSERT_TRUE(first && last) << c.largest;
        EXPECT_EQ(first->left + first->width / 2, grid.front()) << c.largest;
        EXPECT_EQ(last->left + last->width / 2, grid.back()) << c.largest;
        EXPECT_GT(last->top, bottom_of(drawn[0]));
        EXPECT_TRUE(find_text(image, "unit"));
    }
}

TEST(BarChart, WideTickLabelsGetFewerTicks) {
    const Image image = chart_of({{std::string(60, 'W'), 1e6}});
    const std::vector<int> grid = grid_columns(image, rectangles(image, bar_color(0)).at(0).top);
    ASSERT_GE(grid.size(), 2U);
    EXPECT_GT(grid[1] - grid[0], text_width("1,000,000"));
    EXPECT_TRUE(find_text(image, "500,000", kFaintInk));
    EXPECT_TRUE(find_text(image, "1,000,000", kFaintInk));
}

TEST(BarChart, ValuesStandAtTheBarsEndsWithThreeDigits) {
    const std::vector<std::pair<double, std::string>> cases = {
        {1234.4, "1,234"},      {12.345, "12.3"},   {0.0012345, "0.00123"}, {999.9, "1,000"},
        {9.996, "10.0"},        {1.5e7, "1.50e7"},  {0.5, "0.500"},         {7, "7.00"},
        {1234567, "1,234,567"}, {123.4, "123"},     {1.236e-5, "1.24e-5"},  {9.99e6, "9,990,000"},
        {9.999e6, "1.00e7"},    {1e300, "1.00e300"}};
    for (const auto& [value, text] : cases) {
        const Image image = chart_of({{"", value}});
        const auto found = find_text(image, text);
        const std::vector<Window> drawn = rectangles(image, bar_color(0));
        ASSERT_TRUE(found && drawn.size() == 1) << text;
        EXPECT_EQ(found->left, right_of(drawn[0]) + 10) << text;
        EXPECT_GT(found->top, drawn[0].top) << text;
        EXPECT_LT(found->top + text_height(), bottom_of(drawn[0])) << text;
    }
}

TEST(BarChart, ErrorBarsReachFromLowToHigh) {
    const Image without = chart_of({{"a", 50}, {"b", 100}}), with = chart_of({{"a", 50, 40, 80}, {"b", 100}});
    const std::vector<Window> drawn = rectangles(without, bar_color(0));
    ASSERT_EQ(drawn.size(), 2U);
    const int left = drawn[0].left, length = drawn[1].width;
    const int low = left + static_cast<int>(std::lround(0.4 * length));
    const int high = left + static_cast<int>(std::lround(0.8 * length));
    const int middle = drawn[0].top + drawn[0].height / 2;
    for (int x = left; x < high + 10; ++x) {  // the value's text follows
        const bool line = color_at(with, x, middle) == kInk, cap = color_at(with, x, middle - 5) == kInk;
        EXPECT_EQ(line, x >= low - 1 && x <= high) << x;
        EXPECT_EQ(cap, (x >= low - 1 && x <= low) || (x >= high - 1 && x <= high)) << x;
    }
    const auto value = find_text(with, "50.0");
    ASSERT_TRUE(value);
    EXPECT_EQ(value->left, high + 10);  // beside the error bar
    EXPECT_EQ(rectangles(with, bar_color(0)).at(0).width, drawn[0].width);
}

TEST(BarChart, TheAxisHoldsErrorBarsToo) {
    const Image image = chart_of({{"a", 100, 100, 160}});
    EXPECT_TRUE(find_text(image, "160", kFaintInk));
    EXPECT_TRUE(find_text(image, "100"));
}

TEST(BarChart, ErrorBarsThatCannotBeDrawnAreLeftOut) {
    const std::vector<std::uint8_t> plain = chart_of({{"a", 50, 50, 50}}).pixels;
    EXPECT_EQ(chart_of({{"a", 50}}).pixels, plain);
    for (const auto& [low, high] :
         std::vector<std::pair<double, double>>{{kNan, 60}, {40, kNan}, {40, kInfinity}, {-kInfinity, 60}, {60, 40}}) {
        EXPECT_EQ(chart_of({{"a", 50, low, high}}).pixels, plain) << low << ' ' << high;
    }
    EXPECT_EQ(chart_of({{"a", 50, -7, 60}}).pixels, chart_of({{"a", 50, 0, 60}}).pixels);
    EXPECT_NE(chart_of({{"a", 50, -7, 60}}).pixels, plain);
}

TEST(BarChart, LegendNamesTheColours) {
    const std::vector<std::string> groups = {"dense", "pruned", "unused"};
    const Image image = chart_of({{"a", 1, 1, 1, 0}, {"b", 2, 2, 2, 1}}, groups);
    for (int group = 0; group < 3; ++group) {
        const std::vector<Window> drawn = rectangles(image, bar_color(group));
        ASSERT_EQ(drawn.size(), group < 2 ? 2U : 1U) << group;  // the swatch above, and a bar
        const auto name = find_text(image, groups[static_cast<std::size_t>(group)]);
        ASSERT_TRUE(name) << group;
        EXPECT_EQ(name->left, right_of(drawn[0]) + 8) << group;
        EXPECT_EQ(name->top, drawn[0].top) << group;
    }
    const Image one = chart_of({{"a", 1}}, {"dense"});
    EXPECT_FALSE(find_text(one, "dense"));
    EXPECT_EQ(rectangles(one, bar_color(0)).size(), 1U);
    EXPECT_EQ(one.pixels, chart_of({{"a", 1}}).pixels);
}

TEST(BarChart, ColoursDifferAndRepeat) {
    for (int i = 0; i < 7; ++i) {
        for (int j = 0; j < i; ++j) EXPECT_NE(bar_color(i), bar_color(j));
        EXPECT_EQ(bar_color(i + 7), bar_color(i));
        EXPECT_EQ(bar_color(i - 7), bar_color(i));
    }
    bar_color(std::numeric_limits<int>::min());
    bar_color(std::numeric_limits<int>::max());
}

TEST(BarChart, GapsStandWhereAGroupEndsOrComesAgain) {
    const auto gaps = [](const std::vector<int>& groups) {
        std::vector<Bar> bars;
        for (const int group : groups) bars.push_back({"", 1, 1, 1, group});
        const Image image = chart_of(bars);
        std::vector<Window> drawn;
        for (int group = 0; group < 3; ++group) {
            for (const Window& window : rectangles(image, bar_color(group))) drawn.push_back(window);
        }
        std::ranges::sort(drawn, {}, &Window::top);
        std::string wide;
        for (std::size_t i = 1; i < drawn.size(); ++i) wide += drawn[i].top - bottom_of(drawn[i - 1]) > 20 ? '|' : '.';
        return wide;
    };
    EXPECT_EQ(gaps({0, 0, 0}), "..");
    EXPECT_EQ(gaps({0, 1, 2}), "..");
    EXPECT_EQ(gaps({0, 0, 1, 1, 2}), ".|.|");
    EXPECT_EQ(gaps({0, 1, 2, 0, 1, 2}), "..|..");
    EXPECT_EQ(gaps({0, 1, 1, 0, 1, 1}), "..|..");
    EXPECT_EQ(gaps({2, 0, 2, 0}), ".|.");
}

TEST(BarChart, OddValuesShowAsNotAvailable) {
    for (const double value : {kNan, kInfinity, -kInfinity, -1.0, -1e-300, std::numeric_limits<double>::max()}) {
        const Image image = chart_of({{"odd", value, value, value, 1}, {"even", 3}});
        EXPECT_TRUE(find_text(image, "n/a", kFaintInk)) << value;
        EXPECT_EQ(count(image, bar_color(1)), 0) << value;
        EXPECT_TRUE(find_text(image, "3.00")) << value;
        EXPECT_EQ(rectangles(image, bar_color(0)).size(), 1U) << value;
        EXPECT_TRUE(find_text(chart_of({{"", value}}), "n/a", kFaintInk)) << value;
    }
}

TEST(BarChart, NothingToShowIsAnEmptyPlot) {
    for (const double value : {0.0, -0.0, std::numeric_limits<double>::denorm_min()}) {
        const Image image = chart_of({{"a", value}, {"b", 0}});
        EXPECT_EQ(count(image, bar_color(0)), 0) << value;
        EXPECT_TRUE(find_text(image, "0")) << value;
        EXPECT_TRUE(find_text(image, "1.0", kFaintInk)) << value;
    }
    EXPECT_TRUE(find_text(chart_of({}), "Title", kInk, 3));
    EXPECT_EQ(draw_bar_chart({}).width, 1000);
}

TEST(BarChart, LongTextsOverlapNothing) {
    std::string words, word(200, 'm');
    for (int i = 0; i < 40; ++i) words += "word" + std::to_string(i) + " ";
    const Image image =
        draw_bar_chart({"Title " + words,
                        words,
                        {{"short", 123456}, {words, 1e6}, {"next", 9.99e6, 0, 9.99e6, 1}, {word, kNan}, {"last", 2e6}},
                        {words, word, "third"}});
    for (const char* text : {"short", "next", "last", "third", "123,456", "9,990,000"}) {
        EXPECT_TRUE(find_text(image, text)) << text;
    }
    EXPECT_TRUE(find_text(image, "1e7", kFaintInk));
    // Nothing enters the margins, of which letters may hang four pixels into the lower one.
    constexpr int kMargin = 20;
    for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
            if (x >= kMargin && x < image.width - kMargin && y >= kMargin && y < image.height - kMargin) continue;
            ASSERT_EQ(color_at(image, x, y), kWhite) << x << ' ' << y;
        }
    }
    // The labels stay left of the axis, which is the first dark pixel left of the longest bar.
    const Window longest = rectangles(image, bar_color(1)).at(1);  // after the legend's
    EXPECT_GT(longest.width, 400);
    for (int y = longest.top - 100; y < longest.top + 100; ++y) {
        for (int x = longest.left - 10; x < longest.left - 2; ++x) EXPECT_EQ(color_at(image, x, y), kWhite) << x;
    }
}

}  // namespace
}  // namespace dynvit
