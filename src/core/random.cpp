#include "dynvit/core/random.hpp"

#include <cmath>
#include <numbers>

namespace dynvit {
namespace {

constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15ULL;

std::uint64_t finalize(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

}  // namespace

std::uint64_t mix_seed(std::initializer_list<std::uint64_t> parts) {
    std::uint64_t seed = kGoldenGamma;
    for (const std::uint64_t part : parts) seed = finalize(seed + kGoldenGamma + finalize(part + kGoldenGamma));
    return seed;
}

std::uint64_t Random::bits() {
    return finalize(state_ += kGoldenGamma);
}

double Random::uniform() {
    return static_cast<double>(bits() >> 11) * 0x1.0p-53;
}

double Random::uniform(double low, double high) {
    return low + (high - low) * uniform();
}

std::int64_t Random::integer(std::int64_t low, std::int64_t high) {
    const auto range = static_cast<std::uint64_t>(high - low);
    const std::uint64_t biased = (0 - range) % range;  // as many low values as do not divide evenly
    std::uint64_t value = bits();
    while (value < biased) value = bits();
    return low + static_cast<std::int64_t>(value % range);
}

double Random::normal() {  // Box and Muller, one of the pair
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

}  // namespace dynvit
