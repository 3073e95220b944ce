// Random numbers that are the same on every machine and for every number of threads: a generator is made from what it
// is for (a seed, an epoch, a sample's index), never shared.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <utility>

namespace dynvit {

/// One 64-bit value from several: mix_seed({seed, epoch, index}). Equal inputs give equal values; any change in any of
/// them gives an unrelated one (SplitMix64's finalizer over each part).
std::uint64_t mix_seed(std::initializer_list<std::uint64_t> parts);

/// SplitMix64 (Steele et al., 2014) with the few distributions the project needs.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t bits();                                       // 64 uniform bits
    double uniform();                                           // [0, 1)
    double uniform(double low, double high);                    // [low, high)
    std::int64_t integer(std::int64_t low, std::int64_t high);  // low, ..., high - 1; without bias
    double normal();                                            // mean 0, standard deviation 1
    bool chance(double probability) { return uniform() < probability; }

    /// Puts a sequence in random order (Fisher-Yates).
    template <class Sequence>
    void shuffle(Sequence& sequence) {
        for (std::int64_t i = static_cast<std::int64_t>(sequence.size()) - 1; i > 0; --i) {
            using std::swap;
            swap(sequence[i], sequence[integer(0, i + 1)]);
        }
    }

  private:
    std::uint64_t state_;
};

}  // namespace dynvit
