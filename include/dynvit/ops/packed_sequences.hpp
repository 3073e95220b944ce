// Sequences of different lengths, one after another in one tensor: a batch of images that keep different numbers of
// tokens, without padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace dynvit {

/// Where each sequence of a packed tensor (T, ...) begins and ends.
class PackedLayout {
  public:
    /// @param lengths rows of each sequence, on the host; 0 is allowed
    /// @param device of the tensors that it describes
    PackedLayout(std::vector<std::int64_t> lengths, const at::Device& device);

    const std::vector<std::int64_t>& lengths() const { return lengths_; }
    std::int64_t sequences() const { return static_cast<std::int64_t>(lengths_.size()); }
    std::int64_t rows() const { return rows_; }        // T
    std::int64_t longest() const { return longest_; }  // of the lengths

    /// The lengths and their running sum from 0, on the device: (B) int64 and (B + 1) int32.
    const at::Tensor& device_lengths() const { return device_lengths_; }
    const at::Tensor& offsets() const { return offsets_; }

    /// Which sequence each row belongs to: (T), int64, on the device.
    at::Tensor sequence_of_row() const;

  private:
    std::vector<std::int64_t> lengths_;
    std::int64_t rows_ = 0, longest_ = 0;
    at::Tensor device_lengths_, offsets_;
};

/// The mean of each sequence's rows; zero where it has none. @param x (T, C)
/// @param skipped that many first rows of each sequence, which must have them, do not count @return (B, C), float32
at::Tensor packed_mean(const at::Tensor& x, const PackedLayout& layout, std::int64_t skipped = 0);

}  // namespace dynvit
