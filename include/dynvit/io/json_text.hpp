// JSON as texts that every reader takes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace dynvit {

/// A value's text. Bytes of its strings that are not UTF-8, as a file's name may have, become U+FFFD; NaN and infinity
/// become null.
/// @param indent blanks a level; -1: all on one line
std::string json_text(const nlohmann::json& value, int indent = -1);

}  // namespace dynvit
