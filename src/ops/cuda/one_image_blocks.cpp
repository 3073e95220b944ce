#include "dynvit/ops/one_image_blocks.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>

#include "compute_capability.hpp"
#include "one_image_blocks.cuh"
#include "tensor_element.hpp"

namespace dynvit {
namespace {

constexpr int kFirstByte = 0xff;  // of an exchange, before it is used

std::int64_t exchange_bytes(const at::Device& device, std::int64_t tokens) {
    const c10::cuda::CUDAGuard guard(device);
    return static_cast<std::int64_t>(cuda::one_image_exchange_bytes(static_cast<int>(tokens)));
}

// Keeps what it reads until the kernels that read it are on their way.
class Parameters {
  public:
    explicit Parameters(at::ScalarType type) : type_(type) {}

    const void* operator()(const at::Tensor& tensor, at::IntArrayRef sizes) {
        if (!tensor.defined()) return nullptr;
        TORCH_CHECK(tensor.sizes() == sizes, "expected a parameter of sizes ", sizes, ", got ", tensor.sizes());
        kept_.push_back(tensor.to(type_).contiguous());
        return kept_.back().const_data_ptr();
    }

  private:
    at::ScalarType type_;
    std::vector<at::Tensor> kept_;
};

cuda::BlockParameters parameters_of(const OneImageBlocks::Block& block, Parameters& parameter) {
    constexpr std::int64_t kC = cuda::kOneImageChannels, kH = cuda::kOneImageHidden;
    return {.norm1_weight = parameter(block.norm1_weight, {kC}),
            .norm1_bias = parameter(block.norm1_bias, {kC}),
            .qkv_weight = parameter(block.qkv_weight, {3 * kC, kC}),
            .qkv_bias = parameter(block.qkv_bias, {3 * kC}),
            .projection_weight = parameter(block.proj_weight, {kC, kC}),
            .projection_bias = parameter(block.proj_bias, {kC}),
            .norm2_weight = parameter(block.norm2_weight, {kC}),
            .norm2_bias = parameter(block.norm2_bias, {kC}),
            .fc1_weight = parameter(block.fc1_weight, {kH, kC}),
            .fc1_bias = parameter(block.fc1_bias, {kH}),
            .fc2_weight = parameter(block.fc2_weight, {kC, kH}),
            .fc2_bias = parameter(block.fc2_bias, {kC})};
}

}  // namespace

struct OneImageBlocks::Impl {
    at::ScalarType type;
    double norm_epsilon;
    at::Tensor packed;                               // (blocks, bytes), uint8
    std::map<std::int64_t, at::Tensor> exchanges{};  // for so many tokens: (bytes), uint8
};

bool OneImageBlocks::supports(const at::Device& device, at::ScalarType type, const Sizes& sizes, std::int64_t tokens) {
    constexpr std::int64_t kMostTokens = 512;  // of a GPU with as many multiprocessors as an H100
    return cuda::compute_capability(device) == 90 && cuda::is_half(type) &&
           sizes.embed_dim == cuda::kOneImageChannels && sizes.heads == cuda::kOneImageHeads &&
           sizes.hidden_dim == cuda::kOneImageHidden && tokens > 0 && tokens <= kMostTokens &&
           exchange_bytes(device, tokens) > 0;
}

OneImageBlocks::OneImageBlocks(const std::vector<Block>& blocks, at::ScalarType type, double norm_epsilon)
    : impl_(new Impl{type, norm_epsilon, {}}) {
    TORCH_CHECK(!blocks.empty() && cuda::is_half(type), "expected blocks of a half type");
    const at::Tensor& any = blocks.front().qkv_weight;
    const c10::cuda::CUDAGuard device(any.device());
    impl_->packed = at::empty({std::ssize(blocks), static_cast<std::int64_t>(cuda::packed_block_bytes())},
                              any.options().dtype(at::kByte));
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        Parameters parameter(type);
        C10_CUDA_CHECK(cuda::pack_block(cuda::element_of(type), parameters_of(blocks[i], parameter),
                                        impl_->packed[static_cast<std::int64_t>(i)].mutable_data_ptr(),
                                        c10::cuda::getCurrentCUDAStream()));
    }
}

OneImageBlocks::~OneImageBlocks() = default;

void OneImageBlocks::prepare(std::int64_t tokens) {
    at::Tensor& exchange = impl_->exchanges[tokens];
    if (exchange.defined()) return;
    TORCH_CHECK(c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::None, "runs of ", tokens,
                " tokens are recorded, but were not prepared");
    const std::int64_t bytes = exchange_bytes(impl_->packed.device(), tokens);
    TORCH_CHECK(bytes > 0, tokens, " tokens are too many for this GPU");
    exchange = at::full({bytes}, kFirstByte, impl_->packed.options());
}

at::Tensor OneImageBlocks::run(std::int64_t first, std::int64_t last, const at::Tensor& x) {
    TORCH_CHECK(x.dim() == 3 && x.size(0) == 1 && x.size(2) == cuda::kOneImageChannels &&
                    x.scalar_type() == impl_->type && x.device() == impl_->packed.device(),
                "expected one image's tokens as the blocks are, got ", x.sizes(), ' ', x.scalar_type());
    TORCH_CHECK(0 <= first && first < last && last <= impl_->packed.size(0), "there are no blocks ", first, " to ",
                last);
    const c10::cuda::CUDAGuard device(x.device());
    prepare(x.size(1));
    const at::Tensor dense = x.contiguous();
    at::Tensor out = at::empty_like(dense);
    C10_CUDA_CHECK(cuda::one_image_blocks({.element = cuda::element_of(impl_->type),
                                           .tokens = static_cast<int>(x.size(1)),
                                           .blocks = static_cast<int>(last - first),
                                           .epsilon = static_cast<float>(impl_->norm_epsilon),
                                           .packed = impl_->packed[first].const_data_ptr(),
                                           .x = dense.const_data_ptr(),
                                           .out = out.mutable_data_ptr(),
                                           .exchange = impl_->exchanges.at(x.size(1)).mutable_data_ptr()},
                                          c10::cuda::getCurrentCUDAStream()));
    return out;
}

}  // namespace dynvit
