// How the command line is read, beyond what CLI11 does by itself: no empty texts, decimal numbers within limits, lists
// between commas, and errors in the program's own words.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"

namespace dynvit::tool {

/// Most threads that an option or setting may ask for.
inline constexpr double kMostThreads = 1024;

/// Of a number: "found 0, expected at least 1".
CLI::Validator within(const Limits& limits);

/// Of a name: "found 'int3', expected one of float32, bfloat16".
CLI::Validator one_of(const std::vector<std::string>& names);

/// Turns a size such as 256MB, 1.5GiB or 4000 into whole bytes. For an option whose type is named SIZE.
CLI::Validator byte_size();

/// An option whose values stand between commas in one word: "--keep-ratio 1.0,0.7", or "[1.0, 0.7]". What comes after
/// that word is left to the command's pictures. Given more than once, the option has all values.
/// @param each what every value is checked by
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<double>& values,
                      const std::string& description, const CLI::Validator& each = {});
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::int64_t>& values,
                      const std::string& description, const CLI::Validator& each = {});
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::string>& values,
                      const std::string& description, const CLI::Validator& each = {});

/// Has every option of the program and of its commands refuse an empty text, another option in its value's place, and
/// numbers that are not decimal or not finite. To be called once, when all options are there.
void guard_options(CLI::App& program);

/// Throws Error for "--weights=" without a value, in whose place CLI11 would take the next word.
void check_words(int argc, char** argv);

/// What is wrong with the command line, in a line.
/// @param program whose parse() threw the error
std::string explain(const CLI::ParseError& error, const CLI::App& program);

}  // namespace dynvit::tool
