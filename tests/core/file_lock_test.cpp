#include "dynvit/core/file_lock.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "dynvit/core/files.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

// In another process. @return the error's text, or "locked"
std::string lock_elsewhere(const std::filesystem::path& file, const std::filesystem::path& answer) {
    const pid_t other = ::fork();
    if (other == 0) {
        std::string text = "locked";
        try {
            const FileLock lock(file, "test", "FOLDER: found work in it");
        } catch (const std::exception& error) {
            text = error.what();
        }
        write_file_atomically(answer, text, "test");
        ::_exit(0);
    }
    ::waitpid(other, nullptr, 0);
    return read_text(answer, "test");
}

TEST(FileLock, OneProcessAtATimeHoldsIt) {
    const test::TemporaryFolder folder;
    const std::filesystem::path file = folder / ".lock";
    std::optional<FileLock> lock(std::in_place, file, "test", "");
    const std::string own = read_text(file, "test");
    EXPECT_EQ(own.rfind(str("process ", ::getpid()), 0), 0u) << own;
    EXPECT_EQ(lock_elsewhere(file, folder / "answer"), "[test] FOLDER: found work in it (" + own + "), expected none");
    std::optional<FileLock> moved(std::move(lock));
    lock.reset();
    EXPECT_NE(lock_elsewhere(file, folder / "answer"), "locked") << "it was moved";
    moved.reset();
    EXPECT_EQ(read_text(file, "test"), "");
    EXPECT_EQ(lock_elsewhere(file, folder / "answer"), "locked");
}

TEST(FileLock, WhatCannotBeMadeIsNamed) {
    const test::TemporaryFolder folder;
    const std::filesystem::path file = folder / "none/.lock";
    EXPECT_EQ(test::error_of([&] { FileLock(file, "test", ""); }),
              "[test] " + file.string() + ": cannot be made: No such file or directory");
}

}  // namespace
}  // namespace dynvit
