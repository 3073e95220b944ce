#include "dynvit/core/file_kind.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string_view>
#include <system_error>
#include <vector>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

using namespace std::string_view_literals;
using Bytes = std::span<const std::uint8_t>;

std::string_view text_of(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// ---- by a fixed sequence --------------------------------------------------------------------------------------------

struct Magic {
    FileKind kind;
    std::size_t offset;
    std::string_view bytes;
};

constexpr std::array kMagics = {
    Magic{FileKind::kJpeg, 0, "\xff\xd8\xff"sv},
    Magic{FileKind::kPng, 0, "\x89PNG\r\n\x1a\n"sv},
    Magic{FileKind::kGif, 0, "GIF87a"sv},
    Magic{FileKind::kGif, 0, "GIF89a"sv},
    Magic{FileKind::kTiff, 0, "II*\0"sv},
    Magic{FileKind::kTiff, 0, "MM\0*"sv},
    Magic{FileKind::kTiff, 0, "II+\0"sv},
    Magic{FileKind::kTiff, 0, "MM\0+"sv},
    Magic{FileKind::kAvif, 4, "ftypavif"sv},
    Magic{FileKind::kAvif, 4, "ftypavis"sv},
    Magic{FileKind::kHeif, 4, "ftyphei"sv},
    Magic{FileKind::kHeif, 4, "ftyphev"sv},
    Magic{FileKind::kHeif, 4, "ftypmif1"sv},
    Magic{FileKind::kHeif, 4, "ftypmsf1"sv},
    Magic{FileKind::kVideo, 4, "ftyp"sv},
    Magic{FileKind::kVideo, 0, "\x1a\x45\xdf\xa3"sv},  // Matroska and WebM
    Magic{FileKind::kJpegXl, 0, "\xff\x0a"sv},
    Magic{FileKind::kJpegXl, 0, "\0\0\0\x0cJXL \r\n\x87\n"sv},
    Magic{FileKind::kJpeg2000, 0, "\0\0\0\x0cjP  \r\n\x87\n"sv},
    Magic{FileKind::kJpeg2000, 0, "\xff\x4f\xff\x51"sv},
    Magic{FileKind::kPsd, 0, "8BPS"sv},
    Magic{FileKind::kPdf, 0, "%PDF-"sv},
    Magic{FileKind::kPickle, 0, "L119547037146038801333356L\n."sv},  // torch.save's of protocol 0 and 1
    Magic{FileKind::kGguf, 0, "GGUF"sv},
    Magic{FileKind::kHdf5, 0, "\x89HDF\r\n\x1a\n"sv},
    Magic{FileKind::kNumpy, 0, "\x93NUMPY"sv},
    Magic{FileKind::kTorchTar, 0, "sys_info\0"sv},  // the archive's first file
    Magic{FileKind::kTar, 257, "ustar"sv},
    Magic{FileKind::kGzip, 0, "\x1f\x8b"sv},
    Magic{FileKind::kZstd, 0, "\x28\xb5\x2f\xfd"sv},
    Magic{FileKind::kBzip2, 0, "BZh"sv},
    Magic{FileKind::kXz, 0,
          "\xfd"
          "7zXZ\0"sv},
    Magic{FileKind::kSevenZip, 0, "7z\xbc\xaf\x27\x1c"sv},
    Magic{FileKind::kElf, 0,
          "\x7f"
          "ELF"sv},
    Magic{FileKind::kLfsPointer, 0, "version https://git-lfs.github.com/spec/"sv},
};

bool has(std::string_view text, std::size_t offset, std::string_view part) {
    return text.size() >= offset && text.substr(offset).starts_with(part);
}

struct Named {
    FileKind kind;
    const char* name;
};

constexpr std::array kNames = {
    Named{FileKind::kEmpty, "an empty file"},
    Named{FileKind::kJpeg, "a JPEG picture"},
    Named{FileKind::kPng, "a PNG picture"},
    Named{FileKind::kWebp, "a WebP picture"},
    Named{FileKind::kGif, "a GIF picture"},
    Named{FileKind::kBmp, "a BMP picture"},
    Named{FileKind::kTiff, "a TIFF picture"},
    Named{FileKind::kHeif, "a HEIF picture (.heic)"},
    Named{FileKind::kAvif, "an AVIF picture"},
    Named{FileKind::kJpegXl, "a JPEG XL picture"},
    Named{FileKind::kJpeg2000, "a JPEG 2000 picture"},
    Named{FileKind::kPsd, "a Photoshop document"},
    Named{FileKind::kSvg, "an SVG drawing"},
    Named{FileKind::kPdf, "a PDF document"},
    Named{FileKind::kVideo, "a video"},
    Named{FileKind::kSafetensors, "a safetensors file"},
    Named{FileKind::kTorchZip, "a PyTorch checkpoint"},
    Named{FileKind::kTorchTar, "a checkpoint of PyTorch before 0.2"},
    Named{FileKind::kPickle, "a pickle"},
    Named{FileKind::kGguf, "a GGUF file"},
    Named{FileKind::kHdf5, "an HDF5 file"},
    Named{FileKind::kNumpy, "a NumPy array"},
    Named{FileKind::kTar, "a tar archive"},
    Named{FileKind::kZip, "a zip archive"},
    Named{FileKind::kGzip, "a gzip file"},
    Named{FileKind::kZstd, "a Zstandard file"},
    Named{FileKind::kBzip2, "a bzip2 file"},
    Named{FileKind::kXz, "an xz file"},
    Named{FileKind::kSevenZip, "a 7z archive"},
    Named{FileKind::kElf, "a program or library (ELF)"},
    Named{FileKind::kLfsPointer, "a git-lfs pointer"},
    Named{FileKind::kHtml, "an HTML page"},
    Named{FileKind::kXml, "an XML file"},
    Named{FileKind::kJson, "JSON"},
    Named{FileKind::kUtf16, "UTF-16 text"},
    Named{FileKind::kTextWithMark, "text with a byte-order mark"},
    Named{FileKind::kText, "text"},
};

// ---- by structure ---------------------------------------------------------------------------------------------------

bool is_webp(std::string_view text) {
    return has(text, 0, "RIFF"sv) && has(text, 8, "WEBP"sv);
}

/// "BM" alone begins many a text: the length of the header behind it must be one that there is.
bool is_bmp(Bytes bytes) {
    constexpr std::array<int, 8> kHeaders = {12, 16, 40, 52, 56, 64, 108, 124};
    return bytes.size() > 18 && bytes[0] == 'B' && bytes[1] == 'M' && bytes[15] == 0 && bytes[16] == 0 &&
           bytes[17] == 0 && std::ranges::find(kHeaders, bytes[14]) != kHeaders.end();
}

/// A header's length in 8 bytes, of which no real one needs more than 4, then the header: a JSON object.
bool is_safetensors(Bytes bytes) {
    return bytes.size() > 8 && bytes[8] == '{' &&
           std::all_of(bytes.begin() + 4, bytes.begin() + 8, [](std::uint8_t byte) { return byte == 0; });
}

/// Opcode PROTO, a protocol that there is, and an opcode of torch.save's or pickle.dump's objects.
bool is_pickle(Bytes bytes) {
    constexpr std::string_view kNext = "}](cMK\x8a\x95X\x8c)\x80"sv;
    return bytes.size() > 2 && bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5 &&
           kNext.find(static_cast<char>(bytes[2])) != std::string_view::npos;
}

/// torch.save's archives begin with NAME/data.pkl, TorchScript's with that or NAME/version.
FileKind zip_kind(std::string_view text) {
    constexpr std::size_t kName = 30;
    const std::string_view name = text.substr(std::min(kName, text.size()));
    const std::string_view beginning = name.substr(0, 200);
    for (const std::string_view part : {"/data.pkl"sv, "/version"sv, "/byteorder"sv, "/.format_version"sv})
        if (beginning.find(part) != std::string_view::npos) return FileKind::kTorchZip;
    return FileKind::kZip;
}

// ---- text -----------------------------------------------------------------------------------------------------------

bool is_continuation(char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0) == 0x80;
}

/// How many bytes a UTF-8 character has by its first one; 0: none begins so.
std::size_t length_of(char first) {
    const auto byte = static_cast<unsigned char>(first);
    if (byte < 0x80) return byte >= 0x20 || (byte >= '\t' && byte <= '\r') || byte == 0x1b ? 1 : 0;
    if (byte >= 0xc2 && byte <= 0xdf) return 2;
    if (byte >= 0xe0 && byte <= 0xef) return 3;
    return byte >= 0xf0 && byte <= 0xf4 ? 4 : 0;
}

/// Whether all of it is UTF-8 without control characters; a character that the end cuts is forgiven.
bool is_text(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = length_of(text.front());
        if (length == 0) return false;
        const std::string_view rest = text.substr(1, length - 1);
        if (!std::all_of(rest.begin(), rest.end(), is_continuation)) return false;
        text.remove_prefix(std::min(length, text.size()));
    }
    return true;
}

bool starts_with_any_case(std::string_view text, std::string_view part) {
    const auto same = [](char wanted, char found) {
        return wanted == (found >= 'A' && found <= 'Z' ? found - 'A' + 'a' : found);
    };
    return text.size() >= part.size() && std::equal(part.begin(), part.end(), text.begin(), same);
}

FileKind text_kind(std::string_view text, FileKind plain) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    for (const std::string_view tag : {"<!doctype html"sv, "<html"sv, "<head"sv, "<body"sv, "<script"sv})
        if (starts_with_any_case(text, tag)) return FileKind::kHtml;
    const bool xml = text.starts_with("<?xml"sv) || text.starts_with("<!DOCTYPE svg"sv);
    if (text.starts_with("<svg"sv) || (xml && text.find("<svg"sv) != std::string_view::npos)) return FileKind::kSvg;
    if (xml) return text.find("<html"sv) != std::string_view::npos ? FileKind::kHtml : FileKind::kXml;
    if (text.starts_with('{') || text.starts_with("[\n"sv) || text.starts_with("[{"sv) || text.starts_with("[\""sv))
        return FileKind::kJson;
    return plain;
}

/// UTF-16 behind its mark, or ASCII in it without one.
bool is_utf16(Bytes bytes) {
    if (bytes.size() < 2) return false;
    if ((bytes[0] == 0xff && bytes[1] == 0xfe) || (bytes[0] == 0xfe && bytes[1] == 0xff)) return true;
    const std::size_t pairs = std::min<std::size_t>(bytes.size(), 64) / 2;
    const auto ascii_pairs = [&](std::size_t zero) {
        for (std::size_t i = 0; i < pairs; ++i)
            if (bytes[2 * i + zero] != 0 || length_of(static_cast<char>(bytes[2 * i + 1 - zero])) != 1) return false;
        return pairs > 1;
    };
    return ascii_pairs(0) || ascii_pairs(1);
}

/// The first bytes in quotes, other than printable ASCII as \xNN.
std::string quoted_beginning(Bytes bytes) {
    constexpr std::size_t kShown = 16;
    std::string text = "'";
    for (const std::uint8_t byte : bytes.first(std::min(bytes.size(), kShown))) {
        if (byte >= 0x20 && byte < 0x7f) {
            text += static_cast<char>(byte);
        } else {
            char escaped[5];
            std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
            text += escaped;
        }
    }
    return text + '\'';
}

/// A file's first bytes; nothing where it cannot be read.
std::vector<std::uint8_t> first_bytes(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<std::uint8_t> bytes(kKindBytes);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<std::size_t>(file.gcount()));
    return bytes;
}

}  // namespace

FileKind file_kind(Bytes first) {
    if (first.empty()) return FileKind::kEmpty;
    const Bytes bytes = first.first(std::min(first.size(), kKindBytes));
    const std::string_view text = text_of(bytes);
    const auto* const magic = std::ranges::find_if(
        kMagics, [&](const Magic& candidate) { return has(text, candidate.offset, candidate.bytes); });
    if (magic != kMagics.end()) return magic->kind;
    if (is_webp(text)) return FileKind::kWebp;
    if (is_bmp(bytes)) return FileKind::kBmp;
    if (is_safetensors(bytes)) return FileKind::kSafetensors;
    if (text.starts_with("PK\x03\x04"sv) || text.starts_with("PK\x05\x06"sv)) return zip_kind(text);
    if (is_pickle(bytes)) return FileKind::kPickle;
    if (is_utf16(bytes)) return FileKind::kUtf16;
    constexpr std::string_view kMark = "\xef\xbb\xbf"sv;
    if (text.starts_with(kMark) && is_text(text.substr(kMark.size())))
        return text_kind(text.substr(kMark.size()), FileKind::kTextWithMark);
    return is_text(text) ? text_kind(text, FileKind::kText) : FileKind::kUnknown;
}

FileKind file_kind(const std::filesystem::path& path) {
    std::error_code problem;
    if (!std::filesystem::is_regular_file(path, problem)) return FileKind::kUnknown;
    const std::vector<std::uint8_t> first = first_bytes(path);
    return first.empty() && std::filesystem::file_size(path, problem) != 0 ? FileKind::kUnknown : file_kind(first);
}

const char* kind_name(FileKind kind) {
    const auto* const named = std::ranges::find(kNames, kind, &Named::kind);
    return named == kNames.end() ? "data of an unknown kind" : named->name;
}

std::string describe_file(Bytes first, std::uint64_t bytes) {
    const FileKind kind = file_kind(first);
    if (kind == FileKind::kEmpty) return kind_name(kind);
    std::string size = str(kind_name(kind), " (", bytes, bytes == 1 ? " byte)" : " bytes)");
    if (kind != FileKind::kUnknown && kind != FileKind::kText) return size;
    return size + " that starts with " + quoted_beginning(first);
}

std::string describe_file(const std::filesystem::path& path) {
    std::error_code problem;
    const std::uintmax_t size = std::filesystem::file_size(path, problem);
    const std::vector<std::uint8_t> first = problem ? std::vector<std::uint8_t>() : first_bytes(path);
    if (problem || (first.empty() && size != 0)) return "a file that cannot be read";
    return describe_file(first, size);
}

const char* advice(FileKind kind) {
    switch (kind) {
        case FileKind::kLfsPointer:
            return ": `git lfs pull` brings the file itself";
        case FileKind::kHtml:
            return ": a download that brought a web page in place of the file";
        case FileKind::kEmpty:
            return ": a download or copy that did not finish";
        case FileKind::kTorchTar:
            return ": torch.load and torch.save bring it into the present format";
        case FileKind::kTar:
        case FileKind::kZip:
        case FileKind::kGzip:
        case FileKind::kZstd:
        case FileKind::kBzip2:
        case FileKind::kXz:
        case FileKind::kSevenZip:
            return ": unpack it first";
        default:
            return "";
    }
}

}  // namespace dynvit
