#include "dynvit/core/text.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

namespace dynvit {
namespace {

// from_chars takes no plus.
std::string_view without_plus(std::string_view text) {
    const bool plus = text.size() > 1 && text[0] == '+' && text[1] != '-';
    return plus ? text.substr(1) : text;
}

template <class Number>
std::optional<Number> parse_whole(std::string_view text) {
    text = without_plus(text);
    Number value{};
    const char* const start = text.data();
    const char* const end = start + text.size();
    const auto [stop, error] = std::from_chars(start, end, value);
    if (error != std::errc() || stop != end) return std::nullopt;
    return value;
}

// Levenshtein's.
std::size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i] != b[j] ? 1 : 0);
            diagonal = row[j + 1];
            row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, replaced});
        }
    }
    return row.back();
}

}  // namespace

std::optional<std::int64_t> parse_integer(std::string_view text) {
    return parse_whole<std::int64_t>(text);
}

std::optional<double> parse_number(std::string_view text) {
    const std::optional<double> value = parse_whole<double>(text);
    return value && std::isfinite(*value) ? value : std::nullopt;
}

std::string lower_case(std::string_view text) {
    std::string result(text);
    for (char& letter : result)
        if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
    return result;
}

std::string nearest_name(const std::string& name, const std::vector<std::string>& known) {
    constexpr std::size_t kSlips = 2;
    std::string best;
    std::size_t least = kSlips + 1;
    for (const std::string& one : known) {
        const std::size_t distance = edit_distance(name, one);
        if (distance == 0 || distance >= least || distance >= name.size()) continue;
        least = distance;
        best = one;
    }
    if (least == 1) return best;
    const auto longer = [&](const std::string& one) { return !name.empty() && one.starts_with(name); };
    const auto only = std::ranges::find_if(known, longer);
    return std::ranges::count_if(known, longer) == 1 ? *only : best;
}

}  // namespace dynvit
