// What people type: numbers, and names with a slip in them or in other letters.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dynvit {

/// A whole number in decimal digits with or without a sign: "0256" is 256, not octal. Empty for anything else and for
/// what 64 bits don't hold.
std::optional<std::int64_t> parse_integer(std::string_view text);

/// A finite number as 0.7, .5, 1e-4 or +3. Empty for anything else.
std::optional<double> parse_number(std::string_view text);

/// The text with its ASCII letters in lower case.
std::string lower_case(std::string_view text);

/// What a mistyped name was meant to be: the first of the known ones that differs by a letter, else the only one that
/// begins so, else the first that differs by two letters. Empty where there is none.
std::string nearest_name(const std::string& name, const std::vector<std::string>& known);

}  // namespace dynvit
