// Pictures in class folders, as torchvision's ImageFolder and every ImageNet copy has them.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "dynvit/data/dataset.hpp"

namespace dynvit {

/// A class-list file: a line a class in index order, the folder's name first, then (optional) a name for people:
///     n01440764 tench, Tinca tinca
struct ClassList {
    std::vector<std::string> folders;
    std::vector<std::string> names;   // the folder's name where the line has no other
    std::filesystem::path path = {};  // the file

    /// For messages: "the class list FILE".
    std::string text() const { return "the class list " + path.string(); }
};

/// The file is UTF-8, with or without a byte-order mark. Throws Error naming the file and line: missing file, UTF-16,
/// empty, a folder named twice.
ClassList read_class_list(const std::filesystem::path& path);

/// A file's ending with its point, ASCII letters in lower case: ".jpeg" of x.JPEG.
std::string lower_case_ending(const std::filesystem::path& path);

/// Whether a file's name ends as pictures of the formats that decode_image reads do, in any case.
bool is_picture(const std::filesystem::path& path);

/// These endings as an error lists them: ".jpg, .jpeg, ...".
std::string picture_endings();

/// Files that are no pictures by their names, counted by what they end in, so that none of them is passed over in
/// silence.
class PassedOver {
  public:
    void add(const std::string& ending, std::int64_t count = 1) { endings_[ending] += count; }
    void add(const PassedOver& other);
    bool empty() const { return endings_.empty(); }

    /// "10 .heic, 2 .txt": the most frequent first.
    std::string text() const;

    /// Says it in the log, once for all: "[area] place: 12 files passed over ...". Nothing where there is none.
    void say(const std::string& area, const std::string& place) const;

  private:
    std::map<std::string, std::int64_t> endings_;
};

/// The pictures in a folder and in those below it, sorted by path. Links are followed, but for one that leads back to a
/// folder above it; hidden files and folders are passed over. Throws Error if a folder cannot be read.
/// @param passed_over counts the other files, and links that lead nowhere
std::vector<std::filesystem::path> pictures_below(const std::filesystem::path& folder, PassedOver& passed_over);

/// ROOT/<class folder>/** of the endings of is_picture(), sorted by path. A class's index is its folder's place in
/// `classes` or, without one, among the sorted folder names. Hidden files are passed over; other files too, and hidden
/// folders and __MACOSX, which the log says.
/// Throws Error: ROOT missing, no class folder, no picture, a folder that the class list doesn't name; without a class
/// list, a class folder without a picture, which would move the indices of those behind it.
class ImageFolder : public Dataset {
  public:
    explicit ImageFolder(const std::filesystem::path& root, const std::optional<ClassList>& classes = std::nullopt);
    std::size_t size() const override { return items_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override { return items_[index].path.string(); }
    const std::vector<std::string>& class_names() const override { return class_names_; }
    std::string classes_from() const override { return classes_from_; }
    std::vector<std::string> numbered_folders() const override { return numbered_folders_; }

    const std::filesystem::path& path(std::size_t index) const { return items_[index].path; }

  private:
    struct Item {
        std::filesystem::path path;
        std::int64_t label;
    };
    std::vector<Item> items_;
    std::vector<std::string> class_names_, numbered_folders_;
    std::string classes_from_;
};

/// Classes of pictures: a label each, and the classes' names in index order.
struct PictureLabels {
    std::vector<std::int64_t> labels;
    std::vector<std::string> class_names;
};

/// Labels of pictures below `root` by their class folders, as ImageFolder has them: the first folder on the way from
/// root to the picture, behind one that is called train, val or test; numbered by their sorted names.
/// @return none where a picture is in no such folder, or all are in one: such folders tell nothing
std::optional<PictureLabels> label_by_folders(const std::filesystem::path& root,
                                              const std::vector<std::filesystem::path>& pictures);

/// Pictures in the order given, without labels or with one each. That a file is missing or none shows when it is read.
class PictureList : public Dataset {
  public:
    explicit PictureList(std::vector<std::filesystem::path> paths) : paths_(std::move(paths)) {}
    PictureList(std::vector<std::filesystem::path> paths, PictureLabels classes)
        : paths_(std::move(paths)), classes_(std::move(classes)) {}
    std::size_t size() const override { return paths_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override { return paths_[index].string(); }
    const std::vector<std::string>& class_names() const override { return classes_.class_names; }
    bool labelled() const override { return !classes_.labels.empty(); }

  private:
    std::vector<std::filesystem::path> paths_;
    PictureLabels classes_;
};

/// All pictures below some folders: folder after folder as given, each one's sorted by path. The log says which other
/// files there are.
/// Throws Error: a folder that is missing or has no picture.
std::vector<std::filesystem::path> pictures_of_folders(const std::vector<std::filesystem::path>& folders);

}  // namespace dynvit
