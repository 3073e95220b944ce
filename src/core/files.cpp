#include "dynvit/core/files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace fs = std::filesystem;

namespace {

std::string reason(int code) {
    return std::strerror(code);
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
    temporary_ = path_;
    temporary_ += str(".writing.", ::getpid());
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) throw Error(area_, path_.string(), ": cannot be written: ", reason(errno));
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
    const char* next = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t written = ::write(descriptor_, next, bytes);
        if (written < 0) {
            if (errno == EINTR) continue;
            fail("written");
        }
        next += written;
        bytes -= static_cast<std::size_t>(written);
    }
}

void AtomicFile::commit() {
    if (::fsync(descriptor_) != 0 && errno != EINVAL) fail("written");  // EINVAL: a file system that cannot sync
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    if (closed != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
        const int why = errno;
        ::unlink(temporary_.c_str());
        errno = why;
        fail("written");
    }
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
