#include "dynvit/data/label_file.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "labels";
constexpr std::int64_t kMaxClasses = 1'000'000;
constexpr std::string_view kBlanks = " \t";

// A picture's line, with its labels as they stand there.
struct Line {
    std::string place;  // "FILE:12"
    std::string path;
    std::vector<std::string> labels;
};

// What pictures are known by, however their paths are given.
std::string key_of(const fs::path& picture) {
    return fs::absolute(picture).lexically_normal().string();
}

std::string_view trimmed(std::string_view text) {
    const std::size_t start = std::min(text.find_first_not_of(kBlanks), text.size());
    text.remove_prefix(start);
    return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

// Takes the field that the text begins with, and the comma behind it.
std::string take_field(std::string_view& rest, const std::string& place, bool to_the_end) {
    rest = trimmed(rest);
    std::string field;
    if (!rest.starts_with('"')) {
        const std::size_t end = to_the_end ? rest.size() : std::min(rest.find(','), rest.size());
        field = trimmed(rest.substr(0, end));
        rest.remove_prefix(end);
        return field;
    }
    rest.remove_prefix(1);
    while (true) {
        const std::size_t quote = rest.find('"');
        if (quote == std::string_view::npos) throw Error(kArea, place, ": found a double quote without a second one");
        field += rest.substr(0, quote);
        rest.remove_prefix(quote + 1);
        if (!rest.starts_with('"')) break;
        field += '"';
        rest.remove_prefix(1);
    }
    rest = trimmed(rest);
    return field;
}

std::vector<std::string> split_labels(std::string_view text) {
    const bool by_semicolon = text.find(';') != std::string_view::npos;
    const std::string_view between = by_semicolon ? ";" : " \t,";
    std::vector<std::string> labels;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find_first_of(between), text.size());
        if (const std::string_view label = trimmed(text.substr(0, end)); !label.empty()) labels.emplace_back(label);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return labels;
}

std::vector<Line> read_lines(const fs::path& path) {
    const std::string text = read_text(path, kArea);
    std::vector<Line> lines;
    std::int64_t number = 0;
    bool first = true;
    for (std::string_view rest : lines_of(text)) {
        ++number;
        if (trimmed(rest).empty()) continue;
        Line line{.place = str(path.string(), ':', number), .path = {}, .labels = {}};
        line.path = take_field(rest, line.place, false);
        if (!rest.starts_with(',')) {
            throw Error(kArea, line.place, ": found '", line.path, "' and no comma behind it, expected PATH,LABELS");
        }
        rest.remove_prefix(1);
        line.labels = split_labels(take_field(rest, line.place, true));
        if (!rest.empty()) {
            throw Error(kArea, line.place, ": found '", rest, "' behind the labels, expected the line's end");
        }
        const bool heading = std::exchange(first, false) && line.path.find_first_of("./") == std::string::npos;
        if (!heading) lines.push_back(std::move(line));
    }
    if (lines.empty())
        throw Error(kArea, path.string(), ": no picture in the file, a line PATH,LABELS each is expected");
    return lines;
}

// -1: it is no index.
std::int64_t as_index(const std::string& label) {
    std::int64_t index = -1;
    const char* const end = label.data() + label.size();
    const auto [last, problem] = std::from_chars(label.data(), end, index);
    return problem == std::errc() && last == end && index >= 0 && index < kMaxClasses ? index : -1;
}

// The classes' names, and each one's index by all that it may be called.
struct Classes {
    std::vector<std::string> names;
    std::map<std::string, std::int64_t> indices;
    std::string from;
    bool sorted = false;
};

Classes listed_classes(const ClassList& list) {
    Classes classes{list.names, {}, list.text()};
    const std::int64_t count = std::ssize(list.names);
    for (std::int64_t i = 0; i < count; ++i) classes.indices.emplace(list.folders[i], i);
    for (std::int64_t i = 0; i < count; ++i) classes.indices.emplace(list.names[i], i);
    for (std::int64_t i = 0; i < count; ++i) classes.indices.emplace(str(i), i);
    return classes;
}

Classes found_classes(const std::vector<Line>& lines, const fs::path& path) {
    std::set<std::string> labels;
    for (const Line& line : lines) labels.insert(line.labels.begin(), line.labels.end());
    if (labels.empty()) throw Error(kArea, path.string(), ": no picture has a class");
    Classes classes;
    const bool numbers = std::ranges::all_of(labels, [](const std::string& label) { return as_index(label) >= 0; });
    if (!numbers) {
        classes.names.assign(labels.begin(), labels.end());
        for (const std::string& name : classes.names) classes.indices.emplace(name, std::ssize(classes.indices));
        classes.from = "the names in " + path.string();
        classes.sorted = true;
        return classes;
    }
    std::int64_t highest = 0;
    for (const std::string& label : labels) {
        classes.indices.emplace(label, as_index(label));
        highest = std::max(highest, as_index(label));
    }
    for (std::int64_t i = 0; i <= highest; ++i) classes.names.push_back(str(i));
    classes.from = "the highest class in " + path.string();
    return classes;
}

// A picture's classes, ascending.
std::vector<std::int64_t> indices_of(const Line& line, const Classes& classes) {
    std::set<std::int64_t> indices;
    for (const std::string& label : line.labels) {
        const auto found = classes.indices.find(label);
        if (found == classes.indices.end()) {
            throw Error(kArea, line.place, ": found the class '", label, "', which is not in ", classes.from, " (",
                        classes.names.size(), " classes)");
        }
        if (!indices.insert(found->second).second) {
            throw Error(kArea, line.place, ": found the class '", label, "' twice, expected it once");
        }
    }
    return {indices.begin(), indices.end()};
}

// Where the picture is.
std::string find_picture(const Line& line, const std::vector<fs::path>& roots) {
    if (!is_picture(line.path)) {
        throw Error(kArea, line.place, ": found '", line.path, "', expected a picture (", picture_endings(), ')');
    }
    std::error_code ignored;
    for (const fs::path& root : roots) {
        const fs::path path = root / line.path;
        if (fs::is_regular_file(path, ignored)) return key_of(path);
    }
    throw Error(kArea, line.place, ": no such picture: ", (roots.front() / line.path).string());
}

}  // namespace

LabelFile read_label_file(const fs::path& path, const std::vector<fs::path>& roots,
                          const std::optional<ClassList>& classes) {
    const std::vector<Line> lines = read_lines(path);
    Classes known = classes ? listed_classes(*classes) : found_classes(lines, path);
    LabelFile file;
    file.path = path;
    std::map<std::string, std::string> places;  // of the lines before
    for (const Line& line : lines) {
        const std::string picture = find_picture(line, roots);
        const auto [before, is_new] = places.emplace(picture, line.place);
        if (!is_new)
            throw Error(kArea, line.place, ": ", line.path, " has its classes at ", before->second, " already");
        file.pictures.emplace(picture, indices_of(line, known));
    }
    file.class_names = std::move(known.names);
    file.classes_from = std::move(known.from);
    file.sorted = known.sorted;
    return file;
}

std::vector<fs::path> with_labels(const LabelFile& file, std::vector<fs::path> pictures) {
    std::vector<fs::path> labelled, others;
    for (fs::path& picture : pictures) {
        const bool known = file.pictures.contains(key_of(picture));
        (known ? labelled : others).push_back(std::move(picture));
    }
    if (labelled.empty()) {
        throw Error(kArea, file.path.string(), ": has a line for none of ", others.size(),
                    " pictures; the first: ", others.front().string());
    }
    if (!others.empty()) {
        log::warn(str(file.path.string(), ": has no line for ", others.size(),
                      " pictures, which are left out; the first: ", others.front().string()));
    }
    return labelled;
}

LabelledPictures::LabelledPictures(LabelFile file, const std::vector<fs::path>& pictures)
    : class_names_(std::move(file.class_names)), classes_from_(std::move(file.classes_from)), sorted_(file.sorted) {
    for (const fs::path& picture : pictures) {
        items_.push_back({picture, file.pictures.at(key_of(picture))});
    }
}

Sample LabelledPictures::get(std::size_t index) const {
    const Item& item = items_.at(index);
    Sample sample;
    sample.encoded = read_file(item.path, "image");
    sample.labels = item.labels;
    sample.name = name(index);
    return sample;
}

}  // namespace dynvit
