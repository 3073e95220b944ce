#include "dynvit/ops/packed_sequences.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace dynvit {

PackedLayout::PackedLayout(std::vector<std::int64_t> lengths, at::Tensor offsets)
    : lengths_(std::move(lengths)),
      rows_(std::accumulate(lengths_.begin(), lengths_.end(), std::int64_t{0})),
      offsets_(std::move(offsets)) {
    for (const std::int64_t length : lengths_) longest_ = std::max(longest_, length);
}

PackedLayout::PackedLayout(std::vector<std::int64_t> lengths, const at::Device& device)
    : PackedLayout(std::move(lengths), at::Tensor()) {
    offsets_ = at::constant_pad_nd(at::tensor(lengths_, at::kLong).cumsum(0), {1, 0}).to(at::kInt).to(device);
}

PackedLayout PackedLayout::uniform(std::int64_t sequences, std::int64_t length, const at::Device& device) {
    return {std::vector<std::int64_t>(static_cast<std::size_t>(sequences), length),
            at::arange(0, sequences * length + 1, length, at::device(device).dtype(at::kInt))};
}

PackedLayout PackedLayout::from_offsets(const at::Tensor& offsets) {
    // Memory that a GPU writes by itself: to any other the driver would copy twice.
    const at::Tensor host =
        at::empty(offsets.sizes(), at::device(at::kCPU).dtype(at::kInt).pinned_memory(offsets.is_cuda()));
    host.copy_(offsets);
    const int* first = host.const_data_ptr<int>();
    std::vector<std::int64_t> lengths(static_cast<std::size_t>(offsets.size(0) - 1));
    for (std::size_t i = 0; i < lengths.size(); ++i) lengths[i] = first[i + 1] - first[i];
    return {std::move(lengths), offsets};
}

at::Tensor PackedLayout::device_lengths() const {
    return offsets_.to(at::kLong).diff();
}

at::Tensor PackedLayout::sequence_of_row() const {
    const at::Tensor lengths = device_lengths();
    return at::repeat_interleave(at::arange(sequences(), lengths.options()), lengths, 0, rows_);
}

at::Tensor packed_mean(const at::Tensor& x, const PackedLayout& layout, std::int64_t skipped) {
    at::Tensor counted = x.to(at::kFloat);
    for (std::int64_t row = 0; row < skipped; ++row) {
        counted = counted.index_fill(0, layout.offsets().slice(0, 0, -1).to(at::kLong) + row, 0);
    }
    const at::Tensor lengths = layout.device_lengths();
    const at::Tensor sums = at::segment_reduce(counted, "sum", lengths, {}, {}, 0, /*unsafe=*/true, /*initial=*/0);
    return sums / (lengths - skipped).clamp_min(1).unsqueeze(1);
}

}  // namespace dynvit
