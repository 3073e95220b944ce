#include "dynvit/data/label_file.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/text.hpp"
#include "dynvit/data/label_kind.hpp"

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

// A label file's lines, and what they are.
struct Lines {
    enum class Form { kCommas, kBlanks, kInOrder };
    Form form = Form::kCommas;
    std::vector<Line> lines;
};

std::vector<std::string_view> words_of(std::string_view text) {
    std::vector<std::string_view> words;
    while (!(text = trimmed(text)).empty()) {
        const std::size_t end = std::min(text.find_first_of(kBlanks), text.size());
        words.push_back(text.substr(0, end));
        text.remove_prefix(end);
    }
    return words;
}

// Takes the path that a line without commas begins with.
std::string take_path(std::string_view& rest) {
    rest = trimmed(rest);
    std::size_t end = rest.find_first_of(kBlanks);
    const std::size_t first = end;
    while (end != std::string_view::npos && !is_picture(rest.substr(0, end)))
        end = rest.find_first_of(kBlanks, rest.find_first_not_of(kBlanks, end));
    end = std::min(end == std::string_view::npos ? first : end, rest.size());
    const std::string path(rest.substr(0, end));
    rest.remove_prefix(end);
    return path;
}

void read_with_commas(Line& line, std::string_view rest) {
    line.path = take_field(rest, line.place, false);
    if (!rest.starts_with(',')) {
        throw Error(kArea, line.place, ": found '", line.path, "' and no comma behind it, expected PATH,LABELS");
    }
    rest.remove_prefix(1);
    line.labels = split_labels(take_field(rest, line.place, true));
    if (!rest.empty()) {
        throw Error(kArea, line.place, ": found '", rest, "' behind the labels, expected the line's end");
    }
}

void read_with_blanks(Line& line, std::string_view rest) {
    line.path = take_path(rest);
    line.labels = split_labels(rest);
    if (line.labels.empty()) {
        throw Error(kArea, line.place, ": found '", line.path, "' and no label behind it, expected PATH LABEL");
    }
}

Lines read_lines(const fs::path& path) {
    const std::string text = read_text(path, kArea);
    Lines read;
    std::vector<std::string_view> texts;
    std::int64_t number = 0;
    bool commas = false, single_words = true;
    for (const std::string_view line : lines_of(text)) {
        ++number;
        if (trimmed(line).empty()) continue;
        read.lines.push_back({.place = str(path.string(), ':', number), .path = {}, .labels = {}});
        texts.push_back(trimmed(line));
        commas = commas || line.find(',') != std::string_view::npos;
        single_words = single_words && words_of(line).size() == 1 && !is_picture(trimmed(line));
    }
    if (texts.empty())
        throw Error(kArea, path.string(), ": no picture in the file, a line PATH,LABELS each is expected");
    if (!commas) read.form = single_words ? Lines::Form::kInOrder : Lines::Form::kBlanks;
    for (std::size_t i = 0; i < texts.size(); ++i) {
        if (commas)
            read_with_commas(read.lines[i], texts[i]);
        else if (single_words)
            read.lines[i].labels = {std::string(texts[i])};
        else
            read_with_blanks(read.lines[i], texts[i]);
    }
    return read;
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

// Finds the pictures that lines name.
class PictureFinder {
  public:
    explicit PictureFinder(const LabelPlaces& places) : places_(places) {}

    // Its key; empty where there is none. Throws Error where it may be several.
    std::string find(const Line& line) {
        std::error_code ignored;
        for (const fs::path& root : places_.roots) {
            const fs::path path = root / line.path;
            if (is_picture(line.path) && fs::is_regular_file(path, ignored)) return key_of(path);
        }
        if (places_.names && keys_.empty()) list();
        const std::string end = '/' + fs::path(line.path).lexically_normal().string();
        const auto ends_so = [&](const std::string& key) {
            return key.ends_with(end) || without_ending(key).ends_with(end);
        };
        std::vector<std::string> found;
        const auto [first, last] = by_name_.equal_range(fs::path(line.path).filename().string());
        for (auto one = first; one != last; ++one)
            if (ends_so(keys_[one->second])) found.push_back(keys_[one->second]);
        if (found.size() > 1)
            throw Error(kArea, line.place, ": '", line.path, "' may be any of ", found.size(), " pictures: ", found[0],
                        ", ", found[1], found.size() > 2 ? " ..." : "");
        return found.empty() ? "" : found.front();
    }

    [[noreturn]] void fail(const Line& line) const {
        if (!is_picture(line.path) && fs::path(line.path).has_extension())
            throw Error(kArea, line.place, ": found '", line.path, "', expected a picture (", picture_endings(), ')');
        throw Error(kArea, line.place, ": no such picture: ", (places_.roots.front() / line.path).string());
    }

  private:
    static std::string without_ending(const std::string& key) { return fs::path(key).replace_extension().string(); }

    void list() {
        for (const std::string& name : places_.names()) {
            keys_.push_back(key_of(name));
            const fs::path file = fs::path(name).filename();
            by_name_.emplace(file.string(), keys_.size() - 1);
            if (file.has_extension()) by_name_.emplace(file.stem().string(), keys_.size() - 1);
        }
    }

    const LabelPlaces& places_;
    std::vector<std::string> keys_;
    std::unordered_multimap<std::string, std::size_t> by_name_;  // with and without the ending
};

// The lines' pictures; a heading is taken off the lines.
std::vector<std::string> find_pictures(std::vector<Line>& lines, const fs::path& file, const LabelPlaces& places) {
    PictureFinder finder(places);
    std::vector<std::string> pictures;
    std::map<std::string, std::string> taken;  // the place of a picture's line
    for (const Line& line : lines) {
        const std::string picture = finder.find(line);
        if (picture.empty()) {
            const bool heading = &line == &lines.front() && line.path.find_first_of("./") == std::string::npos;
            if (!heading) finder.fail(line);
            continue;
        }
        const auto [before, is_new] = taken.emplace(picture, line.place);
        if (!is_new)
            throw Error(kArea, line.place, ": ", line.path, " has its classes at ", before->second, " already");
        pictures.push_back(picture);
    }
    if (pictures.size() < lines.size()) lines.erase(lines.begin());  // the heading, which is no picture
    if (lines.empty())
        throw Error(kArea, file.string(), ": no picture in the file, a line PATH,LABELS each is expected");
    return pictures;
}

// "n01751748 111 108 230 366", any number of times, in every line: classes with the boxes around them, as Kaggle's copy
// of ImageNet has them. Leaves the classes.
void take_off_boxes(std::vector<Line>& lines, const fs::path& file) {
    constexpr std::size_t kWords = 5;
    const auto is_number = [](const std::string& word) { return parse_number(word).has_value(); };
    const auto has_boxes = [&](const Line& line) {
        for (std::size_t i = 0; i < line.labels.size(); ++i)
            if (is_number(line.labels[i]) != (i % kWords != 0)) return false;
        return !line.labels.empty() && line.labels.size() % kWords == 0;
    };
    if (!std::ranges::all_of(lines, has_boxes)) return;
    for (Line& line : lines) {
        std::vector<std::string> classes;
        for (std::size_t i = 0; i < line.labels.size(); i += kWords)
            if (std::ranges::find(classes, line.labels[i]) == classes.end()) classes.push_back(line.labels[i]);
        line.labels = std::move(classes);
    }
    log::info(str('[', kArea, "] ", file.string(), ": classes with boxes, which are passed over"));
}

// The pictures that a class a line is for, by their files' names.
std::vector<std::string> ordered_pictures(const std::vector<Line>& lines, const fs::path& file,
                                          const LabelPlaces& places) {
    if (!places.ordered)
        throw Error(kArea, file.string(),
                    ": a class a line without pictures, which tells nothing of the training pictures; expected ",
                    "data.val_labels, or a line PATH LABEL each");
    std::vector<std::string> pictures = places.ordered();
    std::ranges::stable_sort(pictures, {}, [](const std::string& path) { return fs::path(path).filename().string(); });
    if (pictures.size() != lines.size())
        throw Error(kArea, file.string(), ": found ", lines.size(), " classes, a line each, expected as many as the ",
                    pictures.size(), " pictures (the first: ", pictures.empty() ? "none" : pictures.front(), ")");
    for (std::string& picture : pictures) picture = key_of(picture);
    return pictures;
}

std::optional<IlsvrcIds> find_ilsvrc_ids(const fs::path& file, const LabelPlaces& places) {
    std::vector<fs::path> folders = {file.parent_path()};
    for (const fs::path& root : places.roots) {
        folders.push_back(root);
        folders.push_back(root / "ILSVRC2012_devkit_t12/data");
    }
    std::error_code ignored;
    for (const fs::path& folder : folders)
        for (const char* name : {"meta.mat", kIdList})
            if (fs::is_regular_file(folder / name, ignored)) return read_ilsvrc_ids(folder / name);
    return std::nullopt;
}

// Puts WordNet ids in the place of ILSVRC's own numbers. Without a class list the classes are all that have a number.
void name_ilsvrc_ids(std::vector<Line>& lines, const fs::path& file, const LabelPlaces& places,
                     std::optional<ClassList>& classes) {
    const std::optional<IlsvrcIds> ids = find_ilsvrc_ids(file, places);
    if (!ids)
        throw Error(kArea, file.string(), ": found a number from 1 on a line and no 0, which may be ILSVRC's own ids, ",
                    "whose order is not that of class folders; expected the development kit's meta.mat beside it, or ",
                    kIdList, " (a WordNet id a line, in their order), or a line 'PICTURE LABEL' each");
    for (Line& line : lines) {
        const auto found = ids->wordnet.find(as_index(line.labels.front()));
        if (found == ids->wordnet.end())
            throw Error(kArea, line.place, ": found the id ", line.labels.front(), ", which ", ids->path.string(),
                        " does not have");
        line.labels.front() = found->second;
    }
    log::note(str('[', kArea, "] ", file.string(), ": read as ILSVRC's own ids of ", lines.size(),
                  " pictures in the order of their names, by ", ids->path.string()));
    if (classes) return;
    std::set<std::string> sorted;
    for (const auto& [number, wordnet] : ids->wordnet) sorted.insert(wordnet);
    classes = ClassList{{sorted.begin(), sorted.end()}, {sorted.begin(), sorted.end()}, ids->path};
}

bool all_numbers(const std::vector<Line>& lines) {
    return std::ranges::all_of(lines, [](const Line& line) {
        return std::ranges::all_of(line.labels, [](const std::string& label) { return as_index(label) >= 0; });
    });
}

bool any_zero(const std::vector<Line>& lines) {
    return std::ranges::any_of(lines, [](const Line& line) {
        return std::ranges::any_of(line.labels, [](const std::string& label) { return as_index(label) == 0; });
    });
}

// Splits what a data set has, by their names, into what the file has a line for and what it has not.
std::vector<std::size_t> known_of(const LabelFile& file, std::size_t count,
                                  const std::function<std::string(std::size_t)>& name) {
    std::vector<std::size_t> known, others;
    for (std::size_t i = 0; i < count; ++i) (file.pictures.contains(key_of(name(i))) ? known : others).push_back(i);
    if (known.empty()) {
        throw Error(kArea, file.path.string(), ": has a line for none of ", others.size(),
                    " pictures; the first: ", name(others.front()));
    }
    if (!others.empty()) {
        log::warn(str(file.path.string(), ": has no line for ", others.size(),
                      " pictures, which are left out; the first: ", name(others.front())));
    }
    return known;
}

}  // namespace

LabelFile read_label_file(const fs::path& path, const LabelPlaces& places, const std::optional<ClassList>& classes,
                          const std::string& kind) {
    auto [form, lines] = read_lines(path);
    std::optional<ClassList> list = classes;
    const bool in_order = form == Lines::Form::kInOrder;
    const std::vector<std::string> pictures =
        in_order ? ordered_pictures(lines, path, places) : find_pictures(lines, path, places);
    if (!in_order) take_off_boxes(lines, path);
    const bool from_one = all_numbers(lines) && !any_zero(lines);
    if (in_order && from_one) name_ilsvrc_ids(lines, path, places, list);
    Classes known = list ? listed_classes(*list) : found_classes(lines, path);
    if (list && !classes) {
        known.from = "the classes of " + list->path.string();
        known.sorted = true;
    }
    if (!list && from_one)
        log::warn(str('[', kArea, "] ", path.string(),
                      ": no picture has class 0, with which indices begin: if these numbers ",
                      "begin at 1, each is one too high"));
    LabelFile file;
    file.path = path;
    std::vector<std::vector<std::int64_t>> rows;
    for (const Line& line : lines) rows.push_back(indices_of(line, known));
    file.single = one_class_each(kind, rows, kArea, path.string(), [&](std::size_t i) { return pictures[i]; });
    for (std::size_t i = 0; i < rows.size(); ++i) file.pictures.emplace(pictures[i], std::move(rows[i]));
    file.class_names = std::move(known.names);
    file.classes_from = std::move(known.from);
    file.sorted = known.sorted;
    return file;
}

std::vector<fs::path> with_labels(const LabelFile& file, std::vector<fs::path> pictures) {
    std::vector<fs::path> labelled;
    for (const std::size_t i : known_of(file, pictures.size(), [&](std::size_t i) { return pictures[i].string(); }))
        labelled.push_back(std::move(pictures[i]));
    return labelled;
}

LabelledPictures::LabelledPictures(LabelFile file, std::unique_ptr<Dataset> pictures)
    : pictures_(std::move(pictures)),
      class_names_(std::move(file.class_names)),
      classes_from_(std::move(file.classes_from)),
      sorted_(file.sorted),
      single_(file.single) {
    const auto name = [&](std::size_t i) { return pictures_->name(i); };
    for (const std::size_t i : known_of(file, pictures_->size(), name))
        items_.push_back({i, file.pictures.at(key_of(name(i)))});
    std::size_t begin = 0, item = 0;
    for (const std::size_t size : pictures_->shard_sizes()) {
        const std::size_t first = item;
        begin += size;
        while (item < items_.size() && items_[item].index < begin) ++item;
        shard_sizes_.push_back(item - first);
    }
}

Sample LabelledPictures::get(std::size_t index) const {
    const Item& item = items_.at(index);
    Sample sample = pictures_->get(item.index);
    sample.label = single_ ? item.labels.front() : -1;
    sample.labels = single_ ? std::vector<std::int64_t>() : item.labels;
    return sample;
}

}  // namespace dynvit
