#include "dynvit/models/rotary_positions.hpp"

#include <ATen/ATen.h>

#include <numbers>

namespace dynvit {
namespace {

constexpr double kDinov3Base = 100, kEva02Base = 10000;

// The angles of the places along one side, (count, n), float64.
at::Tensor angles(const ModelSettings& s, std::int64_t count) {
    const std::int64_t n = s.head_dim() / 4;
    const at::Tensor steps = at::arange(n, at::kDouble) / static_cast<double>(n);
    const at::Tensor places = at::arange(count, at::kDouble).unsqueeze(1);
    if (s.rope == "eva02") {
        return places * static_cast<double>(s.rope_grid) / static_cast<double>(count) * at::pow(kEva02Base, -steps);
    }
    at::Tensor periods = at::pow(kDinov3Base, steps);
    if (s.rope_bfloat16) periods = periods.to(at::kBFloat16).to(at::kDouble);
    const at::Tensor centered = 2 * (places + 0.5) / static_cast<double>(count) - 1;
    return 2 * std::numbers::pi * centered / periods;
}

}  // namespace

at::Tensor rotary_table(const ModelSettings& s) {
    if (s.rope == "none") return {};
    const std::int64_t height = s.grid_height(), width = s.grid_width(), n = s.head_dim() / 4;
    const at::Tensor rows = angles(s, height).unsqueeze(1).expand({height, width, n}),
                     columns = angles(s, width).unsqueeze(0).expand({height, width, n});
    const at::Tensor of_patches = at::cat({rows, columns}, -1).flatten(0, 1);      // (N, d / 2)
    const at::Tensor of_all = at::constant_pad_nd(of_patches, {0, 0, 0, 1}, 0.0);  // an angle of 0 turns nothing
    return at::stack({of_all.cos(), of_all.sin()}, 1).to(at::kFloat);
}

at::Tensor rotation_at(const at::Tensor& table, const at::Tensor& positions, std::int64_t prefix) {
    if (!table.defined()) return table;
    const std::int64_t unturned = table.size(0) - 1;
    return table.index({at::constant_pad_nd(positions, {prefix, 0}, unturned)});
}

at::Tensor rotation_of_all(const at::Tensor& table, std::int64_t prefix) {
    if (!table.defined()) return table;
    return rotation_at(table, at::arange(table.size(0) - 1, table.options().dtype(at::kLong)).unsqueeze(0), prefix);
}

at::Tensor rotation_at(const at::Tensor& table, const at::Tensor& positions, const PackedLayout& layout,
                       std::int64_t prefix) {
    if (!table.defined()) return table;
    const std::int64_t unturned = table.size(0) - 1;
    const at::Tensor sequence = layout.sequence_of_row(), row = at::arange(layout.rows(), sequence.options());
    const at::Tensor is_prefix = row - layout.offsets().index_select(0, sequence) < prefix;
    // A patch token has the prefix tokens of its sequence and of those before it in front.
    const at::Tensor token = (row - (sequence + 1) * prefix).clamp_min(0);
    const at::Tensor with_one = at::constant_pad_nd(positions, {0, 1}, unturned);  // there may be no patch token at all
    const at::Tensor places = with_one.index_select(0, token).clamp_max(unturned);
    return table.index_select(0, places.masked_fill(is_prefix, unturned));
}

}  // namespace dynvit
