#include "dynvit/ops/token_gather.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/token_selection.hpp"
#endif

namespace dynvit {
namespace {

// A score and its place as one number; the higher it is, the earlier top_places takes the place: first NaN, as sorting
// does, then higher scores, and of equal ones the lower place.
std::uint64_t rank_of(float score, std::int64_t place) {
    constexpr std::uint32_t kSign = 1u << 31;
    std::uint32_t bits = std::bit_cast<std::uint32_t>(score + 0.0f);  // -0 becomes 0
    bits = bits & kSign ? ~bits : bits | kSign;
    if (std::isnan(score)) bits = ~std::uint32_t{0};
    return std::uint64_t{bits} << 32 | ~static_cast<std::uint32_t>(place);
}

// top_places of one row. @param places (count)
void write_top_places(const float* scores, std::int64_t tokens, std::int64_t count, std::int64_t* places) {
    if (count == 0) return;
    std::vector<std::uint64_t> ranks;
    ranks.reserve(static_cast<std::size_t>(tokens));
    for (std::int64_t i = 0; i < tokens; ++i) ranks.push_back(rank_of(scores[i], i));
    std::vector<std::uint64_t> highest = ranks;
    const auto last = highest.begin() + count - 1;
    std::nth_element(highest.begin(), last, highest.end(), std::greater<>());
    for (std::int64_t i = 0; i < tokens; ++i) {
        if (ranks[static_cast<std::size_t>(i)] >= *last) *places++ = i;
    }
}

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
    constexpr std::int64_t kImagesAtLeast = 16, kRowsAtLeast = 64;  // for a thread, or starting it takes longer
    at::parallel_for(0, batch, kImagesAtLeast, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
            std::int64_t* to = places.data() + b * count;
            write_top_places(near_scores.const_data_ptr<float>() + b * tokens, tokens, count, to);
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

}  // namespace

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
