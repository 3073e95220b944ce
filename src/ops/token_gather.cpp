#include "dynvit/ops/token_gather.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cstring>
#include <vector>

#include "cpu/top_places.hpp"
#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/token_selection.hpp"
#endif

namespace dynvit {
namespace {

constexpr std::int64_t kImagesAtLeast = 16;  // to rank by a thread, or starting it takes longer

bool selects_on_cpu(const at::Tensor& x, const at::Tensor& scores) {
    return x.is_cpu() && scores.scalar_type() == at::kFloat && !(at::GradMode::is_enabled() && x.requires_grad());
}

// By memory copies, as LibTorch's operators take longer to start than a few rows to copy.
KeptTokens select_on_cpu(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions, std::int64_t count,
                         std::int64_t prefix) {
    const std::int64_t batch = x.size(0), tokens = x.size(1) - prefix, kept_rows = prefix + count;
    const auto row_bytes = static_cast<std::size_t>(x.size(2)) * x.element_size();
    const at::Tensor near_x = x.contiguous(), near_scores = scores.contiguous(),
                     near_positions = positions.contiguous();
    KeptTokens kept{at::empty({batch, kept_rows, x.size(2)}, x.options()),
                    at::empty({batch, count}, positions.options())};
    std::vector<std::int64_t> places(static_cast<std::size_t>(batch * count));
    constexpr std::int64_t kRowsAtLeast = 64;  // for a thread, or starting it takes longer
    at::parallel_for(0, batch, kImagesAtLeast, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
            std::int64_t* to = places.data() + b * count;
            cpu::write_top_places(near_scores.const_data_ptr<float>() + b * tokens, tokens, count, to);
            const auto* names = near_positions.const_data_ptr<std::int64_t>() + b * tokens;
            auto* kept_names = kept.positions.mutable_data_ptr<std::int64_t>() + b * count;
            for (std::int64_t i = 0; i < count; ++i) kept_names[i] = names[to[i]];
        }
    });
    const auto* from = static_cast<const std::byte*>(near_x.const_data_ptr());
    auto* to = static_cast<std::byte*>(kept.tokens.mutable_data_ptr());
    at::parallel_for(0, batch * kept_rows, kRowsAtLeast, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t b = i / kept_rows, row = i % kept_rows;
            const std::int64_t within = row < prefix ? row : prefix + places[b * count + row - prefix];
            const std::int64_t source = b * (prefix + tokens) + within;
            std::memcpy(to + i * row_bytes, from + source * row_bytes, row_bytes);
        }
    });
    return kept;
}

at::Tensor top_places_on_cpu(const at::Tensor& scores, std::int64_t count) {
    const std::int64_t batch = scores.size(0), tokens = scores.size(1);
    const at::Tensor near_scores = scores.contiguous();
    at::Tensor places = at::empty({batch, count}, scores.options().dtype(at::kLong));
    const auto* from = near_scores.const_data_ptr<float>();
    auto* to = places.mutable_data_ptr<std::int64_t>();
    at::parallel_for(0, batch, kImagesAtLeast, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
            cpu::write_top_places(from + b * tokens, tokens, count, to + b * count);
        }
    });
    return places;
}

}  // namespace

at::Tensor gather_tokens(const at::Tensor& tokens, const at::Tensor& indices) {
    const std::int64_t batch = tokens.size(0), length = tokens.size(1), channels = tokens.size(2);
    const at::Tensor first = at::arange(batch, indices.options()).mul_(length).unsqueeze(1);  // (B, 1)
    return tokens.reshape({batch * length, channels})
        .index_select(0, (indices + first).flatten())
        .view({batch, indices.size(1), channels});
}

at::Tensor top_places(const at::Tensor& scores, std::int64_t count) {
    TORCH_CHECK(scores.dim() == 2 && count >= 0 && count <= scores.size(1), "found a count of ", count, " and scores ",
                scores.sizes(), ", expected (B, n) and at most n");
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::top_places_supports(scores)) return cuda::top_places(scores, count);
#endif
    if (scores.is_cpu() && scores.scalar_type() == at::kFloat) return top_places_on_cpu(scores, count);
    const at::Tensor order = at::argsort(scores, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
    return std::get<0>(order.narrow(1, 0, count).sort(-1));
}

KeptTokens keep_top_tokens(const at::Tensor& x, const at::Tensor& scores, const at::Tensor& positions,
                           std::int64_t count, std::int64_t prefix) {
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::keep_top_tokens_supports(x, scores)) return cuda::keep_top_tokens(x, scores, positions, count, prefix);
#endif
    if (selects_on_cpu(x, scores)) return select_on_cpu(x, scores, positions, count, prefix);
    const at::Tensor places = top_places(scores.detach(), count);
    return {at::cat({x.slice(1, 0, prefix), gather_tokens(x.slice(1, prefix), places)}, 1),
            positions.gather(1, places)};
}

}  // namespace dynvit
