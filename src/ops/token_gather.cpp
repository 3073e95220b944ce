#include "dynvit/ops/token_gather.hpp"

#include <ATen/ATen.h>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/inference_kernels.hpp"
#endif

namespace dynvit {

at::Tensor gather_tokens(const at::Tensor& tokens, const at::Tensor& indices) {
    const std::int64_t batch = tokens.size(0), length = tokens.size(1), channels = tokens.size(2);
    const at::Tensor first = at::arange(batch, indices.options()).mul_(length).unsqueeze(1);  // (B, 1)
    return tokens.reshape({batch * length, channels})
        .index_select(0, (indices + first).flatten())
        .view({batch, indices.size(1), channels});
}

at::Tensor top_places(const at::Tensor& scores, std::int64_t count) {
    const at::Tensor order = at::argsort(scores, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
    return std::get<0>(order.narrow(1, 0, count).sort(-1));
}

KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count) {
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::keep_top_tokens_supports(x, scores)) return cuda::keep_top_tokens(x, scores, positions, count);
#endif
    const at::Tensor places = top_places(scores.detach(), count);
    return {at::cat({x.slice(1, 0, 1), gather_tokens(x.slice(1, 1), places)}, 1), positions.gather(1, places)};
}

}  // namespace dynvit
