#include "bench_profile.hpp"

#include "arguments.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/runtime/kernel_profile.hpp"
#include "dynvit/runtime/timing.hpp"

namespace dynvit::tool {

void add_profile_option(CLI::App& command, std::size_t& most) {
    command.add_option("--profile", most, "tell which kernels the GPU's time goes to, the N longest of each row")
        ->check(within(between(1, 1000)))
        ->option_text("N");
}

void check_profile(std::size_t most, const at::Device& device) {
    if (most == 0 || device.is_cuda()) return;
    throw Error("bench", "--profile tells of a GPU's kernels, found device ", device.str());
}

void print_profiles(const std::vector<std::function<void()>>& cases, const std::vector<std::string>& names,
                    std::size_t most, const at::Device& device) {
    if (most == 0) return;
    for (std::size_t i = 0; i < cases.size(); ++i) {
        const std::vector<KernelTime> kernels = profile_kernels([&] {
            cases[i]();
            wait_for(device);
        });
        if (kernels.empty()) throw Error("bench", "LibTorch's profiler saw no kernel on ", device.str());
        print(str(names[i], '\n', table_of(kernels, most)));
    }
}

}  // namespace dynvit::tool
