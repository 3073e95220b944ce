#include "dynvit/ops/one_image_blocks.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <numeric>

#include "compute_capability.hpp"
#include "element_type_of_tensor.hpp"
#include "one_image_blocks.cuh"

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

cuda::PredictorParameters parameters_of(const OneImageBlocks::Predictor& predictor, Parameters& parameter) {
    constexpr std::int64_t kC = cuda::kOneImageChannels;
    const auto& [first, second, third, last] = predictor.layers;
    return {.norm_weight = parameter(predictor.norm_weight, {kC}),
            .norm_bias = parameter(predictor.norm_bias, {kC}),
            .first_weight = parameter(first.weight, {kC, kC}),
            .first_bias = parameter(first.bias, {kC}),
            .second_weight = parameter(second.weight, {kC / 2, kC}),
            .second_bias = parameter(second.bias, {kC / 2}),
            .third_weight = parameter(third.weight, {kC / 4, kC / 2}),
            .third_bias = parameter(third.bias, {kC / 4}),
            .last_weight = parameter(last.weight, {2, kC / 4}),
            .last_bias = parameter(last.bias, {2})};
}

}  // namespace

struct OneImageBlocks::Impl {
    at::ScalarType type;
    Epsilons epsilons;
    std::int64_t prefix;
    at::Tensor packed;                               // (blocks, bytes), uint8
    at::Tensor packed_predictors;                    // (stages, bytes), uint8
    std::vector<int> stages;                         // the blocks that they stand before
    std::map<std::int64_t, at::Tensor> exchanges{};  // for so many tokens: (bytes), uint8
};

static_assert(OneImageBlocks::kMostStages == cuda::kMostStages);

bool OneImageBlocks::supports(const at::Device& device, at::ScalarType type, const Sizes& sizes, std::int64_t tokens) {
    return cuda::compute_capability(device) == 90 && cuda::is_half(type) &&
           sizes.embed_dim == cuda::kOneImageChannels && sizes.heads == cuda::kOneImageHeads &&
           sizes.hidden_dim == cuda::kOneImageHidden && tokens > 0 && exchange_bytes(device, tokens) > 0;
}

OneImageBlocks::OneImageBlocks(const std::vector<Block>& blocks, const std::vector<Predictor>& predictors,
                               at::ScalarType type, const Epsilons& epsilons, std::int64_t prefix)
    : impl_(new Impl{type, epsilons, prefix, {}, {}, {}}) {
    TORCH_CHECK(!blocks.empty() && cuda::is_half(type), "expected blocks of a half type");
    TORCH_CHECK(prefix > 0, "expected a token before the patches, got ", prefix);
    TORCH_CHECK(predictors.size() <= kMostStages, "expected at most ", kMostStages, " prediction modules, got ",
                predictors.size());
    const at::Tensor& any = blocks.front().qkv_weight;
    const c10::cuda::CUDAGuard device(any.device());
    impl_->packed = at::empty({std::ssize(blocks), static_cast<std::int64_t>(cuda::packed_block_bytes())},
                              any.options().dtype(at::kByte));
    impl_->packed_predictors = at::empty(
        {std::ssize(predictors), static_cast<std::int64_t>(cuda::packed_predictor_bytes())}, impl_->packed.options());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        Parameters parameter(type);
        C10_CUDA_CHECK(cuda::pack_block(cuda::element_of(type), parameters_of(blocks[i], parameter),
                                        impl_->packed[static_cast<std::int64_t>(i)].mutable_data_ptr(),
                                        c10::cuda::getCurrentCUDAStream()));
    }
    for (std::size_t i = 0; i < predictors.size(); ++i) {
        const std::int64_t block = predictors[i].block;
        TORCH_CHECK(block >= 0 && block < std::ssize(blocks) && (i == 0 || block > impl_->stages.back()),
                    "expected prediction modules before blocks of the model, in their order");
        impl_->stages.push_back(static_cast<int>(block));
        Parameters parameter(type);
        C10_CUDA_CHECK(cuda::pack_predictor(cuda::element_of(type), parameters_of(predictors[i], parameter),
                                            impl_->packed_predictors[static_cast<std::int64_t>(i)].mutable_data_ptr(),
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

OneImageBlocks::Output OneImageBlocks::run(const at::Tensor& x, const std::vector<std::int64_t>& tokens) {
    TORCH_CHECK(x.dim() == 3 && x.size(0) == 1 && x.size(2) == cuda::kOneImageChannels &&
                    x.scalar_type() == impl_->type && x.device() == impl_->packed.device(),
                "expected one image's tokens as the blocks are, got ", x.sizes(), ' ', x.scalar_type());
    TORCH_CHECK(tokens.empty() || tokens.size() == impl_->stages.size(), "expected a count for each of ",
                impl_->stages.size(), " stages, got ", tokens.size());
    const c10::cuda::CUDAGuard device(x.device());
    prepare(x.size(1));
    const at::Tensor dense = x.contiguous();
    const std::int64_t all_kept = std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0});
    const at::Tensor kept = at::empty({1, all_kept}, x.options().dtype(at::kLong));
    Output output{at::empty_like(dense), kept.split_with_sizes(tokens, 1)};
    cuda::OneImageBlocksRun run{.element = cuda::element_of(impl_->type),
                                .tokens = static_cast<int>(x.size(1)),
                                .prefix = static_cast<int>(impl_->prefix),
                                .blocks = static_cast<int>(impl_->packed.size(0)),
                                .stages = static_cast<int>(tokens.size()),
                                .epsilon = static_cast<float>(impl_->epsilons.norm),
                                .predictor_epsilon = static_cast<float>(impl_->epsilons.predictor_norm),
                                .packed = impl_->packed.const_data_ptr(),
                                .x = dense.const_data_ptr(),
                                .out = output.x.mutable_data_ptr(),
                                .stage = {},
                                .exchange = impl_->exchanges.at(x.size(1)).mutable_data_ptr()};
    std::int64_t left = x.size(1) - impl_->prefix;
    for (std::size_t s = 0; s < tokens.size(); ++s) {
        TORCH_CHECK(0 <= tokens[s] && tokens[s] <= left, "expected at most ", left, " tokens, got ", tokens[s]);
        left = tokens[s];
        run.stage[s] = {.block = impl_->stages[s],
                        .kept = static_cast<int>(left),
                        .packed = impl_->packed_predictors[static_cast<std::int64_t>(s)].const_data_ptr(),
                        .kept_positions = reinterpret_cast<long long*>(output.kept[s].mutable_data_ptr())};
    }
    C10_CUDA_CHECK(cuda::one_image_blocks(run, c10::cuda::getCurrentCUDAStream()));
    return output;
}

}  // namespace dynvit
