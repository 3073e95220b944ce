// Pictures in tar archives, in WebDataset's layout: a data set is then a few large files in place of a million small
// ones.
#pragma once

#include <filesystem>
#include <optional>

#include "dynvit/data/image_folder.hpp"
#include "dynvit/io/tar.hpp"

namespace dynvit {

/// A folder's archives, *.tar in any case, sorted by name. Throws Error if there is no such folder, no archive in it,
/// or a compressed one (.tar.gz, .tgz, .tar.zst ...), whose members cannot be read one by one.
std::vector<std::filesystem::path> shards_in(const std::filesystem::path& folder);

/// Whether a folder holds an archive, be it a compressed one that shards_in refuses.
bool has_shards(const std::filesystem::path& folder);

/// A sample is the members of one archive, next to each other, that have the same name up to the first dot after the
/// last slash: KEY.ENDING, one of is_picture(), and KEY.cls, the class index as a decimal number. Other members and
/// hidden files are passed over; where a sample has no picture, the log says which ones. The constructor reads the
/// archives' headers and classes, several archives at once, and keeps the files open (where that takes more than the
/// process may open, it raises its own limit as far as it is allowed to); get() reads one picture's bytes.
class TarShards : public Dataset {
  public:
    /// @param classes the names of the indices; without it they are named "0", "1", ...
    /// @param labelled false: leaves classes unread
    /// Throws Error naming the file and the byte: a damaged archive, a class without a picture, a sample of two
    /// pictures, a class that is no index or not in the list, some pictures with a class and some without, no picture
    /// at all.
    explicit TarShards(const std::vector<std::filesystem::path>& shards,
                       const std::optional<ClassList>& classes = std::nullopt, bool labelled = true);

    std::size_t size() const override { return items_.size(); }
    Sample get(std::size_t index) const override;
    std::string name(std::size_t index) const override;  // SHARD/MEMBER
    const std::vector<std::string>& class_names() const override { return class_names_; }
    bool labelled() const override { return labelled_; }
    std::string classes_from() const override { return classes_from_; }
    std::vector<std::size_t> shard_sizes() const override { return shard_sizes_; }

  private:
    struct Item {
        TarMember picture;
        std::int64_t label = -1;
        std::size_t shard = 0;
    };
    struct Contents {
        std::vector<Item> items;
        PassedOver passed_over;  // members of samples without a picture
    };
    static Contents index(const TarFile& file, std::size_t shard, bool labelled);
    void check_labels(const std::optional<ClassList>& classes);

    std::vector<TarFile> files_;
    std::vector<Item> items_;
    std::vector<std::size_t> shard_sizes_;
    std::vector<std::string> class_names_;
    std::string classes_from_;
    bool labelled_ = false;
};

}  // namespace dynvit
