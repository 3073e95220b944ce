// How long calls take: warm, interleaved with what they are compared with, and with the spread beside the middle.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace dynvit {

/// Waits until everything that was started on the device is done.
void wait_for(const at::Device& device);

struct TimingOptions {
    at::Device device = at::kCPU;
    double seconds = 2;  // about so long for each case, after a warm-up of a quarter of it
    std::int64_t min_rounds = 10;
};

/// What one case took, in seconds: an entry a round.
struct Timing {
    std::vector<double> latency;  // of a call by itself, waited for
    std::vector<double> pace;     // of a call among several in a row, waited for together (on a CPU: the latency)
};

/// Times the cases in rounds, each case once a round and every other round in reverse, so that whatever slows the
/// machine down meets all of them. `progress`, if given, is told the share that is done.
std::vector<Timing> time_interleaved(const std::vector<std::function<void()>>& cases, const TimingOptions& options,
                                     const std::function<void(double)>& progress = {});

/// Returns the value below which that share of the values lies, interpolated. @param values not empty @param share in
/// [0, 1]
double percentile(std::vector<double> values, double share);

/// A median with the 95 % confidence interval that its order statistics give, whatever the distribution.
struct MedianInterval {
    double median, low, high;
};
/// Returns them for the values, in their unit; of ten values or fewer the interval spans all. @param values not
/// empty
MedianInterval median_interval(std::vector<double> values);

/// Returns how many times as fast as the case `slower` the case `faster` is, round by round; of the same call of
/// time_interleaved.
MedianInterval speedup(const Timing& faster, const Timing& slower);

/// Returns the most memory that tensors of a call hold at once on that device, in bytes: what the call allocates and
/// has not freed. What libraries allocate by themselves is not seen.
std::int64_t peak_tensor_bytes(const std::function<void()>& call, const at::Device& device);

}  // namespace dynvit
