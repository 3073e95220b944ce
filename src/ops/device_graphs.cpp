// Builds without CUDA kernels record nothing; the others have cuda/device_graphs.cpp.
#ifndef DYNVIT_CUDA_KERNELS
#include "dynvit/ops/device_graphs.hpp"

#include <c10/util/Exception.h>

namespace dynvit {

struct DeviceGraphs::Impl {};

bool DeviceGraphs::supported(const at::Device&) {
    return false;
}

DeviceGraphs::DeviceGraphs(const at::Device& device) {
    TORCH_CHECK(false, "this build records no graphs, asked for on ", device);
}
DeviceGraphs::~DeviceGraphs() = default;
std::size_t DeviceGraphs::record(const std::function<void()>&) {
    return 0;
}
void DeviceGraphs::run(std::size_t, const std::function<void()>&, const std::function<void()>&) {}

}  // namespace dynvit
#endif
