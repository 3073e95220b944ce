#include "inference_kernels.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "compute_capability.hpp"
#include "dynvit/core/error.hpp"
#include "few_images_attention.cuh"
#include "matmul.hpp"
#include "patch_rows.cuh"
#include "prediction_head.cuh"
#include "scaled_rows.cuh"
#include "tensor_element.hpp"
#include "token_selection.cuh"

namespace dynvit::cuda {
namespace {

constexpr std::int64_t kVectorBytes = 16;

bool aligned(const at::Tensor& tensor) {
    return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % kVectorBytes == 0;
}

bool is_half_on_gpu(const at::Tensor& tensor) {
    return kernels_run_on(tensor.device()) && is_half(tensor.scalar_type());
}

// Whether rows can be copied 16 bytes at a time, with no gradient to follow.
bool copies_rows_of(const at::Tensor& x) {
    return kernels_run_on(x.device()) && x.is_contiguous() && x.size(-1) * x.element_size() % kVectorBytes == 0 &&
           aligned(x) && x.size(0) > 0 && !(at::GradMode::is_enabled() && x.requires_grad());
}

int vectors_of(const at::Tensor& x) {
    return static_cast<int>(x.size(-1) * x.element_size() / kVectorBytes);
}

static_assert(sizeof(long long) == sizeof(std::int64_t));
const long long* numbers(const at::Tensor& tensor) {
    return static_cast<const long long*>(tensor.const_data_ptr());
}
long long* mutable_numbers(const at::Tensor& tensor) {
    return static_cast<long long*>(tensor.mutable_data_ptr());
}

std::optional<Pixel> pixel_of(const at::Tensor& images) {
    switch (images.scalar_type()) {
        case at::kByte:
            return Pixel::kByte;
        case at::kFloat:
            return Pixel::kFloat;
        case at::kHalf:
            return Pixel::kHalf;
        case at::kBFloat16:
            return Pixel::kBFloat16;
        default:
            return std::nullopt;
    }
}

}  // namespace

std::string why_no_patch_rows(std::int64_t patch_size) {
    if (patch_size % kPatchStep == 0) return {};
    return str("found patches of ", patch_size, " pixels, ours take multiples of ", kPatchStep);
}

bool write_patch_rows(const at::Tensor& rows, const at::Tensor& images, std::int64_t patch_size,
                      const PixelScaling& scaling) {
    const std::optional<Pixel> pixel = pixel_of(images);
    if (!is_half_on_gpu(rows) || !rows.is_contiguous() || images.device() != rows.device() || !pixel ||
        patch_size % kPatchStep != 0 || images.numel() == 0) {
        return false;
    }
    const at::Tensor dense = images.contiguous();
    if (!aligned(dense) || !aligned(rows)) return false;
    PatchScaling channels;
    for (int c = 0; c < 3; ++c) {
        channels.scale[c] = scaling.scale[static_cast<std::size_t>(c)];
        channels.shift[c] = scaling.shift[static_cast<std::size_t>(c)];
    }
    const PatchShape shape{static_cast<int>(images.size(0)), static_cast<int>(images.size(2)),
                           static_cast<int>(images.size(3)), static_cast<int>(patch_size)};
    const c10::cuda::CUDAGuard device(rows.device());
    C10_CUDA_CHECK(patch_rows(*pixel, element_of(rows.scalar_type()), shape, channels, dense.const_data_ptr(),
                              rows.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
    return true;
}

std::string why_no_prediction_head(std::int64_t channels) {
    constexpr int kStep = std::lcm(kSharedStep, 4 * kDecidedStep);  // the last layer reads a quarter of the channels
    if (channels % kStep == 0) return {};
    return str("found ", channels, " channels, ours take multiples of ", kStep);
}

bool share_mean(const at::Tensor& h, const RowGroups& groups) {
    if (!is_half_on_gpu(h) || !h.is_contiguous() || h.size(-1) % kSharedStep != 0 || !aligned(h)) return false;
    if (h.numel() == 0) return true;
    PredictionShape shape{0, 0, static_cast<int>(groups.skipped), static_cast<int>(h.size(-1))};
    shape.sequences = static_cast<int>(groups.layout ? groups.layout->sequences() : h.size(0));
    shape.rows = static_cast<int>(groups.layout ? 0 : h.size(1));
    const int* offsets = groups.layout ? groups.layout->offsets().const_data_ptr<int>() : nullptr;
    const c10::cuda::CUDAGuard device(h.device());
    C10_CUDA_CHECK(share_mean(element_of(h.scalar_type()), shape, offsets, h.mutable_data_ptr(),
                              c10::cuda::getCurrentCUDAStream()));
    return true;
}

at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias) {
    if (!is_half_on_gpu(z) || !z.is_contiguous() || z.size(-1) % kDecidedStep != 0 ||
        weight.scalar_type() != z.scalar_type() || !weight.is_contiguous() || !aligned(z) || !aligned(weight)) {
        return {};
    }
    at::Tensor result = at::empty(z.sizes().slice(0, z.dim() - 1), z.options().dtype(at::kFloat));
    if (result.numel() == 0) return result;
    const c10::cuda::CUDAGuard device(z.device());
    C10_CUDA_CHECK(keep_log_probability(element_of(z.scalar_type()), static_cast<int>(result.numel()),
                                        static_cast<int>(z.size(-1)), z.const_data_ptr(), weight.const_data_ptr(),
                                        bias.const_data_ptr(), result.mutable_data_ptr<float>(),
                                        c10::cuda::getCurrentCUDAStream()));
    return result;
}

at::Tensor few_images_attention(const at::Tensor& qkv, std::int64_t heads) {
    constexpr std::int64_t kQueries = 128, kBlocks = 64;  // of flash_attention's block; that fill half of a GPU
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), channels = qkv.size(2) / 3,
                       head_dim = channels / heads;
    if (batch * heads * ((tokens + kQueries - 1) / kQueries) >= kBlocks || !is_half_on_gpu(qkv) ||
        !qkv.is_contiguous() || !aligned(qkv) || qkv.numel() == 0 ||
        !few_images_attention_fits(static_cast<int>(tokens), static_cast<int>(head_dim))) {
        return {};
    }
    const c10::cuda::CUDAGuard device(qkv.device());
    at::Tensor out = at::empty({batch, tokens, channels}, qkv.options());
    C10_CUDA_CHECK(few_images_attention({.element = element_of(qkv.scalar_type()),
                                         .batch = static_cast<int>(batch),
                                         .heads = static_cast<int>(heads),
                                         .tokens = static_cast<int>(tokens),
                                         .head_dim = static_cast<int>(head_dim),
                                         .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                                         .qkv = qkv.const_data_ptr(),
                                         .out = out.mutable_data_ptr()},
                                        c10::cuda::getCurrentCUDAStream()));
    return out;
}

ScaledRows quantize_rows(const at::Tensor& x, bool gelu) {
    const std::int64_t channels = x.size(-1);
    if (!multiplies_float8(x.device()) || x.scalar_type() != at::kBFloat16 || x.numel() == 0 ||
        channels % kScaledChannelStep != 0 || channels > kMaxScaledChannels ||
        x.numel() / channels > std::numeric_limits<int>::max() / 2) {
        return {};
    }
    const at::Tensor dense = x.contiguous();
    if (!aligned(dense)) return {};
    const c10::cuda::CUDAGuard device(x.device());
    ScaledRows rows{at::empty(x.sizes(), dense.options().dtype(at::kFloat8_e4m3fn)),
                    at::empty({x.numel() / channels}, dense.options().dtype(at::kFloat))};
    C10_CUDA_CHECK(quantize_rows({.rows = static_cast<int>(rows.scales.numel()),
                                  .channels = static_cast<int>(channels),
                                  .gelu = gelu,
                                  .x = dense.const_data_ptr(),
                                  .values = rows.values.mutable_data_ptr(),
                                  .scales = rows.scales.mutable_data_ptr<float>()},
                                 c10::cuda::getCurrentCUDAStream()));
    return rows;
}

bool keep_top_tokens_supports(const at::Tensor& x, const at::Tensor& scores) {
    return copies_rows_of(x) && scores.size(1) <= kMaxSelectionTokens && scores.scalar_type() == at::kFloat;
}

KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(x.device());
    const at::Tensor near_scores = scores.stride(-1) == 1 ? scores : scores.contiguous();
    const at::Tensor dense_positions = positions.contiguous();
    KeptTokens kept{at::empty({x.size(0), prefix + count, x.size(2)}, x.options()),
                    at::empty({x.size(0), count}, positions.options())};
    const SelectionShape shape{.batch = static_cast<int>(x.size(0)),
                               .prefix = static_cast<int>(prefix),
                               .tokens = static_cast<int>(x.size(1) - prefix),
                               .count = static_cast<int>(count),
                               .vectors = vectors_of(x),
                               .score_stride = static_cast<int>(near_scores.stride(0))};
    C10_CUDA_CHECK(keep_top_tokens(shape, x.const_data_ptr(), near_scores.const_data_ptr<float>(),
                                   numbers(dense_positions), kept.tokens.mutable_data_ptr(),
                                   mutable_numbers(kept.positions), c10::cuda::getCurrentCUDAStream()));
    return kept;
}

bool keep_above_supports(const PackedTokens& from, const at::Tensor& log_probability, std::int64_t prefix) {
    return copies_rows_of(from.x) && from.layout.longest() - prefix <= kMaxSelectionTokens &&
           log_probability.scalar_type() == at::kFloat && log_probability.is_contiguous() &&
           from.positions.is_contiguous();
}

PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(from.x.device());
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    const std::int64_t sequences = from.layout.sequences(), patches = from.layout.rows() - prefix * sequences;
    const at::Tensor probabilities = at::empty({patches}, log_probability.options()),
                     offsets = at::empty({sequences + 1}, from.layout.offsets().options());
    const PackedSelection selection{.sequences = static_cast<int>(sequences),
                                    .prefix = static_cast<int>(prefix),
                                    .longest = static_cast<int>(from.layout.longest() - prefix),
                                    .vectors = vectors_of(from.x),
                                    .threshold = static_cast<float>(threshold),
                                    .offsets = from.layout.offsets().const_data_ptr<int>(),
                                    .probability = probabilities.mutable_data_ptr<float>(),
                                    .kept_offsets = offsets.mutable_data_ptr<int>()};
    C10_CUDA_CHECK(count_above(selection, log_probability.const_data_ptr<float>(), stream));
    const PackedLayout layout = PackedLayout::from_offsets(offsets);
    PackedTokens kept{at::empty({layout.rows(), from.x.size(1)}, from.x.options()), layout,
                      at::empty({layout.rows() - prefix * sequences}, from.positions.options()), probabilities};
    C10_CUDA_CHECK(gather_above(selection, from.x.const_data_ptr(), numbers(from.positions), kept.x.mutable_data_ptr(),
                                mutable_numbers(kept.positions), stream));
    return kept;
}

}  // namespace dynvit::cuda
