#include "dynvit/viz/bar_chart.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "dynvit/core/progress.hpp"

namespace dynvit {
namespace {

using Lines = std::vector<std::string>;

constexpr Color kWhite = {255, 255, 255}, kInk = {34, 34, 34}, kFaintInk = {110, 110, 110}, kGrid = {224, 224, 224};

// All in pixels.
constexpr int kWidth = 1000, kMargin = 24;
constexpr int kTitleScale = 3, kTextScale = 2;
constexpr int kBetweenParts = 16;  // title, legend, plot
constexpr int kMostLabelWidth = 360;
constexpr int kLabelGap = 10;  // from a label to the axis, from a bar to its value
constexpr int kBarHeight = 22, kBetweenBars = 10, kBetweenBlocks = 16;
constexpr int kErrorBarCap = 6;  // to either side
constexpr int kTickLength = 6, kTickLabelTop = 12, kBetweenTickLabels = 28;
constexpr int kUnitGap = 14;
constexpr int kSwatch = 14, kSwatchGap = 8, kBetweenLegendItems = 28, kBetweenLegendLines = 12;

constexpr double kLargest = 1e300, kSmallest = 1e-300;  // the arithmetic of an axis overflows beyond
constexpr int kMostTicks = 10;

bool can_be_drawn(double value) {
    return value >= 0 && value <= kLargest;  // false for NaN
}

bool has_error_bar(const Bar& bar) {
    return can_be_drawn(bar.value) && std::isfinite(bar.low) && bar.low <= bar.high && can_be_drawn(bar.high) &&
           (bar.low != bar.value || bar.high != bar.value);
}

/// Where a bar and its error bar end.
double end_of(const Bar& bar) {
    if (!can_be_drawn(bar.value)) return 0;
    return has_error_bar(bar) ? std::max(bar.value, bar.high) : bar.value;
}

/// k of a x 10^k with 1 <= a < 10, as the value reads with three significant digits: 3 for 999.9.
int exponent_of(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2e", value);
    return std::stoi(std::string(text).substr(5));  // d.dde+kk
}

/// As 1,234.5.
std::string plain_text(double value, int decimals) {
    std::string text = fixed(value, decimals);
    const std::size_t whole_digits = std::min(text.find('.'), text.size());
    for (auto place = static_cast<int>(whole_digits) - 3; place > 0; place -= 3) {
        text.insert(static_cast<std::size_t>(place), 1, ',');
    }
    return text;
}

/// As 1.2e7, without C's plus sign and leading zeros of the exponent.
std::string scientific_text(double value, int decimals) {
    char c_text[32];
    std::snprintf(c_text, sizeof c_text, "%.*e", decimals, value);
    const std::string text = c_text;
    const std::size_t exponent = text.find('e') + 1;
    return text.substr(0, exponent) + std::to_string(std::stoi(text.substr(exponent)));
}

bool reads_better_plain(int exponent) {
    return exponent >= -4 && exponent <= 6;
}

/// Three significant digits, and all digits of a larger whole number.
std::string value_text(const Bar& bar) {
    if (!can_be_drawn(bar.value)) return "n/a";
    if (bar.value == 0) return "0";
    const int exponent = exponent_of(bar.value);
    if (!reads_better_plain(exponent)) return scientific_text(bar.value, 2);
    return plain_text(bar.value, std::max(0, 2 - exponent));
}

/// Ticks at 0, 1 step ... `steps` steps, where the axis ends. A step is 1, 2 or 5 x 10^exponent.
struct Axis {
    int digit = 2;
    int exponent = -1;
    int steps = 5;

    double tick(int i) const { return i * digit * std::pow(10.0, exponent); }

    std::string tick_text(int i) const {
        if (i == 0) return "0";
        if (reads_better_plain(exponent_of(tick(steps)))) return plain_text(tick(i), std::max(0, -exponent));
        const int digits = i * digit;  // two at most
        return scientific_text(tick(i), digits < 10 || digits % 10 == 0 ? 0 : 1);
    }

    int widest_tick_text() const {
        int widest = 0;
        for (int i = 0; i <= steps; ++i) widest = std::max(widest, text_width(tick_text(i), kTextScale));
        return widest;
    }
};

/// The axis of the smallest steps that leave room between the tick labels.
Axis choose_axis(double largest, int plot_width) {
    if (largest < kSmallest) return {};
    for (int exponent = exponent_of(largest) - 1;; ++exponent) {
        for (const int digit : {1, 2, 5}) {
            constexpr double kRounding = 1e-9;  // 0.3 / 0.1 may come out above 3
            const double steps = std::ceil(largest / (digit * std::pow(10.0, exponent)) - kRounding);
            if (steps > kMostTicks) continue;
            const Axis axis = {digit, exponent, std::max(1, static_cast<int>(steps))};
            const int room = plot_width / axis.steps - kBetweenTickLabels;
            if (axis.steps == 1 || axis.widest_tick_text() <= room) return axis;
        }
    }
}

int widest(const Lines& lines, int scale) {
    int width = 0;
    for (const std::string& line : lines) width = std::max(width, text_width(line, scale));
    return width;
}

/// From the first line's top to the last one's baseline.
int height_of(const Lines& lines, int scale) {
    if (lines.empty()) return 0;
    return (static_cast<int>(lines.size()) - 1) * line_height(scale) + text_height(scale);
}

enum class Align { kLeft, kCentre, kRight };

/// @param x the text's left end, middle or right end
void draw_lines(Image& image, int x, int y, const Lines& lines, Align align, const Color& color, int scale) {
    for (const std::string& line : lines) {
        const int width = text_width(line, scale);
        const int left = align == Align::kLeft ? x : align == Align::kCentre ? x - width / 2 : x - width;
        draw_text(image, left, y, line, color, scale);
        y += line_height(scale);
    }
}

/// For each bar, whether a gap goes before it.
std::vector<bool> block_starts(const std::vector<Bar>& bars) {
    std::vector<bool> comes_again(bars.size()), changes(bars.size());
    std::set<int> in_block;
    for (std::size_t i = 0; i < bars.size(); ++i) {
        changes[i] = i > 0 && bars[i].group != bars[i - 1].group;
        comes_again[i] = changes[i] && in_block.contains(bars[i].group);
        if (comes_again[i]) in_block.clear();
        in_block.insert(bars[i].group);
    }
    const bool sorted = std::ranges::find(comes_again, true) == comes_again.end();
    const bool all_alone = in_block.size() == bars.size();  // a bar a group: nothing to keep together
    if (!sorted) return comes_again;
    return all_alone ? std::vector<bool>(bars.size()) : changes;
}

struct LegendItem {
    Lines name;
    int x = 0, y = 0;
};

struct Row {
    Lines label;
    int middle = 0;
};

/// Where everything goes.
struct Layout {
    Lines title, unit;
    std::vector<LegendItem> legend;
    std::vector<Row> rows;
    Axis axis;
    int plot_left = 0, plot_width = 0, plot_top = 0, plot_bottom = 0;
    int height = 0;

    int x_of(double value) const {
        return plot_left + static_cast<int>(std::lround(value / axis.tick(axis.steps) * plot_width));
    }
};

/// Items beside each other, and on a new line where there is no room. Returns where the legend ends.
int place_legend(const std::vector<std::string>& groups, int top, std::vector<LegendItem>& legend) {
    constexpr int kSwatchWidth = kSwatch + kSwatchGap, kRight = kWidth - kMargin;
    int x = kMargin, bottom = top;
    for (const std::string& group : groups) {
        LegendItem item{wrap_text(group, kRight - kMargin - kSwatchWidth, kTextScale)};
        const int width = kSwatchWidth + widest(item.name, kTextScale);
        if (x > kMargin && x + width > kRight) {
            x = kMargin;
            top = bottom + kBetweenLegendLines;
        }
        item.x = x;
        item.y = top;
        bottom = std::max(bottom, top + std::max(kSwatch, height_of(item.name, kTextScale)));
        x += width + kBetweenLegendItems;
        legend.push_back(std::move(item));
    }
    return bottom;
}

Layout lay_out(const BarChart& chart) {
    Layout layout;
    int y = kMargin;
    layout.title = wrap_text(chart.title, kWidth - 2 * kMargin, kTitleScale);
    if (!layout.title.empty()) y += height_of(layout.title, kTitleScale) + kBetweenParts;
    if (chart.groups.size() >= 2) y = place_legend(chart.groups, y, layout.legend) + kBetweenParts;

    int label_width = 0, value_width = 0;
    double largest = 0;
    for (const Bar& bar : chart.bars) {
        layout.rows.push_back({wrap_text(bar.label, kMostLabelWidth, kTextScale)});
        label_width = std::max(label_width, widest(layout.rows.back().label, kTextScale));
        value_width = std::max(value_width, text_width(value_text(bar), kTextScale));
        largest = std::max(largest, end_of(bar));
    }
    layout.plot_left = kMargin + label_width + kLabelGap;
    layout.plot_width = kWidth - kMargin - value_width - kLabelGap - layout.plot_left;
    layout.axis = choose_axis(largest, layout.plot_width);
    // The last tick's label reaches beyond the plot too.
    layout.plot_width =
        std::min(layout.plot_width, kWidth - kMargin - layout.axis.widest_tick_text() / 2 - layout.plot_left);

    layout.plot_top = y;
    const std::vector<bool> starts = block_starts(chart.bars);
    y += kBetweenBars / 2;
    for (std::size_t i = 0; i < layout.rows.size(); ++i) {
        Row& row = layout.rows[i];
        const int height = std::max(kBarHeight, static_cast<int>(row.label.size()) * line_height(kTextScale));
        if (starts[i]) y += kBetweenBlocks;
        row.middle = y + height / 2;
        y += height + kBetweenBars;
    }
    layout.plot_bottom = y - kBetweenBars / 2;
    layout.unit = wrap_text(chart.unit, layout.plot_width, kTextScale);
    layout.height = layout.plot_bottom + kTickLabelTop + text_height(kTextScale) + kMargin;
    if (!layout.unit.empty()) layout.height += kUnitGap + height_of(layout.unit, kTextScale);
    return layout;
}

void draw_legend(Image& image, const std::vector<LegendItem>& legend) {
    for (std::size_t i = 0; i < legend.size(); ++i) {
        const LegendItem& item = legend[i];
        fill_rectangle(image, {item.x, item.y, kSwatch, kSwatch}, bar_color(static_cast<int>(i)));
        draw_lines(image, item.x + kSwatch + kSwatchGap, item.y, item.name, Align::kLeft, kInk, kTextScale);
    }
}

void draw_grid(Image& image, const Layout& layout) {
    const Axis& axis = layout.axis;
    const int height = layout.plot_bottom - layout.plot_top;
    for (int i = 0; i <= axis.steps; ++i) {
        const int x = layout.x_of(axis.tick(i));
        if (i > 0) fill_rectangle(image, {x, layout.plot_top, 1, height + kTickLength}, kGrid);
        draw_lines(image, x, layout.plot_bottom + kTickLabelTop, {axis.tick_text(i)}, Align::kCentre, kFaintInk,
                   kTextScale);
    }
    const int unit_y = layout.plot_bottom + kTickLabelTop + text_height(kTextScale) + kUnitGap;
    draw_lines(image, layout.plot_left + layout.plot_width / 2, unit_y, layout.unit, Align::kCentre, kInk, kTextScale);
}

void draw_error_bar(Image& image, const Layout& layout, const Bar& bar, int middle) {
    const int low = layout.x_of(std::max(bar.low, 0.0)), high = layout.x_of(bar.high);
    fill_rectangle(image, {low - 1, middle - 1, high - low + 1, 2}, kInk);
    for (const int x : {low, high}) fill_rectangle(image, {x - 1, middle - kErrorBarCap, 2, 2 * kErrorBarCap}, kInk);
}

void draw_bar(Image& image, const Layout& layout, const Row& row, const Bar& bar) {
    const int text_top = row.middle - text_height(kTextScale) / 2;
    draw_lines(image, layout.plot_left - kLabelGap, row.middle - height_of(row.label, kTextScale) / 2, row.label,
               Align::kRight, kInk, kTextScale);
    if (can_be_drawn(bar.value)) {
        const int top = row.middle - kBarHeight / 2, length = layout.x_of(bar.value) - layout.plot_left;
        fill_rectangle(image, {layout.plot_left, top, length, kBarHeight}, bar_color(bar.group));
    }
    if (has_error_bar(bar)) draw_error_bar(image, layout, bar, row.middle);
    const std::string text = value_text(bar);
    const int text_left = layout.x_of(end_of(bar)) + kLabelGap;
    constexpr int kClear = 4;  // around the number, so that no grid line touches it
    fill_rectangle(image,
                   {text_left - kClear, text_top - kClear, text_width(text, kTextScale) + 2 * kClear,
                    text_height(kTextScale) + 2 * kClear},
                   kWhite);
    draw_text(image, text_left, text_top, text, can_be_drawn(bar.value) ? kInk : kFaintInk, kTextScale);
}

}  // namespace

Color bar_color(int group) {
    constexpr std::array<Color, 7> kPalette = {{{0, 114, 178},     // blue
                                                {230, 159, 0},     // orange
                                                {0, 158, 115},     // green
                                                {204, 121, 167},   // purple
                                                {86, 180, 233},    // sky blue
                                                {213, 94, 0},      // vermilion
                                                {240, 228, 66}}};  // yellow
    constexpr int kColors = static_cast<int>(kPalette.size());
    return kPalette[static_cast<std::size_t>((group % kColors + kColors) % kColors)];
}

Image draw_bar_chart(const BarChart& chart) {
    const Layout layout = lay_out(chart);
    Image image(kWidth, layout.height);
    fill_rectangle(image, {0, 0, image.width, image.height}, kWhite);
    draw_lines(image, kMargin, kMargin, layout.title, Align::kLeft, kInk, kTitleScale);
    draw_legend(image, layout.legend);
    draw_grid(image, layout);
    for (std::size_t i = 0; i < chart.bars.size(); ++i) draw_bar(image, layout, layout.rows[i], chart.bars[i]);
    // The axis, over the bars' ends.
    fill_rectangle(image, {layout.plot_left - 2, layout.plot_top, 2, layout.plot_bottom - layout.plot_top}, kInk);
    return image;
}

}  // namespace dynvit
