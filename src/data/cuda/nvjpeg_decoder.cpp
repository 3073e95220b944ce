#include "nvjpeg_decoder.hpp"

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/io/jpeg_markers.hpp"

namespace dynvit::cuda {
namespace {

constexpr std::int64_t kMostPixels = std::int64_t{1} << 24;  // of a picture
constexpr std::int64_t kBatchPixels = 2 * kMostPixels;       // 100 MB; there are two batches
constexpr std::size_t kBatchPictures = 64;

std::int64_t pixels(const PictureSize& size) {
    return std::int64_t{size.width} * size.height;
}

bool is_inside(const Window& window, const PictureSize& size) {
    return window.left >= 0 && window.top >= 0 && window.width >= 1 && window.height >= 1 &&
           window.left <= size.width - window.width && window.top <= size.height - window.height;
}

NvjpegHandle open_decoder() {
    constexpr const char* kNeeded =
        "; needed are a GPU with a JPEG decoder of its own (A100, H100 ...) and its driver's libnvcuvid";
    if (c10::cuda::device_count() < 1) throw Error("data", "data.gpu_decode: no GPU was found", kNeeded);
    nvjpegHandle_t handle = nullptr;
    // Without NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION, which halves its speed: subsampled chroma is repeated, where
    // libjpeg interpolates.
    const nvjpegStatus_t status =
        nvjpegCreateEx(NVJPEG_BACKEND_HARDWARE, nullptr, nullptr, NVJPEG_FLAGS_DEFAULT, &handle);
    if (status != NVJPEG_STATUS_SUCCESS)
        throw Error("data", "data.gpu_decode: nvJPEG finds no JPEG decoder on the ",
                    at::cuda::getCurrentDeviceProperties()->name, " (status ", status, ")", kNeeded);
    return NvjpegHandle(handle);
}

NvjpegStream open_header(nvjpegHandle_t handle) {
    nvjpegJpegStream_t header = nullptr;
    const nvjpegStatus_t status = nvjpegJpegStreamCreate(handle, &header);
    if (status != NVJPEG_STATUS_SUCCESS)
        throw Error("data", "data.gpu_decode: nvJPEG cannot begin (status ", status, ")");
    return NvjpegStream(header);
}

}  // namespace

NvjpegDecoder::NvjpegDecoder(int width, int height, Filter filter)
    : width_(width), height_(height), filter_(filter), handle_(open_decoder()) {
    device_ = c10::cuda::current_device();
    for (auto& batch : batches_) batch = std::make_unique<JpegBatch>(handle_.get(), width, height);
    thread_ = std::thread([this] { run(); });
}

NvjpegDecoder::~NvjpegDecoder() {
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    news_.notify_one();
    thread_.join();
}

std::optional<Image> NvjpegDecoder::decode(std::span<const std::uint8_t> bytes, const Window& window, bool mirrored) {
    const std::optional<PictureSize> size = plain_jpeg_size(bytes);
    if (!size || pixels(*size) > kMostPixels || !is_inside(window, *size) || !supports(bytes)) return std::nullopt;
    CropRequest request{
        bytes, *size, window, resize_plan({window.width, window.height}, width_, height_, filter_, mirrored), {}};
    std::future<std::optional<Crop>> result = request.result.get_future();
    {
        const std::scoped_lock lock(mutex_);
        queue_.push_back(std::move(request));
    }
    news_.notify_one();
    const std::optional<Crop> crop = result.get();
    if (!crop) return std::nullopt;
    Image image(width_, height_);
    const std::size_t offset = static_cast<std::size_t>(crop->index) * image.pixels.size();
    std::memcpy(image.pixels.data(), crop->batch.const_data_ptr<std::uint8_t>() + offset, image.pixels.size());
    return image;
}

void NvjpegDecoder::run() {
    const c10::cuda::CUDAGuard device(device_);
    JpegBatch* running = nullptr;
    while (true) {
        std::vector<CropRequest> requests = take(/*wait=*/!running);
        if (requests.empty() && !running) return;
        JpegBatch* next = nullptr;
        if (!requests.empty()) {
            next = running == batches_[0].get() ? batches_[1].get() : batches_[0].get();
            next->start(std::move(requests));
        }
        if (running) running->finish();
        running = next;
    }
}

/// What is in the queue, up to a batch. @param wait for at least one; none then means the end
std::vector<CropRequest> NvjpegDecoder::take(bool wait) {
    std::vector<CropRequest> taken;
    std::int64_t sum = 0;
    std::unique_lock lock(mutex_);
    if (wait) news_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    while (!queue_.empty() && taken.size() < kBatchPictures) {
        sum += pixels(queue_.front().size);
        if (sum > kBatchPixels) break;
        taken.push_back(std::move(queue_.front()));
        queue_.pop_front();
    }
    return taken;
}

// In the workers' threads: nvJPEG looks through the whole file.
bool NvjpegDecoder::supports(std::span<const std::uint8_t> bytes) {
    NvjpegStream header = take_header();
    int unsupported = 1;
    const bool parsed =
        nvjpegJpegStreamParseHeader(handle_.get(), bytes.data(), bytes.size(), header.get()) == NVJPEG_STATUS_SUCCESS;
    const bool known =
        parsed && nvjpegDecodeBatchedSupported(handle_.get(), header.get(), &unsupported) == NVJPEG_STATUS_SUCCESS;
    const std::scoped_lock lock(mutex_);
    idle_headers_.push_back(std::move(header));
    return known && unsupported == 0;
}

NvjpegStream NvjpegDecoder::take_header() {
    {
        const std::scoped_lock lock(mutex_);
        if (!idle_headers_.empty()) {
            NvjpegStream header = std::move(idle_headers_.back());
            idle_headers_.pop_back();
            return header;
        }
    }
    return open_header(handle_.get());
}

}  // namespace dynvit::cuda
