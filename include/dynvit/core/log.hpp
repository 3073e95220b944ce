// The program's log: lines on standard error, through spdlog, and the notes of a run for its JSON. This header hides
// spdlog, because LibTorch's include folder carries another version of the fmt that spdlog was built with.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace dynvit::log {

void debug(const std::string& message);
void info(const std::string& message);
void error(const std::string& message);

/// What was assumed, chosen or passed over for the user: a line of level info, and a note.
void note(const std::string& message);
/// What may be otherwise than the user thinks: a line of level warn, and a note.
void warn(const std::string& message);

inline constexpr std::size_t kMostNotes = 1000;
/// What note() and warn() have said so far, whatever the level of the lines that are printed: in order, each text once.
/// After kMostNotes a last one says that there were more.
std::vector<std::string> notes();

/// Sets the least level that is printed: "debug", "info", "warn", "error" or "off". Throws Error for any other name.
void set_level(const std::string& level);

/// Puts a text in front of every line from now on: "rank 1: ".
void set_prefix(const std::string& prefix);

}  // namespace dynvit::log
