#include "dynvit/ops/packed_merge.hpp"

#include <ATen/ATen.h>

#include <vector>

#include "dynvit/ops/token_merge.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/token_merge.hpp"
#endif

namespace dynvit {
namespace {

void check_tokens(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric, std::int64_t prefix) {
    const std::int64_t rows = from.layout.rows(), sequences = from.layout.sequences(),
                       patches = rows - prefix * sequences;
    TORCH_CHECK(from.x.size(0) == rows && metric.dim() == 2 && metric.size(0) == rows &&
                    from.positions.numel() == patches && (!from.sizes.defined() || from.sizes.numel() == rows),
                "found ", from.x.size(0), " tokens, a metric ", metric.sizes(), " and ", from.positions.numel(),
                " positions, expected ", rows, ", (", rows, ", d) and ", patches);
    TORCH_CHECK(
        kept.layout.sequences() == sequences && kept.layout.rows() - prefix * sequences == kept.positions.numel(),
        "found ", kept.positions.numel(), " kept positions of ", kept.layout.sequences(), " sequences, expected ",
        kept.layout.rows() - prefix * sequences, " of ", sequences);
}

}  // namespace

PackedTokens merge_dropped_plain(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                                 double threshold, std::int64_t prefix) {
    check_tokens(from, kept, metric, prefix);
    std::vector<at::Tensor> means, sizes;
    std::int64_t row = 0, patch = 0, kept_patch = 0;
    for (std::size_t b = 0; b < from.layout.lengths().size(); ++b) {
        const std::int64_t patches = from.layout.lengths()[b] - prefix, left = kept.layout.lengths()[b] - prefix;
        const at::Tensor places = at::searchsorted(from.positions.narrow(0, patch, patches),
                                                   kept.positions.narrow(0, kept_patch, left).contiguous());
        const TokenGroups groups =
            join_nearest(places.unsqueeze(0), metric.narrow(0, row + prefix, patches).unsqueeze(0), threshold);
        const auto own = [&](const at::Tensor& rows) {
            return rows.defined() ? rows.narrow(0, row, prefix + patches).unsqueeze(0) : rows;
        };
        const TokenBatch merged = average_groups({own(from.x), own(from.sizes)}, groups, prefix);
        means.push_back(merged.x.squeeze(0));
        sizes.push_back(merged.sizes.squeeze(0));
        row += prefix + patches;
        patch += patches;
        kept_patch += left;
    }
    PackedTokens result = kept;
    result.x = means.empty() ? from.x : at::cat(means);
    result.sizes = sizes.empty() ? at::empty({0}, from.x.options().dtype(at::kFloat)) : at::cat(sizes);
    return result;
}

PackedTokens merge_dropped(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                           double threshold, std::int64_t prefix) {
#ifdef DYNVIT_CUDA_KERNELS
    check_tokens(from, kept, metric, prefix);
    if (cuda::merge_dropped_supports(from, metric, prefix)) {
        return cuda::merge_dropped(from, kept, metric, threshold, prefix);
    }
#endif
    return merge_dropped_plain(from, kept, metric, threshold, prefix);
}

}  // namespace dynvit
