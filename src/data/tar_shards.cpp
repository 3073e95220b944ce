#include "dynvit/data/tar_shards.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/text.hpp"
#include "dynvit/data/label_kind.hpp"
#include "shard_files.hpp"
#include "shard_samples.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

constexpr const char* kArea = "tar_shards";
constexpr std::size_t kReaders = 16;  // threads: they wait for the disk, not for a core

bool is_archive(const TarMember& member) {
    const fs::path name = fs::path(member.name).filename();
    return lower_case_ending(name) == ".tar" && !name.native().starts_with('.');
}

/// A file's samples, and those of each archive in it: the archive's name, empty for the file itself, with its samples.
using FileSamples = std::vector<std::pair<std::string, ShardSamples>>;

FileSamples samples_of_file(const TarFile& file, std::size_t index) {
    std::vector<TarMember> members = file.members();
    const auto inner = std::ranges::stable_partition(members, [](const TarMember& one) { return !is_archive(one); });
    const std::vector<TarMember> archives(inner.begin(), inner.end());
    members.erase(inner.begin(), inner.end());
    FileSamples found;
    if (archives.empty() || !members.empty()) found.emplace_back("", samples_of(file, index, members));
    for (const TarMember& archive : archives)
        found.emplace_back(archive.name, samples_of(file, index, file.members(archive)));
    return found;
}

}  // namespace

TarShards::TarShards(const std::vector<fs::path>& shards, const std::optional<ClassList>& classes,
                     const ShardOptions& options)
    : paths_(shards), files_(open_shards(shards, options.unpack_to)) {
    std::vector<FileSamples> found(files_.size());
    in_parallel(files_.size(), kReaders, [&](std::size_t i) { found[i] = samples_of_file(files_[i], i); });
    PassedOver passed_over, beside;
    std::vector<ShardSample> samples;
    Strings shard_names;
    for (std::size_t file = 0; file < found.size(); ++file) {
        for (auto& [inner, contents] : found[file]) {
            archives_.push_back({file, inner});
            shard_sizes_.push_back(contents.samples.size());
            for (ShardSample& sample : contents.samples) {
                sample.archive = archives_.size() - 1;
                samples.push_back(std::move(sample));
                shard_names.push_back(class_of_archive(archives_.back()));
            }
            passed_over.add(contents.passed_over);
            beside.add(contents.beside);
        }
    }
    const std::string first = shards.empty() ? "" : shards.front().string();
    if (samples.empty())
        throw Error(kArea, first, shards.empty() ? "" : ": ", "no picture (", picture_endings(), ") in ",
                    archives_.size(), " archives", passed_over.empty() ? "" : ": found " + passed_over.text());
    const std::string place = first + (shards.size() > 1 ? str(" and ", shards.size() - 1, " more") : "");
    passed_over.say(kArea, place);
    WrittenClasses written;
    if (options.labelled) written = read_classes(files_, samples, shard_names, classes, options);
    for (ShardSample& sample : samples)
        items_.push_back({.picture = std::move(sample.picture), .label = -1, .archive = sample.archive});
    if (!options.labelled) return;
    if (written.from.empty()) {
        const std::string found = written.text + (written.text.empty() || beside.empty() ? "" : ", ") + beside.text();
        log::warn(str('[', kArea, "] ", place, ": no classes: none in .cls, .json by a usual key, .txt, folders or ",
                      "archives' names", found.empty() ? "" : "; beside the pictures: " + found,
                      " (data.label_from, data.label_key: another place)"));
        return;
    }
    labelled_ = true;
    number(written.values, written.from == "folder" || written.from == "shard", classes);
    const std::string folder = paths_.front().parent_path().string();
    log::info(str('[', kArea, "] ", place, ": classes from ", written.text,
                  beside.empty() ? "" : "; passed over beside the pictures: " + beside.text()));
    if (classes) {
        classes_from_ = classes->text();
    } else {
        classes_from_ = str(sorted_ ? written.text : "the highest class", " in the shards of ", folder);
    }
    const auto picture = [&](std::size_t i) { return name(i); };
    const bool single = written.lists ? one_class_each(options.label_kind, rows_, kArea, written.text, picture)
                                      : options.label_kind != "multi";
    if (!single) return;
    for (std::size_t i = 0; i < items_.size(); ++i) items_[i].label = rows_[i].front();
    rows_.clear();
    find_order();
    if (class_after_class_ && archives_.size() > 1)
        log::info(str('[', kArea, "] ", place,
                      ": pictures of a class lie together: training shuffles all of them, not ",
                      "only those within a window"));
}

std::string TarShards::class_of_archive(const Archive& archive) const {
    return name_of_shard(archive.inner.empty() ? paths_[archive.file] : fs::path(archive.inner));
}

void TarShards::number(const std::vector<Strings>& classes, bool by_name, const std::optional<ClassList>& list) {
    std::map<std::string, std::int64_t> indices;
    for (const Strings& values : classes)
        for (const std::string& value : values) indices.emplace(value, -1);
    const auto fail = [&](const std::string& value, const auto&... parts) {
        const auto has = [&](const Strings& values) { return std::ranges::find(values, value) != values.end(); };
        const Item& item = items_[static_cast<std::size_t>(std::ranges::find_if(classes, has) - classes.begin())];
        fail_at(files_[archives_[item.archive].file], item.picture.offset, "class '", printable(value), "', ",
                parts...);
    };
    std::int64_t highest = -1, numbers = 0;
    for (auto& [value, index] : indices) {
        if (!by_name) index = as_class_index(value);
        if (!by_name && index < 0 && parse_integer(value)) fail(value, "expected an index from 0 to 999999, or a name");
        highest = std::max(highest, index);
        numbers += index >= 0;
    }
    const bool all_numbers = numbers == std::ssize(indices) && !indices.empty();
    if (list) {
        const std::int64_t count = std::ssize(list->folders);
        std::map<std::string, std::int64_t> known;
        for (std::int64_t i = 0; i < count && !all_numbers; ++i) known.emplace(list->folders[i], i);
        for (std::int64_t i = 0; i < count && !all_numbers; ++i) known.emplace(list->names[i], i);
        for (auto& [value, index] : indices) {
            if (const auto found = known.find(value); found != known.end()) index = found->second;
            if (index < 0 || index >= count) fail(value, "which is not in ", list->text(), " (", count, " classes)");
        }
        class_names_ = list->names;
    } else if (all_numbers) {
        for (std::int64_t i = 0; i <= highest; ++i) class_names_.push_back(str(i));
    } else {
        for (auto& [value, index] : indices) {
            if (numbers > 0 && index < 0) fail(value, "while others are numbers, expected either of all pictures");
        }
        for (auto& [value, index] : indices) {
            index = std::ssize(class_names_);
            class_names_.push_back(value);
        }
        sorted_ = true;
    }
    for (const Strings& values : classes) {
        std::set<std::int64_t> row;
        for (const std::string& value : values)
            if (!row.insert(indices.at(value)).second) fail(value, "which the picture has twice");
        rows_.emplace_back(row.begin(), row.end());
    }
}

void TarShards::find_order() {
    std::vector<double> counts(class_names_.size());
    std::size_t changes = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
        ++counts[static_cast<std::size_t>(items_[i].label)];
        changes += i > 0 && items_[i].label != items_[i - 1].label;
    }
    const auto total = static_cast<double>(items_.size());
    double same = 0;  // how likely two pictures drawn at random are of one class
    for (const double count : counts) same += count / total * count / total;
    class_after_class_ = static_cast<double>(changes) < (1 - same) * (total - 1) / 2;
}

std::string TarShards::name(std::size_t index) const {
    const Item& item = items_.at(index);
    const Archive& archive = archives_[item.archive];
    return paths_[archive.file].string() + '/' + (archive.inner.empty() ? "" : archive.inner + '/') + item.picture.name;
}

Sample TarShards::get(std::size_t index) const {
    const Item& item = items_.at(index);
    Sample sample;
    sample.encoded = files_[archives_[item.archive].file].read(item.picture);
    sample.label = item.label;
    if (multi_label()) sample.labels = rows_[index];
    sample.name = name(index);
    return sample;
}

}  // namespace dynvit
