// Pictures in tar archives, in WebDataset's layout or ImageNet's own: a data set is then a few large files in place of
// a million small ones.
#pragma once

#include <array>
#include <filesystem>
#include <optional>

#include "dynvit/data/image_folder.hpp"
#include "dynvit/io/tar.hpp"

namespace dynvit {

/// A folder's archives in any case, sorted by name: *.tar, and packed ones, *.tar.gz, *.tgz, *.tar.zst, *.tzst. Throws
/// Error if there is no such folder, no archive in it, or one packed otherwise (.tar.xz, .tar.bz2).
std::vector<std::filesystem::path> shards_in(const std::filesystem::path& folder);

/// Whether a folder holds an archive, be it one that shards_in refuses.
bool has_shards(const std::filesystem::path& folder);

/// Where the class of a picture in an archive stands.
inline constexpr std::array kLabelSources = {"auto", "cls", "json", "txt", "folder", "shard"};

struct ShardOptions {
    bool labelled = true;             // false: leaves classes unread
    std::string label_from = "auto";  // one of kLabelSources
    std::string label_key = {};       // of the .json members: a key, or keys with points between; empty: the usual ones
    std::string label_kind = "auto";  // see one_class_each()
    std::filesystem::path unpack_to = {};  // where unpacked copies stand; empty: beside the archives
};

/// A sample is the members of one archive, next to each other, that have the same name up to the first dot after the
/// last slash: KEY.ENDING, one of is_picture(), and its class, of all samples in the same place:
///     cls     KEY.cls: the class's index as a decimal number, or its name
///     json    KEY.json: the value of a key, a number or a name; a list of them for any number of classes
///     txt     KEY.txt, as .cls
///     folder  the folder that the member lies in
///     shard   the archive's name, as of ImageNet's n01440764.tar
/// Endings count in any case. `auto` takes the first of these that there is: cls; json with the key label, labels, cls
/// or class; txt with numbers, classes of the list, or names of which each stands for two pictures and more on average
/// (captions do not); folder and shard where there are several, or the class list names them; shards whose names differ
/// in numbers alone are none. The log says which it is and, where there is none, what was found in its place.
/// Names are looked up in the class list or, without one, sorted. Other members and hidden files are passed over; where
/// a sample has no picture, the log says which ones.
///
/// An archive may hold archives (ILSVRC2012_img_train.tar): each is one of its own then.
///
/// A packed archive is unpacked once, into .unpacked beside it or where the options say, and that copy is read, in
/// later runs too, as long as the archive is not another; the log says how much.
///
/// The constructor reads the archives' headers and classes, several archives at once, and keeps the files open (where
/// that takes more than the process may open, it raises its own limit as far as it is allowed to); get() reads one
/// picture's bytes.
class TarShards : public Dataset {
  public:
    /// @param classes the names of the indices; without it they are named "0", "1", ...
    /// Throws Error naming the file and the byte: a damaged archive, a class without a picture, a sample of two
    /// pictures, a class that is no index or not in the list, some pictures with a class and some without, no picture
    /// at all.
    explicit TarShards(const std::vector<std::filesystem::path>& shards,
                       const std::optional<ClassList>& classes = std::nullopt, const ShardOptions& options = {});

    std::size_t size() const override { return items_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override;  // SHARD/MEMBER
    const std::vector<std::string>& class_names() const override { return class_names_; }
    bool labelled() const override { return labelled_; }
    bool multi_label() const override { return !rows_.empty(); }
    std::string classes_from() const override { return classes_from_; }
    std::vector<std::string> numbered_folders() const override { return sorted_ ? class_names_ : Strings(); }

    /// Empty where pictures of a class lie together: a window's width of such a shard has few classes, and only an
    /// order over all of them mixes these.
    std::vector<std::size_t> shard_sizes() const override { return class_after_class_ ? Sizes() : shard_sizes_; }

  private:
    using Strings = std::vector<std::string>;
    using Sizes = std::vector<std::size_t>;
    struct Item {
        TarMember picture;
        std::int64_t label = -1;
        std::size_t archive = 0;
    };
    /// A file, or an archive in one.
    struct Archive {
        std::size_t file = 0;
        std::string inner;  // its name in the file; empty: the file itself
    };
    void number(const std::vector<Strings>& classes, bool by_name, const std::optional<ClassList>& list);
    void find_order();
    std::string class_of_archive(const Archive& archive) const;

    std::vector<std::filesystem::path> paths_;
    std::vector<TarFile> files_;  // of these paths, or unpacked copies
    std::vector<Archive> archives_;
    std::vector<Item> items_;
    std::vector<std::vector<std::int64_t>> rows_;  // of classes, an item each, where it may have any number
    Sizes shard_sizes_;
    Strings class_names_;
    std::string classes_from_;
    bool labelled_ = false, sorted_ = false, class_after_class_ = false;
};

}  // namespace dynvit
