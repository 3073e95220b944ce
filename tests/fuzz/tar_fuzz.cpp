// An archive as such, and as a shard of a data set.
#include <cstring>
#include <numeric>

#include "dynvit/data/tar_shards.hpp"
#include "fuzz.hpp"

using namespace dynvit;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

/// A changed header whose checksum stayed would be refused, and never read.
void correct_checksums(std::span<std::uint8_t> archive) {
    constexpr std::size_t kBlock = 512, kMagic = 257, kSum = 148, kSumBytes = 8;
    for (; archive.size() >= kBlock; archive = archive.subspan(kBlock)) {
        const auto header = archive.first(kBlock);
        if (std::memcmp(&header[kMagic], "ustar", 5) != 0) continue;
        std::memset(&header[kSum], ' ', kSumBytes);
        const unsigned sum = std::accumulate(header.begin(), header.end(), 0u);
        char text[kSumBytes];
        std::snprintf(text, sizeof text, "%06o", sum);
        std::memcpy(&header[kSum], text, sizeof text - 1);
    }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
    const std::size_t changed = LLVMFuzzerMutate(data, size, most);
    if (seed % 8 != 0) correct_checksums({data, changed});
    return changed;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const fuzz::MemoryFile file;
    file.hold({data, size});
    fuzz::run([] {
        const TarFile tar(file.path());
        for (const TarMember& member : tar.members()) tar.read(member);
    });
    for (const bool labelled : {true, false}) {
        fuzz::run([labelled] {
            const TarShards shards({file.path()}, std::nullopt, {.labelled = labelled});
            for (std::size_t i = 0; i < shards.size(); ++i) shards.get(i);
        });
    }
    return 0;
}
