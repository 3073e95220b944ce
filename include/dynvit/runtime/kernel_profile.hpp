// Which kernels a call spends a GPU's time in.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace dynvit {

/// A kernel, or a copy, and all its runs.
struct KernelTime {
    std::string name;  // without template arguments and parameters
    std::int64_t runs = 0;
    double seconds = 0;
};

/// Runs the call under LibTorch's profiler. It must wait for the GPU before it returns.
/// @return the longest first; empty where the profiler sees no GPU
std::vector<KernelTime> profile_kernels(const std::function<void()>& call);

/// A table of the first `most` of them, with each one's share of all.
std::string table_of(const std::vector<KernelTime>& kernels, std::size_t most);

}  // namespace dynvit
