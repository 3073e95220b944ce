#include "dynvit/weights/model_files.hpp"

#include <algorithm>
#include <array>
#include <regex>
#include <set>
#include <string>

#include "dynvit/core/error.hpp"
#include "json_fields.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

// In this order: safetensors before pickles of the same weights.
constexpr std::array<const char*, 8> kKnownNames = {
    "model.safetensors",           "model.safetensors.index.json",
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "pytorch_model.bin",           "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin.index.json"};

constexpr std::array<const char*, 7> kEndings = {".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"};

bool is_index(const fs::path& path) {
    return path.filename().string().ends_with(".index.json");
}

// The files of an index are beside it: a name with a folder in it might lead anywhere.
std::vector<fs::path> parts_of(const fs::path& index) {
    const JsonFields map = JsonFields::of_file(index).section("weight_map");
    std::set<std::string> names;
    for (const std::string& tensor : map.keys()) names.insert(map.text(tensor));
    if (names.empty()) throw Error("weights", index.string(), ": lists no weights under weight_map");
    std::vector<fs::path> parts;
    for (const std::string& name : names) {
        const fs::path part = index.parent_path() / name;
        if (fs::path(name).filename() != name || name == "..") {
            throw Error("weights", index.string(), ": lists ", name, ", expected names of files beside it");
        }
        if (!fs::exists(part)) throw Error("weights", index.string(), ": lists ", name, ", which is not there");
        parts.push_back(part);
    }
    return parts;
}

std::vector<fs::path> weights_files_in(const fs::path& folder) {
    std::vector<fs::path> found;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        const auto ends = [&](const char* ending) { return name.ends_with(ending); };
        if (entry.is_regular_file() && std::ranges::any_of(kEndings, ends)) found.push_back(entry.path());
    }
    std::ranges::sort(found);
    return found;
}

ModelFiles of_folder(const fs::path& folder) {
    for (const char* name : kKnownNames) {
        const fs::path path = folder / name;
        if (!fs::exists(path)) continue;
        return {is_index(path) ? parts_of(path) : std::vector{path}, folder, true};
    }
    const std::vector<fs::path> found = weights_files_in(folder);
    if (found.size() == 1) return {found, folder, true};
    if (found.empty()) {
        throw Error("weights", folder.string(),
                    ": holds no weights, expected a file such as model.safetensors, "
                    "pytorch_model.bin or one that ends in ",
                    join(kEndings, ", "));
    }
    constexpr std::size_t kMost = 8;
    std::vector<std::string> names;
    for (const fs::path& path : found) names.push_back(names.size() < kMost ? path.filename().string() : "...");
    if (names.size() > kMost) names.resize(kMost + 1);
    throw Error("weights", folder.string(), ": holds ", found.size(),
                " weights files, expected one of them: ", join(names, ", "));
}

// "model-00001-of-00002.safetensors": the index of which it is a part, if that is beside it.
fs::path index_of(const fs::path& path) {
    static const std::regex pattern(R"((.*)-\d+-of-\d+(\.[a-z]+))");
    const std::string name = path.filename().string();
    std::smatch parts;
    if (!std::regex_match(name, parts, pattern)) return {};
    return path.parent_path() / (parts[1].str() + parts[2].str() + ".index.json");
}

}  // namespace

ModelFiles find_model_files(const fs::path& path) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) return of_folder(path);
    if (is_index(path) && fs::exists(path, ignored)) return {parts_of(path), path.parent_path(), false};
    const fs::path index = index_of(path);
    if (index.empty()) return {{path}, path.parent_path(), false};
    if (!fs::exists(index, ignored)) {
        throw Error("weights", path.string(), ": is one part of several, expected ", index.filename().string(),
                    " beside it, which lists them");
    }
    return {parts_of(index), path.parent_path(), false};
}

}  // namespace dynvit
