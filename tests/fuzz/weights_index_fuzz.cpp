// The index of a model's files, model.safetensors.index.json.
#include "dynvit/weights/model_files.hpp"
#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile index, part;
    static const fuzz::MemoryFolder folder;
    static const std::filesystem::path path = folder.link("model.safetensors.index.json", index);
    [[maybe_unused]] static const std::filesystem::path beside = folder.link("a.safetensors", part);
    index.hold({data, size});
    fuzz::run([] { find_model_files(path); });
    return 0;
}
