#include "token_selection.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "compute_capability.hpp"
#include "kernel_operands.hpp"
#include "token_selection.cuh"

namespace dynvit::cuda {
namespace {

// Whether rows can be copied 16 bytes at a time, with no gradient to follow.
bool copies_rows_of(const at::Tensor& x) {
    return kernels_run_on(x.device()) && x.is_contiguous() && x.size(-1) * x.element_size() % kVectorBytes == 0 &&
           is_aligned(x) && x.size(0) > 0 && !(at::GradMode::is_enabled() && x.requires_grad());
}

}  // namespace

bool keep_top_tokens_supports(const at::Tensor& x, const at::Tensor& scores) {
    return copies_rows_of(x) && scores.size(1) <= kMaxSelectionTokens && scores.scalar_type() == at::kFloat;
}

KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(x.device());
    const at::Tensor near_scores = near_rows(scores), near_positions = near_rows(positions);
    KeptTokens kept{at::empty({x.size(0), prefix + count, x.size(2)}, x.options()),
                    at::empty({x.size(0), count}, positions.options())};
    const SelectionShape shape{.batch = static_cast<int>(x.size(0)),
                               .prefix = static_cast<int>(prefix),
                               .tokens = static_cast<int>(x.size(1) - prefix),
                               .count = static_cast<int>(count),
                               .vectors = vectors_of(x),
                               .score_stride = static_cast<int>(near_scores.stride(0)),
                               .position_stride = static_cast<int>(near_positions.stride(0))};
    C10_CUDA_CHECK(keep_top_tokens(shape, x.const_data_ptr(), near_scores.const_data_ptr<float>(),
                                   numbers(near_positions), kept.tokens.mutable_data_ptr(),
                                   mutable_numbers(kept.positions), c10::cuda::getCurrentCUDAStream()));
    return kept;
}

bool top_places_supports(const at::Tensor& scores) {
    return kernels_run_on(scores.device()) && scores.scalar_type() == at::kFloat && scores.dim() == 2 &&
           scores.numel() > 0 && scores.size(1) <= kMaxSelectionTokens;
}

at::Tensor top_places(const at::Tensor& scores, std::int64_t count) {
    const c10::cuda::CUDAGuard device(scores.device());
    const at::Tensor near_scores = near_rows(scores);
    at::Tensor places = at::empty({scores.size(0), count}, scores.options().dtype(at::kLong));
    const SelectionShape shape{.batch = static_cast<int>(scores.size(0)),
                               .prefix = 0,
                               .tokens = static_cast<int>(scores.size(1)),
                               .count = static_cast<int>(count),
                               .vectors = 0,
                               .score_stride = static_cast<int>(near_scores.stride(0)),
                               .position_stride = 0};
    C10_CUDA_CHECK(top_places(shape, near_scores.const_data_ptr<float>(), mutable_numbers(places),
                              c10::cuda::getCurrentCUDAStream()));
    return places;
}

bool keep_above_supports(const PackedTokens& from, const at::Tensor& log_probability, std::int64_t prefix) {
    return copies_rows_of(from.x) && from.layout.longest() - prefix <= kMaxSelectionTokens &&
           log_probability.scalar_type() == at::kFloat && log_probability.is_contiguous() &&
           from.positions.is_contiguous() && (!from.sizes.defined() || from.sizes.is_contiguous());
}

PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(from.x.device());
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    const std::int64_t sequences = from.layout.sequences(), patches = from.layout.rows() - prefix * sequences;
    const at::Tensor probabilities = at::empty({patches}, log_probability.options()),
                     offsets = at::empty({sequences + 1}, from.layout.offsets().options());
    PackedSelection selection{.sequences = static_cast<int>(sequences),
                              .prefix = static_cast<int>(prefix),
                              .longest = static_cast<int>(from.layout.longest() - prefix),
                              .vectors = vectors_of(from.x),
                              .threshold = static_cast<float>(threshold),
                              .offsets = from.layout.offsets().const_data_ptr<int>(),
                              .probability = probabilities.mutable_data_ptr<float>(),
                              .kept_offsets = offsets.mutable_data_ptr<int>(),
                              .sizes = nullptr,
                              .kept_sizes = nullptr};
    C10_CUDA_CHECK(count_above(selection, log_probability.const_data_ptr<float>(), stream));
    const PackedLayout layout = PackedLayout::from_offsets(offsets);
    PackedTokens kept{at::empty({layout.rows(), from.x.size(1)}, from.x.options()),
                      layout,
                      at::empty({layout.rows() - prefix * sequences}, from.positions.options()),
                      probabilities,
                      {}};
    if (from.sizes.defined()) {
        kept.sizes = at::empty({layout.rows()}, from.sizes.options());
        selection.sizes = from.sizes.const_data_ptr<float>();
        selection.kept_sizes = kept.sizes.mutable_data_ptr<float>();
    }
    C10_CUDA_CHECK(gather_above(selection, from.x.const_data_ptr(), numbers(from.positions), kept.x.mutable_data_ptr(),
                                mutable_numbers(kept.positions), stream));
    return kept;
}

}  // namespace dynvit::cuda
