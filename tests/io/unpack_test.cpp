// Packed files against the texts that zlib and libzstd made them of, whole and damaged.
#include "dynvit/io/unpack.hpp"

#include <fstream>

#include "pack_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;
using test::gzip;

/// Lines of which no two are alike: more than one piece when packed.
std::string long_text() {
    std::string text;
    for (std::uint32_t i = 0; i < 150'000; ++i) text += str(i * 2654435761u, '\n');
    return text;
}

class Unpack : public testing::Test {
  protected:
    std::string unpacked(const std::string& packed) const {
        std::ofstream(folder_ / "packed", std::ios::binary) << packed;
        AtomicFile file(folder_ / "text", "test");
        const std::uint64_t bytes = unpack(folder_ / "packed", file);
        file.commit();
        const std::vector<std::uint8_t> found = read_file(folder_ / "text", "test");
        EXPECT_EQ(bytes, found.size());
        return {found.begin(), found.end()};
    }

    std::string fault(const std::string& packed) const {
        const std::string error = error_of([&] { unpacked(packed); });
        const std::string place = "[unpack] " + (folder_ / "packed").string() + ": ";
        EXPECT_EQ(error.substr(0, place.size()), place);
        return error.substr(std::min(place.size(), error.size()));
    }

    test::TemporaryFolder folder_;
};

TEST_F(Unpack, GivesBackWhatWasPacked) {
    const std::string text = long_text();
    for (const auto& pack : {test::gzip, test::zstd}) {
        ASSERT_GT(pack(text).size(), 500'000u) << "several pieces";
        EXPECT_TRUE(unpacked(pack(text)) == text);
        EXPECT_EQ(unpacked(pack("")), "");
        EXPECT_EQ(unpacked(pack(std::string(3 << 20, '\0'))), std::string(3 << 20, '\0')) << "much of little";
        EXPECT_TRUE(unpacked(pack("one ") + pack(text) + pack("two")) == "one " + text + "two") << "joined";
        EXPECT_TRUE(is_packed(folder_ / "packed"));
    }
    EXPECT_EQ(unpacked(gzip("x") + std::string(700'000, '\0')), "x") << "a tape's padding";
    EXPECT_FALSE(is_packed(folder_ / "text"));
    EXPECT_FALSE(is_packed(folder_ / "nowhere"));
}

TEST_F(Unpack, DamageIsNamedWithItsByte) {
    const std::string text = long_text();
    for (const auto& pack : {test::gzip, test::zstd}) {
        const std::string packed = pack(text);
        for (const std::size_t size : {packed.size() - 1, packed.size() / 2, std::size_t{300'000}, std::size_t{9}})
            EXPECT_EQ(fault(packed.substr(0, size)),
                      str("at byte ", size, " of ", size, ": the file ends within its packed data: it was cut short"));
        std::string changed = packed;
        changed[packed.size() / 2] = static_cast<char>(changed[packed.size() / 2] ^ 0x55);
        EXPECT_NE(fault(changed).find(": damaged "), std::string::npos);
        EXPECT_NE(fault(packed + "behind it").find("amaged"), std::string::npos);
        EXPECT_FALSE(std::filesystem::exists(folder_ / "text")) << "nothing is left of it";
    }
    EXPECT_EQ(fault(gzip("x") + std::string(9, '\0') + 'y'), "at byte 30 of 31: data behind the packed data's end");
    EXPECT_EQ(fault("plain text"),
              "found text (10 bytes) that starts with 'plain text', expected a gzip or Zstandard file");
    std::string wrong = gzip("x");
    wrong[wrong.size() - 8] ^= 1;  // the checksum
    EXPECT_EQ(fault(wrong), "at byte 17 of 21: damaged gzip data: incorrect data check");
}

}  // namespace
}  // namespace dynvit
