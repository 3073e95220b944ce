// The program: one file a subcommand beside this one, which defines add_NAME() and stands in the list below.
#include <ATen/Parallel.h>

#include <c10/util/Exception.h>

#include <csignal>
#include <filesystem>
#include <iostream>

#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

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

// One line on standard error; whatever stands in the text stays on it.
int report(const std::string& text) {
    std::string line = text.substr(0, text.find('\n'));
    std::cerr << "error: " << line << '\n';
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    CLI::App program("DynamicViT: Vision Transformers that drop the patches they don't need.", "dynvit");
    program.set_version_flag("--version", "dynvit " DYNVIT_VERSION);
    program.require_subcommand(1);
    program.fallthrough();
    program.get_formatter()->column_width(34);
    std::string level = "info";
    int threads = 0;
    program.add_option("--log-level", level, "debug, info, warn, error or off")->capture_default_str();
    program.add_option("--threads", threads, "processor threads of LibTorch; 0: one a core")
        ->check(CLI::NonNegativeNumber);
    program.parse_complete_callback([&] {
        dynvit::log::set_level(level);
        if (threads > 0) at::set_num_threads(threads);
    });
#define DYNVIT_ADD(name) dynvit::tool::add_##name(program);
    DYNVIT_SUBCOMMANDS(DYNVIT_ADD)
    try {
        program.parse(argc, argv);
    } catch (const CLI::RuntimeError& error) {  // a command's own exit code; it has said why
        return error.get_exit_code();
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return program.exit(error);  // --help, --version
        const bool unknown = program.get_subcommands().empty() && !program.remaining().empty();
        return report(dynvit::str("[arguments] ", error.what(), unknown ? ", found " + program.remaining().front() : "",
                                  " (see --help)"));
    } catch (const dynvit::Error& error) {
        return report(error.what());
    } catch (const std::bad_alloc&) {
        return report("[memory] not enough memory; a smaller batch needs less");
    } catch (const c10::OutOfMemoryError&) {
        return report("[memory] not enough GPU memory; a smaller batch, with train.accumulate to match, needs less");
    } catch (const std::filesystem::filesystem_error& error) {
        return report(dynvit::str("[files] ", error.path1().string(), ": ", error.code().message()));
    } catch (const std::exception& error) {
        return report(dynvit::str("[bug] ", error.what()));
    }
    return 0;
}
