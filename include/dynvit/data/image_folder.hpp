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
    std::vector<std::string> names;  // the folder's name where the line has no other
};

/// Throws Error naming the file and line: missing file, empty, a folder named twice.
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
/// `classes` or, without one, among the sorted folder names. Hidden files are passed over; other files too, which the
/// log says.
/// Throws Error: ROOT missing, no class folder, no picture, a folder that the class list doesn't name.
class ImageFolder : public Dataset {
  public:
    explicit ImageFolder(const std::filesystem::path& root, const std::optional<ClassList>& classes = std::nullopt);
    std::size_t size() const override { return items_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override { return items_[index].path.string(); }
    const std::vector<std::string>& class_names() const override { return class_names_; }

    const std::filesystem::path& path(std::size_t index) const { return items_[index].path; }

  private:
    struct Item {
        std::filesystem::path path;
        std::int64_t label;
    };
    std::vector<Item> items_;
    std::vector<std::string> class_names_;
};

/// Pictures without labels, in the order given. That a file is missing or none shows when it is read.
class PictureList : public Dataset {
  public:
    explicit PictureList(std::vector<std::filesystem::path> paths) : paths_(std::move(paths)) {}
    std::size_t size() const override { return paths_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override { return paths_[index].string(); }
    const std::vector<std::string>& class_names() const override { return no_names_; }
    bool labelled() const override { return false; }

  private:
    std::vector<std::filesystem::path> paths_;
    std::vector<std::string> no_names_;
};

/// All pictures below some folders: folder after folder as given, each one's sorted by path. The log says which other
/// files there are.
/// Throws Error: a folder that is missing or has no picture.
std::vector<std::filesystem::path> pictures_of_folders(const std::vector<std::filesystem::path>& folders);

}  // namespace dynvit
