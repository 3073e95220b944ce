// Running the program as a shell does.
#pragma once

#include <sys/wait.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"

namespace dynvit::test {

struct Outcome {
    int code = -1;
    std::string out, err;
};

inline std::string text_of(const std::filesystem::path& path) {
    const std::vector<std::uint8_t> bytes = read_file(path, "test");
    return {bytes.begin(), bytes.end()};
}

/// Runs a shell's command line in a folder, without standard input. What it prints lies in the folder's .out and .err.
inline Outcome run_in(const std::filesystem::path& folder, const std::string& command) {
    const int status = std::system(str("cd '", folder.string(), "' && ", command, " >.out 2>.err </dev/null").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(folder / ".out"), text_of(folder / ".err")};
}

}  // namespace dynvit::test
