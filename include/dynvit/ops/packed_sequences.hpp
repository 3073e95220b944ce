// Sequences of different lengths, one after another in one tensor: a batch of images that keep different numbers of
// tokens, without padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace dynvit {

/// Where each sequence of a packed tensor (T, ...) begins and ends.
class PackedLayout {
  public:
    /// @param lengths number of rows of each sequence; 0 is allowed
    /// @param device where the tensors that the layout describes lie; the offsets are copied there
    PackedLayout(std::vector<std::int64_t> lengths, const at::Device& device);

    /// @return the layout of sequences of `length` rows each, at least 1; its offsets are computed on the device, where
    /// nothing is copied to
    static PackedLayout uniform(std::int64_t sequences, std::int64_t length, const at::Device& device);

    /// Makes a layout from offsets that are on the device already. Waits for the device once, to tell the host.
    /// @param offsets (B + 1), int32: the lengths' running sum from 0; the layout shares this tensor
    static PackedLayout from_offsets(const at::Tensor& offsets);

    /// The number of rows of each sequence, on the host: (B).
    const std::vector<std::int64_t>& lengths() const { return lengths_; }
    std::int64_t sequences() const { return static_cast<std::int64_t>(lengths_.size()); }
    std::int64_t rows() const { return rows_; }        // T
    std::int64_t longest() const { return longest_; }  // the greatest of the lengths; 0 without sequences

    /// The lengths' running sum from 0, on the device: (B + 1) int32.
    const at::Tensor& offsets() const { return offsets_; }
    /// The lengths on the device, (B) int64. Each call computes them again.
    at::Tensor device_lengths() const;
    /// For each row the number of the sequence that it belongs to, (T) int64, on the device. Each call computes it
    /// again.
    at::Tensor sequence_of_row() const;

  private:
    PackedLayout(std::vector<std::int64_t> lengths, at::Tensor offsets);

    std::vector<std::int64_t> lengths_;
    std::int64_t rows_ = 0, longest_ = 0;
    at::Tensor offsets_;
};

/// Computes the mean of each sequence's rows; zero where none count.
/// @param x (T, C)
/// @param skipped number of first rows of each sequence that do not count; every sequence must have as many
/// @return (B, C), float32
at::Tensor packed_mean(const at::Tensor& x, const PackedLayout& layout, std::int64_t skipped = 0);

}  // namespace dynvit
