#include "token_merge.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "compute_capability.hpp"
#include "kernel_operands.hpp"
#include "token_merge.cuh"

namespace dynvit::cuda {
namespace {

constexpr std::int64_t kMaxTokens = 4096;  // of an image: what is known of each of them lies in shared memory

bool is_number(at::ScalarType type) {
    return type == at::kFloat || is_half(type);
}

bool compares_rows(const at::Tensor& metric) {
    const std::int64_t depth = metric.size(-1);
    return kernels_run_on(metric.device()) && is_number(metric.scalar_type()) && metric.numel() > 0 &&
           depth % kMetricDepthStep == 0 && depth <= kMaxMetricDepth;
}

bool averages_rows(const at::Tensor& x) {
    return kernels_run_on(x.device()) && is_number(x.scalar_type()) && x.is_contiguous() && is_aligned(x) &&
           x.numel() > 0 && x.size(-1) * x.element_size() % kVectorBytes == 0;
}

// The metric, or a copy of it, with rows that each begin at a multiple of 16 bytes.
at::Tensor aligned_rows(const at::Tensor& metric) {
    bool aligned = metric.stride(-1) == 1 && is_aligned(metric);
    for (const std::int64_t stride : metric.strides().slice(0, metric.dim() - 1)) {
        aligned = aligned && stride * metric.element_size() % kVectorBytes == 0;
    }
    return aligned ? metric : metric.clone(at::MemoryFormat::Contiguous);
}

// @param rows as aligned_rows() returns it, (B, n, d) or (T, d)
Metric metric_of(const at::Tensor& rows) {
    return {.rows = rows.const_data_ptr(),
            .element = element_of(rows.scalar_type()),
            .image_stride = rows.dim() == 3 ? rows.stride(0) : 0,
            .row_stride = rows.stride(-2),
            .depth = static_cast<int>(rows.size(-1))};
}

ImageTokens batch_of(std::int64_t images, std::int64_t prefix, std::int64_t tokens, std::int64_t kept) {
    return {.images = static_cast<int>(images),
            .prefix = static_cast<int>(prefix),
            .tokens = static_cast<int>(tokens),
            .kept = static_cast<int>(kept),
            .dropped = static_cast<int>(tokens - kept)};
}

ImageTokens sequences_of(const PackedLayout& from, const PackedLayout& kept, std::int64_t prefix) {
    std::int64_t dropped = 0;
    for (std::size_t b = 0; b < from.lengths().size(); ++b) {
        dropped = std::max(dropped, from.lengths()[b] - kept.lengths()[b]);
    }
    return {.images = static_cast<int>(from.sequences()),
            .prefix = static_cast<int>(prefix),
            .tokens = static_cast<int>(from.longest() - prefix),
            .kept = static_cast<int>(kept.longest() - prefix),
            .dropped = static_cast<int>(dropped),
            .offsets = from.offsets().const_data_ptr<int>(),
            .kept_offsets = kept.offsets().const_data_ptr<int>()};
}

GroupRows rows_of(const at::Tensor& x, const at::Tensor& sizes, const at::Tensor& slots, const at::Tensor& means,
                  const at::Tensor& mean_sizes) {
    return {.element = element_of(x.scalar_type()),
            .vectors = vectors_of(x),
            .x = x.const_data_ptr(),
            .sizes = sizes.defined() ? sizes.const_data_ptr<float>() : nullptr,
            .slots = numbers(slots),
            .means = means.mutable_data_ptr(),
            .mean_sizes = mean_sizes.mutable_data_ptr<float>()};
}

}  // namespace

bool compares(const at::Tensor& metric) {
    return metric.size(1) <= kMaxTokens && compares_rows(metric);
}

TokenGroups join_nearest(const at::Tensor& places, const at::Tensor& metric, double threshold) {
    const c10::cuda::CUDAGuard device(metric.device());
    const at::Tensor rows = aligned_rows(metric), near_places = places.contiguous();
    const std::int64_t batch = metric.size(0), tokens = metric.size(1);
    at::Tensor slots = at::empty({batch, tokens}, places.options());
    C10_CUDA_CHECK(join_nearest(batch_of(batch, 0, tokens, places.size(1)), metric_of(rows), numbers(near_places),
                                static_cast<float>(threshold), mutable_numbers(slots),
                                c10::cuda::getCurrentCUDAStream()));
    return {places, slots};
}

TokenGroups match_bipartite(const at::Tensor& metric, std::int64_t count, std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(metric.device());
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    const at::Tensor rows = aligned_rows(metric);
    const std::int64_t batch = metric.size(0), tokens = metric.size(1), first = first_even(prefix),
                       even = count_even(tokens, prefix);
    const auto numbered = metric.options().dtype(at::kLong);
    TokenGroups groups{at::empty({batch, count}, numbered), at::empty({batch, tokens}, numbered)};
    const at::Tensor cosines = at::empty({batch, even}, metric.options().dtype(at::kFloat)),
                     ends = at::empty({batch, even}, metric.options().dtype(at::kInt));
    const Matching matching{.images = static_cast<int>(batch),
                            .tokens = static_cast<int>(tokens),
                            .count = static_cast<int>(count),
                            .even = static_cast<int>(even),
                            .first = static_cast<int>(first),
                            .sorted = prefix > 0,
                            .cosines = cosines.mutable_data_ptr<float>(),
                            .ends = ends.mutable_data_ptr<int>()};
    C10_CUDA_CHECK(draw_edges(matching, metric_of(rows), stream));
    C10_CUDA_CHECK(join_along_edges(matching, mutable_numbers(groups.places), mutable_numbers(groups.slots), stream));
    return groups;
}

bool average_groups_supports(const at::Tensor& x, std::int64_t prefix) {
    return x.size(1) - prefix <= kMaxTokens && averages_rows(x);
}

TokenBatch average_groups(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix) {
    const auto& [x, sizes, positions] = from;
    const c10::cuda::CUDAGuard device(x.device());
    const std::int64_t batch = x.size(0), count = groups.places.size(1);
    const at::Tensor slots = groups.slots.contiguous(), places = groups.places.contiguous(),
                     near_sizes = sizes.defined() ? sizes.to(at::kFloat).contiguous() : sizes,
                     near_positions = positions.defined() ? near_rows(positions) : positions;
    TokenBatch merged{at::empty({batch, prefix + count, x.size(2)}, x.options()),
                      at::empty({batch, prefix + count}, x.options().dtype(at::kFloat))};
    TokenNames names;
    if (positions.defined()) {
        merged.positions = at::empty({batch, count}, positions.options());
        names = {.names = numbers(near_positions),
                 .image_stride = near_positions.stride(0),
                 .places = numbers(places),
                 .kept_names = mutable_numbers(merged.positions)};
    }
    C10_CUDA_CHECK(average_groups(batch_of(batch, prefix, x.size(1) - prefix, count),
                                  rows_of(x, near_sizes, slots, merged.x, merged.sizes), names,
                                  c10::cuda::getCurrentCUDAStream()));
    return merged;
}

FusedTokens fuse_dropped(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights, std::int64_t name,
                         std::int64_t prefix) {
    const at::Tensor& x = from.x;
    const c10::cuda::CUDAGuard device(x.device());
    const std::int64_t batch = x.size(0), tokens = x.size(1) - prefix, count = places.size(1);
    const at::Tensor near_places = places.contiguous(), near_weights = weights.to(at::kFloat).contiguous(),
                     near_positions = near_rows(from.positions);
    FusedTokens fused{at::empty({batch, prefix + count + 1, x.size(2)}, x.options()),
                      at::empty({batch, count + 1}, from.positions.options()),
                      at::empty({batch, tokens}, places.options())};
    const FusedRows rows{.element = element_of(x.scalar_type()),
                         .vectors = vectors_of(x),
                         .x = x.const_data_ptr(),
                         .weights = near_weights.const_data_ptr<float>(),
                         .are_shares = true,
                         .fused = fused.x.mutable_data_ptr(),
                         .offsets = nullptr,
                         .slots = mutable_numbers(fused.slots)};
    const TokenNames names{.names = numbers(near_positions),
                           .image_stride = near_positions.stride(0),
                           .places = numbers(near_places),
                           .kept_names = mutable_numbers(fused.positions)};
    C10_CUDA_CHECK(fuse_dropped(batch_of(batch, prefix, tokens, count), rows, names, name, /*name_step=*/0,
                                c10::cuda::getCurrentCUDAStream()));
    return fused;
}

bool fuse_dropped_supports(const PackedTokens& from, std::int64_t prefix) {
    return from.layout.longest() - prefix <= kMaxTokens && averages_rows(from.x) && from.positions.is_contiguous() &&
           !(at::GradMode::is_enabled() && from.x.requires_grad());
}

bool merge_dropped_supports(const PackedTokens& from, const at::Tensor& metric, std::int64_t prefix) {
    return fuse_dropped_supports(from, prefix) && compares_rows(metric);
}

PackedTokens merge_dropped(const PackedTokens& from, const PackedTokens& kept, const at::Tensor& metric,
                           double threshold, std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(from.x.device());
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    const at::Tensor rows = aligned_rows(metric), names = kept.positions.contiguous(),
                     near_sizes = from.sizes.defined() ? from.sizes.contiguous() : from.sizes;
    const at::Tensor places = at::empty_like(names), slots = at::empty_like(from.positions);
    PackedTokens merged = kept;
    merged.x = at::empty({kept.layout.rows(), from.x.size(1)}, from.x.options());
    merged.sizes = at::empty({kept.layout.rows()}, from.x.options().dtype(at::kFloat));
    const ImageTokens images = sequences_of(from.layout, kept.layout, prefix);
    C10_CUDA_CHECK(find_places(images, numbers(from.positions), numbers(names), mutable_numbers(places), stream));
    C10_CUDA_CHECK(join_nearest(images, metric_of(rows), numbers(places), static_cast<float>(threshold),
                                mutable_numbers(slots), stream));
    C10_CUDA_CHECK(average_groups(images, rows_of(from.x, near_sizes, slots, merged.x, merged.sizes), {}, stream));
    return merged;
}

PackedTokens fuse_dropped(const PackedTokens& from, const PackedTokens& kept, const PackedLayout& layout,
                          const FusedNames& names, std::int64_t prefix) {
    const c10::cuda::CUDAGuard device(from.x.device());
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    const at::Tensor kept_names = kept.positions.contiguous(), weights = kept.probabilities.to(at::kFloat).contiguous(),
                     places = at::empty_like(kept_names);
    PackedTokens fused = kept;
    fused.layout = layout;
    fused.x = at::empty({layout.rows(), from.x.size(1)}, from.x.options());
    fused.positions = at::empty({layout.rows() - prefix * layout.sequences()}, from.positions.options());
    const ImageTokens images = sequences_of(from.layout, kept.layout, prefix);
    const FusedRows rows{.element = element_of(from.x.scalar_type()),
                         .vectors = vectors_of(from.x),
                         .x = from.x.const_data_ptr(),
                         .weights = weights.const_data_ptr<float>(),
                         .are_shares = false,
                         .fused = fused.x.mutable_data_ptr(),
                         .offsets = layout.offsets().const_data_ptr<int>(),
                         .slots = nullptr};
    const TokenNames written{
        .names = numbers(from.positions), .places = numbers(places), .kept_names = mutable_numbers(fused.positions)};
    C10_CUDA_CHECK(find_places(images, numbers(from.positions), numbers(kept_names), mutable_numbers(places), stream));
    C10_CUDA_CHECK(fuse_dropped(images, rows, written, names.first, names.step, stream));
    return fused;
}

}  // namespace dynvit::cuda
