// Decoding of training pictures elsewhere than on the processor.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "dynvit/data/resize.hpp"

namespace dynvit {

/// Decodes a JPEG and resizes a window of it. The loader's workers share one; each hands over a picture and sleeps
/// until it is done, so that the pictures of many workers are decoded at once.
class WindowDecoder {
  public:
    virtual ~WindowDecoder() = default;

    /// The window as resize() makes it of the window's pixels, at the size that the decoder was made for; nothing where
    /// the decoder does not take this file, and the caller decodes it (and learns what is wrong with it). May be called
    /// from many threads at once.
    virtual std::optional<Image> decode(std::span<const std::uint8_t> bytes, const Window& window, bool mirrored) = 0;
};

/// The JPEG decoder that some GPUs have beside their cores, through nvJPEG, on the current device. It takes plain JPEGs
/// (see plain_jpeg_size) of up to 2^24 pixels and decodes every pixel of them. Values differ from decode_image's by
/// what two inverse DCTs round differently. Damage to compressed data that leaves the markers alone may go unnoticed.
/// Throws Error naming data.gpu_decode: no such GPU, or a build without nvJPEG.
/// @param width, height of the pictures it makes
std::unique_ptr<WindowDecoder> make_gpu_decoder(int width, int height, Filter filter = Filter::kBicubic);

}  // namespace dynvit
