// What an archive's members are: samples of a picture and of what stands beside it, and the class that this says.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dynvit/core/error.hpp"
#include "dynvit/data/tar_shards.hpp"

namespace dynvit {

/// Where a member's bytes are; none: at 0.
struct MemberPlace {
    std::uint64_t offset = 0, size = 0;
    explicit operator bool() const { return offset > 0; }
};

struct ShardSample {
    TarMember picture;
    MemberPlace cls, json, txt;
    std::size_t file = 0, archive = 0;  // numbers
};

struct ShardSamples {
    std::vector<ShardSample> samples;
    PassedOver passed_over;  // members of samples without a picture
    PassedOver beside;       // of the others: what is neither a picture nor one of those above
};

/// The samples among an archive's members; see TarShards. Throws Error.
/// @param file_index for ShardSample::file
ShardSamples samples_of(const TarFile& file, std::size_t file_index, const std::vector<TarMember>& members);

/// The classes of all samples as they are written, from one and the same place.
struct WrittenClasses {
    std::string from;                              // of kLabelSources; empty: there are none
    std::string text;                              // for messages: ".cls"; without a place, what is no such one
    std::vector<std::vector<std::string>> values;  // a sample each
    bool lists = false;                            // any number a sample
};

/// Finds the place, or reads the one that the options name, from several threads. Throws Error: a sample without a
/// class where others have one, and whatever is no class.
/// @param shard_names the class that each sample's archive would give it
WrittenClasses read_classes(const std::vector<TarFile>& files, const std::vector<ShardSample>& samples,
                            const std::vector<std::string>& shard_names, const std::optional<ClassList>& list,
                            const ShardOptions& options);

/// Throws Error("[tar_shards] FILE: member at byte N: parts").
template <class... Parts>
[[noreturn]] void fail_at(const TarFile& file, std::uint64_t offset, const Parts&... parts) {
    throw Error("tar_shards", file.known_as(), ": member at byte ", offset, ": ", parts...);
}

/// A name from an archive as an error may print it: printable ASCII, not too long.
std::string printable(std::string_view name);

/// -1: the text is no class index.
std::int64_t as_class_index(const std::string& text);

}  // namespace dynvit
