// What the fuzzers of tests/fuzz share.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit::fuzz {

using Bytes = std::span<const std::uint8_t>;

inline std::string_view text_of(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Ends the program, which libFuzzer reports with its input, where what the library promises does not hold.
inline void expect(bool holds, const std::string& promise) {
    if (holds) return;
    std::fprintf(stderr, "broken promise: %s\n", promise.c_str());
    std::abort();
}

/// Calls a reader. It may throw Error, whose text is one line; anything else it throws ends the program.
template <class Read>
void run(const Read& read) {
    [[maybe_unused]] static const bool silent = (log::set_level("off"), true);
    try {
        read();
    } catch (const Error& error) {
        expect(std::string_view(error.what()).find('\n') == std::string_view::npos,
               str("an error's text is one line: ", error.what()));
    }
}

/// A file in memory, for readers that take a path.
class MemoryFile {
  public:
    MemoryFile() : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
        if (descriptor_ < 0) std::abort();
    }
    ~MemoryFile() { ::close(descriptor_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    std::filesystem::path path() const { return str("/proc/self/fd/", descriptor_); }

    /// Replaces its contents.
    void hold(Bytes bytes) const {
        const auto size = static_cast<ssize_t>(bytes.size());
        if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != size)
            std::abort();
    }

  private:
    int descriptor_;
};

/// A folder of links to files in memory, for readers that go by a file's name or look beside it.
class MemoryFolder {
  public:
    MemoryFolder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "dynvit-fuzz-XXXXXX").string();
        if (!::mkdtemp(pattern.data())) std::abort();
        path_ = pattern;
    }
    ~MemoryFolder() { std::filesystem::remove_all(path_); }
    MemoryFolder(const MemoryFolder&) = delete;
    MemoryFolder& operator=(const MemoryFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }

    std::filesystem::path link(const std::string& name, const MemoryFile& file) const {
        std::filesystem::create_symlink(file.path(), path_ / name);
        return path_ / name;
    }

  private:
    std::filesystem::path path_;
};

}  // namespace dynvit::fuzz
