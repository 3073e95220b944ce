// GPU work that is recorded once and then started as a whole.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace dynvit {

/// Recorded pieces of GPU work (CUDA graphs) that take turns to work in the same memory. Starting a recording costs one
/// call, however many kernels it has. The object must not be used by several threads at once.
class DeviceGraphs {
  public:
    /// @return whether this build can record on this device: it is a GPU, and the build has CUDA kernels
    static bool supported(const at::Device& device);

    /// @param device one that is supported(). In a build without CUDA kernels this throws c10::Error
    explicit DeviceGraphs(const at::Device& device);
    /// Waits until the last run has ended.
    ~DeviceGraphs();
    DeviceGraphs(const DeviceGraphs&) = delete;
    DeviceGraphs& operator=(const DeviceGraphs&) = delete;

    /// Records the GPU work that `work` starts, without running it.
    /// @param work must not wait for the GPU, else LibTorch's error is passed on and nothing is recorded; it must have
    /// run once before, so that what a first run sets up exists. The recording reads and writes the memory of the
    /// tensors that `work` used: the caller keeps them as long as the recording is run
    /// @return the recording's number, for run()
    std::size_t record(const std::function<void()>& work);

    /// Starts a recording on the current stream, after whatever was run before, on any stream.
    /// @param graph a number that record() returned; any other throws std::out_of_range
    /// @param write_inputs is called before, to start the work that fills the tensors which the recording reads
    /// @param read_outputs is called after, to start the work that reads what it wrote: the next run overwrites that
    void run(std::size_t graph, const std::function<void()>& write_inputs, const std::function<void()>& read_outputs);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace dynvit
