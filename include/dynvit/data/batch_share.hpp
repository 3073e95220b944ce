// What one of several processes takes of a batch.
#pragma once

#include <cstdint>
#include <vector>

namespace dynvit {

/// Process `index` of `count`.
struct BatchShare {
    std::int64_t index = 0;
    std::int64_t count = 1;

    bool whole() const { return count == 1; }

    /// Its rows of a batch of `size`, in ascending order. The shares differ by three rows at most, and row b is always
    /// beside row size - 1 - b: partners of mixup, which turns a batch round, are in one process, and find each other
    /// where the rows alone are turned round.
    std::vector<std::int64_t> rows(std::int64_t size) const;
};

}  // namespace dynvit
