#include "dynvit/core/files.hpp"

#include <fstream>

#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;

std::string content(const std::filesystem::path& path) {
    const auto bytes = read_file(path, "test");
    return {bytes.begin(), bytes.end()};
}

TEST(Files, WritesWholeAndReplaces) {
    const test::TemporaryFolder folder;
    write_file_atomically(folder / "a", "first", "test");
    write_file_atomically(folder / "a", std::string(1 << 20, 'x'), "test");
    EXPECT_EQ(content(folder / "a"), std::string(1 << 20, 'x'));
}

TEST(Files, WithoutCommitNothingChangesAndNothingIsLeft) {
    const test::TemporaryFolder folder;
    write_file_atomically(folder / "a", "old", "test");
    {
        AtomicFile file(folder / "a", "test");
        file.write("new", 3);
    }
    EXPECT_EQ(content(folder / "a"), "old");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Files, ErrorsNameThePath) {
    const test::TemporaryFolder folder;
    const std::string here = folder.path().string();
    EXPECT_EQ(error_of([&] { read_file(folder / "none", "test"); }), "[test] " + here + "/none: no such file");
    EXPECT_EQ(error_of([&] { read_file(folder.path(), "test"); }),
              "[test] " + here + ": is a directory, expected a file");
    EXPECT_EQ(error_of([&] { write_file_atomically(folder / "no/where", "x", "test"); }),
              "[test] " + here + "/no/where: cannot be written: No such file or directory");
    EXPECT_EQ(error_of([&] { write_file_atomically(folder.path(), "x", "test"); }),
              "[test] " + here + ": is a directory, expected a file to write");
    write_file_atomically(folder / "file", "x", "test");
    EXPECT_NE(error_of([&] { make_directory(folder / "file", "test"); }).find("cannot be made"), std::string::npos);
}

TEST(Files, TextIsUtf8WithOrWithoutAMark) {
    const test::TemporaryFolder folder;
    const auto text = [&](const std::string& bytes) {
        write_file_atomically(folder / "a", bytes, "test");
        return read_text(folder / "a", "test");
    };
    EXPECT_EQ(text("a\nb"), "a\nb");
    EXPECT_EQ(text("\xef\xbb\xbf\xc3\xa4\n"), "\xc3\xa4\n");
    EXPECT_EQ(text("\xef\xbb\xbf"), "");
    using namespace std::string_literals;
    const std::string place = "[test] " + (folder / "a").string() + ": found text in UTF-16 (";
    EXPECT_EQ(error_of([&] { text("\xff\xfe\x61\0"s); }), place + "it begins with the bytes FF FE), expected UTF-8");
    EXPECT_EQ(error_of([&] { text("\xfe\xff\0a"s); }), place + "it begins with the bytes FE FF), expected UTF-8");
    EXPECT_EQ(error_of([&] { text("a\0\n\0"s); }), place + "it has bytes of value 0), expected UTF-8");
}

TEST(Files, LinesEndWithOrWithoutACarriageReturn) {
    using Lines = std::vector<std::string_view>;
    EXPECT_EQ(lines_of("a\r\n\nb\rc\n"), (Lines{"a", "", "b\rc"}));
    EXPECT_EQ(lines_of("a"), Lines{"a"});
    EXPECT_EQ(lines_of(""), Lines{});
}

TEST(Files, MakesFoldersWithTheirParents) {
    const test::TemporaryFolder folder;
    make_directory(folder / "a/b/c", "test");
    make_directory(folder / "a/b/c", "test");
    EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
}

}  // namespace
}  // namespace dynvit
