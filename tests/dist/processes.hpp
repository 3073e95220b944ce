// Several processes of one test.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/dist/launch.hpp"
#include "free_port.hpp"
#include "support.hpp"

namespace dynvit::test {

/// Runs `work` in `count` processes of one launch. @return what each gives, or its error's text; "ended N" where it
/// ended itself by exit code N
inline std::vector<std::string> run_processes(int count, const std::function<std::string(const Launch&)>& work) {
    const TemporaryFolder folder;
    Launch launch{.world_size = count, .host = "127.0.0.1", .port = free_port()};
    std::vector<pid_t> processes;
    for (int rank = 0; rank < count; ++rank) {
        const pid_t process = ::fork();
        if (process == 0) {
            launch.rank = launch.local_rank = rank;
            std::string result;
            try {
                result = work(launch);
            } catch (const std::exception& error) {
                result = error.what();
            }
            std::ofstream(folder / str(rank)) << result;
            ::_exit(0);
        }
        processes.push_back(process);
    }
    std::vector<std::string> results;
    for (int rank = 0; rank < count; ++rank) {
        int status = 0;
        ::waitpid(processes[static_cast<std::size_t>(rank)], &status, 0);
        const std::filesystem::path result = folder / str(rank);
        results.push_back(std::filesystem::exists(result) ? read_text(result, "test")
                                                          : str("ended ", WEXITSTATUS(status)));
    }
    return results;
}

}  // namespace dynvit::test
