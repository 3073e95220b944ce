// JPEGs that are decoded and resized at once on the GPU.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <nvjpeg.h>

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "../resize_passes.hpp"

namespace dynvit::cuda {

/// Lets a unique_ptr own what nvJPEG and CUDA hand out as a pointer.
template <auto kDestroy>
struct Destroy {
    template <class T>
    void operator()(T* object) const {
        kDestroy(object);
    }
};
using NvjpegHandle = std::unique_ptr<nvjpegHandle, Destroy<nvjpegDestroy>>;
using NvjpegState = std::unique_ptr<nvjpegJpegState, Destroy<nvjpegJpegStateDestroy>>;
using NvjpegStream = std::unique_ptr<nvjpegJpegStream, Destroy<nvjpegJpegStreamDestroy>>;

/// A finished picture among those of its batch.
struct Crop {
    at::Tensor batch;  // (B, H, W, 3) uint8 in pinned memory
    std::int64_t index = 0;
};

/// A picture that a worker waits for. `bytes` are the worker's, which it keeps until it has the result: a crop, or
/// nothing where nvJPEG refused the picture.
struct CropRequest {
    std::span<const std::uint8_t> bytes;
    PictureSize size;
    Window window;
    ResizePlan plan;
    std::promise<std::optional<Crop>> result;
};

/// One batch's place on the GPU, used again and again. Its stream goes before a training step's: little work, which
/// many threads wait for. start() and finish() must be called by one thread, in turn.
class JpegBatch {
  public:
    JpegBatch(nvjpegHandle_t handle, int width, int height);

    /// Hands the pictures to the GPU. Where nvJPEG refuses them, or CUDA fails, their workers learn it here already.
    void start(std::vector<CropRequest> requests);

    /// Waits for the GPU and wakes the workers.
    void finish();

  private:
    void run();
    bool decode();
    void resize();
    void fail(const std::exception_ptr& failure);

    nvjpegHandle_t handle_;
    int width_, height_;
    std::unique_ptr<CUstream_st, Destroy<cudaStreamDestroy>> own_stream_;
    std::unique_ptr<CUevent_st, Destroy<cudaEventDestroy>> done_;
    c10::cuda::CUDAStream stream_;
    NvjpegState state_;
    std::vector<CropRequest> requests_;
    at::Tensor pictures_;                       // decoded, on the GPU
    at::Tensor between_;                        // after the first pass, on the GPU
    at::Tensor crops_;                          // after the second, on the GPU
    at::Tensor finished_;                       // the same in pinned memory
    at::Tensor prepared_, prepared_on_gpu_;     // weights and passes
    std::vector<const std::uint8_t*> decoded_;  // each picture's place in pictures_
    bool warned_ = false;
};

}  // namespace dynvit::cuda
