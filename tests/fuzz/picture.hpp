// What the fuzzers of picture formats share.
#pragma once

#include "dynvit/core/file_kind.hpp"
#include "dynvit/io/image.hpp"
#include "fuzz.hpp"

namespace dynvit::fuzz {

/// Reads a picture of one format in each way that there is. Large pictures take long and teach nothing that small ones
/// do not, but for those that are too large for their file.
/// @return what libFuzzer is told: 0, or -1 for bytes that shall not be changed further
inline int read_picture(Bytes bytes, FileKind format) {
    constexpr std::int64_t kSmall = 1 << 14, kLarge = 1 << 18, kTooLarge = 1 << 24;  // pixels
    if (file_kind(bytes) != format) return -1;
    PictureSize size;
    run([&] { size = picture_size(bytes, "picture"); });
    const std::int64_t pixels = std::int64_t{1} * size.width * size.height;
    if (pixels > kLarge && pixels <= kTooLarge) return -1;
    run([&] {
        const Image image = decode_image(bytes, "picture");
        expect(size.width == image.width && size.height == image.height, "picture_size is the decoded picture's");
        expect(image.pixels.size() == std::size_t{3} * image.width * image.height, "a picture has all its pixels");
    });
    if (pixels > kSmall) return -1;
    run([&] {
        const Window window{size.width / 3, size.height / 3, (size.width + 1) / 2, (size.height + 1) / 2};
        const DecodedWindow part = decode_window(bytes, "picture", window, size.width / 8 + 1, size.height / 8 + 1);
        expect(part.box.left >= 0 && part.box.top >= 0 && part.box.right <= static_cast<float>(part.image.width) &&
                   part.box.bottom <= static_cast<float>(part.image.height),
               "a window lies in what was decoded for it");
    });
    return 0;
}

}  // namespace dynvit::fuzz
