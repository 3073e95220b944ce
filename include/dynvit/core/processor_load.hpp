// How many processors other processes leave to this one.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace dynvit {

/// Time that processors have worked, in the kernel's ticks.
struct ProcessorTicks {
    std::int64_t busy = 0;
    std::int64_t all = 0;
};

/// Reads the lines "cpu0 ..." of /proc/stat. Niced work doesn't count as busy: it gives way.
/// @param used numbers of the processors that count
ProcessorTicks read_processor_ticks(std::string_view stat, const std::vector<int>& used);

/// Processors that a control group's cpu.max allows: of "150000 100000" 1.5; none of "max 100000" or another text.
std::optional<double> read_processor_quota(std::string_view cpu_max);

/// How many of `threads` threads that wait for each other find a processor of their own: as many as there are
/// processors, less those that others keep busy, to the nearest whole number and at least one. With one more, all wait
/// for the one that isn't running.
int threads_that_run(int threads, double processors, double busy);

/// What other processes do from its construction on.
class ProcessorLoad {
  public:
    ProcessorLoad();

    /// Processors that this process may use: those of its affinity, no more than its control group's quota.
    double processors() const { return processors_; }

    /// How many of them other processes have kept busy since the construction. Waits until a tenth of a second has
    /// passed. 0 where the system doesn't tell.
    double busy() const;

  private:
    struct Sample {
        ProcessorTicks all;
        double own_seconds;
    };
    Sample sample() const;

    std::vector<int> used_;
    double processors_;
    std::chrono::steady_clock::time_point start_;
    Sample first_;
};

}  // namespace dynvit
