// A label file and, behind a zero byte, a class list for it.
#include "dynvit/data/label_file.hpp"

#include <algorithm>

#include "fuzz.hpp"

using namespace dynvit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile labels, classes, picture;
    static const fuzz::MemoryFolder folder;
    static const std::filesystem::path pictures[] = {folder.link("a.jpg", picture), folder.link("b c.png", picture)};
    const std::uint8_t* const end = data + size;
    const std::uint8_t* const zero = std::find(data, end, 0);
    labels.hold({data, zero});
    classes.hold({std::min(zero + 1, end), end});
    const auto all = [] { return std::vector{pictures[0].string(), pictures[1].string()}; };
    const LabelPlaces places{{folder.path()}, all, all};
    fuzz::run([&] { read_label_file(labels.path(), places); });
    fuzz::run([&] { read_label_file(labels.path(), places, read_class_list(classes.path())); });
    return 0;
}
