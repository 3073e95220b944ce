#include "dynvit/ops/device_graphs.hpp"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <vector>

namespace dynvit {

struct DeviceGraphs::Impl {
    at::Device device;
    at::cuda::MempoolId_t memory = at::cuda::graph_pool_handle();
    // All are recorded on one stream: what is freed on one stream serves that stream alone, so that recordings of
    // several would not work in the same memory. The default stream can't be recorded.
    c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index());
    std::vector<std::unique_ptr<at::cuda::CUDAGraph>> graphs{};
    at::cuda::CUDAEvent done{};  // when the last run's outputs have been read
};

bool DeviceGraphs::supported(const at::Device& device) {
    return device.is_cuda();
}

DeviceGraphs::DeviceGraphs(const at::Device& device) : impl_(new Impl{device}) {}
DeviceGraphs::~DeviceGraphs() {
    try {
        impl_->done.synchronize();  // their memory goes back with them
    } catch (const c10::Error&) {   // the process is ending, and CUDA with it
    }
}

std::size_t DeviceGraphs::record(const std::function<void()>& work) {
    const c10::cuda::CUDAGuard device(impl_->device);
    const c10::cuda::CUDAStream caller = c10::cuda::getCurrentCUDAStream();
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    c10::cuda::CUDACachingAllocator::emptyCache();  // a recording's memory is its own: it can't take what is kept there
    {
        at::cuda::CUDAEvent before{};
        before.record(caller);
        before.block(impl_->side);
        const c10::cuda::CUDAStreamGuard stream(impl_->side);
        graph->capture_begin(impl_->memory, cudaStreamCaptureModeThreadLocal);
        try {
            work();
        } catch (...) {
            try {
                graph->capture_end();
            } catch (const c10::Error&) {  // of a recording that has failed already
            }
            throw;
        }
        graph->capture_end();
    }
    impl_->graphs.push_back(std::move(graph));
    return impl_->graphs.size() - 1;
}

void DeviceGraphs::run(std::size_t graph, const std::function<void()>& write_inputs,
                       const std::function<void()>& read_outputs) {
    const c10::cuda::CUDAGuard device(impl_->device);
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    impl_->done.block(stream);
    write_inputs();
    impl_->graphs.at(graph)->replay();
    read_outputs();
    impl_->done.record(stream);
}

}  // namespace dynvit
