#include "dynvit/ops/token_merge.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "cpu/token_merge.hpp"
#include "cpu/top_places.hpp"
#include "dynvit/ops/token_gather.hpp"
#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/token_merge.hpp"
#endif

namespace dynvit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// float32 stays float32 under autocast.
using Exact = c10::impl::ExcludeDispatchKeyGuard;

at::Tensor unit_rows(const at::Tensor& metric) {
    const at::Tensor rows = metric.to(at::kFloat);
    return rows / at::linalg_vector_norm(rows, 2, at::IntArrayRef{-1}, /*keepdim=*/true).clamp_min(1e-12);
}

// (B, k) -> (B, n), bool: whether a token is at one of the places.
at::Tensor is_at(const at::Tensor& places, std::int64_t tokens) {
    return at::zeros({places.size(0), tokens}, places.options().dtype(at::kBool)).scatter_(1, places, true);
}

// Which of the kept places each token's is, (B, n), of meaning for kept ones.
at::Tensor own_slots(const at::Tensor& is_kept) {
    return is_kept.cumsum(1) - 1;
}

void check_places(const at::Tensor& places, const at::Tensor& metric) {
    TORCH_CHECK(metric.dim() == 3 && places.dim() == 2 && metric.size(0) == places.size(0), "found places ",
                places.sizes(), " and a metric ", metric.sizes(), ", expected (B, k) and (B, n, d)");
}

void check_count(const at::Tensor& metric, std::int64_t count, std::int64_t prefix) {
    TORCH_CHECK(metric.dim() == 3, "found a metric ", metric.sizes(), ", expected (B, n, d)");
    const std::int64_t tokens = metric.size(1), least = least_bipartite(tokens, prefix);
    TORCH_CHECK(count >= least && count <= tokens, "found a count of ", count, ", expected at least ", least, " of ",
                tokens, " tokens");
}

void check_groups(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix) {
    const at::Tensor& x = from.x;
    TORCH_CHECK(x.dim() == 3 && x.size(1) >= prefix, "x must be (B, ", prefix, " + n, C), found ", x.sizes());
    const auto check = [&](const char* name, const at::Tensor& tensor, std::int64_t columns) {
        TORCH_CHECK(!tensor.defined() || tensor.sizes() == at::IntArrayRef({x.size(0), columns}), name, " must be (",
                    x.size(0), ", ", columns, "), found ", tensor.sizes());
    };
    check("slots", groups.slots, x.size(1) - prefix);
    check("sizes", from.sizes, x.size(1));
    check("positions", from.positions, x.size(1) - prefix);
}

// (B, n), or undefined -> (B, k), or undefined
at::Tensor names_at(const at::Tensor& places, const at::Tensor& names) {
    return names.defined() ? names.gather(1, places) : names;
}

void check_fusing(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights, std::int64_t prefix) {
    check_groups({from.x, {}, from.positions}, {places, weights}, prefix);
    TORCH_CHECK(from.positions.defined() && !from.sizes.defined(), "tokens that are fused have names, and no sizes");
    TORCH_CHECK(places.dim() == 2 && places.size(0) == weights.size(0) && places.size(1) < weights.size(1), "found ",
                places.sizes(), " kept places, expected (B, k) and fewer than ", weights.size(1));
}

// What fusing makes of the tokens' names, and where it puts them.
FusedTokens with_names(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& places, std::int64_t name) {
    const std::int64_t count = places.size(1);
    const at::Tensor own = at::arange(count, places.options()).expand_as(places);
    return {x, at::constant_pad_nd(positions.gather(1, places), {0, 1}, name),
            at::full({places.size(0), positions.size(1)}, count, places.options()).scatter(1, places, own)};
}

// A token stays by itself.
TokenGroups groups_of_one(const at::Tensor& metric) {
    const at::Tensor all = at::arange(metric.size(1), metric.options().dtype(at::kLong));
    const at::Tensor places = all.expand({metric.size(0), -1}).contiguous();
    return {places, places};
}

bool has_loops(const at::Tensor& tensor) {
    return tensor.is_cpu() && (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

// Calls work(begin, end) for shares of the images or rows; a thread gets at least so many.
template <class Work>
void for_shares(std::int64_t all, std::int64_t at_least, const Work& work) {
    at::parallel_for(0, all, at_least, [&](std::int64_t begin, std::int64_t end) { work(begin, end); });
}

// Calls work with a null pointer to the type that the loops have for a tensor's elements.
template <class Work>
void with_element(const at::Tensor& tensor, const Work& work) {
    if (tensor.scalar_type() == at::kFloat) {
        work(static_cast<float*>(nullptr));
    } else {
        work(static_cast<cpu::BFloat16Bits*>(nullptr));
    }
}

// One image's rows at the given places. @param tensor (B, n, d), with values of a row one after another
template <class T>
cpu::PickedRows<T> picked(const at::Tensor& tensor, std::int64_t image, const std::int64_t* places,
                          std::int64_t count) {
    return {static_cast<const T*>(tensor.const_data_ptr()) + image * tensor.stride(0), tensor.stride(1), tensor.size(2),
            places, count};
}

// Those of 0 ... count - 1 that are not at one of the places, which ascend.
std::vector<std::int64_t> others(const std::int64_t* places, std::int64_t taken, std::int64_t count) {
    std::vector<std::int64_t> left;
    left.reserve(static_cast<std::size_t>(count - taken));
    for (std::int64_t i = 0, before = 0; i < count; ++i) {
        if (before < taken && places[before] == i) {
            ++before;
        } else {
            left.push_back(i);
        }
    }
    return left;
}

// One image. @param places (k) @param slots (n)
template <class T>
void join_nearest_of_image(const at::Tensor& metric, std::int64_t image, const std::int64_t* places, std::int64_t count,
                           float threshold, std::int64_t* slots) {
    const std::vector<std::int64_t> dropped = others(places, count, metric.size(1));
    for (std::int64_t k = 0; k < count; ++k) slots[places[k]] = k;
    std::vector<float> cosines(dropped.size());
    std::vector<std::int64_t> nearest(dropped.size());
    cpu::find_nearest(picked<T>(metric, image, dropped.data(), std::ssize(dropped)),
                      picked<T>(metric, image, places, count), cosines.data(), nearest.data());
    for (std::size_t i = 0; i < dropped.size(); ++i) slots[dropped[i]] = cosines[i] > threshold ? nearest[i] : -1;
}

// One image. @param count of those that stay @param places (count) @param slots (n)
template <class T>
void match_image(const at::Tensor& metric, std::int64_t image, std::int64_t count, std::int64_t prefix,
                 std::int64_t* places, std::int64_t* slots) {
    std::vector<std::int64_t> halves[2];
    for (std::int64_t i = 0; i < metric.size(1); ++i) halves[(prefix + i) % 2].push_back(i);
    const auto& [even, odd] = halves;
    std::vector<float> cosines(even.size());
    std::vector<std::int64_t> ends(even.size()), joining(static_cast<std::size_t>(metric.size(1) - count));
    cpu::find_nearest(picked<T>(metric, image, even.data(), std::ssize(even)),
                      picked<T>(metric, image, odd.data(), std::ssize(odd)), cosines.data(), ends.data());
    cpu::write_top_places(cosines.data(), std::ssize(cosines), std::ssize(joining), joining.data());
    std::vector<std::int64_t> staying = others(joining.data(), std::ssize(joining), std::ssize(even));
    const auto cosine = [&](std::int64_t edge) { return cosines[static_cast<std::size_t>(edge)]; };
    if (prefix == 0) std::ranges::stable_sort(staying, std::greater<>(), cosine);
    const std::int64_t first_odd = std::ssize(staying);
    const auto stay = [&](std::int64_t token, std::int64_t slot) {
        places[slot] = token;
        slots[token] = slot;
    };
    for (std::size_t j = 0; j < staying.size(); ++j)
        stay(even[static_cast<std::size_t>(staying[j])], static_cast<std::int64_t>(j));
    for (std::size_t j = 0; j < odd.size(); ++j) stay(odd[j], first_odd + static_cast<std::int64_t>(j));
    for (const std::int64_t edge : joining) {
        const auto i = static_cast<std::size_t>(edge);
        slots[even[i]] = first_odd + ends[i];
    }
}

TokenGroups join_nearest_on_cpu(const at::Tensor& places, const at::Tensor& metric, double threshold) {
    const at::Tensor rows = metric.stride(2) == 1 ? metric : metric.contiguous(), near_places = places.contiguous();
    const std::int64_t tokens = metric.size(1), count = places.size(1);
    at::Tensor slots = at::empty({metric.size(0), tokens}, places.options());
    const auto* from = near_places.const_data_ptr<std::int64_t>();
    auto* to = slots.mutable_data_ptr<std::int64_t>();
    with_element(rows, [&]<class T>(T*) {
        for_shares(metric.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t b = begin; b < end; ++b) {
                join_nearest_of_image<T>(rows, b, from + b * count, count, static_cast<float>(threshold),
                                         to + b * tokens);
            }
        });
    });
    return {places, slots};
}

TokenGroups match_bipartite_on_cpu(const at::Tensor& metric, std::int64_t count, std::int64_t prefix) {
    const at::Tensor rows = metric.stride(2) == 1 ? metric : metric.contiguous();
    const std::int64_t batch = metric.size(0), tokens = metric.size(1);
    const auto numbers = metric.options().dtype(at::kLong);
    TokenGroups groups{at::empty({batch, count}, numbers), at::empty({batch, tokens}, numbers)};
    auto *places = groups.places.mutable_data_ptr<std::int64_t>(),
         *slots = groups.slots.mutable_data_ptr<std::int64_t>();
    with_element(rows, [&]<class T>(T*) {
        for_shares(batch, 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t b = begin; b < end; ++b) {
                match_image<T>(rows, b, count, prefix, places + b * count, slots + b * tokens);
            }
        });
    });
    return groups;
}

// The tokens of each group, ascending, one group after another.
struct Members {
    std::vector<std::int64_t> begins;  // (k + 1): of each group among the tokens
    std::vector<std::int64_t> tokens;
};

// Of one image. @param slots (n)
Members members_of(const std::int64_t* slots, std::int64_t tokens, std::int64_t count) {
    Members members{std::vector<std::int64_t>(static_cast<std::size_t>(count + 2)),
                    std::vector<std::int64_t>(static_cast<std::size_t>(tokens))};
    auto& begins = members.begins;  // one further on, until all tokens are in their groups
    for (std::int64_t i = 0; i < tokens; ++i) {
        if (slots[i] >= 0) ++begins[static_cast<std::size_t>(slots[i] + 2)];
    }
    for (std::size_t j = 2; j < begins.size(); ++j) begins[j] += begins[j - 1];
    for (std::int64_t i = 0; i < tokens; ++i) {
        if (slots[i] < 0) continue;
        members.tokens[static_cast<std::size_t>(begins[static_cast<std::size_t>(slots[i] + 1)]++)] = i;
    }
    return members;
}

// Rows begin ... end of all images' rows of the result. @param sizes (B, prefix + n), or null
template <class T>
void average_share(const at::Tensor& x, const float* sizes, const std::vector<Members>& images, std::int64_t prefix,
                   std::int64_t begin, std::int64_t end, const TokenBatch& merged) {
    const std::int64_t channels = x.size(2), rows_before = x.size(1), rows_behind = merged.x.size(1);
    auto* to = static_cast<T*>(merged.x.mutable_data_ptr());
    auto* to_sizes = merged.sizes.mutable_data_ptr<float>();
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t b = i / rows_behind, row = i % rows_behind, group = row - prefix;
        if (group < 0) {
            to_sizes[i] = cpu::average_rows(picked<T>(x, b, &row, 1), nullptr, to + i * channels);
            continue;
        }
        const Members& members = images[static_cast<std::size_t>(b)];
        const std::int64_t *ends = members.begins.data() + group, *first = members.tokens.data() + ends[0];
        cpu::PickedRows<T> rows = picked<T>(x, b, first, ends[1] - ends[0]);
        rows.matrix += prefix * rows.stride;
        to_sizes[i] = cpu::average_rows(rows, sizes ? sizes + b * rows_before + prefix : nullptr, to + i * channels);
    }
}

TokenBatch average_on_cpu(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix) {
    const auto& [x, sizes, positions] = from;
    const std::int64_t batch = x.size(0), tokens = x.size(1) - prefix, count = groups.places.size(1);
    const at::Tensor rows = x.stride(2) == 1 ? x : x.contiguous(), slots = groups.slots.contiguous(),
                     near_sizes = sizes.defined() ? sizes.to(at::kFloat).contiguous() : sizes;
    const float* weights = sizes.defined() ? near_sizes.const_data_ptr<float>() : nullptr;
    std::vector<Members> images;
    for (std::int64_t b = 0; b < batch; ++b) {
        images.push_back(members_of(slots.const_data_ptr<std::int64_t>() + b * tokens, tokens, count));
    }
    TokenBatch merged{at::empty({batch, prefix + count, x.size(2)}, x.options()),
                      at::empty({batch, prefix + count}, x.options().dtype(at::kFloat)),
                      names_at(groups.places, positions)};
    constexpr std::int64_t kRowsAtLeast = 64;
    with_element(rows, [&]<class T>(T*) {
        for_shares(batch * (prefix + count), kRowsAtLeast, [&](std::int64_t begin, std::int64_t end) {
            average_share<T>(rows, weights, images, prefix, begin, end, merged);
        });
    });
    return merged;
}

// With no gradient to follow.
TokenBatch average(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix) {
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::average_groups_supports(from.x, prefix)) return cuda::average_groups(from, groups, prefix);
#endif
    return has_loops(from.x) ? average_on_cpu(from, groups, prefix) : average_groups_plain(from, groups, prefix);
}

// One image of fuse_dropped. @param places (k), ascending @param weights (n) @param to (prefix + k + 1, C)
template <class T>
void fuse_image(const at::Tensor& x, std::int64_t image, const std::int64_t* places, std::int64_t count,
                std::int64_t prefix, const float* weights, T* to) {
    const std::vector<std::int64_t> dropped = others(places, count, x.size(1) - prefix);
    cpu::PickedRows<T> patches = picked<T>(x, image, dropped.data(), std::ssize(dropped));
    const auto copy = [&](std::int64_t row) {
        std::copy_n(patches.matrix + row * patches.stride, patches.columns, to);
        to += patches.columns;
    };
    for (std::int64_t i = 0; i < prefix; ++i) copy(i);
    patches.matrix += prefix * patches.stride;
    for (std::int64_t k = 0; k < count; ++k) copy(places[k]);
    cpu::sum_rows(patches, weights, to);
}

at::Tensor fuse_on_cpu(const at::Tensor& x, const at::Tensor& places, const at::Tensor& weights, std::int64_t prefix) {
    const std::int64_t batch = x.size(0), tokens = x.size(1) - prefix, count = places.size(1), channels = x.size(2);
    const at::Tensor rows = x.stride(2) == 1 ? x : x.contiguous(), near_places = places.contiguous(),
                     near_weights = weights.to(at::kFloat).contiguous();
    at::Tensor fused = at::empty({batch, prefix + count + 1, channels}, x.options());
    const auto* kept = near_places.const_data_ptr<std::int64_t>();
    const auto* weight = near_weights.const_data_ptr<float>();
    with_element(rows, [&]<class T>(T*) {
        auto* to = static_cast<T*>(fused.mutable_data_ptr());
        for_shares(batch, 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t b = begin; b < end; ++b) {
                fuse_image<T>(rows, b, kept + b * count, count, prefix, weight + b * tokens,
                              to + b * (prefix + count + 1) * channels);
            }
        });
    });
    return fused;
}

struct AverageGroups : torch::autograd::Function<AverageGroups> {
    static variable_list forward(AutogradContext* context, const Variable& x, const std::optional<Variable>& sizes,
                                 const Variable& places, const Variable& slots, std::int64_t prefix) {
        const at::Tensor weights = sizes.value_or(at::Tensor());
        const TokenBatch merged = average({x, weights}, {places, slots}, prefix);
        context->save_for_backward({weights, slots, merged.sizes});
        context->saved_data["prefix"] = prefix;
        context->mark_non_differentiable({merged.sizes});
        return {merged.x, merged.sizes};
    }

    // A token's gradient is its group's, times its share of the mean.
    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &sizes = saved[0], &slots = saved[1], &to_result = gradients[0];
        const std::int64_t prefix = context->saved_data["prefix"].toInt();
        const at::Tensor merged = saved[2].slice(1, prefix);  // (B, k)
        const at::Tensor to_prefix = to_result.slice(1, 0, prefix), to_means = to_result.slice(1, prefix);
        at::Tensor to_patches;
        if (merged.size(1) == 0) {
            to_patches = at::zeros({slots.size(0), slots.size(1), to_result.size(2)}, to_result.options());
        } else {
            const at::Tensor group = slots.clamp_min(0), inverse = merged.reciprocal().gather(1, group);
            const at::Tensor shares =
                (sizes.defined() ? inverse * sizes.slice(1, prefix) : inverse).masked_fill(slots < 0, 0);
            to_patches = (gather_tokens(to_means, group) * shares.unsqueeze(2)).to(to_result.scalar_type());
        }
        return {at::cat({to_prefix, to_patches}, 1), {}, {}, {}, {}};
    }
};

}  // namespace

TokenGroups join_nearest_plain(const at::Tensor& places, const at::Tensor& metric, double threshold) {
    check_places(places, metric);
    const at::NoGradGuard no_grad;
    const Exact exact(c10::autocast_dispatch_keyset);
    const std::int64_t tokens = metric.size(1);
    if (places.size(1) == 0) return {places, at::full({metric.size(0), tokens}, -1, places.options())};
    const at::Tensor unit = unit_rows(metric), kept = is_at(places, tokens);
    const at::Tensor cosines = at::matmul(gather_tokens(unit, places), unit.transpose(1, 2));  // (B, k, n)
    const auto [nearest, slot] = cosines.max(1);                                               // (B, n) each
    // Rounding may make a cosine greater than 1.
    return {places, at::where(kept, own_slots(kept), slot.masked_fill(nearest.clamp_max(1) <= threshold, -1))};
}

TokenGroups join_nearest(const at::Tensor& places, const at::Tensor& metric, double threshold) {
    check_places(places, metric);
    if (places.size(1) > 0) {
#ifdef DYNVIT_CUDA_KERNELS
        if (cuda::compares(metric)) return cuda::join_nearest(places, metric, threshold);
#endif
        if (has_loops(metric)) return join_nearest_on_cpu(places, metric, threshold);
    }
    return join_nearest_plain(places, metric, threshold);
}

TokenGroups match_bipartite_plain(const at::Tensor& metric, std::int64_t count, std::int64_t prefix) {
    check_count(metric, count, prefix);
    const at::NoGradGuard no_grad;
    const Exact exact(c10::autocast_dispatch_keyset);
    const std::int64_t tokens = metric.size(1), joining = tokens - count;
    if (joining == 0) return groups_of_one(metric);
    const std::int64_t first = first_even(prefix);
    const auto numbers = metric.options().dtype(at::kLong);
    const at::Tensor unit = unit_rows(metric);
    const at::Tensor cosines = at::matmul(unit.slice(1, first, tokens, 2),                       //
                                          unit.slice(1, 1 - first, tokens, 2).transpose(1, 2));  // (B, even, odd)
    const auto [nearest, end] = cosines.max(2);                                                  // (B, even) each
    const at::Tensor order = at::argsort(nearest.clamp_max(1), /*stable=*/true, /*dim=*/-1, /*descending=*/true);
    const at::Tensor joins = order.slice(1, 0, joining);
    const at::Tensor stays = prefix > 0 ? std::get<0>(order.slice(1, joining).sort(1)) : order.slice(1, joining);
    const std::int64_t even = count_even(tokens, prefix), first_odd = even - joining;
    const at::Tensor odd = at::arange(tokens - even, numbers).expand({metric.size(0), -1});
    const at::Tensor slots_of_even = at::empty_like(order)
                                         .scatter_(1, stays, at::arange(first_odd, numbers).expand_as(stays))
                                         .scatter_(1, joins, first_odd + end.gather(1, joins));
    // Where each token is when the even places stand before the odd ones.
    const at::Tensor all = at::arange(tokens, numbers), turned = all.div(2, "floor") + (all % 2 != first) * even;
    return {at::cat({2 * stays + first, 2 * odd + 1 - first}, 1),
            at::cat({slots_of_even, first_odd + odd}, 1).index_select(1, turned)};
}

TokenGroups match_bipartite(const at::Tensor& metric, std::int64_t count, std::int64_t prefix) {
    check_count(metric, count, prefix);
    if (count == metric.size(1)) return groups_of_one(metric);
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::compares(metric)) return cuda::match_bipartite(metric, count, prefix);
#endif
    if (has_loops(metric)) return match_bipartite_on_cpu(metric, count, prefix);
    return match_bipartite_plain(metric, count, prefix);
}

TokenBatch average_groups_plain(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix) {
    const Exact exact(c10::autocast_dispatch_keyset);
    check_groups(from, groups, prefix);
    const auto& [x, sizes, positions] = from;
    const at::Tensor patches = x.slice(1, prefix);
    const std::int64_t count = groups.places.size(1);
    at::Tensor shares, merged;  // (B, k, n), float32: what each token has in each mean; (B, prefix + k)
    {
        const at::NoGradGuard no_grad;
        const at::Tensor joins = groups.slots.unsqueeze(1) == at::arange(count, groups.slots.options()).unsqueeze(1);
        const at::Tensor counted =
            sizes.defined() ? sizes : at::ones({x.size(0), x.size(1)}, x.options().dtype(at::kFloat));
        const at::Tensor weights = joins.to(at::kFloat) * counted.slice(1, prefix).unsqueeze(1), sums = weights.sum(2);
        shares = weights / sums.unsqueeze(2);
        merged = at::constant_pad_nd(sums, {prefix, 0}, 1);
    }
    const at::Tensor means = at::matmul(shares, patches.to(at::kFloat)).to(x.scalar_type());
    return {at::cat({x.slice(1, 0, prefix), means}, 1), merged, names_at(groups.places, positions)};
}

TokenBatch average_groups(const TokenBatch& from, const TokenGroups& groups, std::int64_t prefix) {
    check_groups(from, groups, prefix);
    if (!(at::GradMode::is_enabled() && from.x.requires_grad())) return average(from, groups, prefix);
    const auto given = from.sizes.defined() ? std::optional(from.sizes) : std::nullopt;
    const variable_list merged = AverageGroups::apply(from.x, given, groups.places, groups.slots, prefix);
    return {merged[0], merged[1], names_at(groups.places, from.positions)};
}

FusedTokens fuse_dropped(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights, std::int64_t name,
                         std::int64_t prefix) {
    check_fusing(from, places, weights, prefix);
    const at::Tensor& x = from.x;
    if (!(at::GradMode::is_enabled() && (x.requires_grad() || weights.requires_grad()))) {
#ifdef DYNVIT_CUDA_KERNELS
        if (cuda::average_groups_supports(x, prefix)) return cuda::fuse_dropped(from, places, weights, name, prefix);
#endif
        if (has_loops(x)) return with_names(fuse_on_cpu(x, places, weights, prefix), from.positions, places, name);
    }
    return fuse_dropped_plain(from, places, weights, name, prefix);
}

FusedTokens fuse_dropped_plain(const TokenBatch& from, const at::Tensor& places, const at::Tensor& weights,
                               std::int64_t name, std::int64_t prefix) {
    const Exact exact(c10::autocast_dispatch_keyset);
    check_fusing(from, places, weights, prefix);
    const at::Tensor patches = from.x.slice(1, prefix);
    const at::Tensor lost = weights.masked_fill(is_at(places, patches.size(1)), 0).unsqueeze(1);  // (B, 1, n)
    const at::Tensor fused = at::matmul(lost, patches.to(at::kFloat)).to(from.x.scalar_type());
    const at::Tensor x = at::cat({from.x.slice(1, 0, prefix), gather_tokens(patches, places), fused}, 1);
    return with_names(x, from.positions, places, name);
}

LayerWeights mean_key_layer(const at::Tensor& weight, const at::Tensor& bias, std::int64_t heads) {
    const std::int64_t inputs = weight.size(1), head_dim = weight.size(0) / (3 * heads);
    return {weight.view({3, heads, head_dim, inputs})[1].mean(0),
            bias.defined() ? bias.view({3, heads, head_dim})[1].mean(0) : at::Tensor()};
}

}  // namespace dynvit
