#include "shard_samples.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/core/error.hpp"
#include "dynvit/core/text.hpp"
#include "shard_files.hpp"

namespace dynvit {
namespace {

using Strings = std::vector<std::string>;
using nlohmann::json;

constexpr std::int64_t kMaxClasses = 1'000'000;
constexpr std::uint64_t kMaxClassBytes = 256;  // of a .cls member
constexpr std::uint64_t kMaxJsonBytes = 1 << 20;
constexpr std::size_t kReaders = 16;  // threads: they wait for the disk, not for a core
constexpr std::array kUsualKeys = {"label", "labels", "cls", "class"};

/// "folder/a.seg.png": key "folder/a", ending "seg.png" (a mask, not the picture). No ending: no part of a sample.
struct MemberName {
    std::string_view key;
    std::string ending;  // in lower case

    explicit MemberName(std::string_view name) {
        const std::size_t slash = name.rfind('/');
        const std::size_t start = slash == std::string_view::npos ? 0 : slash + 1;
        const std::size_t dot = name.find('.', start);
        if (dot == std::string_view::npos || dot == start) return;  // hidden ones start with the dot
        key = name.substr(0, dot);
        ending = lower_case(name.substr(dot + 1));
    }

    bool is_picture() const { return ending.find('.') == std::string::npos && ends_as_picture(); }

    /// "0.jpg" of "img.0.jpg" does so, but its key ends at the first dot.
    bool ends_as_picture() const { return dynvit::is_picture("x." + ending); }
};

std::string read_member(const TarFile& file, const MemberPlace& place) {
    const std::vector<std::uint8_t> bytes = file.read({"", place.offset, place.size});
    return {bytes.begin(), bytes.end()};
}

std::string trimmed(const std::string& text) {
    constexpr const char* kBlanks = " \t\r\n";
    const std::size_t start = text.find_first_not_of(kBlanks);
    if (start == std::string::npos) return {};
    return text.substr(start, text.find_last_not_of(kBlanks) + 1 - start);
}

/// A class from a .cls or .txt member; what it is not, where it is none.
struct ClassText {
    std::string text, fault;
};

ClassText read_text_class(const TarFile& file, const MemberPlace& place) {
    if (place.size > kMaxClassBytes)
        return {{}, str("a class of ", place.size, " bytes, expected at most ", kMaxClassBytes)};
    std::string text = trimmed(read_member(file, place));
    if (text.empty()) return {{}, "an empty class, expected an index or a name"};
    const bool one_line = std::ranges::none_of(text, [](unsigned char letter) { return letter < 0x20; });
    if (!one_line) return {{}, "a class of several lines or of bytes that are no text, expected an index or a name"};
    return {std::move(text), {}};
}

/// A class of JSON as text; nothing for what is none.
std::optional<std::string> text_of(const json& value) {
    if (value.is_string()) {
        std::string text = trimmed(value.get<std::string>());
        if (!text.empty()) return text;
    }
    if (value.is_number_integer()) return value.dump();
    return std::nullopt;
}

/// The value of "a.b": of this key or, where there is none, of b in a.
const json* find_key(const json& object, const std::string& key) {
    if (!object.is_object()) return nullptr;
    if (const auto found = object.find(key); found != object.end()) return &*found;
    const std::size_t dot = key.find('.');
    if (dot == std::string::npos) return nullptr;
    const auto inner = object.find(key.substr(0, dot));
    return inner == object.end() ? nullptr : find_key(*inner, key.substr(dot + 1));
}

json read_json(const TarFile& file, const MemberPlace& place) {
    if (place.size > kMaxJsonBytes)
        fail_at(file, place.offset, "a .json of ", place.size, " bytes, expected at most ", kMaxJsonBytes);
    json object = json::parse(read_member(file, place), nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) fail_at(file, place.offset, "a .json that is no JSON object");
    return object;
}

std::string keys_of(const json& object) {
    constexpr std::size_t kMost = 8;
    Strings keys;
    for (const auto& [key, value] : object.items())
        if (keys.size() < kMost) keys.push_back(printable(key));
    return join(keys, ", ") + (object.size() > kMost ? " ..." : "");
}

/// Reads the classes of all samples from one place after the other.
class ClassReader {
  public:
    ClassReader(const std::vector<TarFile>& files, const std::vector<ShardSample>& samples, const Strings& shard_names,
                const std::optional<ClassList>& list, const ShardOptions& options)
        : files_(files), samples_(samples), shard_names_(shard_names), list_(list), options_(options) {
        if (!list) return;
        known_.insert(list->folders.begin(), list->folders.end());
        known_.insert(list->names.begin(), list->names.end());
    }

    WrittenClasses read() {
        if (options_.label_from != "auto") return read_from(options_.label_from);
        if (!options_.label_key.empty()) return read_from("json");
        if (any(&ShardSample::cls)) return read_from("cls");
        std::vector<std::string> others;  // what might have been classes
        if (any(&ShardSample::json)) {
            if (usual_key()) return read_from("json");
            const ShardSample& first = first_with_json();
            others.push_back(str(".json with the keys ", keys_of(read_json(file_of(first), first.json))));
        }
        if (any(&ShardSample::txt)) {
            WrittenClasses found = from_txt(/*asked=*/false);
            if (!found.from.empty()) return found;
            others.emplace_back(".txt with other texts than classes");
        }
        if (WrittenClasses found = from_folders(); tells(found)) return found;
        if (WrittenClasses found = from_shards(); tells(found) && !only_numbered(found)) return found;
        WrittenClasses none;
        none.text = join(others, ", ");
        return none;
    }

  private:
    bool any(MemberPlace ShardSample::*member) const {
        return std::ranges::any_of(samples_, [&](const ShardSample& one) { return static_cast<bool>(one.*member); });
    }

    const TarFile& file_of(const ShardSample& sample) const { return files_[sample.file]; }

    WrittenClasses read_from(const std::string& from) {
        if (from == "cls") return from_cls();
        if (from == "json") return from_json();
        if (from == "txt") return from_txt(/*asked=*/true);
        if (from == "shard") return from_shards();
        WrittenClasses found = from_folders();
        if (found.from.empty()) {
            const auto bare =
                std::ranges::find_if(samples_, [](const ShardSample& one) { return folder_of(one).empty(); });
            fail_at(file_of(*bare), bare->picture.offset, "a picture in no folder, expected its class's");
        }
        return found;
    }

    void must_have(const ShardSample& sample, const MemberPlace& member, const char* ending) const {
        if (!member)
            fail_at(file_of(sample), sample.picture.offset, "found no ", ending,
                    " beside the picture, expected one beside each");
    }

    /// @param read gives a sample's classes
    template <class Read>
    std::vector<Strings> of_all(const Read& read) const {
        std::vector<Strings> values(samples_.size());
        constexpr std::size_t kPart = 1024;
        in_parallel((samples_.size() + kPart - 1) / kPart, kReaders, [&](std::size_t part) {
            const std::size_t end = std::min(samples_.size(), (part + 1) * kPart);
            for (std::size_t i = part * kPart; i < end; ++i) values[i] = read(samples_[i]);
        });
        return values;
    }

    WrittenClasses from_cls() const {
        return {"cls", ".cls", of_all([&](const ShardSample& one) -> Strings {
                    must_have(one, one.cls, ".cls");
                    const ClassText found = read_text_class(file_of(one), one.cls);
                    if (!found.fault.empty()) fail_at(file_of(one), one.cls.offset, found.fault);
                    return {found.text};
                })};
    }

    const ShardSample& first_with_json() const {
        return *std::ranges::find_if(samples_, [](const ShardSample& one) { return static_cast<bool>(one.json); });
    }

    /// The first of the usual keys in the first .json; nothing where it has none of them.
    std::optional<std::string> usual_key() const {
        const ShardSample& first = first_with_json();
        const json object = read_json(file_of(first), first.json);
        for (const char* key : kUsualKeys)
            if (find_key(object, key)) return key;
        return std::nullopt;
    }

    WrittenClasses from_json() const {
        if (!any(&ShardSample::json))
            fail_at(file_of(samples_.front()), samples_.front().picture.offset,
                    "a picture without a .json, in which its class was to be");
        std::string key = options_.label_key;
        if (key.empty()) {
            const std::optional<std::string> usual = usual_key();
            const ShardSample& first = first_with_json();
            if (!usual)
                fail_at(file_of(first), first.json.offset, "a .json with none of the keys ", join(kUsualKeys, ", "),
                        ": found ", keys_of(read_json(file_of(first), first.json)), ", expected data.label_key");
            key = *usual;
        }
        std::atomic<bool> lists = false;
        WrittenClasses found{"json", str("the key ", key, " of .json"), of_all([&](const ShardSample& one) {
                                 must_have(one, one.json, ".json");
                                 return classes_in(one, key, lists);
                             })};
        found.lists = lists;
        return found;
    }

    Strings classes_in(const ShardSample& sample, const std::string& key, std::atomic<bool>& lists) const {
        const json object = read_json(file_of(sample), sample.json);
        const json* value = find_key(object, key);
        if (!value)
            fail_at(file_of(sample), sample.json.offset, "a .json without the key ", key, ": found ", keys_of(object));
        Strings classes;
        if (value->is_array()) lists = true;
        const json alone = json::array({*value});
        for (const json& one : value->is_array() ? *value : alone) {
            std::optional<std::string> text = text_of(one);
            if (!text)
                fail_at(file_of(sample), sample.json.offset, "the key ", key, " of .json: found ", one.type_name(),
                        ", expected a whole number or a name, or a list of them");
            classes.push_back(std::move(*text));
        }
        return classes;
    }

    /// @param asked the user says that these are classes; else captions are told from them
    WrittenClasses from_txt(bool asked) const {
        std::atomic<bool> captions = false;
        WrittenClasses found{"txt", ".txt", of_all([&](const ShardSample& one) -> Strings {
                                 if (captions) return {};
                                 if (!asked && !one.txt) captions = true;
                                 if (captions) return {};
                                 must_have(one, one.txt, ".txt");
                                 ClassText text = read_text_class(file_of(one), one.txt);
                                 if (asked && !text.fault.empty()) fail_at(file_of(one), one.txt.offset, text.fault);
                                 if (!text.fault.empty()) captions = true;
                                 return {std::move(text.text)};
                             })};
        if (asked) return found;
        if (captions) return {};
        const std::set<std::string> different = different_of(found);
        const bool numbers =
            std::ranges::all_of(different, [](const std::string& text) { return as_class_index(text) >= 0; });
        const bool listed =
            list_ && std::ranges::all_of(different, [&](const std::string& text) { return known_.contains(text); });
        const bool names = !list_ && 2 * different.size() <= samples_.size();
        return numbers || listed || names ? found : WrittenClasses();
    }

    static std::string folder_of(const ShardSample& sample) {
        const std::string folder = std::filesystem::path(sample.picture.name).parent_path().filename().string();
        return folder == "." ? "" : folder;
    }

    WrittenClasses from_folders() const {
        WrittenClasses found{"folder", "the members' folders", {}};
        for (const ShardSample& one : samples_) {
            found.values.push_back({folder_of(one)});
            if (found.values.back().front().empty()) return {};
        }
        return found;
    }

    WrittenClasses from_shards() const {
        WrittenClasses found{"shard", "the archives' names", {}};
        for (const std::string& name : shard_names_) found.values.push_back({name});
        return found;
    }

    static std::set<std::string> different_of(const WrittenClasses& found) {
        std::set<std::string> different;
        for (const Strings& values : found.values) different.insert(values.begin(), values.end());
        return different;
    }

    /// Whether names that nobody wrote as classes may be some.
    bool tells(const WrittenClasses& found) const {
        if (found.from.empty()) return false;
        const std::set<std::string> different = different_of(found);
        if (!list_) return different.size() > 1;
        return std::ranges::any_of(different, [&](const std::string& text) { return known_.contains(text); });
    }

    /// Whether archives are numbered (train-000007.tar), and no WordNet ids, which have numbers too.
    bool only_numbered(const WrittenClasses& found) const {
        if (list_) return false;
        std::set<std::string> without_digits;
        bool digits = true, wordnet = true;
        for (const std::string& name : different_of(found)) {
            std::string rest;
            std::ranges::remove_copy_if(name, std::back_inserter(rest), [](char c) { return c >= '0' && c <= '9'; });
            digits = digits && rest.size() < name.size();
            wordnet = wordnet && rest == "n" && name.size() == 9 && name.front() == 'n';
            without_digits.insert(rest);
        }
        return digits && !wordnet && without_digits.size() == 1;
    }

    const std::vector<TarFile>& files_;
    const std::vector<ShardSample>& samples_;
    const Strings& shard_names_;
    const std::optional<ClassList>& list_;
    const ShardOptions& options_;
    std::set<std::string> known_;  // by the class list
};

}  // namespace

ShardSamples samples_of(const TarFile& file, std::size_t file_index, const std::vector<TarMember>& members) {
    ShardSamples found;
    std::string_view key;
    const ShardSample fresh = [&] {
        ShardSample one;
        one.file = file_index;
        return one;
    }();
    ShardSample sample = fresh;  // the one at hand
    bool has_picture = false;
    std::string dotted;  // what would be its picture without the dots in its key
    PassedOver others;
    const auto finish = [&] {
        if (sample.cls && !has_picture)
            fail_at(file, sample.cls.offset, "a class, but its sample has no picture (", picture_endings(), ")",
                    dotted.empty() ? std::string()
                                   : str("; a key ends at the first dot, which makes '", MemberName(dotted).ending,
                                         "' the ending of '", printable(dotted), '\''));
        if (has_picture) {
            found.samples.push_back(std::move(sample));
            found.beside.add(others);
        } else {
            if (sample.json) others.add(".json");
            if (sample.txt) others.add(".txt");
            found.passed_over.add(others);
        }
        sample = fresh;
        has_picture = false;
        dotted.clear();
        others = {};
    };
    for (const TarMember& member : members) {
        const MemberName name(member.name);
        if (name.ending.empty()) continue;
        if (name.key != key) finish();
        key = name.key;
        MemberPlace* const place = name.ending == "cls"    ? &sample.cls
                                   : name.ending == "json" ? &sample.json
                                   : name.ending == "txt"  ? &sample.txt
                                                           : nullptr;
        if (place) {
            if (*place)
                fail_at(file, member.offset, "its sample has a ", place == &sample.cls ? "class" : '.' + name.ending,
                        " already");
            *place = {member.offset, member.size};
        } else if (name.is_picture()) {
            if (has_picture)
                fail_at(file, member.offset, "its sample has a picture already, at byte ", sample.picture.offset);
            sample.picture = member;
            has_picture = true;
        } else {
            if (name.ends_as_picture()) dotted = member.name;
            const bool class_of_another_form = name.ending.starts_with("cls.");  // .cls.pyd
            others.add((class_of_another_form ? '.' + name.ending : lower_case_ending("x." + name.ending)) +
                       (name.ends_as_picture() ? " behind a second dot" : ""));
        }
    }
    finish();
    return found;
}

WrittenClasses read_classes(const std::vector<TarFile>& files, const std::vector<ShardSample>& samples,
                            const Strings& shard_names, const std::optional<ClassList>& list,
                            const ShardOptions& options) {
    return ClassReader(files, samples, shard_names, list, options).read();
}

std::string printable(std::string_view name) {
    constexpr std::size_t kMost = 120;
    std::string text(name.substr(0, kMost));
    std::ranges::replace_if(
        text, [](char letter) { return letter < 0x20 || letter >= 0x7f; }, '?');
    return text + (name.size() > kMost ? "..." : "");
}

std::int64_t as_class_index(const std::string& text) {
    std::int64_t index = -1;
    const char* const end = text.data() + text.size();
    const auto [last, problem] = std::from_chars(text.data(), end, index);
    return problem == std::errc() && last == end && index >= 0 && index < kMaxClasses ? index : -1;
}

}  // namespace dynvit
