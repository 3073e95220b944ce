// Packed files, unpacked into others.
#pragma once

#include <cstdint>
#include <filesystem>

#include "dynvit/core/files.hpp"

namespace dynvit {

/// Whether a file is one that unpack() reads, by its first bytes.
bool is_packed(const std::filesystem::path& path);

/// Writes to `target` what a gzip or Zstandard file holds: several members or frames are joined, as gzip and zstd do.
/// Piece by piece: memory does not grow with the file (Zstandard's window: at most 128 MiB). Checksums are compared
/// where the file has them.
/// @return bytes written
/// Throws Error naming the file and the byte at which it goes wrong: a file of another kind, damaged, cut short, or
/// with something behind its end; or what `target` throws.
std::uint64_t unpack(const std::filesystem::path& path, AtomicFile& target);

}  // namespace dynvit
