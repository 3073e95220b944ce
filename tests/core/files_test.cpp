#include "dynvit/core/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

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

TEST(Files, ALinkStaysAndWhatItNamesIsReplaced) {
    const test::TemporaryFolder folder;
    std::filesystem::create_directory(folder / "there");
    write_file_atomically(folder / "there/a", "old", "test");
    std::filesystem::create_symlink("there/a", folder / "link");
    std::filesystem::create_symlink("link", folder / "further");
    std::filesystem::create_symlink("there/new", folder / "dangling");
    write_file_atomically(folder / "further", "new", "test");
    write_file_atomically(folder / "dangling", "made", "test");
    EXPECT_EQ(content(folder / "there/a"), "new");
    EXPECT_EQ(content(folder / "there/new"), "made");
    for (const char* name : {"link", "further", "dangling"}) EXPECT_TRUE(std::filesystem::is_symlink(folder / name));
}

TEST(Files, APipeIsWrittenThrough) {
    const test::TemporaryFolder folder;
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    const std::string sent(1 << 20, 'x');
    std::string got;
    std::thread reader([&] {
        std::ifstream in(folder / "pipe", std::ios::binary);
        got.assign(std::istreambuf_iterator<char>(in), {});
    });
    write_file_atomically(folder / "pipe", sent, "test");
    reader.join();
    EXPECT_EQ(got, sent);
    EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Files, ADeviceStaysOne) {
    write_file_atomically("/dev/null", "x", "test");
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
    EXPECT_EQ(error_of([&] { write_file_atomically("/dev/full", "x", "test"); }),
              "[test] /dev/full: cannot be written: No space left on device");
}

TEST(Files, AnOpenFileIsAddedTo) {
    const test::TemporaryFolder folder;
    write_file_atomically(folder / "a", "before ", "test");
    const int open = ::open((folder / "a").c_str(), O_WRONLY | O_APPEND);
    write_file_atomically(str("/dev/fd/", open), "after", "test");
    ::close(open);
    EXPECT_EQ(content(folder / "a"), "before after");
}

TEST(Files, LongNamesHaveLongTemporaryNamesToo) {
    const test::TemporaryFolder folder;
    for (const char letter : {'a', 'b'}) {
        const std::string name = std::string(254, 'x') + letter;
        write_file_atomically(folder / name, str(letter), "test");
        EXPECT_EQ(content(folder / name), str(letter));
    }
    AtomicFile one(folder / (std::string(254, 'x') + 'a'), "test"),
        other(folder / (std::string(254, 'x') + 'b'), "test");
    EXPECT_NE(one.temporary(), other.temporary());
}

// The writers are processes of their own, one killed and one at work.
TEST(Files, WhatKilledWritersHaveLeftGoes) {
    const test::TemporaryFolder folder;
    const auto start_writer = [&] {
        const pid_t writer = ::fork();
        if (writer == 0) {
            AtomicFile file(folder / "a", "test");
            file.write("part", 4);
            for (;;) ::pause();
        }
        const std::filesystem::path left = folder / str("a.writing.", writer);
        while (!std::filesystem::exists(left) || std::filesystem::file_size(left) < 4) std::this_thread::yield();
        return writer;
    };
    const auto end = [](pid_t writer) {
        ::kill(writer, SIGKILL);
        ::waitpid(writer, nullptr, 0);
    };
    const pid_t killed = start_writer();
    end(killed);
    const pid_t working = start_writer();  // it sweeps away what the first has left
    EXPECT_FALSE(std::filesystem::exists(folder / str("a.writing.", killed)));
    write_file_atomically(folder / "b.writing.note", "mine", "test");
    write_file_atomically(folder / "a", "whole", "test");
    EXPECT_TRUE(std::filesystem::exists(folder / str("a.writing.", working)));
    end(working);
    write_file_atomically(folder / "other", "x", "test");
    EXPECT_TRUE(std::filesystem::exists(folder / str("a.writing.", working))) << "of another file";
    write_file_atomically(folder / "a", "again", "test");
    EXPECT_FALSE(std::filesystem::exists(folder / str("a.writing.", working)));
    EXPECT_TRUE(std::filesystem::exists(folder / "b.writing.note"));
}

TEST(Files, MakesFoldersWithTheirParents) {
    const test::TemporaryFolder folder;
    make_directory(folder / "a/b/c", "test");
    make_directory(folder / "a/b/c", "test");
    EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
}

}  // namespace
}  // namespace dynvit
