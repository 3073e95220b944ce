// JSON as texts that every reader takes, and texts as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>

namespace dynvit {

/// A value's text. Bytes of its strings that are not UTF-8, as a file's name may have, become U+FFFD; NaN and infinity
/// become null.
/// @param indent blanks a level; -1: all on one line
std::string json_text(const nlohmann::json& value, int indent = -1);

/// A text's value; nothing where it is no JSON, or nested more than 100 levels deep: what copies, compares or prints a
/// value calls itself for each.
std::optional<nlohmann::json> parse_json(std::span<const std::uint8_t> text);

}  // namespace dynvit
