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

    /// Sequences of `length` rows each, at least 1; nothing is copied to the device.
    static PackedLayout uniform(std::int64_t sequences, std::int64_t length, const at::Device& device);

    /// From what is on the device already; waits for it once, to tell the host.
    /// @param offsets (B + 1), int32: the lengths' running sum from 0
    static PackedLayout from_offsets(const at::Tensor& offsets);

    const std::vector<std::int64_t>& lengths() const { return lengths_; }
    std::int64_t sequences() const { return static_cast<std::int64_t>(lengths_.size()); }
    std::int64_t rows() const { return rows_; }        // T
    std::int64_t longest() const { return longest_; }  // of the lengths

    /// The lengths' running sum from 0, on the device: (B + 1) int32.
    const at::Tensor& offsets() const { return offsets_; }
    /// The lengths on the device, (B) int64, and which sequence each row belongs to, (T) int64: both computed anew.
    at::Tensor device_lengths() const;
    at::Tensor sequence_of_row() const;

  private:
    PackedLayout(std::vector<std::int64_t> lengths, at::Tensor offsets);

    std::vector<std::int64_t> lengths_;
    std::int64_t rows_ = 0, longest_ = 0;
    at::Tensor offsets_;
};

/// The mean of each sequence's rows; zero where it has none. @param x (T, C)
/// @param skipped that many first rows of each sequence, which must have them, do not count @return (B, C), float32
at::Tensor packed_mean(const at::Tensor& x, const PackedLayout& layout, std::int64_t skipped = 0);

}  // namespace dynvit
