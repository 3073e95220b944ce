// Seeds' archives have checksums of 0, "not known", so that what is behind them is reached.
#include "dynvit/io/pth.hpp"
#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile file;
    file.hold({data, size});
    fuzz::run([] { read_pth(file.path()); });
    fuzz::run([] { read_pth(file.path(), WeightsPart::kEma); });
    return 0;
}
