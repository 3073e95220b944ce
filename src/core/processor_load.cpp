#include "dynvit/core/processor_load.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "dynvit/core/files.hpp"

namespace dynvit {
namespace {

// The numbers between blanks at the start of a text.
std::vector<std::int64_t> numbers_of(std::string_view text) {
    std::vector<std::int64_t> numbers;
    const char* place = text.data();
    const char* const end = place + text.size();
    for (;;) {
        while (place != end && *place == ' ') ++place;
        std::int64_t number = 0;
        const auto [next, problem] = std::from_chars(place, end, number);
        if (problem != std::errc()) return numbers;
        numbers.push_back(number);
        place = next;
    }
}

// A file of /proc or /sys, whose size the system doesn't know; empty where there is none.
std::string system_text(const char* path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<int> allowed_processors() {
    cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<int> allowed;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return allowed;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &set)) allowed.push_back(i);
    }
    return allowed;
}

double own_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    constexpr double kMicro = 1e-6;
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + kMicro * static_cast<double>(time.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

ProcessorTicks read_processor_ticks(std::string_view stat, const std::vector<int>& used) {
    // Columns behind a processor's name.
    enum Column { kUser, kNice, kSystem, kIdle, kWaiting, kInterrupt, kSoftInterrupt, kStolen, kColumns };
    ProcessorTicks ticks;
    for (const std::string_view line : lines_of(stat)) {
        constexpr std::string_view kName = "cpu";
        if (!line.starts_with(kName)) continue;
        const std::vector<std::int64_t> numbers = numbers_of(line.substr(kName.size()));
        const bool is_one = line.size() > kName.size() && line[kName.size()] != ' ';  // the first line is of them all
        if (!is_one || numbers.size() < 1 + kColumns) continue;
        if (std::ranges::find(used, static_cast<int>(numbers.front())) == used.end()) continue;
        const auto column = [&](Column which) { return numbers[1 + which]; };
        const std::int64_t busy =
            column(kUser) + column(kSystem) + column(kInterrupt) + column(kSoftInterrupt) + column(kStolen);
        ticks.busy += busy;
        ticks.all += busy + column(kNice) + column(kIdle) + column(kWaiting);
    }
    return ticks;
}

std::optional<double> read_processor_quota(std::string_view cpu_max) {
    const std::vector<std::int64_t> numbers = numbers_of(cpu_max);
    if (numbers.size() != 2 || numbers[0] <= 0 || numbers[1] <= 0) return std::nullopt;
    return static_cast<double>(numbers[0]) / static_cast<double>(numbers[1]);
}

int threads_that_run(int threads, double processors, double busy) {
    return std::clamp(static_cast<int>(std::lround(processors - busy)), 1, std::max(1, threads));
}

ProcessorLoad::ProcessorLoad()
    : used_(allowed_processors()),
      processors_(static_cast<double>(used_.size())),
      start_(std::chrono::steady_clock::now()),
      first_(sample()) {
    const std::optional<double> quota = read_processor_quota(system_text("/sys/fs/cgroup/cpu.max"));
    if (quota) processors_ = std::min(processors_, *quota);
}

ProcessorLoad::Sample ProcessorLoad::sample() const {
    return {read_processor_ticks(system_text("/proc/stat"), used_), own_seconds()};
}

double ProcessorLoad::busy() const {
    constexpr std::chrono::milliseconds kShortest(100);  // ten ticks of each processor
    std::this_thread::sleep_until(start_ + kShortest);
    const Sample now = sample();
    const auto all = static_cast<double>(now.all.all - first_.all.all);
    if (all <= 0) return 0;
    const double busy = static_cast<double>(now.all.busy - first_.all.busy) / all * static_cast<double>(used_.size());
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
    const double own = (now.own_seconds - first_.own_seconds) / passed.count();
    return std::max(0.0, busy - own);
}

}  // namespace dynvit
