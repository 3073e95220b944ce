#include "dynvit/core/file_kind.hpp"

#include "dynvit/io/weights_format.hpp"
#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile file;
    file.hold({data, size});
    fuzz::run([&] {
        fuzz::expect(describe_file({data, size}, size) == describe_file(file.path()), "bytes and a file are one kind");
    });
    fuzz::run([] { weights_format(file.path()); });
    return 0;
}
