#include "dynvit/io/safetensors.hpp"
#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile file;
    file.hold({data, size});
    fuzz::run([] { read_safetensors(file.path()); });
    return 0;
}
