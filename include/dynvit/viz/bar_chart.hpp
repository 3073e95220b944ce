// Measurements as a bar chart.
#pragma once

#include <string>
#include <vector>

#include "dynvit/viz/bitmap_text.hpp"

namespace dynvit {

struct Bar {
    std::string label;
    double value = 0;
    double low = value, high = value;  // ends of an error bar; the value itself: none
    int group = 0;                     // chooses the colour; may be any number
};

struct BarChart {
    std::string title;
    std::string unit;  // below the axis
    std::vector<Bar> bars;
    std::vector<std::string> groups;  // legend, by Bar::group; shown where there are two or more
};

/// The colour of a group's bars, from the palette of Okabe and Ito (2008, "Color Universal Design"), which colour-blind
/// people can tell apart too. The eighth group has the first one's colour again.
Color bar_color(int group);

/// Draws horizontal bars, one below the other, 1000 pixels wide and as high as they need. Values start at 0. One that
/// cannot be drawn (negative, infinite, not a number) shows as "n/a", and an error bar of which an end cannot be drawn
/// is left out; a negative `low` counts as 0. Long texts are wrapped. Where the bars are sorted by group, the groups
/// stand apart; otherwise there is a gap where a group comes again, as in dense, pruned; dense, pruned.
Image draw_bar_chart(const BarChart& chart);

}  // namespace dynvit
