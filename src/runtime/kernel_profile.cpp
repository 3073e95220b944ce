#include "dynvit/runtime/kernel_profile.hpp"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <memory>
#include <set>

namespace dynvit {
namespace {

// "void at::native::f<4, T>(int, float*)" -> "at::native::f". Of elementwise_kernel<..., Functor, ...> and its like the
// first functor stays, since the name alone says nothing.
std::string short_name(std::string name) {
    if (name.starts_with("void ")) name.erase(0, 5);
    std::string functor;
    if (name.find("elementwise_kernel") != std::string::npos || name.find("reduce_kernel") != std::string::npos) {
        for (const char* ending : {"_cuda", "Functor", "Op"}) {
            const std::size_t end = name.find(ending);
            if (end == std::string::npos) continue;
            std::size_t begin = end;
            while (begin > 0 && (std::isalnum(static_cast<unsigned char>(name[begin - 1])) || name[begin - 1] == '_')) {
                --begin;
            }
            functor = " of " + name.substr(begin, end - begin);
            break;
        }
    }
    for (const char* anonymous : {"(anonymous namespace)::", "<unnamed>::", "at::native::"}) {
        const std::string cut = anonymous;
        for (std::size_t at; (at = name.find(cut)) != std::string::npos;) name.erase(at, cut.size());
    }
    return name.substr(0, name.find_first_of("<(")) + functor;
}

}  // namespace

std::vector<KernelTime> profile_kernels(const std::function<void()>& call) {
    namespace profiler = torch::autograd::profiler;
    using torch::profiler::impl::ActivityType;
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    const std::set<ActivityType> activities = {ActivityType::CPU, ActivityType::CUDA};
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities);
    call();
    const std::unique_ptr<profiler::ProfilerResult> result = profiler::disableProfiler();

    std::map<std::string, KernelTime> by_name;
    for (const profiler::KinetoEvent& event : result->events()) {
        if (event.deviceType() != at::kCUDA) continue;
        const std::string name = short_name(event.name());
        KernelTime& kernel = by_name.try_emplace(name, KernelTime{name, 0, 0}).first->second;
        ++kernel.runs;
        kernel.seconds += 1e-9 * static_cast<double>(event.durationNs());
    }
    std::vector<KernelTime> kernels;
    for (auto& [name, kernel] : by_name) kernels.push_back(std::move(kernel));
    std::ranges::sort(kernels, [](const KernelTime& a, const KernelTime& b) { return a.seconds > b.seconds; });
    return kernels;
}

std::string table_of(const std::vector<KernelTime>& kernels, std::size_t most) {
    double all = 0;
    std::int64_t runs = 0;
    for (const KernelTime& kernel : kernels) {
        all += kernel.seconds;
        runs += kernel.runs;
    }
    char line[192];
    std::snprintf(line, sizeof line, "%9s %6s %6s  kernel\n", "ms", "share", "runs");
    std::string text = line;
    const auto add = [&](const std::string& name, std::int64_t count, double seconds) {
        std::snprintf(line, sizeof line, "%9.3f %5.1f%% %6ld  %.120s\n", 1e3 * seconds, 100 * seconds / all,
                      static_cast<long>(count), name.c_str());
        text += line;
    };
    for (std::size_t i = 0; i < std::min(most, kernels.size()); ++i) {
        add(kernels[i].name, kernels[i].runs, kernels[i].seconds);
    }
    if (kernels.size() > most) {
        KernelTime rest;
        for (std::size_t i = most; i < kernels.size(); ++i) {
            rest.runs += kernels[i].runs;
            rest.seconds += kernels[i].seconds;
        }
        add("the rest (" + std::to_string(kernels.size() - most) + ")", rest.runs, rest.seconds);
    }
    add("all", runs, all);
    return text;
}

}  // namespace dynvit
