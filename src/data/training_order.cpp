#include "dynvit/data/training_order.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "dynvit/core/random.hpp"

namespace dynvit {
namespace {

constexpr std::uint64_t kOrderTag = 0x6f72646572;  // keeps the order's random numbers apart from those of the samples

/// The indices of all samples, shard after shard in random order.
std::vector<std::size_t> stream_of_shards(const std::vector<std::size_t>& shard_sizes, Random& random) {
    std::vector<std::pair<std::size_t, std::size_t>> shards;  // first index, size
    std::size_t samples = 0;
    for (const std::size_t size : shard_sizes) {
        shards.emplace_back(samples, size);
        samples += size;
    }
    random.shuffle(shards);
    std::vector<std::size_t> stream;
    stream.reserve(samples);
    for (const auto& [first, size] : shards)
        for (std::size_t i = 0; i < size; ++i) stream.push_back(first + i);
    return stream;
}

/// Moves each item from place p to where p + window * uniform[0, 1) puts it among all others. Whoever stands `window`
/// or more places away keeps his side, which bounds the way both forwards and backwards; a buffer that gives out a
/// random item at each step would let some of them wait for any length of time.
void shuffle_within(std::vector<std::size_t>& stream, double window, Random& random) {
    std::vector<std::pair<double, std::size_t>> keyed;
    keyed.reserve(stream.size());
    for (std::size_t place = 0; place < stream.size(); ++place)
        keyed.emplace_back(static_cast<double>(place) + window * random.uniform(), stream[place]);
    std::sort(keyed.begin(), keyed.end());
    std::transform(keyed.begin(), keyed.end(), stream.begin(), [](const auto& item) { return item.second; });
}

}  // namespace

std::vector<std::size_t> training_order(std::size_t samples, const std::vector<std::size_t>& shard_sizes,
                                        std::int64_t window, std::uint64_t seed, std::int64_t epoch) {
    Random random(mix_seed({seed, static_cast<std::uint64_t>(epoch), kOrderTag}));
    if (shard_sizes.empty() || window <= 0 || static_cast<std::size_t>(window) >= samples) {
        std::vector<std::size_t> order(samples);
        std::iota(order.begin(), order.end(), std::size_t{0});
        random.shuffle(order);
        return order;
    }
    std::vector<std::size_t> order = stream_of_shards(shard_sizes, random);
    TORCH_CHECK(order.size() == samples, "the shards hold ", order.size(), " samples, the data set ", samples);
    shuffle_within(order, static_cast<double>(window), random);
    return order;
}

}  // namespace dynvit
