#include "dynvit/ops/packed_sequences.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace dynvit {
namespace {

at::Tensor attention_one_by_one(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const PackedLayout& layout, double scale) {
    at::Tensor attended = at::empty_like(q, at::MemoryFormat::Contiguous);
    std::int64_t first = 0;
    for (const std::int64_t length : layout.lengths()) {
        if (length == 0) continue;
        const auto part = [&](const at::Tensor& packed) {  // (1, h, n, d)
            return packed.narrow(0, first, length).transpose(0, 1).unsqueeze(0);
        };
        const at::Tensor one = at::scaled_dot_product_attention(part(q), part(k), part(v), {}, 0.0, false, scale);
        attended.narrow(0, first, length).copy_(one.squeeze(0).transpose(0, 1));
        first += length;
    }
    return attended;
}

}  // namespace

PackedLayout::PackedLayout(std::vector<std::int64_t> lengths, const at::Device& device)
    : lengths_(std::move(lengths)), rows_(std::accumulate(lengths_.begin(), lengths_.end(), std::int64_t{0})) {
    for (const std::int64_t length : lengths_) longest_ = std::max(longest_, length);
    const at::Tensor host = at::tensor(lengths_, at::kLong);
    device_lengths_ = host.to(device);
    offsets_ = at::constant_pad_nd(host.cumsum(0), {1, 0}).to(device, at::kInt);
}

at::Tensor PackedLayout::sequence_of_row() const {
    const at::Tensor sequences = at::arange(this->sequences(), device_lengths_.options());
    return at::repeat_interleave(sequences, device_lengths_, 0, rows_);
}

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const PackedLayout& layout,
                            double scale) {
    TORCH_CHECK(q.dim() == 3 && q.size(0) == layout.rows(), "q must be (", layout.rows(), ", h, d), found ", q.sizes());
    if (!q.is_cuda()) return attention_one_by_one(q, k, v, layout, scale);
    if (q.scalar_type() != at::kFloat) {
        return std::get<0>(at::_flash_attention_forward(q, k, v, layout.offsets(), layout.offsets(), layout.longest(),
                                                        layout.longest(), 0.0, /*is_causal=*/false,
                                                        /*return_debug_mask=*/false, scale));
    }
    const auto batch = [](const at::Tensor& packed) { return packed.unsqueeze(0); };  // (1, T, h, d)
    return std::get<0>(at::_efficient_attention_forward(batch(q), batch(k), batch(v), {}, layout.offsets(),
                                                        layout.offsets(), layout.longest(), layout.longest(), 0.0,
                                                        /*custom_mask_type=*/0, /*compute_log_sumexp=*/false, scale))
        .squeeze(0);
}

at::Tensor packed_mean(const at::Tensor& x, const PackedLayout& layout) {
    const at::Tensor sums = at::segment_reduce(x.to(at::kFloat), "sum", layout.device_lengths(), {}, {}, 0,
                                               /*unsafe=*/true, /*initial=*/0);
    return sums / layout.device_lengths().clamp_min(1).unsqueeze(1);
}

}  // namespace dynvit
