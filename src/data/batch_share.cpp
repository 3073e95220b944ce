#include "dynvit/data/batch_share.hpp"

namespace dynvit {

std::vector<std::int64_t> BatchShare::rows(std::int64_t size) const {
    const std::int64_t pairs = size / 2, low = pairs * index / count, high = pairs * (index + 1) / count;
    std::vector<std::int64_t> rows;
    for (std::int64_t row = low; row < high; ++row) rows.push_back(row);
    if (size % 2 == 1 && index == count - 1) rows.push_back(pairs);  // its own partner
    for (std::int64_t row = size - high; row < size - low; ++row) rows.push_back(row);
    return rows;
}

}  // namespace dynvit
