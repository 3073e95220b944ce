#include "jpeg_batch.hpp"

#include <ATen/ops/empty.h>
#include <c10/core/TensorOptions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "resize_windows.cuh"

namespace dynvit::cuda {
namespace {

static_assert(kPassFractionBits == kFractionBits);
static_assert(sizeof(Weights::Span) == sizeof(int2));

constexpr std::int64_t kAlignment = 256;  // bytes, of whatever begins within a buffer

std::int64_t aligned(std::int64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

template <class T>
std::int64_t aligned_bytes(const std::vector<T>& values) {
    return aligned(static_cast<std::int64_t>(values.size() * sizeof(T)));
}

/// Makes a buffer larger where it is too small, with room to spare; what it held is lost.
void make_room(at::Tensor& buffer, std::int64_t bytes, const at::TensorOptions& options) {
    if (buffer.defined() && buffer.numel() >= bytes) return;
    buffer = at::Tensor();
    buffer = at::empty({bytes + bytes / 2}, options);
}

at::TensorOptions on_gpu() {
    return at::TensorOptions(at::kByte).device(at::kCUDA);
}

at::TensorOptions pinned() {
    return at::TensorOptions(at::kByte).pinned_memory(true);
}

/// Puts values behind each other into a buffer of the processor that is copied to the GPU as a whole.
class Packer {
  public:
    Packer(std::uint8_t* here, const std::uint8_t* there) : here_(here), there_(there) {}

    /// Where the values will be on the GPU.
    template <class To, class T>
    const To* add(const std::vector<T>& values) {
        std::memcpy(here_ + used_, values.data(), values.size() * sizeof(T));
        const auto* place = reinterpret_cast<const To*>(there_ + used_);
        used_ += aligned_bytes(values);
        return place;
    }

  private:
    std::uint8_t* here_;
    const std::uint8_t* there_;
    std::int64_t used_ = 0;
};

std::int64_t picture_bytes(const PictureSize& size) {
    return aligned(std::int64_t{3} * size.width * size.height);
}

std::int64_t bytes_between(const CropRequest& request, int width, int height) {
    return aligned(std::int64_t{3} * (request.plan.rows_first ? std::int64_t{height} * request.window.width
                                                              : std::int64_t{request.window.height} * width));
}

cudaStream_t urgent_stream() {
    int least = 0, greatest = 0;
    cudaStream_t stream = nullptr;
    C10_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    C10_CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
    return stream;
}

/// One that a thread waits for asleep.
cudaEvent_t sleepy_event() {
    cudaEvent_t event = nullptr;
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventBlockingSync | cudaEventDisableTiming));
    return event;
}

}  // namespace

// A stream of its own: LibTorch's are shared, and one that another thread records must not get work from here.
JpegBatch::JpegBatch(nvjpegHandle_t handle, int width, int height)
    : handle_(handle),
      width_(width),
      height_(height),
      own_stream_(urgent_stream()),
      done_(sleepy_event()),
      stream_(c10::cuda::getStreamFromExternal(own_stream_.get(), c10::cuda::current_device())) {
    nvjpegJpegState_t state = nullptr;
    const nvjpegStatus_t status = nvjpegJpegStateCreate(handle_, &state);
    if (status != NVJPEG_STATUS_SUCCESS)
        throw Error("data", "data.gpu_decode: nvJPEG cannot begin (status ", status, ")");
    state_.reset(state);
}

void JpegBatch::start(std::vector<CropRequest> requests) {
    requests_ = std::move(requests);
    try {
        run();
    } catch (...) {
        fail(std::current_exception());
    }
}

void JpegBatch::run() {
    const c10::cuda::CUDAStreamGuard guard(stream_);  // memory that LibTorch gives is for this stream, too
    if (!decode()) {
        C10_CUDA_CHECK(cudaStreamSynchronize(stream_));  // what it may have begun
        for (CropRequest& request : requests_) request.result.set_value(std::nullopt);
        requests_.clear();
        return;
    }
    resize();
    C10_CUDA_CHECK(cudaEventRecord(done_.get(), stream_));
}

/// False where nvJPEG refuses the batch: one damaged picture is enough.
bool JpegBatch::decode() {
    std::int64_t bytes = 0;
    for (const CropRequest& request : requests_) bytes += picture_bytes(request.size);
    make_room(pictures_, bytes, on_gpu());

    std::vector<const unsigned char*> files;
    std::vector<std::size_t> lengths;
    std::vector<nvjpegImage_t> targets;
    decoded_.clear();
    std::uint8_t* target = pictures_.mutable_data_ptr<std::uint8_t>();
    for (const CropRequest& request : requests_) {
        files.push_back(request.bytes.data());
        lengths.push_back(request.bytes.size());
        nvjpegImage_t image{};
        image.channel[0] = target;
        image.pitch[0] = std::size_t{3} * request.size.width;
        targets.push_back(image);
        decoded_.push_back(target);
        target += picture_bytes(request.size);
    }
    const auto count = static_cast<int>(files.size());
    nvjpegStatus_t status = nvjpegDecodeBatchedInitialize(handle_, state_.get(), count, 1, NVJPEG_OUTPUT_RGBI);
    if (status == NVJPEG_STATUS_SUCCESS)
        status =
            nvjpegDecodeBatched(handle_, state_.get(), files.data(), lengths.data(), targets.data(), stream_.stream());
    if (status != NVJPEG_STATUS_SUCCESS && !std::exchange(warned_, true))
        log::warn(str("data.gpu_decode: nvJPEG refused a batch of ", count, " pictures (status ", status,
                      "); the processor decodes them, and any such batch after it"));
    return status == NVJPEG_STATUS_SUCCESS;
}

void JpegBatch::resize() {
    const auto count = static_cast<std::int64_t>(requests_.size());
    std::vector<ResizePass> first(requests_.size()), second(requests_.size());
    std::int64_t prepared = 2 * aligned_bytes(first), between = 0;
    for (const CropRequest& request : requests_) {
        for (const Weights* weights : {&request.plan.columns, &request.plan.rows})
            prepared += aligned_bytes(weights->spans) + aligned_bytes(weights->fixed);
        between += bytes_between(request, width_, height_);
    }
    make_room(prepared_, prepared, pinned());
    make_room(prepared_on_gpu_, prepared, on_gpu());
    make_room(between_, between, on_gpu());
    const std::int64_t crop_bytes = std::int64_t{3} * width_ * height_;
    make_room(crops_, count * crop_bytes, on_gpu());

    Packer packer(prepared_.mutable_data_ptr<std::uint8_t>(), prepared_on_gpu_.const_data_ptr<std::uint8_t>());
    std::uint8_t* middle = between_.mutable_data_ptr<std::uint8_t>();
    for (std::size_t i = 0; i < requests_.size(); ++i) {
        const auto& [bytes, size, window, plan, result] = requests_[i];
        const auto new_lines = [&](const Weights& weights, bool columns) {
            ResizePass pass{};
            pass.spans = packer.add<int2>(weights.spans);
            pass.weights = packer.add<int>(weights.fixed);
            pass.taps = weights.taps;
            pass.columns = columns;
            return pass;
        };
        ResizePass columns = new_lines(plan.columns, true), rows = new_lines(plan.rows, false);
        columns.out_width = rows.out_width = width_;
        columns.out_height = rows.out_height = height_;
        if (plan.rows_first)
            rows.out_width = window.width;
        else
            columns.out_height = window.height;
        first[i] = plan.rows_first ? rows : columns;
        second[i] = plan.rows_first ? columns : rows;
        first[i].in_stride = 3 * size.width;
        first[i].in = decoded_[i] + std::int64_t{3} * (std::int64_t{window.top} * size.width + window.left);
        second[i].in_stride = 3 * first[i].out_width;
        first[i].out = middle;
        second[i].in = middle;
        second[i].out = crops_.mutable_data_ptr<std::uint8_t>() + static_cast<std::int64_t>(i) * crop_bytes;
        middle += bytes_between(requests_[i], width_, height_);
    }
    const ResizePass *first_on_gpu = packer.add<ResizePass>(first), *second_on_gpu = packer.add<ResizePass>(second);
    C10_CUDA_CHECK(cudaMemcpyAsync(prepared_on_gpu_.mutable_data_ptr(), prepared_.const_data_ptr(),
                                   static_cast<std::size_t>(prepared), cudaMemcpyHostToDevice, stream_));
    C10_CUDA_CHECK(run_passes(first_on_gpu, static_cast<int>(count), stream_));
    C10_CUDA_CHECK(run_passes(second_on_gpu, static_cast<int>(count), stream_));
    // Fresh for each batch, as workers may still read the last one's.
    finished_ = at::empty({count, height_, width_, 3}, pinned());
    C10_CUDA_CHECK(cudaMemcpyAsync(finished_.mutable_data_ptr(), crops_.const_data_ptr(),
                                   static_cast<std::size_t>(count * crop_bytes), cudaMemcpyDeviceToHost, stream_));
}

void JpegBatch::finish() {
    if (requests_.empty()) return;
    try {
        C10_CUDA_CHECK(cudaEventSynchronize(done_.get()));
    } catch (...) {
        return fail(std::current_exception());
    }
    for (std::size_t i = 0; i < requests_.size(); ++i)
        requests_[i].result.set_value(Crop{finished_, static_cast<std::int64_t>(i)});
    requests_.clear();
    finished_ = at::Tensor();
}

void JpegBatch::fail(const std::exception_ptr& failure) {
    cudaStreamSynchronize(stream_);  // nothing may use the pictures any more; that it fails is known
    for (CropRequest& request : requests_) request.result.set_exception(failure);
    requests_.clear();
    finished_ = at::Tensor();
}

}  // namespace dynvit::cuda
