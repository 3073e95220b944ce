#include "dynvit/runtime/timing.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

namespace dynvit {
namespace {

using Clock = std::chrono::steady_clock;

// On a GPU calls in a row hide what starting them costs; about so long a row has to be for the wait at its end not to
// count.
constexpr double kRowSeconds = 0.02;
constexpr std::int64_t kLongestRow = 100;

// @param calls in a row @return seconds a call
double time(const std::function<void()>& call, std::int64_t calls, const at::Device& device) {
    const Clock::time_point start = Clock::now();
    for (std::int64_t i = 0; i < calls; ++i) call();
    wait_for(device);
    return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
}

// Adds up what LibTorch's allocators report. They report from any thread.
class MemoryMeter : public c10::MemoryReportingInfoBase {
  public:
    explicit MemoryMeter(const at::Device& device) : device_(device) {}
    void reportMemoryUsage(void*, std::int64_t change, std::size_t, std::size_t, at::Device device) override {
        if (device.type() != device_.type()) return;
        const std::int64_t now = held_ += change;
        std::int64_t before = peak_;
        while (now > before && !peak_.compare_exchange_weak(before, now)) {
        }
    }
    bool memoryProfilingEnabled() const override { return true; }
    std::int64_t peak() const { return peak_; }

  private:
    at::Device device_;
    std::atomic<std::int64_t> held_{0}, peak_{0};
};

}  // namespace

void wait_for(const at::Device& device) {
    if (device.is_cuda())
        c10::impl::getDeviceGuardImpl(device.type())->synchronizeDevice(std::max<int>(device.index(), 0));
}

std::vector<Timing> time_interleaved(const std::vector<std::function<void()>>& cases, const TimingOptions& options,
                                     const std::function<void(double)>& progress) {
    std::vector<std::int64_t> row(cases.size(), 1);
    double round_seconds = 0;
    for (std::size_t c = 0; c < cases.size(); ++c) {
        double spent = time(cases[c], 1, options.device), last = spent;
        while (spent < options.seconds / 4) spent += last = time(cases[c], 1, options.device);
        if (!options.device.is_cpu()) {
            row[c] = std::clamp<std::int64_t>(std::llround(kRowSeconds / last), 1, kLongestRow);
            round_seconds += last * static_cast<double>(row[c]);
        }
        round_seconds += last;
    }
    const double wanted = options.seconds * static_cast<double>(cases.size()) / round_seconds;
    const std::int64_t rounds = std::max<std::int64_t>(options.min_rounds, std::llround(std::min(wanted, 1e5)));
    std::vector<Timing> timings(cases.size());
    for (std::int64_t r = 0; r < rounds; ++r) {
        for (std::size_t i = 0; i < cases.size(); ++i) {
            const std::size_t c = r % 2 == 0 ? i : cases.size() - 1 - i;
            timings[c].latency.push_back(time(cases[c], 1, options.device));
            timings[c].pace.push_back(options.device.is_cpu() ? timings[c].latency.back()
                                                              : time(cases[c], row[c], options.device));
        }
        if (progress) progress(static_cast<double>(r + 1) / static_cast<double>(rounds));
    }
    return timings;
}

double percentile(std::vector<double> values, double share) {
    std::ranges::sort(values);
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

MedianInterval median_interval(std::vector<double> values) {
    std::ranges::sort(values);
    const double n = static_cast<double>(values.size());
    // How many values lie below the true median is binomial with share 1/2: n/2 +- 1.96 sqrt(n)/2 of them.
    const double reach = 0.98 * std::sqrt(n);
    const auto at_place = [&](double place) { return values[static_cast<std::size_t>(std::clamp(place, 0.0, n - 1))]; };
    return {percentile(values, 0.5), at_place(std::floor(n / 2 - reach) - 1), at_place(std::ceil(n / 2 + reach))};
}

MedianInterval speedup(const Timing& faster, const Timing& slower) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < faster.pace.size(); ++i) ratios.push_back(slower.pace[i] / faster.pace[i]);
    return median_interval(std::move(ratios));
}

std::int64_t peak_tensor_bytes(const std::function<void()>& call, const at::Device& device) {
    const auto meter = std::make_shared<MemoryMeter>(device);
    {
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
        call();
        wait_for(device);
    }
    return meter->peak();
}

}  // namespace dynvit
