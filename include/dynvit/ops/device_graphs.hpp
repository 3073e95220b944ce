// GPU work that is recorded once and then started as a whole.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace dynvit {

/// Recorded pieces of GPU work (CUDA graphs) that take turns to work in the same memory. Starting one costs one call,
/// however many kernels it has. Not for several threads at once.
class DeviceGraphs {
  public:
    /// Whether this build and this device can record: a GPU, and a build with CUDA kernels.
    static bool supported(const at::Device& device);

    explicit DeviceGraphs(const at::Device& device);
    ~DeviceGraphs();
    DeviceGraphs(const DeviceGraphs&) = delete;
    DeviceGraphs& operator=(const DeviceGraphs&) = delete;

    /// Records what `work` starts, without running it. It must wait for nothing, and have run once before, so that what
    /// a first run sets up is there. What it reads and writes stays where it is: keep those tensors.
    /// @return its number
    std::size_t record(const std::function<void()>& work);

    /// Starts one on the current stream, after whatever was run before, on any stream. `write_inputs` starts what fills
    /// the tensors that it reads, `read_outputs` what reads those that it wrote: the next run overwrites them.
    void run(std::size_t graph, const std::function<void()>& write_inputs, const std::function<void()>& read_outputs);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace dynvit
