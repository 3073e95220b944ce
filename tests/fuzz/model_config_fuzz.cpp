// A model's config.json and, behind a zero byte, the preprocessor_config.json beside it.
#include "dynvit/weights/model_config.hpp"

#include <algorithm>

#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile config, preprocessor;
    static const fuzz::MemoryFolder folder;
    static const std::filesystem::path path = folder.link("config.json", config);
    [[maybe_unused]] static const std::filesystem::path beside = folder.link("preprocessor_config.json", preprocessor);
    const std::uint8_t* const end = data + size;
    const std::uint8_t* const zero = std::find(data, end, 0);
    config.hold({data, zero});
    preprocessor.hold({std::min(zero + 1, end), end});
    fuzz::run([] { read_model_config(path); });
    return 0;
}
