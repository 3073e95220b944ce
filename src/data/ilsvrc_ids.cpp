#include <algorithm>
#include <ranges>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/text.hpp"
#include "dynvit/data/label_file.hpp"
#include "dynvit/io/matlab.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "labels";

bool is_wordnet_id(std::string_view text) {
    return text.size() == 9 && text.front() == 'n' &&
           std::ranges::all_of(text.substr(1), [](char letter) { return letter >= '0' && letter <= '9'; });
}

std::map<std::int64_t, std::string> of_matlab(const fs::path& path) {
    const MatlabStructs synsets = read_matlab_structs(path, "synsets");
    const auto column = [&](const char* name) {
        const auto found = std::ranges::find(synsets.fields, name);
        if (found == synsets.fields.end())
            throw Error(kArea, path.string(), ": synsets without the field ", name, ", expected that of ILSVRC2012");
        return static_cast<std::size_t>(found - synsets.fields.begin());
    };
    const std::size_t id = column("ILSVRC2012_ID"), wordnet = column("WNID"), children = column("num_children");
    std::map<std::int64_t, std::string> ids;
    for (const std::vector<std::string>& row : synsets.rows) {
        if (row[children] != "0") continue;  // what stands above classes has a number too
        const std::optional<std::int64_t> number = parse_integer(row[id]);
        if (!number || !is_wordnet_id(row[wordnet]) || !ids.emplace(*number, row[wordnet]).second)
            throw Error(kArea, path.string(), ": a synset with ILSVRC2012_ID ", row[id], " and WNID '", row[wordnet],
                        "', expected a number of its own and a WordNet id");
    }
    return ids;
}

std::map<std::int64_t, std::string> of_text(const fs::path& path) {
    const std::string text = read_text(path, kArea);
    std::map<std::int64_t, std::string> ids;
    std::vector<std::string> in_order;
    for (const std::string_view line : lines_of(text)) {
        const std::string_view id = line.substr(0, line.find_first_of(" \t,"));
        if (id.empty()) continue;
        in_order.emplace_back(id);
        if (!is_wordnet_id(id))
            throw Error(kArea, path.string(), ":", in_order.size(), ": found '", id,
                        "', expected a WordNet id (n01440764) a line, in the order of ILSVRC2012_ID");
        ids.emplace(std::ssize(in_order), id);
    }
    if (in_order.size() > 2 && std::ranges::is_sorted(in_order))
        throw Error(kArea, path.string(), ": its ", in_order.size(),
                    " WordNet ids are sorted, but ILSVRC's own order, which is expected here, is another");
    return ids;
}

}  // namespace

IlsvrcIds read_ilsvrc_ids(const fs::path& path) {
    IlsvrcIds ids{path, path.filename() == kIdList ? of_text(path) : of_matlab(path)};
    if (ids.wordnet.empty()) throw Error(kArea, path.string(), ": no class in it");
    return ids;
}

}  // namespace dynvit
