#include "picture.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return dynvit::fuzz::read_picture({data, size}, dynvit::FileKind::kTiff);
}
