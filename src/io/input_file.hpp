// A file that is read piece by piece, no piece of it before it is known to lie inside.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "dynvit/core/error.hpp"

namespace dynvit {

class InputFile {
  public:
    /// Opens for reading. Throws Error(area, path ...) if there is no such file, or it is a folder, a device or closed
    /// to us.
    InputFile(const std::filesystem::path& path, std::string area);

    const std::string& path() const { return path_; }
    std::uint64_t bytes() const { return bytes_; }

    /// Throws Error("[area] path: parts").
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw Error(area_, path_, ": ", parts...);
    }

    /// Reads `count` bytes from `offset` on. Throws Error if the file does not have them.
    void read(std::uint64_t offset, void* target, std::uint64_t count);

    /// The bytes from `offset` on, to be read in turn; valid until the next call.
    std::istream& stream_at(std::uint64_t offset);

  private:
    std::string path_, area_;
    std::ifstream stream_;
    std::uint64_t bytes_ = 0;
};

/// Text from a file as an error may print it: in quotes, one line, ASCII, not long.
std::string quoted(const std::string& text);

}  // namespace dynvit
