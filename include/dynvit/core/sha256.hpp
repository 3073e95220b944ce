// A file's fingerprint.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

namespace dynvit {

/// SHA-256 (FIPS 180-4) of bytes that come piece by piece. Written here because no library that dynvit links has one.
class Sha256 {
  public:
    void add(const void* data, std::size_t bytes);

    /// 64 hexadecimal digits, of all that was added. Nothing may be added after it.
    std::string hex();

  private:
    void compress(const std::uint8_t* block);

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> block_{};  // bytes that wait for a whole block: its first bytes_ % 64
    std::uint64_t bytes_ = 0;
};

/// What `sha256sum` prints of the file. About a second for 350 MB. Throws Error naming the path if it cannot be read.
/// @param area what the error is filed under
std::string sha256_of_file(const std::filesystem::path& path, const std::string& area);

}  // namespace dynvit
