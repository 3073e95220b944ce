// Whole files, read and written so that a failure leaves what was there before.
#pragma once

#include <cstdint>
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
/// ...); `path` is then unchanged.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes, const std::string& area);

/// A file that grows piece by piece and takes `path`'s place on commit(). Without commit() nothing of it remains.
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

    std::filesystem::path path_;
    std::filesystem::path temporary_;
    std::string area_;
    int descriptor_ = -1;
};

/// Creates a folder with its parents. Throws Error if something else stands there or it cannot be made.
void make_directory(const std::filesystem::path& path, const std::string& area);

}  // namespace dynvit
