#include "dynvit/data/planes.hpp"

namespace dynvit {
namespace {

// The compiler makes shuffles of this loop, where the instruction set has those: the x86-64 baseline has not.
[[gnu::always_inline]] inline void copy(const std::uint8_t* from, std::size_t pixels, std::uint8_t* __restrict red,
                                        std::uint8_t* __restrict green, std::uint8_t* __restrict blue) {
    for (std::size_t i = 0; i < pixels; ++i) {
        red[i] = from[3 * i];
        green[i] = from[3 * i + 1];
        blue[i] = from[3 * i + 2];
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx2")]] bool copy_avx2(const std::uint8_t* from, std::size_t pixels, std::uint8_t* planes) {
    copy(from, pixels, planes, planes + pixels, planes + 2 * pixels);
    return true;
}

bool copy_quickly(const std::uint8_t* from, std::size_t pixels, std::uint8_t* planes) {
    return __builtin_cpu_supports("avx2") && copy_avx2(from, pixels, planes);
}
#else
bool copy_quickly(const std::uint8_t*, std::size_t, std::uint8_t*) {
    return false;
}
#endif

}  // namespace

void copy_to_planes(const Image& image, std::uint8_t* planes) {
    const std::size_t pixels = static_cast<std::size_t>(image.width) * image.height;
    if (copy_quickly(image.pixels.data(), pixels, planes)) return;
    copy(image.pixels.data(), pixels, planes, planes + pixels, planes + 2 * pixels);
}

}  // namespace dynvit
