// Beginnings of files as the programs that write them make them.
#include "dynvit/core/file_kind.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support.hpp"

namespace dynvit {
namespace {

using namespace std::string_literals;

std::span<const std::uint8_t> bytes_of(const std::string& text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string padded(std::string text, std::size_t size) {
    text.resize(size);
    return text;
}

/// A zip archive's first header, of a file of that name.
std::string zip(const std::string& name) {
    return "PK\x03\x04"s + std::string(22, '\0') + static_cast<char>(name.size()) + std::string(3, '\0') + name;
}

TEST(FileKind, IsSaidByTheFirstBytes) {
    const std::string tar = padded("a.jpg", 257) + "ustar\00000"s;
    const std::vector<std::pair<std::string, FileKind>> files = {
        {"", FileKind::kEmpty},
        {"\xff\xd8\xff\xe0\0\x10JFIF"s, FileKind::kJpeg},
        {"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"s, FileKind::kPng},
        {"RIFF\x1a\0\0\0WEBPVP8L"s, FileKind::kWebp},
        {"RIFF\x1a\0\0\0WAVEfmt "s, FileKind::kUnknown},
        {"GIF89a\1\0\1\0"s, FileKind::kGif},
        {"BM" + std::string(12, '\0') + "\x28\0\0\0\x01"s, FileKind::kBmp},
        {"BMW is a maker of cars", FileKind::kText},
        {"II*\0\x08\0\0\0"s, FileKind::kTiff},
        {"MM\0*\0\0\0\x08"s, FileKind::kTiff},
        {"\0\0\0\x18"s + "ftypheic", FileKind::kHeif},
        {"\0\0\0\x18"s + "ftypavif", FileKind::kAvif},
        {"\0\0\0\x18"s + "ftypisom", FileKind::kVideo},
        {"\xff\x0a\xfa\x1f"s, FileKind::kJpegXl},
        {"8BPS\0\1"s, FileKind::kPsd},
        {"<?xml version=\"1.0\"?>\n<svg xmlns=\"x\">", FileKind::kSvg},
        {"%PDF-1.4", FileKind::kPdf},
        {"\x40\0\0\0\0\0\0\0{\"a\":{}}"s, FileKind::kSafetensors},
        {zip("archive/data.pkl"), FileKind::kTorchZip},
        {zip("photos/1.jpg"), FileKind::kZip},
        {"\x80\x02}q\0"s, FileKind::kPickle},
        {"\x80\x02\x8a\nl\xfc\x9c"s, FileKind::kPickle},
        {"GGUF\3\0\0\0"s, FileKind::kGguf},
        {"\x89HDF\r\n\x1a\n"s, FileKind::kHdf5},
        {"\x93NUMPY\1\0"s, FileKind::kNumpy},
        {tar, FileKind::kTar},
        {"\x1f\x8b\x08\0"s, FileKind::kGzip},
        {"\x28\xb5\x2f\xfd\x04"s, FileKind::kZstd},
        {"BZh91AY", FileKind::kBzip2},
        {"\xfd"s + "7zXZ\0"s, FileKind::kXz},
        {"7z\xbc\xaf\x27\x1c"s, FileKind::kSevenZip},
        {"\x7f"s + "ELF\2", FileKind::kElf},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", FileKind::kLfsPointer},
        {"\n <!DOCTYPE HTML><html>", FileKind::kHtml},
        {"<?xml version=\"1.0\"?><html>", FileKind::kHtml},
        {"<?xml version=\"1.0\"?><Error>", FileKind::kXml},
        {" {\"architecture\": \"vit\"}", FileKind::kJson},
        {"[\n  1, 2]", FileKind::kJson},
        {"[section]\nkey=1\n", FileKind::kText},
        {"\xff\xfe"
         "a\0"s,
         FileKind::kUtf16},
        {"\xfe\xff\0"
         "a"s,
         FileKind::kUtf16},
        {"n\0"
         "0\0"
         "1\0"s,
         FileKind::kUtf16},
        {"\xef\xbb\xbfn01440764 tench\n"s, FileKind::kTextWithMark},
        {"n01440764 tench\n", FileKind::kText},
        {"caf\xc3\xa9"s, FileKind::kText},
        {"caf\xe9 au lait"s, FileKind::kUnknown},  // Latin-1
        {"\0\0\0\0"s, FileKind::kUnknown},
    };
    for (const auto& [text, kind] : files)
        EXPECT_STREQ(kind_name(file_kind(bytes_of(text))), kind_name(kind)) << testing::PrintToString(text);
}

TEST(FileKind, ACharacterCutByTheEndIsStillText) {
    std::string text(kKindBytes - 1, 'a');
    text += "\xc3\xa9 and so on";
    EXPECT_EQ(file_kind(bytes_of(text)), FileKind::kText);
}

TEST(FileKind, EveryKindHasAName) {
    for (int kind = 1; kind <= static_cast<int>(FileKind::kText); ++kind)
        EXPECT_STRNE(kind_name(static_cast<FileKind>(kind)), kind_name(FileKind::kUnknown)) << kind;
}

TEST(FileKind, AFileIsDescribed) {
    const test::TemporaryFolder folder;
    const auto described = [&](const std::string& text) {
        std::ofstream(folder / "f", std::ios::binary) << text;
        return describe_file(folder / "f");
    };
    EXPECT_EQ(described(""), "an empty file");
    EXPECT_EQ(described("x"), "text (1 byte) that starts with 'x'");
    EXPECT_EQ(described("\x7f\0"s), "data of an unknown kind (2 bytes) that starts with '\\x7f\\x00'");
    EXPECT_EQ(described("version https://git-lfs.github.com/spec/v1\n"), "a git-lfs pointer (43 bytes)");
    EXPECT_EQ(described("\x1f\x8b" + std::string(5000, 'x')), "a gzip file (5002 bytes)");
    EXPECT_EQ(file_kind(folder / "f"), FileKind::kGzip);
    EXPECT_EQ(describe_file(folder / "none"), "a file that cannot be read");
    EXPECT_EQ(file_kind(folder / "none"), FileKind::kUnknown);
    EXPECT_EQ(file_kind(folder.path()), FileKind::kUnknown);
    described("\x89PNG\r\n\x1a\n\0"s);
    EXPECT_EQ(file_kind(folder / "f"), FileKind::kPng);
}

}  // namespace
}  // namespace dynvit
