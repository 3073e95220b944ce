// Pictures of any number of classes each, which a text file names.
#pragma once

#include <map>

#include "dynvit/data/image_folder.hpp"

namespace dynvit {

/// A label file, one line a picture:
///     path,labels
///     train/0001.jpg,cat dog
///     train/0002.jpg,
///     "train/a, b.jpg",traffic light;dog
/// The picture's path stands from the data set's folder, or is absolute. Behind the first comma are its classes,
/// parted by blanks or commas or, where there is a semicolon, by semicolons alone; or none. A field may stand in double
/// quotes, with two for one in it. A first line whose path has neither a dot nor a slash is a heading. Empty lines are
/// passed over. The file is UTF-8, with or without a byte-order mark.
struct LabelFile {
    std::filesystem::path path;
    std::vector<std::string> class_names;  // by index
    /// By absolute, normalized path: class indices, ascending.
    std::map<std::string, std::vector<std::int64_t>> pictures;
    std::string classes_from;  // see Dataset
    bool sorted = false;       // the order of their names numbers the classes
};

/// A class is named as the class list has it (its folder or its name), or by its index. Without a class list, classes
/// are numbers throughout, which are their indices, or names, which are sorted.
/// @param roots folders that paths stand from: the first that has the picture
/// Throws Error naming file and line: a line without a comma, a picture that is not there, is none or comes twice, a
/// class that the list doesn't have or that stands twice.
LabelFile read_label_file(const std::filesystem::path& path, const std::vector<std::filesystem::path>& roots,
                          const std::optional<ClassList>& classes = std::nullopt);

/// Those of the pictures that the file has a line for, in their order; the log tells how many it has none for. Throws
/// Error where none is left.
std::vector<std::filesystem::path> with_labels(const LabelFile& file, std::vector<std::filesystem::path> pictures);

/// Pictures with their labels of a label file, in the order given.
class LabelledPictures : public Dataset {
  public:
    /// @param pictures each with a line in the file
    LabelledPictures(LabelFile file, const std::vector<std::filesystem::path>& pictures);
    std::size_t size() const override { return items_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override { return items_[index].path.string(); }
    const std::vector<std::string>& class_names() const override { return class_names_; }
    std::string classes_from() const override { return classes_from_; }
    std::vector<std::string> numbered_folders() const override {
        return sorted_ ? class_names_ : std::vector<std::string>();
    }
    bool multi_label() const override { return true; }

  private:
    struct Item {
        std::filesystem::path path;
        std::vector<std::int64_t> labels;
    };
    std::vector<Item> items_;
    std::vector<std::string> class_names_;
    std::string classes_from_;
    bool sorted_;
};

}  // namespace dynvit
