#include "shard_files.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <string_view>
#include <thread>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/core/sha256.hpp"
#include "dynvit/data/tar_shards.hpp"
#include "dynvit/io/unpack.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "tar_shards";
constexpr const char* kCopies = ".unpacked";

enum class Packing { kNoArchive, kNone, kReadable, kOther };

/// By a file's name alone.
Packing packing(const fs::path& path) {
    constexpr std::array<std::string_view, 2> kReadable = {".gz", ".zst"}, kOthers = {".xz", ".bz2"};
    const std::string ending = lower_case_ending(path);
    if (ending == ".tar") return Packing::kNone;
    if (ending == ".tgz" || ending == ".tzst") return Packing::kReadable;
    if (lower_case_ending(path.stem()) != ".tar") return Packing::kNoArchive;
    if (std::ranges::find(kReadable, ending) != kReadable.end()) return Packing::kReadable;
    return std::ranges::find(kOthers, ending) != kOthers.end() ? Packing::kOther : Packing::kNoArchive;
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

/// Where the copy of a packed archive stands. In a folder for all of them, the archive's own folder is a number in the
/// name, as the shards of train/ and val/ have the same names.
fs::path copy_of(const fs::path& archive, const fs::path& unpack_to) {
    const std::string name = archive.filename().string() + ".tar";
    if (unpack_to.empty()) return archive.parent_path() / kCopies / name;
    const std::string folder = fs::absolute(archive).lexically_normal().parent_path().string();
    Sha256 sum;
    sum.add(folder.data(), folder.size());
    return unpack_to / (sum.hex().substr(0, 12) + '-' + name);
}

/// A copy has its archive's time.
bool is_fresh(const fs::path& copy, const fs::path& archive) {
    std::error_code absent;
    const fs::file_time_type time = fs::last_write_time(copy, absent);
    return !absent && time == fs::last_write_time(archive);
}

void make_copy(const fs::path& archive, const fs::path& copy) {
    const fs::file_time_type time = fs::last_write_time(archive);
    AtomicFile file(copy, kArea);
    unpack(archive, file);
    file.commit();
    fs::last_write_time(copy, time);
}

std::string size_text(std::uint64_t bytes) {
    const auto megabytes = 1e-6 * static_cast<double>(bytes);
    return megabytes < 1000 ? fixed(megabytes, 1) + " MB" : fixed(1e-3 * megabytes, 1) + " GB";
}

std::uint64_t bytes_of(const std::vector<fs::path>& files) {
    std::uint64_t bytes = 0;
    for (const fs::path& file : files) bytes += fs::file_size(file);
    return bytes;
}

/// Unpacks what has no copy yet; the log says how much.
void make_copies(const std::vector<fs::path>& archives, const std::vector<fs::path>& copies) {
    std::vector<std::size_t> missing;
    for (std::size_t i = 0; i < archives.size(); ++i)
        if (!is_fresh(copies[i], archives[i])) missing.push_back(i);
    const std::string folder = copies.front().parent_path().string();
    if (missing.empty()) {
        log::info(
            str('[', kArea, "] ", archives.size(), " packed archives: read from their unpacked copies in ", folder));
        return;
    }
    std::vector<fs::path> packed, made;
    for (const std::size_t i : missing) {
        packed.push_back(archives[i]);
        made.push_back(copies[i]);
        make_directory(copies[i].parent_path(), kArea);
    }
    log::note(str('[', kArea, "] ", packed.front().string(),
                  packed.size() > 1 ? str(" and ", packed.size() - 1, " more") : "", ": packed (",
                  size_text(bytes_of(packed)), "), unpacked once into ", folder,
                  ", where later runs find it (data.unpack_to: another folder)"));
    const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
    in_parallel(missing.size(), cores, [&](std::size_t i) { make_copy(packed[i], made[i]); });
    log::info(str('[', kArea, "] ", folder, ": ", size_text(bytes_of(made)), " written"));
}

}  // namespace

void in_parallel(std::size_t count, std::size_t most, const std::function<void(std::size_t)>& job) {
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
        for (std::size_t i = 1; i < std::min(count, most); ++i) threads.emplace_back(work);
        work();
    }
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

std::string name_of_shard(const fs::path& path) {
    const fs::path stem = path.stem();
    return (lower_case_ending(stem) == ".tar" ? stem.stem() : stem).string();
}

std::vector<fs::path> shards_in(const fs::path& folder) try {
    if (!fs::is_directory(folder))
        throw Error(kArea, folder.string(), fs::exists(folder) ? ": not a folder" : ": no such folder",
                    ", a folder of tar archives is expected");
    std::vector<fs::path> shards, others;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        const fs::path& path = entry.path();
        if (path.filename().native().starts_with('.')) continue;
        const Packing packed = packing(path);
        if (packed == Packing::kNone || packed == Packing::kReadable) shards.push_back(path);
        if (packed == Packing::kOther) others.push_back(path);
    }
    std::sort(shards.begin(), shards.end());
    std::sort(others.begin(), others.end());
    if (!others.empty())
        throw Error(kArea, others.front().string(), others.size() > 1 ? str(" and ", others.size() - 1, " more") : "",
                    ": found ", describe_file(others.front()),
                    ", expected tar archives as they are, or of gzip or Zstandard: unpack it first");
    if (shards.empty()) throw Error(kArea, folder.string(), ": no tar archive in it");
    return shards;
} catch (const fs::filesystem_error& error) {
    throw Error(kArea, error.path1().string(), ": cannot be read: ", error.code().message());
}

bool has_shards(const fs::path& folder) {
    std::error_code problem;
    const fs::directory_iterator entries(folder, problem);
    return std::any_of(begin(entries), end(entries), [](const fs::directory_entry& entry) {
        return packing(entry.path()) != Packing::kNoArchive && !entry.path().filename().native().starts_with('.');
    });
}

std::vector<TarFile> open_shards(const std::vector<fs::path>& shards, const fs::path& unpack_to) try {
    allow_open_files(shards.size());
    std::vector<fs::path> archives, copies, files = shards;
    for (fs::path& file : files) {
        if (!is_packed(file)) continue;  // by its bytes: names may lie
        archives.push_back(file);
        copies.push_back(copy_of(file, unpack_to));
        file = copies.back();
    }
    if (!archives.empty()) make_copies(archives, copies);
    std::vector<TarFile> opened;
    for (std::size_t i = 0; i < shards.size(); ++i) {
        const bool is_copy = files[i] != shards[i];
        opened.emplace_back(files[i], shards[i].string() + (is_copy ? " (unpacked)" : ""));
    }
    return opened;
} catch (const fs::filesystem_error& error) {
    throw Error(kArea, error.path1().string(), ": ", error.code().message());
}

}  // namespace dynvit
