// Tar archives that are read in place: where each member's bytes stand, and reading them from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "dynvit/core/files.hpp"

namespace dynvit {

/// A regular file in an archive.
struct TarMember {
    std::string name;
    std::uint64_t offset = 0;  // of its first byte in the archive
    std::uint64_t size = 0;    // bytes
};

/// A tar file, open for as long as the object lives.
class TarFile {
  public:
    /// Throws Error if the file is missing, no regular file or may not be read, or the process has too many files open.
    explicit TarFile(const std::filesystem::path& path) : TarFile(path, path.string()) {}
    /// @param known_as what errors name, in place of the path
    TarFile(std::filesystem::path path, std::string known_as);
    ~TarFile();
    TarFile(TarFile&& other) noexcept;
    TarFile(const TarFile&) = delete;
    TarFile& operator=(TarFile&&) = delete;
    TarFile& operator=(const TarFile&) = delete;

    /// The regular files in the archive's order, from its headers alone: v7, ustar and GNU ones, GNU long names, pax
    /// path and size. Folders, links and devices are passed over. Every header's checksum and length is checked against
    /// the file. Throws Error naming the file and the byte where it goes wrong: a header that is none, a member that
    /// passes the file's end, no end-of-archive block (a file cut short), anything behind it, a sparse file.
    std::vector<TarMember> members() const;

    /// The same of a member that is an archive itself; offsets count from this file's first byte.
    std::vector<TarMember> members(const TarMember& archive) const;

    /// A member's bytes. Safe for concurrent calls. Throws Error if the file was cut short meanwhile.
    std::vector<std::uint8_t> read(const TarMember& member) const;

    const std::filesystem::path& path() const { return path_; }
    const std::string& known_as() const { return known_as_; }

  private:
    friend class TarWalk;
    std::vector<TarMember> walk(const TarMember& range, const std::string& name) const;
    void check_inside(const TarMember& member) const;
    void read_at(std::uint64_t offset, void* target, std::size_t bytes) const;

    std::filesystem::path path_;
    std::string known_as_;
    std::uint64_t size_ = 0;  // when it was opened
    int descriptor_ = -1;
};

/// Writes an archive beside `path`, which commit() puts in place. Equal members give equal bytes: time, user and group
/// are 0. Headers are ustar, with pax records before them for a name that ustar has no room for or that is not ASCII.
class TarWriter {
  public:
    explicit TarWriter(std::filesystem::path path);

    /// Throws Error if the disk is full and the like, or for a name that is empty or holds a zero byte.
    void add(const std::string& name, std::span<const std::uint8_t> bytes);
    void commit();  // throws Error

    /// The archive's length so far, without its end.
    std::uint64_t size() const { return size_; }

  private:
    void write_padded(const void* data, std::size_t bytes);

    std::filesystem::path path_;
    AtomicFile file_;
    std::uint64_t size_ = 0;
};

}  // namespace dynvit
