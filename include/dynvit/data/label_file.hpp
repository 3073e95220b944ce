// Pictures whose classes a text file names.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "dynvit/data/image_folder.hpp"

namespace dynvit {

/// A label file names pictures with their classes, a line each:
///     path,labels                                 train/0001.JPEG 65            n01751748
///     train/0001.jpg,cat dog                      val_00000002.JPEG n01751748   n09193705
///     train/0002.jpg,
///     "train/a, b.jpg",traffic light;dog
/// Left: where any line has a comma, behind the first one stand the picture's classes, parted by blanks or commas or,
/// where there is a semicolon, by semicolons alone; or none. A field may stand in double quotes, with two for one in
/// it. Middle: without a comma, the path ends at the first blank behind a picture's ending, or at the first of all.
/// Kaggle's boxes ("n01751748 111 108 230 366", five words each) are read for their classes. Right: one word a line is
/// the class of each picture in the order of their file names. Numbers from 1 on, without a 0, are ILSVRC's own ids
/// then, whose order is not that of sorted folders: see IlsvrcIds.
///
/// A path stands from one of the data set's folders, or is absolute; or it is the end of a picture's, with or without
/// the picture's ending, if of no other's. A first line that names no picture and has neither a dot nor a slash is a
/// heading. Empty lines are passed over. The file is UTF-8, with or without a byte-order mark.
struct LabelFile {
    std::filesystem::path path;
    std::vector<std::string> class_names;  // by index
    /// By absolute, normalized path: class indices, ascending.
    std::map<std::string, std::vector<std::int64_t>> pictures;
    std::string classes_from;  // see Dataset
    bool sorted = false;       // the order of their names numbers the classes
    bool single = false;       // one class a picture
};

/// Where the pictures of a label file are.
struct LabelPlaces {
    using Names = std::function<std::vector<std::string>()>;

    std::vector<std::filesystem::path> roots;  // folders that paths stand from: the first that has the picture
    Names names = {};    // the paths of all pictures, for those that are named in part; asked where one is
    Names ordered = {};  // of those that a class a line is for; none: such a file says nothing
};

/// A class is named as the class list has it (its folder or its name), or by its index. Without a class list, classes
/// are numbers throughout, which are their indices, or names, which are sorted.
/// @param kind see one_class_each()
/// Throws Error naming file and line: a line without classes, a picture that is not there, is none or comes twice, a
/// class that the list doesn't have or that stands twice; more or fewer lines than pictures where they are in order;
/// ILSVRC's ids without what they mean.
LabelFile read_label_file(const std::filesystem::path& path, const LabelPlaces& places,
                          const std::optional<ClassList>& classes = std::nullopt, const std::string& kind = "auto");

/// Those of the pictures that the file has a line for, in their order; the log tells how many it has none for. Throws
/// Error where none is left.
std::vector<std::filesystem::path> with_labels(const LabelFile& file, std::vector<std::filesystem::path> pictures);

/// What ImageNet's development kit calls its classes, and no other program: numbers from 1 on, in no order of names.
/// Read from its meta.mat or from a text file, kIdList, of a WordNet id a line in the order of the numbers; beside the
/// label file, in a root, or in ILSVRC2012_devkit_t12/data there.
struct IlsvrcIds {
    std::filesystem::path path;
    std::map<std::int64_t, std::string> wordnet;  // by number, of the classes alone: not of what stands above them
};
inline constexpr const char* kIdList = "ILSVRC2012_ids.txt";

/// Throws Error: a file that is none of these; a text file whose ids are sorted, which ILSVRC's are not.
IlsvrcIds read_ilsvrc_ids(const std::filesystem::path& path);

/// Pictures of another data set with their labels of a label file, in its order.
class LabelledPictures : public Dataset {
  public:
    /// @param pictures those without a line in the file are left out, which the log says
    /// Throws Error where none is left.
    LabelledPictures(LabelFile file, std::unique_ptr<Dataset> pictures);
    std::size_t size() const override { return items_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override { return pictures_->name(items_[index].index); }
    const std::vector<std::string>& class_names() const override { return class_names_; }
    std::string classes_from() const override { return classes_from_; }
    std::vector<std::string> numbered_folders() const override {
        return sorted_ ? class_names_ : std::vector<std::string>();
    }
    bool multi_label() const override { return !single_; }
    std::vector<std::size_t> shard_sizes() const override { return shard_sizes_; }

  private:
    struct Item {
        std::size_t index;  // in the other data set
        std::vector<std::int64_t> labels;
    };
    std::unique_ptr<Dataset> pictures_;
    std::vector<Item> items_;
    std::vector<std::size_t> shard_sizes_;
    std::vector<std::string> class_names_;
    std::string classes_from_;
    bool sorted_, single_;
};

}  // namespace dynvit
