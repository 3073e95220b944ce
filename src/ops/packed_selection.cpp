#include "dynvit/ops/packed_selection.hpp"

#include <ATen/ATen.h>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/token_selection.hpp"
#endif

namespace dynvit {

PackedTokens keep_above_plain(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                              std::int64_t prefix) {
    const at::Tensor offsets = from.layout.offsets().to(at::kLong);
    const at::Tensor always =  // the prefix tokens' rows
        (offsets.slice(0, 0, -1).unsqueeze(1) + at::arange(prefix, offsets.options())).flatten();
    const at::Tensor all = log_probability.exp();  // (T)
    const at::Tensor stays = (all > threshold).index_fill_(0, always, 1);
    const at::Tensor is_patch = at::ones_like(stays).index_fill_(0, always, 0);
    const at::Tensor stay_before = at::constant_pad_nd(stays.cumsum(0), {1, 0});  // (T + 1)
    const at::Tensor rows = stays.nonzero().squeeze(1);
    return {from.x.index_select(0, rows), PackedLayout::from_offsets(stay_before.index_select(0, offsets).to(at::kInt)),
            from.positions.masked_select(stays.masked_select(is_patch)), all.masked_select(is_patch),
            from.sizes.defined() ? from.sizes.index_select(0, rows) : at::Tensor()};
}

PackedTokens keep_above(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                        std::int64_t prefix) {
    const std::int64_t rows = from.layout.rows(), patches = rows - prefix * from.layout.sequences();
    TORCH_CHECK(from.x.size(0) == rows && log_probability.numel() == rows && from.positions.numel() == patches,
                "found ", from.x.size(0), " tokens, ", log_probability.numel(), " probabilities and ",
                from.positions.numel(), " positions, expected ", rows, ", ", rows, " and ", patches);
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::keep_above_supports(from, log_probability, prefix))
        return cuda::keep_above(from, log_probability, threshold, prefix);
#endif
    return keep_above_plain(from, log_probability, threshold, prefix);
}

}  // namespace dynvit
