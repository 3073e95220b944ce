#include <zlib.h>

#include <algorithm>

#include "picture.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

std::uint32_t big_endian(const std::uint8_t* at) {
    return std::uint32_t{at[0]} << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

/// A changed chunk whose checksum stayed would be refused, and never read.
void correct_checksums(std::span<std::uint8_t> file) {
    constexpr std::size_t kSignature = 8, kAround = 12;  // a chunk's length, its name and its checksum
    for (std::size_t at = kSignature; at + kAround <= file.size();) {
        const std::size_t length = big_endian(&file[at]);
        if (length > file.size() - at - kAround) return;
        const auto sum = static_cast<std::uint32_t>(::crc32(0, &file[at + 4], static_cast<uInt>(length + 4)));
        for (std::size_t i = 0; i < 4; ++i) file[at + 8 + length + i] = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
        at += kAround + length;
    }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
    const std::size_t changed = LLVMFuzzerMutate(data, size, most);
    if (seed % 8 != 0) correct_checksums({data, changed});
    return changed;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return dynvit::fuzz::read_picture({data, size}, dynvit::FileKind::kPng);
}
