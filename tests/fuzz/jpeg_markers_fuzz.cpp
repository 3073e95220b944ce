#include "dynvit/io/jpeg_markers.hpp"

#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::optional<PictureSize> plain = plain_jpeg_size({data, size});
    if (!plain) return 0;
    fuzz::run([&] {
        const PictureSize found = picture_size({data, size}, "picture");
        fuzz::expect(found.width == plain->width && found.height == plain->height, "a plain JPEG has libjpeg's size");
    });
    return 0;
}
