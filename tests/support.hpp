// Where the tests find their data.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "dynvit/core/error.hpp"

namespace dynvit::test {

/// Tensors and pictures made by the reference implementation and Pillow; in the repository.
inline std::filesystem::path golden(const std::string& name) {
    return std::filesystem::path(DYNVIT_GOLDEN) / name;
}

/// Photographs and published weights, which the repository must not hold: DYNVIT_SHARED, or `shared` beside the
/// checkout. Empty where there is none.
inline std::filesystem::path shared_data() {
    const char* given = std::getenv("DYNVIT_SHARED");
    const std::filesystem::path folder = given ? given : DYNVIT_SHARED_DEFAULT;
    return std::filesystem::is_directory(folder) ? folder : std::filesystem::path();
}

/// A fresh folder that goes away with the object.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "dynvit-test-XXXXXX").string();
        if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder could be made");
        path_ = pattern;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

/// No file of this process may grow beyond `bytes`, as on a full disk, while the object lives.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit limit{bytes, before_.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;
    ~FileSizeLimit() {
        setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, handler_);
    }

  private:
    void (*handler_)(int);
    rlimit before_{};
};

/// The text of the Error that `action` throws; fails the test if it throws none.
template <class Action>
std::string error_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    ADD_FAILURE() << "no dynvit::Error was thrown";
    return {};
}

}  // namespace dynvit::test

// NOLINTBEGIN(bugprone-macro-parentheses): a name that is declared
#define DYNVIT_NEEDS_SHARED(variable)                                     \
    const std::filesystem::path variable = ::dynvit::test::shared_data(); \
    if (variable.empty()) GTEST_SKIP() << "needs photographs and weights: set DYNVIT_SHARED to their folder"
// NOLINTEND(bugprone-macro-parentheses)
