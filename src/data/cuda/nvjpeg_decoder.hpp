// The GPU's JPEG decoder, shared by the loader's workers.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "dynvit/data/window_decoder.hpp"
#include "jpeg_batch.hpp"

namespace dynvit::cuda {

/// Workers put their pictures into a queue and sleep. One thread takes what waits there, hands it to the GPU as a
/// batch, and finishes the batch before while the GPU is at work on this one.
class NvjpegDecoder : public WindowDecoder {
  public:
    NvjpegDecoder(int width, int height, Filter filter);
    ~NvjpegDecoder() override;
    std::optional<Image> decode(std::span<const std::uint8_t> bytes, const Window& window, bool mirrored) override;

  private:
    void run();
    std::vector<CropRequest> take(bool wait);
    bool supports(std::span<const std::uint8_t> bytes);
    NvjpegStream take_header();

    int width_, height_;
    Filter filter_;
    c10::DeviceIndex device_;
    NvjpegHandle handle_;
    std::unique_ptr<JpegBatch> batches_[2];

    std::mutex mutex_;  // guards what follows
    std::condition_variable news_;
    std::deque<CropRequest> queue_;
    std::vector<NvjpegStream> idle_headers_;
    bool stop_ = false;

    std::thread thread_;
};

}  // namespace dynvit::cuda
