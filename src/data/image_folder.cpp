#include "dynvit/data/image_folder.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <numeric>
#include <string_view>
#include <system_error>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/text.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "image_folder";
constexpr std::string_view kBlanks = " \t";
constexpr std::array<std::string_view, 11> kPictureEndings = {".jpg",  ".jpeg", ".jpe", ".jfif", ".png", ".apng",
                                                              ".webp", ".gif",  ".bmp", ".tif",  ".tiff"};

bool is_hidden(const fs::path& path) {
    return path.filename().native().starts_with('.');
}

/// The class folders' names in alphabetical order. Links to folders count, as in many copies of ImageNet.
/// @param passed_over counts the pictures beside them
std::vector<std::string> class_folders(const fs::path& root, PassedOver& passed_over) {
    std::vector<std::string> names, others;
    for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
        std::error_code broken_link;
        if (entry.is_directory(broken_link)) {
            const std::string name = entry.path().filename().string();
            const bool is_class = !is_hidden(entry.path()) && name != "__MACOSX";  // what macOS adds to archives
            (is_class ? names : others).push_back(name);
        } else if (!is_hidden(entry.path()) && is_picture(entry.path())) {
            passed_over.add("beside the class folders");
        }
    }
    std::sort(names.begin(), names.end());
    std::sort(others.begin(), others.end());
    if (!others.empty()) log::info(str(root.string(), ": folders that are no classes: ", join(others, ", ")));
    return names;
}

// Sorted names number the classes: one whose pictures are missing by mistake, or that was never a class, moves others.
void check_none_empty(const fs::path& root, const std::vector<std::string>& empty) {
    if (empty.empty()) return;
    throw Error(kArea, (root / empty.front()).string(), ": no picture (", picture_endings(), ") in this class folder",
                empty.size() > 1 ? str(", nor in ", empty.size() - 1, " others") : "",
                ", expected some, no such folder, or a class list, which numbers the classes whatever is in theirs");
}

/// @param above the folders that the walk came through, by which a link back is known
void add_pictures(const fs::path& folder, std::vector<fs::path>& above, std::vector<fs::path>& pictures,
                  PassedOver& passed_over) {
    const auto leads_back = [&](const fs::directory_entry& entry) {
        return entry.is_symlink() && std::any_of(above.begin(), above.end(), [&](const fs::path& upper) {
                   return fs::equivalent(entry.path(), upper);
               });
    };
    above.push_back(folder);
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        std::error_code broken_link;
        if (is_hidden(entry.path())) continue;
        if (entry.is_directory(broken_link)) {
            if (!leads_back(entry)) add_pictures(entry.path(), above, pictures, passed_over);
        } else if (!entry.is_regular_file(broken_link)) {
            passed_over.add(entry.is_symlink() ? "links to nothing" : "that are no regular files");
        } else if (is_picture(entry.path())) {
            pictures.push_back(entry.path());
        } else {
            const std::string ending = lower_case_ending(entry.path());
            passed_over.add(ending.empty() ? "without an ending" : ending);
        }
    }
    above.pop_back();
}

void check_folder(const fs::path& path, const std::string& expected) {
    if (!fs::is_directory(path))
        throw Error(kArea, path.string(), fs::exists(path) ? ": not a folder" : ": no such folder", ", ", expected,
                    " is expected");
}

// The class folder of a picture on its way from `root`; empty where it lies in none.
std::string class_folder(const fs::path& root, const fs::path& picture) {
    constexpr std::string_view kSplits[] = {"train", "val", "test"};
    const fs::path way = picture.lexically_normal().lexically_relative(root);
    const std::vector<fs::path> parts(way.begin(), way.end());  // the last is the picture's own name
    if (parts.size() < 2) return {};
    const bool is_split = std::ranges::find(kSplits, parts.front().native()) != std::end(kSplits);
    if (!is_split) return parts.front().string();
    return parts.size() > 2 ? parts[1].string() : std::string();
}

Error unreadable(const fs::filesystem_error& error) {
    return Error(kArea, error.path1().string(), ": cannot be read: ", error.code().message());
}

}  // namespace

std::string lower_case_ending(const fs::path& path) {
    return lower_case(path.extension().string());
}

bool is_picture(const fs::path& path) {
    return std::ranges::find(kPictureEndings, lower_case_ending(path)) != kPictureEndings.end();
}

std::string picture_endings() {
    return join(kPictureEndings, ", ");
}

void PassedOver::add(const PassedOver& other) {
    for (const auto& [ending, count] : other.endings_) add(ending, count);
}

std::string PassedOver::text() const {
    std::vector<std::pair<std::string, std::int64_t>> sorted(endings_.begin(), endings_.end());
    std::ranges::stable_sort(sorted, [](const auto& a, const auto& b) { return a.second > b.second; });
    constexpr std::size_t kNamed = 6;
    std::vector<std::string> parts;
    for (const auto& [ending, count] : sorted)
        if (parts.size() < kNamed) parts.push_back(str(count, ' ', ending));
    if (sorted.size() > kNamed) {
        const auto sum = [](std::int64_t count, const auto& one) { return count + one.second; };
        parts.push_back(str(std::accumulate(sorted.begin() + kNamed, sorted.end(), std::int64_t{0}, sum), " others"));
    }
    return join(parts, ", ");
}

void PassedOver::say(const std::string& area, const std::string& place) const {
    if (empty()) return;
    const auto sum = [](std::int64_t count, const auto& one) { return count + one.second; };
    const std::int64_t count = std::accumulate(endings_.begin(), endings_.end(), std::int64_t{0}, sum);
    log::info(str('[', area, "] ", place, ": ", count, count == 1 ? " file" : " files", " passed over: ", text(),
                  "; pictures end in ", picture_endings()));
}

std::vector<fs::path> pictures_below(const fs::path& folder, PassedOver& passed_over) try {
    std::vector<fs::path> above, pictures;
    add_pictures(folder, above, pictures, passed_over);
    std::sort(pictures.begin(), pictures.end());
    return pictures;
} catch (const fs::filesystem_error& error) {
    throw unreadable(error);
}

ClassList read_class_list(const fs::path& path) {
    const std::string text = read_text(path, kArea);
    ClassList list;
    list.path = path;
    std::map<std::string, int, std::less<>> first_line;  // where a folder was named
    int number = 0;
    for (std::string_view line : lines_of(text)) {
        ++number;
        const std::size_t start = line.find_first_not_of(kBlanks);
        if (start == std::string_view::npos) continue;
        line = line.substr(start, line.find_last_not_of(kBlanks) + 1 - start);
        const std::size_t gap = std::min(line.find_first_of(kBlanks), line.size());
        const std::string folder(line.substr(0, gap));
        const std::size_t name = line.find_first_not_of(kBlanks, gap);
        const auto [known, is_new] = first_line.emplace(folder, number);
        if (!is_new)
            throw Error(kArea, path.string(), ':', number, ": folder '", folder, "' was named on line ", known->second,
                        " already");
        list.names.push_back(name == std::string_view::npos ? folder : std::string(line.substr(name)));
        list.folders.push_back(folder);
    }
    if (list.folders.empty())
        throw Error(kArea, path.string(), ": no class in the file, a line 'FOLDER NAME' a class is expected");
    return list;
}

ImageFolder::ImageFolder(const fs::path& root, const std::optional<ClassList>& classes) try {
    check_folder(root, "a folder with a folder of pictures a class");
    PassedOver passed_over;
    const std::vector<std::string> folders = class_folders(root, passed_over);
    if (folders.empty())
        throw Error(kArea, root.string(), ": no class folder in it",
                    passed_over.empty() ? ""
                                        : ", but pictures, whose classes a label file may say (data.val_labels, "
                                          "data.labels; --labels of eval and shard)");

    std::vector<std::string> empty;
    std::map<std::string, std::int64_t> labels;
    for (const std::string& folder : classes ? classes->folders : folders)
        labels.emplace(folder, static_cast<std::int64_t>(labels.size()));
    for (const std::string& folder : folders) {
        const auto label = labels.find(folder);
        if (label == labels.end())
            throw Error(kArea, (root / folder).string(), ": the class list (", classes->folders.size(),
                        " classes) does not name this folder");
        std::vector<fs::path> pictures = pictures_below(root / folder, passed_over);
        if (pictures.empty()) empty.push_back(folder);
        for (fs::path& path : pictures) items_.push_back({std::move(path), label->second});
    }
    if (items_.empty())
        throw Error(kArea, root.string(), ": no picture (", picture_endings(), ") in its ", folders.size(),
                    " class folders", passed_over.empty() ? "" : ": found " + passed_over.text());
    if (!classes) check_none_empty(root, empty);
    passed_over.say(kArea, root.string());
    class_names_ = classes ? classes->names : folders;
    if (!classes) numbered_folders_ = folders;
    classes_from_ = classes ? classes->text() : "the class folders of " + root.string();
} catch (const fs::filesystem_error& error) {
    throw unreadable(error);
}

Sample ImageFolder::get(std::size_t index) const {
    const Item& item = items_.at(index);
    Sample sample;
    sample.encoded = read_file(item.path, "image");
    sample.label = item.label;
    sample.name = name(index);
    return sample;
}

std::vector<fs::path> pictures_of_folders(const std::vector<fs::path>& folders) {
    std::vector<fs::path> paths;
    for (const fs::path& folder : folders) {
        check_folder(folder, "a folder of pictures");
        PassedOver passed_over;
        std::vector<fs::path> pictures = pictures_below(folder, passed_over);
        if (pictures.empty())
            throw Error(kArea, folder.string(), ": no picture (", picture_endings(), ") in it or below",
                        passed_over.empty() ? "" : ": found " + passed_over.text());
        passed_over.say(kArea, folder.string());
        paths.insert(paths.end(), std::make_move_iterator(pictures.begin()), std::make_move_iterator(pictures.end()));
    }
    return paths;
}

std::optional<PictureLabels> label_by_folders(const fs::path& root, const std::vector<fs::path>& pictures) {
    fs::path above = root.lexically_normal();
    if (!above.has_filename()) above = above.parent_path();  // "pictures/"
    std::vector<std::string> folders;
    std::map<std::string, std::int64_t> numbers;
    for (const fs::path& picture : pictures) {
        folders.push_back(class_folder(above, picture));
        if (folders.back().empty()) return std::nullopt;
        numbers.emplace(folders.back(), 0);
    }
    if (numbers.size() < 2) return std::nullopt;
    PictureLabels found;
    for (auto& [folder, number] : numbers) {
        number = std::ssize(found.class_names);
        found.class_names.push_back(folder);
    }
    for (const std::string& folder : folders) found.labels.push_back(numbers.at(folder));
    return found;
}

Sample PictureList::get(std::size_t index) const {
    Sample sample;
    sample.encoded = read_file(paths_.at(index), "image");
    if (labelled()) sample.label = classes_.labels.at(index);
    sample.name = name(index);
    return sample;
}

}  // namespace dynvit
