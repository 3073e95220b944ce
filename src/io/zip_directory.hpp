// Where the files of a zip archive lie, and what is in them: stored as they are, as torch.save has them, or deflated,
// as every other program packs them again. An own reader of the archive's directory, because LibTorch's (caffe2's
// PyTorchStreamReader) allocates what the directory claims before we could look at it, 4 GB for a file of 2 KB.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "input_file.hpp"

namespace dynvit {

/// A run of bytes in a file.
struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;  // that are read from it
    std::uint32_t crc = 0;    // CRC-32 of the bytes; 0: not known
    std::uint64_t deflated =
        0;  // so many in the file, from which `bytes` are inflated; 0: they stand there as they are
};

struct ZipDirectory {
    std::map<std::string, Extent> files;            // by name; every extent lies inside of the archive
    std::map<std::string, std::string> unreadable;  // those that are encrypted or packed otherwise, and how
    std::uint64_t bytes = 0;                        // of all files, unpacked
};

/// Follows PKWARE's APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (ends),
/// 4.4.5 (compression) and 4.5.3 (zip64). What the files unpack to is bounded by the archive's size. Throws Error by
/// file.fail for anything that is not a whole archive.
ZipDirectory read_zip_directory(InputFile& file);

/// Reads what the extent says into `target`, which has room for extent.bytes, and compares the checksum.
/// @param name what errors call it
/// Throws Error by file.fail for bytes that are damaged, or that inflate to more or fewer than the extent says.
void read_extent(InputFile& file, const Extent& extent, void* target, const std::string& name);

}  // namespace dynvit
