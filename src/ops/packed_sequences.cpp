#include "dynvit/ops/packed_sequences.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace dynvit {

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

at::Tensor packed_mean(const at::Tensor& x, const PackedLayout& layout, std::int64_t skipped) {
    at::Tensor counted = x.to(at::kFloat);
    for (std::int64_t row = 0; row < skipped; ++row) {
        counted = counted.index_fill(0, layout.offsets().slice(0, 0, -1).to(at::kLong) + row, 0);
    }
    const at::Tensor sums = at::segment_reduce(counted, "sum", layout.device_lengths(), {}, {}, 0,
                                               /*unsafe=*/true, /*initial=*/0);
    return sums / (layout.device_lengths() - skipped).clamp_min(1).unsqueeze(1);
}

}  // namespace dynvit
