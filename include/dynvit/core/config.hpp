// Settings structs from YAML and back. See fields.hpp for how a struct lists its fields.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/core/fields.hpp"

namespace dynvit {

/// YAML text with the name that errors call it, and changes on top.
struct ConfigSource {
    std::string text;             // may be empty: all defaults
    std::string name = "config";  // a path
    /// "train.schedule.lr=1e-4": lists, maps and quoted texts as YAML has them, other values as they stand ('#' is no
    /// comment), and none at all is an Error.
    std::vector<std::string> overrides;
    /// Where the text's `base: other.yaml` is looked for: settings that it goes on from, key by key, section by
    /// section. A base may have one of its own. None: the text is no file's and may not have any.
    std::optional<std::filesystem::path> folder = {};
};

/// Reads the file. Throws Error if it cannot.
ConfigSource config_from_file(const std::filesystem::path& path, std::vector<std::string> overrides = {});

/// Meets the fields with the source's values. Whole numbers are decimal and, without a bound of their own, at most
/// 10^9.
/// "<<: *anchor" merges maps, for which keys of the file's own that begin with "x-" may hold anchors. Throws
/// Error("config", "FILE:LINE: key: found ..., expected ...") for a syntax error, a second document, an unknown or
/// repeated key, a wrong type, a value out of range; FILE is the one that has the key, or in its place stands the
/// `--set` that gave the value.
void read_fields(const ConfigSource& source, const std::function<void(FieldVisitor&)>& visit);

/// YAML with a comment a field, which read_fields takes back to the same values.
/// @param comments false leaves the comments out
std::string write_fields(const std::function<void(FieldVisitor&)>& visit, bool comments = true);

/// A settings struct from its defaults and the source.
template <class Settings>
Settings read_config(const ConfigSource& source, Settings settings = {}) {
    read_fields(source, [&](FieldVisitor& visitor) { settings.fields(visitor); });
    return settings;
}

template <class Settings>
std::string write_config(Settings settings, bool comments = true) {
    return write_fields([&](FieldVisitor& visitor) { settings.fields(visitor); }, comments);
}

}  // namespace dynvit
