#include "json_fields.hpp"

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/io/json_text.hpp"

namespace dynvit {
namespace {

using nlohmann::json;

constexpr std::size_t kMostBytes = 64 << 20;

bool is_whole(const json& value) {
    return value.is_number_integer() && value.get<double>() < 9e18;
}

// A list's items, or one value as a list of one.
json as_list(const json& value) {
    return value.is_array() ? value : json::array({value});
}

}  // namespace

JsonFields JsonFields::of_file(const std::filesystem::path& path) {
    const std::vector<std::uint8_t> bytes = read_file(path, "weights");
    if (bytes.size() > kMostBytes) throw Error("weights", path.string(), ": is too large for a JSON file");
    std::optional<json> value = parse_json(bytes);
    if (!value && file_kind(bytes) != FileKind::kJson)
        throw Error("weights", path.string(), ": found ", describe_file(bytes, bytes.size()),
                    ", expected JSON of an object", advice(file_kind(bytes)));
    if (!value || !value->is_object()) throw Error("weights", path.string(), ": is not valid JSON of an object");
    return {path.string(), std::move(*value)};
}

void JsonFields::fail(const std::string& key, const json& found, const char* expected) const {
    std::string shown = found.dump(-1, ' ', true, json::error_handler_t::replace);
    if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
    throw Error("weights", file_, ": ", key, ": found ", shown, ", expected ", expected);
}

const json* JsonFields::find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::has(const std::string& key) const {
    return find(key) != nullptr;
}

bool JsonFields::is_number(const std::string& key) const {
    const json* value = find(key);
    return value && value->is_number();
}

JsonFields JsonFields::section(const std::string& key) const {
    const json* value = find(key);
    if (!value) return {file_, json::object()};
    if (!value->is_object()) fail(key, *value, "an object");
    return {file_, *value};
}

std::string JsonFields::text(const std::string& key) const {
    const json* value = find(key);
    if (!value) return "";
    if (!value->is_string()) fail(key, *value, "a string");
    return value->get<std::string>();
}

std::vector<std::string> JsonFields::texts(const std::string& key) const {
    const json* value = find(key);
    std::vector<std::string> found;
    if (!value) return found;
    for (const json& item : as_list(*value)) {
        if (!item.is_string()) fail(key, *value, "a list of strings");
        found.push_back(item.get<std::string>());
    }
    return found;
}

std::optional<std::int64_t> JsonFields::number(const std::string& key) const {
    const std::vector<std::int64_t> found = numbers(key);
    if (found.empty()) return std::nullopt;
    for (const std::int64_t one : found) {
        if (one != found.front()) fail(key, *find(key), "a number");
    }
    return found.front();
}

std::vector<std::int64_t> JsonFields::numbers(const std::string& key) const {
    const json* value = find(key);
    std::vector<std::int64_t> found;
    if (!value) return found;
    for (const json& item : as_list(*value)) {
        if (!is_whole(item) || item.get<double>() < 0) fail(key, *value, "whole numbers from 0 on");
        found.push_back(item.get<std::int64_t>());
    }
    return found;
}

std::optional<double> JsonFields::real(const std::string& key) const {
    const json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number()) fail(key, *value, "a number");
    return value->get<double>();
}

std::vector<double> JsonFields::reals(const std::string& key) const {
    const json* value = find(key);
    std::vector<double> found;
    if (!value) return found;
    for (const json& item : as_list(*value)) {
        if (!item.is_number()) fail(key, *value, "numbers");
        found.push_back(item.get<double>());
    }
    return found;
}

bool JsonFields::truth(const std::string& key, bool otherwise) const {
    const json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean()) fail(key, *value, "true or false");
    return value->get<bool>();
}

std::vector<std::string> JsonFields::keys() const {
    std::vector<std::string> found;
    for (const auto& [key, value] : object_.items()) found.push_back(key);
    return found;
}

}  // namespace dynvit
