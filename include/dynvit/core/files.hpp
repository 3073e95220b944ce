// Whole files, read and written so that a failure leaves what was there before; and standard output.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dynvit {

/// Reads a whole file. Throws Error naming the path if it does not exist, is a directory, or cannot be read.
/// @param area what the error is filed under, such as "safetensors"
std::vector<std::uint8_t> read_file(const std::filesystem::path& path, const std::string& area);

/// The text of a file in UTF-8, without the byte-order mark that it may begin with. Throws Error as read_file does, and
/// for a file in UTF-16.
std::string read_text(const std::filesystem::path& path, const std::string& area);

/// A text's lines without their ends, which are LF or CR LF.
std::vector<std::string_view> lines_of(std::string_view text);

/// Writes `bytes` to a file beside `path` and renames it over `path`, so that a reader sees the old or the new file and
/// never a part. The data reaches the disk before the rename. Throws Error naming the path (no space, no permission
/// ...); `path` is then unchanged. What is no regular file is written through, as AtomicFile does.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes, const std::string& area);

/// A file that grows piece by piece and takes `path`'s place on commit(). Without commit() nothing of it remains, and
/// what a writer that was killed has left goes when the same file is written next.
///
/// Only regular files are replaced; a symbolic link stays, and what it names is replaced. A pipe, a device, or a file
/// that is open already (/dev/stdout, /dev/fd/3, `>(...)`) gets the bytes on commit().
class AtomicFile {
  public:
    AtomicFile(std::filesystem::path path, std::string area);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(const void* data, std::size_t bytes);  // throws Error
    void commit();                                    // throws Error

    /// Where the bytes written so far can be read, until commit().
    const std::filesystem::path& temporary() const { return temporary_; }

  private:
    [[noreturn]] void fail(const std::string& doing);
    void open_beside();
    void open_elsewhere();
    void write_through();

    std::filesystem::path path_;
    std::filesystem::path target_;  // what the path's links lead to
    std::filesystem::path temporary_;
    std::string area_;
    bool replaces_ = true;
    int descriptor_ = -1;
};

/// Writes to standard output, at once. Throws Error where it takes no more (a full disk, closed), ClosedPipe where
/// nobody reads it any more.
void print(std::string_view text);

/// Standard output's reader is gone, as that of `| head -1`: there is nothing to say, and nothing more to do.
class ClosedPipe : public std::exception {
  public:
    const char* what() const noexcept override { return "standard output is read no more"; }
};

/// Creates a folder with its parents. Throws Error if something else stands there or it cannot be made.
void make_directory(const std::filesystem::path& path, const std::string& area);

}  // namespace dynvit
