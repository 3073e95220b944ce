#include "io/pickle.hpp"

#include <sstream>

#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::istringstream stream(std::string(fuzz::text_of({data, size})));
    fuzz::run([&] {
        const Pickle pickle = read_pickle(stream, size, "pickle");
        for (const PickleValue& value : pickle.values) value.description();
    });
    return 0;
}
