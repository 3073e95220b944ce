#include "dynvit/data/tar_shards.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <exception>
#include <thread>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "tar_shards";
constexpr std::int64_t kMaxClasses = 1'000'000;
constexpr std::size_t kMaxClassBytes = 64;  // of a .cls member

/// "folder/a.seg.png": key "folder/a", ending "seg.png" (a mask, not the picture). No ending: no part of a sample.
struct MemberName {
    std::string_view key, ending;

    explicit MemberName(std::string_view name) {
        const std::size_t slash = name.rfind('/');
        const std::size_t start = slash == std::string_view::npos ? 0 : slash + 1;
        const std::size_t dot = name.find('.', start);
        if (dot == std::string_view::npos || dot == start) return;  // hidden ones start with the dot
        key = name.substr(0, dot);
        ending = name.substr(dot + 1);
    }

    bool is_picture() const { return ending.find('.') == std::string_view::npos && ends_as_picture(); }

    /// "0.jpg" of "img.0.jpg" does so, but its key ends at the first dot.
    bool ends_as_picture() const { return dynvit::is_picture(str("x.", ending)); }
};

/// A member's name as an error may print it: printable ASCII, not too long.
std::string quoted_name(std::string_view name) {
    constexpr std::size_t kMost = 120;
    std::string text(name.substr(0, kMost));
    std::ranges::replace_if(
        text, [](char letter) { return letter < 0x20 || letter >= 0x7f; }, '?');
    return str('\'', text, name.size() > kMost ? "...'" : "'");
}

template <class... Parts>
[[noreturn]] void fail(const TarFile& file, const TarMember& member, const Parts&... parts) {
    throw Error(kArea, file.path().string(), ": member at byte ", member.offset, ": ", parts...);
}

std::int64_t read_class(const TarFile& file, const TarMember& member) {
    const std::string expected = str("expected a whole number from 0 to ", kMaxClasses - 1);
    if (member.size > kMaxClassBytes) fail(file, member, "a class of ", member.size, " bytes, ", expected);
    const std::vector<std::uint8_t> bytes = file.read(member);
    std::string_view digits(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    constexpr std::string_view kBlanks = " \t\r\n";
    digits.remove_prefix(std::min(digits.find_first_not_of(kBlanks), digits.size()));
    digits = digits.substr(0, digits.find_last_not_of(kBlanks) + 1);
    std::int64_t label = -1;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), label);
    if (problem != std::errc() || end != digits.data() + digits.size() || label < 0 || label >= kMaxClasses)
        fail(file, member, "the class is no index, ", expected);
    return label;
}

bool is_shard(const fs::path& path) {
    return lower_case_ending(path) == ".tar";
}

/// NAME.tar.gz and the like.
bool is_packed_shard(const fs::path& path) {
    constexpr std::array<std::string_view, 4> kPackers = {".gz", ".zst", ".xz", ".bz2"};
    const std::string ending = lower_case_ending(path);
    return ending == ".tgz" || (std::ranges::find(kPackers, ending) != kPackers.end() && is_shard(path.stem()));
}

/// Lets this process open as many files more, as far as it may decide that itself. Where it may not, opening them
/// fails.
void allow_open_files(std::size_t count) {
    constexpr rlim_t kOthers = 512;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= count + kOthers) return;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, count + kOthers);
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// Calls job(0), ..., job(count - 1) from several threads; throws what the first of them in this order threw.
template <class Job>
void in_parallel(std::size_t count, const Job& job) {
    std::vector<std::exception_ptr> failures(count);
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t i = next++; i < count; i = next++) {
            try {
                job(i);
            } catch (...) {
                failures[i] = std::current_exception();
            }
        }
    };
    {
        std::vector<std::jthread> threads;
        const std::size_t wanted = std::min<std::size_t>(count, 16);  // they wait for the disk, not for a core
        for (std::size_t i = 1; i < wanted; ++i) threads.emplace_back(work);
        work();
    }
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace

std::vector<fs::path> shards_in(const fs::path& folder) try {
    if (!fs::is_directory(folder))
        throw Error(kArea, folder.string(), fs::exists(folder) ? ": not a folder" : ": no such folder",
                    ", a folder of tar archives is expected");
    std::vector<fs::path> shards, packed;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        const fs::path& path = entry.path();
        if (path.filename().native().starts_with('.')) continue;
        if (is_shard(path)) shards.push_back(path);
        if (is_packed_shard(path)) packed.push_back(path);
    }
    std::sort(shards.begin(), shards.end());
    std::sort(packed.begin(), packed.end());
    if (!packed.empty())
        throw Error(kArea, packed.front().string(), packed.size() > 1 ? str(" and ", packed.size() - 1, " more") : "",
                    ": found ", describe_file(packed.front()),
                    ", expected tar archives as they are, in which a picture can be found: unpack it first");
    if (shards.empty()) throw Error(kArea, folder.string(), ": no tar archive in it");
    return shards;
} catch (const fs::filesystem_error& error) {
    throw Error(kArea, error.path1().string(), ": cannot be read: ", error.code().message());
}

bool has_shards(const fs::path& folder) {
    std::error_code problem;
    const fs::directory_iterator entries(folder, problem);
    return std::any_of(begin(entries), end(entries), [](const fs::directory_entry& entry) {
        return is_shard(entry.path()) || is_packed_shard(entry.path());
    });
}

TarShards::TarShards(const std::vector<fs::path>& shards, const std::optional<ClassList>& classes, bool labelled) {
    allow_open_files(shards.size());
    for (const fs::path& path : shards) files_.emplace_back(path);
    std::vector<Contents> found(files_.size());
    in_parallel(files_.size(), [&](std::size_t i) { found[i] = index(files_[i], i, labelled); });
    PassedOver passed_over;
    for (Contents& contents : found) {
        shard_sizes_.push_back(contents.items.size());
        std::ranges::move(contents.items, std::back_inserter(items_));
        passed_over.add(contents.passed_over);
    }
    const std::string first = shards.empty() ? "" : shards.front().string();
    if (items_.empty())
        throw Error(kArea, first, shards.empty() ? "" : ": ", "no picture (", picture_endings(), ") in ", shards.size(),
                    " archives", passed_over.empty() ? "" : ": found " + passed_over.text());
    passed_over.say(kArea, str(first, shards.size() > 1 ? str(" and ", shards.size() - 1, " more") : ""));
    check_labels(classes);
}

TarShards::Contents TarShards::index(const TarFile& file, std::size_t shard, bool labelled) {
    const std::vector<TarMember> members = file.members();
    Contents contents;
    std::string_view key;
    const TarMember *picture = nullptr, *label = nullptr;  // of the sample at hand
    const TarMember* dotted = nullptr;                     // what would be its picture without the dots in its key
    PassedOver others;
    const auto finish = [&] {
        if (label && !picture)
            fail(file, *label, "a class, but its sample has no picture (", picture_endings(), ")",
                 dotted ? str("; a key ends at the first dot, which makes '", MemberName(dotted->name).ending,
                              "' the ending of ", quoted_name(dotted->name))
                        : std::string());
        if (picture)
            contents.items.push_back({*picture, label && labelled ? read_class(file, *label) : -1, shard});
        else
            contents.passed_over.add(others);
        picture = label = dotted = nullptr;
        others = {};
    };
    for (const TarMember& member : members) {
        const MemberName name(member.name);
        if (name.ending.empty()) continue;
        if (name.key != key) finish();
        key = name.key;
        if (name.ending == "cls") {
            if (label) fail(file, member, "its sample has a class already");
            label = &member;
        } else if (name.is_picture()) {
            if (picture) fail(file, member, "its sample has a picture already, at byte ", picture->offset);
            picture = &member;
        } else {
            if (name.ends_as_picture()) dotted = &member;
            others.add(lower_case_ending(str("x.", name.ending)) +
                       (name.ends_as_picture() ? " behind a second dot" : ""));
        }
    }
    finish();
    return contents;
}

void TarShards::check_labels(const std::optional<ClassList>& classes) {
    std::int64_t highest = -1;
    for (const Item& item : items_) highest = std::max(highest, item.label);
    labelled_ = highest >= 0;
    if (!labelled_) return;
    const std::int64_t count = classes ? std::ssize(classes->names) : highest + 1;
    for (const Item& item : items_) {
        if (item.label < 0)
            fail(files_[item.shard], item.picture, "a picture without a class (.cls), while others have one");
        if (item.label >= count)
            fail(files_[item.shard], item.picture, "class ", item.label, ", but the class list has ", count,
                 " classes");
    }
    if (classes) {
        class_names_ = classes->names;
        classes_from_ = classes->text();
    } else {
        classes_from_ = "the highest class in the shards of " + files_.front().path().parent_path().string();
        for (std::int64_t i = 0; i < count; ++i) class_names_.push_back(str(i));
    }
}

std::string TarShards::name(std::size_t index) const {
    const Item& item = items_.at(index);
    return files_[item.shard].path().string() + '/' + item.picture.name;
}

Sample TarShards::get(std::size_t index) const {
    const Item& item = items_.at(index);
    Sample sample;
    sample.encoded = files_[item.shard].read(item.picture);
    sample.label = item.label;
    sample.name = name(index);
    return sample;
}

}  // namespace dynvit
