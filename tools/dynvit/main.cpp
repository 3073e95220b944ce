// The program: one file a subcommand beside this one, which defines add_NAME() and stands in the list below.
#include <ATen/Parallel.h>

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <string_view>
#include <system_error>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/processor_load.hpp"
#include "dynvit/core/progress.hpp"

// One line a subcommand, in the order of --help.
#define DYNVIT_SUBCOMMANDS(SUBCOMMAND) \
    SUBCOMMAND(prune)                  \
    SUBCOMMAND(train)                  \
    SUBCOMMAND(eval)                   \
    SUBCOMMAND(infer)                  \
    SUBCOMMAND(visualize)              \
    SUBCOMMAND(shard)                  \
    SUBCOMMAND(convert)                \
    SUBCOMMAND(export)                 \
    SUBCOMMAND(config)                 \
    SUBCOMMAND(bench)

namespace dynvit::tool {

#define DYNVIT_DECLARE(name) void add_##name(CLI::App& program);
DYNVIT_SUBCOMMANDS(DYNVIT_DECLARE)

}  // namespace dynvit::tool

namespace {

constexpr const char* kNoMemory = "[memory] not enough memory; a smaller batch or picture size needs less";

// Where a standard stream is closed, the next file that is opened must not take its place: standard output becomes a
// file that can't be written.
void hold_standard_streams() {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(descriptor, F_GETFD) >= 0) continue;
        // The lowest free number, which is this one.
        [[maybe_unused]] const int opened = ::open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY);
    }
}

// Ends as programs do that write into a pipe without a reader.
int end_by_closed_pipe() {
    std::signal(SIGPIPE, SIG_DFL);
    return std::raise(SIGPIPE);
}

// Of LibTorch's allocators on the processor, which have no exception of their own.
bool lacks_memory(const std::exception& error) {
    const std::string_view text = error.what();
    return text.find("DefaultCPUAllocator") != std::string_view::npos ||
           text.find("out of memory") != std::string_view::npos;
}

// Whether the command runs a model: the others need not know how busy the processors are, which takes a moment to see.
bool computes(const CLI::App& program) {
    constexpr std::array kOthers = {"config", "shard"};
    return std::ranges::none_of(kOthers, [&](const char* name) { return program.got_subcommand(name); });
}

// LibTorch's threads wait for each other, so that one which has to share its processor holds all of them up.
void leave_busy_processors(const dynvit::ProcessorLoad& load) {
    const int threads = at::get_num_threads();
    if (threads == 1 || std::getenv("OMP_NUM_THREADS")) return;  // NOLINT(concurrency-mt-unsafe): nobody sets it
    const double busy = load.busy();
    const int run = dynvit::threads_that_run(threads, load.processors(), busy);
    if (run == threads) return;
    at::set_num_threads(run);
    dynvit::log::info(dynvit::str(run, " of ", threads, " processor threads: of ", load.processors(),
                                  " processors others keep ", dynvit::fixed(busy, 1),
                                  " busy; --threads N fixes their number"));
}

// --help and --version.
int answer(const CLI::App& program, const CLI::ParseError& error) {
    std::ostringstream out;
    const int code = program.exit(error, out, out);
    dynvit::print(out.str());
    return code;
}

// One line on standard error; whatever stands in the text stays on it.
int report(const std::string& text) {
    std::string line = text.substr(0, text.find('\n'));
    std::cerr << "error: " << line << '\n';
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    hold_standard_streams();
    std::signal(SIGPIPE, SIG_IGN);
    const dynvit::ProcessorLoad load;
    CLI::App program("DynamicViT: Vision Transformers that drop the patches they don't need.", "dynvit");
    program.set_version_flag("--version", "dynvit " DYNVIT_VERSION);
    program.require_subcommand(1);
    program.fallthrough();
    program.get_formatter()->column_width(34);
    std::string level = "info";
    int threads = 0;
    program.add_option("--log-level", level, "debug, info, warn, error or off")->capture_default_str();
    program
        .add_option("--threads", threads,
                    "processor threads of LibTorch; 0: one a core that other processes leave free")
        ->check(dynvit::tool::within(dynvit::between(0, dynvit::tool::kMostThreads)));
    program.parse_complete_callback([&] {
        dynvit::log::set_level(level);
        if (threads > 0) at::set_num_threads(threads);
        if (threads == 0 && computes(program)) leave_busy_processors(load);
    });
#define DYNVIT_ADD(name) dynvit::tool::add_##name(program);
    DYNVIT_SUBCOMMANDS(DYNVIT_ADD)
    dynvit::tool::guard_options(program);
    const auto run = [&] {
        try {
            dynvit::tool::check_words(argc, argv);
            program.parse(argc, argv);
            return 0;
        } catch (const CLI::RuntimeError& error) {  // a command's own exit code; it has said why
            return error.get_exit_code();
        } catch (const CLI::ParseError& error) {
            if (error.get_exit_code() == 0) return answer(program, error);
            return report(dynvit::str("[arguments] ", dynvit::tool::explain(error, program), " (see --help)"));
        }
    };
    try {
        return run();
    } catch (const dynvit::ClosedPipe&) {
        return end_by_closed_pipe();
    } catch (const dynvit::Error& error) {
        return report(error.what());
    } catch (const std::bad_alloc&) {
        return report(kNoMemory);
    } catch (const c10::OutOfMemoryError&) {
        return report("[memory] not enough GPU memory; a smaller batch, with train.accumulate to match, needs less");
    } catch (const std::filesystem::filesystem_error& error) {
        return report(dynvit::str("[files] ", error.path1().string(), ": ", error.code().message()));
    } catch (const std::system_error& error) {
        return report(dynvit::str("[system] ", error.what()));
    } catch (const std::exception& error) {
        return report(lacks_memory(error) ? kNoMemory : dynvit::str("[bug] ", error.what()));
    }
}
