#include "dynvit/core/files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/text.hpp"

namespace dynvit {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMark = ".writing.";  // then the writer's process

std::string reason(int code) {
    return std::strerror(code);
}

bool write_all(int descriptor, const char* next, std::size_t bytes) {
    while (bytes > 0) {
        const ssize_t written = ::write(descriptor, next, bytes);
        if (written < 0) {
            if (errno == EINTR) continue;
            return false;
        }
        next += written;
        bytes -= static_cast<std::size_t>(written);
    }
    return true;
}

fs::path folder_of(const fs::path& path) {
    return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// 1 or 2, where one of these is the file; else -1.
int standard_stream_of(const fs::path& path) {
    struct stat wanted {};
    struct stat stream {};
    if (::stat(path.c_str(), &wanted) != 0) return -1;
    for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
        if (::fstat(descriptor, &stream) != 0) continue;
        if (stream.st_dev == wanted.st_dev && stream.st_ino == wanted.st_ino) return descriptor;
    }
    return -1;
}

// Where links lead to, also to nothing yet, and whether a file may take the place of what is there. What /proc names is
// an open file of a process: the link itself says nothing of what may be done with it.
std::pair<fs::path, bool> find_target(fs::path path) {
    constexpr int kMostLinks = 40;
    std::error_code none;
    for (int i = 0; i < kMostLinks; ++i) {
        const fs::path folder = fs::weakly_canonical(folder_of(path), none);
        if (folder.native().starts_with("/proc/")) return {path, false};
        if (!fs::is_symlink(fs::symlink_status(path, none))) break;
        path = folder / fs::read_symlink(path, none);
    }
    const fs::file_status status = fs::status(path, none);
    const bool replaced = !fs::exists(status) || (fs::is_regular_file(status) && standard_stream_of(path) < 0);
    return {path, replaced};
}

// The standard stream itself, whose position others share, or the file anew.
int open_through(const fs::path& path) {
    const int stream = standard_stream_of(path);
    if (stream < 0) return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    std::fflush(stdout);
    constexpr int kFirst = STDERR_FILENO + 1;
    return ::fcntl(stream, F_DUPFD_CLOEXEC, kFirst);
}

// What a temporary name begins with: the file's name or, where the rest would make it too long, its first letters and
// a number that stands for all of it.
std::string temporary_stem(const fs::path& folder, const std::string& name) {
    constexpr std::size_t kProcess = 10;  // digits
    constexpr long kUsual = 255;
    const long limit = ::pathconf(folder.c_str(), _PC_NAME_MAX);
    const std::size_t most = static_cast<std::size_t>(limit > 0 ? limit : kUsual) - kMark.size() - kProcess;
    if (name.size() <= most) return name;
    const std::string number = str('~', std::hash<std::string>()(name));
    return name.substr(0, most - std::min(most, number.size())) + number;
}

bool runs(std::int64_t process) {
    return ::kill(static_cast<pid_t>(process), 0) == 0 || errno != ESRCH;
}

// Removes what writers have left that were killed: they no longer run, here or, as the lock tells, elsewhere.
void sweep(const fs::path& folder, const std::string& stem) {
    const std::string begin = str(stem, kMark);
    std::error_code none;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, none)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(begin)) continue;
        const std::optional<std::int64_t> process = parse_integer(name.substr(begin.size()));
        if (!process || *process <= 0 || *process > std::numeric_limits<pid_t>::max() || runs(*process)) continue;
        const int left = ::open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
        if (left < 0) continue;
        if (::flock(left, LOCK_EX | LOCK_NB) == 0) ::unlink(entry.path().c_str());
        ::close(left);
    }
}

}  // namespace

std::vector<std::uint8_t> read_file(const fs::path& path, const std::string& area) {
    std::error_code code;
    const fs::file_status status = fs::status(path, code);
    if (!fs::exists(status)) throw Error(area, path.string(), ": no such file");
    if (fs::is_directory(status)) throw Error(area, path.string(), ": is a directory, expected a file");

    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (!file) throw Error(area, path.string(), ": cannot be opened: ", reason(errno));
    std::vector<std::uint8_t> bytes;
    if (const auto size = fs::file_size(path, code); !code) bytes.reserve(size);
    std::size_t got = 0;
    std::uint8_t buffer[1 << 16];
    while ((got = std::fread(buffer, 1, sizeof buffer, file)) > 0) bytes.insert(bytes.end(), buffer, buffer + got);
    const bool failed = std::ferror(file);
    const int why = errno;
    std::fclose(file);
    if (failed) throw Error(area, path.string(), ": cannot be read: ", reason(why));
    return bytes;
}

std::string read_text(const fs::path& path, const std::string& area) {
    const std::vector<std::uint8_t> bytes = read_file(path, area);
    std::string text(bytes.begin(), bytes.end());
    constexpr std::string_view kUtf8 = "\xef\xbb\xbf", kLittleEndian = "\xff\xfe", kBigEndian = "\xfe\xff";
    if (text.starts_with(kLittleEndian) || text.starts_with(kBigEndian) || text.find('\0') != std::string::npos) {
        throw Error(area, path.string(), ": found text in UTF-16 (",
                    text.starts_with(kLittleEndian) ? "it begins with the bytes FF FE"
                    : text.starts_with(kBigEndian)  ? "it begins with the bytes FE FF"
                                                    : "it has bytes of value 0",
                    "), expected UTF-8");
    }
    if (text.starts_with(kUtf8)) text.erase(0, kUtf8.size());
    return text;
}

std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        if (line.ends_with('\r')) line.remove_suffix(1);
        lines.push_back(line);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

AtomicFile::AtomicFile(fs::path path, std::string area) : path_(std::move(path)), area_(std::move(area)) {
    if (fs::is_directory(path_)) throw Error(area_, path_.string(), ": is a directory, expected a file to write");
    std::tie(target_, replaces_) = find_target(path_);
    replaces_ ? open_beside() : open_elsewhere();
    if (descriptor_ < 0) fail("written");
    ::flock(descriptor_, LOCK_EX | LOCK_NB);  // says that somebody is at it, to other machines too
}

void AtomicFile::open_beside() {
    const fs::path folder = folder_of(target_);
    const std::string stem = temporary_stem(folder, target_.filename().string());
    sweep(folder, stem);
    temporary_ = folder / str(stem, kMark, ::getpid());
    descriptor_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
}

void AtomicFile::open_elsewhere() {
    std::string pattern = (fs::temp_directory_path() / "dynvit-XXXXXX").string();
    descriptor_ = ::mkostemp(pattern.data(), O_CLOEXEC);
    temporary_ = pattern;
}

AtomicFile::~AtomicFile() {
    if (descriptor_ >= 0) {
        ::close(descriptor_);
        ::unlink(temporary_.c_str());
    }
}

void AtomicFile::fail(const std::string& doing) {
    throw Error(area_, path_.string(), ": cannot be ", doing, ": ", reason(errno));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
    if (!write_all(descriptor_, static_cast<const char*>(data), bytes)) fail("written");
}

void AtomicFile::write_through() {
    const int out = open_through(target_);
    if (out < 0) fail("written");
    std::vector<char> buffer(1 << 16);
    ::lseek(descriptor_, 0, SEEK_SET);
    bool whole = true;
    for (ssize_t got = 0; whole && (got = ::read(descriptor_, buffer.data(), buffer.size())) != 0;) {
        whole = got > 0 && write_all(out, buffer.data(), static_cast<std::size_t>(got));
    }
    const int why = errno;
    const int closed = ::close(out);
    if (!whole) errno = why;
    if (!whole || closed != 0) fail("written");
}

void AtomicFile::commit() {
    if (!replaces_) return write_through();
    if (::fsync(descriptor_) != 0 && errno != EINVAL) fail("written");  // EINVAL: a file system that cannot sync
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    if (closed != 0 || std::rename(temporary_.c_str(), target_.c_str()) != 0) {
        const int why = errno;
        ::unlink(temporary_.c_str());
        errno = why;
        fail("written");
    }
}

void print(std::string_view text) {
    std::fflush(stdout);  // what was printed by other means comes first
    if (write_all(STDOUT_FILENO, text.data(), text.size())) return;
    if (errno == EPIPE) throw ClosedPipe();
    throw Error("output", "standard output cannot be written: ", reason(errno));
}

void write_file_atomically(const fs::path& path, std::string_view bytes, const std::string& area) {
    AtomicFile file(path, area);
    file.write(bytes.data(), bytes.size());
    file.commit();
}

void make_directory(const fs::path& path, const std::string& area) {
    std::error_code code;
    fs::create_directories(path, code);
    if (!fs::is_directory(path)) {
        throw Error(area, path.string(),
                    ": the folder cannot be made: ", code ? code.message() : "something else stands there");
    }
}

}  // namespace dynvit
