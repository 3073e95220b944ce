#include "dynvit/ops/packed_merge.hpp"

#include <ATen/ATen.h>

#include <limits>
#include <vector>

#include "dynvit/ops/token_merge.hpp"

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/token_merge.hpp"
#endif

namespace dynvit {
namespace {

void check_tokens(const PackedTokens& from, const PackedTokens& kept, std::int64_t prefix) {
    const std::int64_t rows = from.layout.rows(), sequences = from.layout.sequences(),
                       patches = rows - prefix * sequences;
    TORCH_CHECK(from.x.size(0) == rows && from.positions.numel() == patches &&
                    (!from.sizes.defined() || from.sizes.numel() == rows),
                "found ", from.x.size(0), " tokens and ", from.positions.numel(), " positions, expected ", rows,
                " and ", patches);
    TORCH_CHECK(
        kept.layout.sequences() == sequences && kept.layout.rows() - prefix * sequences == kept.positions.numel(),
        "found ", kept.positions.numel(), " kept positions of ", kept.layout.sequences(), " sequences, expected ",
        kept.layout.rows() - prefix * sequences, " of ", sequences);
}

void check_merging(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric, std::int64_t prefix) {
    check_tokens(from, kept, prefix);
    TORCH_CHECK(metric.dim() == 2 && metric.size(0) == from.layout.rows(), "found a metric ", metric.sizes(),
                ", expected (", from.layout.rows(), ", d)");
}

void check_fusing(const PackedTokens& from, const PackedTokens& kept, std::int64_t prefix) {
    check_tokens(from, kept, prefix);
    TORCH_CHECK(
        kept.probabilities.defined() && kept.probabilities.numel() == from.positions.numel() && !from.sizes.defined(),
        "tokens that are fused have probabilities, and no sizes");
}

// One of the sequences.
struct Sequence {
    std::int64_t prefix = 0, row = 0;        // its first row
    std::int64_t patch = 0, kept_patch = 0;  // its first patch token before and after
    std::int64_t patches = 0, left = 0;      // patch tokens before and after

    // Its own of (T, ...), of (T - B prefix), and of what is kept of those, each as a batch of one.
    at::Tensor rows_of(const at::Tensor& all) const { return all.narrow(0, row, prefix + patches).unsqueeze(0); }
    at::Tensor patches_of(const at::Tensor& all) const { return all.narrow(0, patch, patches).unsqueeze(0); }
    at::Tensor kept_of(const at::Tensor& all) const { return all.narrow(0, kept_patch, left).unsqueeze(0); }
};

std::vector<Sequence> sequences_of(const PackedLayout& from, const PackedLayout& kept, std::int64_t prefix) {
    std::vector<Sequence> sequences;
    Sequence next{.prefix = prefix};
    for (std::size_t b = 0; b < from.lengths().size(); ++b) {
        next.patches = from.lengths()[b] - prefix;
        next.left = kept.lengths()[b] - prefix;
        sequences.push_back(next);
        next.row += prefix + next.patches;
        next.patch += next.patches;
        next.kept_patch += next.left;
    }
    return sequences;
}

// Where the kept tokens stand among the sequence's, (1, k).
at::Tensor places_of(const Sequence& own, const PackedTokens& from, const PackedTokens& kept) {
    return at::searchsorted(own.patches_of(from.positions).contiguous(), own.kept_of(kept.positions).contiguous());
}

// With a row more for each sequence that does not keep all of its tokens.
PackedLayout with_fused(const PackedLayout& from, const PackedLayout& kept) {
    std::vector<std::int64_t> lengths = kept.lengths();
    for (std::size_t b = 0; b < lengths.size(); ++b) lengths[b] += lengths[b] < from.lengths()[b] ? 1 : 0;
    return {std::move(lengths), kept.offsets().device()};
}

}  // namespace

PackedTokens merge_dropped_plain(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                                 double threshold, std::int64_t prefix) {
    check_merging(from, kept, metric, prefix);
    std::vector<at::Tensor> means, sizes;
    for (const Sequence& own : sequences_of(from.layout, kept.layout, prefix)) {
        const TokenGroups groups =
            join_nearest(places_of(own, from, kept), own.rows_of(metric).slice(1, prefix), threshold);
        const at::Tensor own_sizes = from.sizes.defined() ? own.rows_of(from.sizes) : from.sizes;
        const TokenBatch merged = average_groups({own.rows_of(from.x), own_sizes}, groups, prefix);
        means.push_back(merged.x.squeeze(0));
        sizes.push_back(merged.sizes.squeeze(0));
    }
    PackedTokens result = kept;
    result.x = means.empty() ? from.x : at::cat(means);
    result.sizes = sizes.empty() ? at::empty({0}, from.x.options().dtype(at::kFloat)) : at::cat(sizes);
    return result;
}

PackedTokens merge_dropped(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                           double threshold, std::int64_t prefix) {
#ifdef DYNVIT_CUDA_KERNELS
    check_merging(from, kept, metric, prefix);
    if (cuda::merge_dropped_supports(from, metric, prefix)) {
        return cuda::merge_dropped(from, kept, metric, threshold, prefix);
    }
#endif
    return merge_dropped_plain(from, kept, metric, threshold, prefix);
}

PackedTokens fuse_dropped_plain(const PackedTokens& from, const PackedTokens& kept, const FusedNames& names,
                                std::int64_t prefix) {
    check_fusing(from, kept, prefix);
    std::vector<at::Tensor> rows, positions;
    std::int64_t name = names.first;
    for (const Sequence& own : sequences_of(from.layout, kept.layout, prefix)) {
        TokenBatch left{.x = own.rows_of(from.x), .positions = own.patches_of(from.positions)};
        if (own.left < own.patches) {
            const at::Tensor probabilities = own.patches_of(kept.probabilities), sum = probabilities.sum();
            const at::Tensor shares = probabilities / sum.clamp_min(std::numeric_limits<float>::min());
            const FusedTokens fused = fuse_dropped(left, places_of(own, from, kept), shares, name, prefix);
            left = {.x = fused.x, .positions = fused.positions};
        }
        rows.push_back(left.x.squeeze(0));
        positions.push_back(left.positions.squeeze(0));
        name += names.step;
    }
    PackedTokens result = kept;
    result.layout = with_fused(from.layout, kept.layout);
    result.x = rows.empty() ? from.x : at::cat(rows);
    result.positions = positions.empty() ? from.positions : at::cat(positions);
    return result;
}

PackedTokens fuse_dropped(const PackedTokens& from, const PackedTokens& kept, const FusedNames& names,
                          std::int64_t prefix) {
#ifdef DYNVIT_CUDA_KERNELS
    check_fusing(from, kept, prefix);
    if (cuda::fuse_dropped_supports(from, prefix)) {
        return cuda::fuse_dropped(from, kept, with_fused(from.layout, kept.layout), names, prefix);
    }
#endif
    return fuse_dropped_plain(from, kept, names, prefix);
}

}  // namespace dynvit
