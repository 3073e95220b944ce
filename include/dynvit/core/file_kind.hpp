// What a file is, whatever its name says: for readers that choose by it, and for errors that say what was found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace dynvit {

enum class FileKind {
    kUnknown,
    kEmpty,
    // Pictures that decode_image reads.
    kJpeg,
    kPng,
    kWebp,
    kGif,
    kBmp,
    kTiff,
    // Pictures and documents that it does not.
    kHeif,
    kAvif,
    kJpegXl,
    kJpeg2000,
    kPsd,
    kSvg,
    kPdf,
    kVideo,
    // Weights and tensors.
    kSafetensors,
    kTorchZip,
    kTorchTar,
    kPickle,
    kGguf,
    kHdf5,
    kNumpy,
    // Packed files.
    kTar,
    kZip,
    kGzip,
    kZstd,
    kBzip2,
    kXz,
    kSevenZip,
    // Others.
    kElf,
    kLfsPointer,
    kHtml,
    kXml,
    kJson,
    kUtf16,
    kTextWithMark,  // UTF-8 behind a byte-order mark
    kText,
};

/// So many of a file's first bytes are looked at.
inline constexpr std::size_t kKindBytes = 1024;

/// Says by a file's first bytes what it is. Only the beginning is judged: the file may be damaged all the same.
/// @param first the whole file, or at least its first kKindBytes
FileKind file_kind(std::span<const std::uint8_t> first);

/// The same of a file on disk; kUnknown where it cannot be read.
FileKind file_kind(const std::filesystem::path& path);

/// "an HTML page", "a git-lfs pointer", "an empty file", "text"; of an unknown kind "data of an unknown kind".
const char* kind_name(FileKind kind);

/// What was found, for an error: "a git-lfs pointer (132 bytes)", "an empty file", "text (12 bytes) that starts with
/// 'hello world'"; plain text and unknown kinds are shown by their first bytes, other than printable ASCII as \xNN.
std::string describe_file(std::span<const std::uint8_t> first, std::uint64_t bytes);

/// The same of a file on disk. Throws nothing: a file that cannot be read is "a file that cannot be read".
std::string describe_file(const std::filesystem::path& path);

/// What may be done with a file of a kind that nobody meant to give, such as ": `git lfs pull` brings the file itself",
/// to be put behind an error; else empty.
const char* advice(FileKind kind);

}  // namespace dynvit
