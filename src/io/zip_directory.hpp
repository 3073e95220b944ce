// Where the files of a zip archive lie, for archives that hold them as they are, as torch.save's do. An own reader of
// the archive's directory, because the libraries at hand do more than that: they unpack. LibTorch's (caffe2's
// PyTorchStreamReader) unpacks and allocates what the directory claims before we could look at it, 4 GB for a file of 2
// KB.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "input_file.hpp"

namespace dynvit {

/// A run of bytes in a file.
struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::uint32_t crc = 0;  // CRC-32 of the bytes; 0: not known
};

struct ZipDirectory {
    std::map<std::string, Extent> files;  // by name; every extent lies inside of the archive
    std::set<std::string> packed;         // those that are compressed or encrypted
};

/// Follows PKWARE's APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (ends) and
/// 4.5.3 (zip64). Throws Error by file.fail for anything that is not a whole archive.
ZipDirectory read_zip_directory(InputFile& file);

}  // namespace dynvit
