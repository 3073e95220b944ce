// Tables that scipy wrote (tests/golden/formats/make_synsets.py), whole and damaged.
#include "dynvit/io/matlab.hpp"

#include <fstream>

#include "dynvit/core/files.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::golden;
using Strings = std::vector<std::string>;

const fs::path kPlain = golden("formats/synsets.mat"), kPacked = golden("formats/synsets_packed.mat");

std::string bytes_of(const fs::path& path) {
    const std::vector<std::uint8_t> bytes = read_file(path, "test");
    return {bytes.begin(), bytes.end()};
}

TEST(Matlab, AStructArraysFields) {
    for (const fs::path& path : {kPlain, kPacked}) {
        SCOPED_TRACE(path.string());
        const MatlabStructs synsets = read_matlab_structs(path, "synsets");
        EXPECT_EQ(synsets.fields, (Strings{"ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children",
                                           "wordnet_height", "num_train_images"}));
        ASSERT_EQ(synsets.rows.size(), 6u);
        EXPECT_EQ(synsets.rows[3],
                  (Strings{"4", "n01440764", "tench, Tinca tinca", "freshwater dace-like fish", "0", "", "0", "1300"}));
        EXPECT_EQ(synsets.rows[5],
                  (Strings{"6", "n00001740", "entity", "that which is perceived", "2", "4", "19", "0"}));
        EXPECT_EQ(error_of([&] { read_matlab_structs(path, "nothing"); }),
                  "[matlab] " + path.string() + ": no variable nothing in it");
        EXPECT_NE(error_of([&] { read_matlab_structs(path, "other"); }).find("of kind 6, expected a struct array"),
                  std::string::npos);
    }
}

TEST(Matlab, DamageIsAnError) {
    const test::TemporaryFolder folder;
    const fs::path path = folder / "meta.mat";
    const auto write = [&](const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; };
    for (const fs::path& whole : {kPlain, kPacked}) {
        const std::string bytes = bytes_of(whole);
        for (std::size_t size = 0; size + 1 < bytes.size(); size += 37) {
            write(bytes.substr(0, size));
            EXPECT_EQ(error_of([&] { read_matlab_structs(path, "synsets"); }).find("[matlab] " + path.string()), 0u)
                << size;
        }
        int read = 0, refused = 0;
        for (std::size_t at = 128; at < bytes.size(); at += 9) {
            std::string changed = bytes;
            changed[at] = static_cast<char>(changed[at] ^ (at % 2 == 0 ? 1 : 0xff));
            write(changed);
            try {
                const MatlabStructs found = read_matlab_structs(path, "synsets");
                for (const Strings& row : found.rows) ASSERT_EQ(row.size(), found.fields.size());
                ++read;
            } catch (const Error&) {
                ++refused;
            }
        }
        EXPECT_GT(refused, 30);
        EXPECT_EQ(read > 50, whole == kPlain) << "zlib's checksum sees the others";
    }
    write(std::string(200, ' '));
    EXPECT_NE(error_of([&] { read_matlab_structs(path, "x"); }).find("expected a little-endian MAT-file of level 5"),
              std::string::npos);
    std::string other = bytes_of(kPlain);
    std::swap(other[124], other[125]);
    std::swap(other[126], other[127]);
    write(other);
    EXPECT_NE(error_of([&] { read_matlab_structs(path, "x"); }).find("of a big-endian machine"), std::string::npos);
}

}  // namespace
}  // namespace dynvit
