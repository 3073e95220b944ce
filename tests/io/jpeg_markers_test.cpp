// Which JPEGs are plain: files made by libjpeg, and the same with bytes changed whose meaning is known.
#include "dynvit/io/jpeg_markers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "dynvit/core/files.hpp"
#include "dynvit/core/random.hpp"
#include "jpeg_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes speckled_jpeg(int width, int height, const test::JpegKind& kind = {}) {
    Image image(width, height);
    Random random(1);
    for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(random.integer(0, 256));
    return test::encode_jpeg(image, kind);
}

bool is_plain(const Bytes& bytes) {
    return plain_jpeg_size(bytes).has_value();
}

/// Where a marker begins whose second byte is `code`.
Bytes::iterator marker(Bytes& bytes, int code) {
    const Bytes wanted = {0xff, static_cast<std::uint8_t>(code)};
    const auto found = std::search(bytes.begin(), bytes.end(), wanted.begin(), wanted.end());
    EXPECT_NE(found, bytes.end()) << "no marker " << code;
    return found;
}

TEST(PlainJpeg, HasTheSizeOfItsHeader) {
    const std::vector<test::JpegKind> kinds = {{},
                                               {.horizontal = 1, .vertical = 1},
                                               {.horizontal = 2, .vertical = 1},
                                               {.horizontal = 1, .vertical = 2},
                                               {.grey = true},
                                               {.restart_rows = 1}};
    for (const test::JpegKind& kind : kinds)
        for (const auto& [width, height] : {std::pair{97, 175}, {8, 8}, {1, 1}, {300, 2}}) {
            const std::optional<PictureSize> size = plain_jpeg_size(speckled_jpeg(width, height, kind));
            ASSERT_TRUE(size) << width << " x " << height;
            EXPECT_EQ(size->width, width);
            EXPECT_EQ(size->height, height);
        }
}

TEST(PlainJpeg, OtherKindsAreNot) {
    for (const test::JpegKind& kind : std::vector<test::JpegKind>{
             {.horizontal = 4, .vertical = 1}, {.rgb = true}, {.progressive = true}, {.scan_a_channel = true}})
        EXPECT_FALSE(is_plain(speckled_jpeg(64, 48, kind)))
            << kind.horizontal << kind.rgb << kind.progressive << kind.scan_a_channel;
    for (const char* name : {"cmyk.jpg", "progressive.jpg", "rgb.png", "grey.png"})
        EXPECT_FALSE(is_plain(read_file(test::golden(std::string("images/") + name), "test"))) << name;
    for (const char* name : {"rgb_420.jpg", "rgb_444.jpg", "grey.jpg"})
        EXPECT_TRUE(is_plain(read_file(test::golden(std::string("images/") + name), "test"))) << name;
    EXPECT_FALSE(is_plain({}));
}

TEST(PlainJpeg, NoneIsShorterThanItSays) {
    const Bytes bytes = speckled_jpeg(40, 30, {.restart_rows = 1});
    for (std::size_t length = 0; length < bytes.size(); ++length)
        ASSERT_FALSE(is_plain({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)})) << length;
    Bytes longer = bytes;
    longer.insert(longer.end(), {'t', 'r', 'a', 'i', 'l'});
    EXPECT_TRUE(is_plain(longer));
}

TEST(PlainJpeg, NoneIsLargerThanItsDataCanHold) {
    Bytes bytes = speckled_jpeg(40, 30, {});
    const auto frame = marker(bytes, 0xc0);
    std::copy_n(Bytes{0x10, 0, 0x10, 0}.begin(), 4, frame + 5);  // height, width
    EXPECT_FALSE(is_plain(bytes)) << "512 x 512 blocks take 65,536 bytes at least, these are " << bytes.size();
    bytes.insert(bytes.end() - 2, 1 << 16, 0x55);
    EXPECT_TRUE(is_plain(bytes));
}

TEST(PlainJpeg, RestartMarkersKeepTheirOrder) {
    Bytes bytes = speckled_jpeg(16, 16 * 12, {.restart_rows = 1});  // 0 to 7, then 0 to 2
    ASSERT_TRUE(is_plain(bytes));
    Bytes swapped = bytes;
    std::swap(marker(swapped, 0xd3)[1], marker(swapped, 0xd4)[1]);
    EXPECT_FALSE(is_plain(swapped));
    Bytes unannounced = bytes;
    const auto interval = marker(unannounced, 0xdd);
    interval[4] = interval[5] = 0;
    EXPECT_FALSE(is_plain(unannounced));
}

TEST(PlainJpeg, AdobesWordOnColoursCounts) {
    const Bytes bytes = speckled_jpeg(32, 32);
    for (const int transform : {0, 1, 2}) {
        Bytes marked = bytes;
        const Bytes adobe = {0xff, 0xee, 0,   14, 'A', 'd', 'o', 'b',
                             'e',  0,    100, 0,  0,   0,   0,   static_cast<std::uint8_t>(transform)};
        marked.insert(marked.begin() + 2, adobe.begin(), adobe.end());
        EXPECT_EQ(is_plain(marked), transform == 1);
    }
}

TEST(PlainJpeg, FillBytesBeforeAMarkerAreAllowed) {
    Bytes bytes = speckled_jpeg(32, 32);
    bytes.insert(marker(bytes, 0xc0), {0xff, 0xff, 0xff});
    EXPECT_TRUE(is_plain(bytes));
}

TEST(PlainJpeg, AnyOneWrongByteIsJudged) {
    const Bytes bytes = speckled_jpeg(24, 16);
    Random random(2);
    for (std::size_t at = 0; at < bytes.size(); ++at)
        for (int i = 0; i < 8; ++i) {
            Bytes wrong = bytes;
            wrong[at] = static_cast<std::uint8_t>(random.integer(0, 256));
            const std::optional<PictureSize> size = plain_jpeg_size(wrong);  // reads nothing that is not there
            EXPECT_TRUE(!size || (size->width > 0 && size->height > 0));
        }
}

TEST(PlainJpeg, MostPhotographsAre) {
    DYNVIT_NEEDS_SHARED(shared);
    int plain = 0, all = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(shared / "data/imagenet-val-300/val")) {
        if (!entry.is_regular_file()) continue;
        const Bytes bytes = read_file(entry.path(), "test");
        const PictureSize expected = picture_size(bytes, entry.path().string());
        ++all;
        const std::optional<PictureSize> size = plain_jpeg_size(bytes);
        if (!size) continue;
        ++plain;
        EXPECT_EQ(size->width, expected.width) << entry.path();
        EXPECT_EQ(size->height, expected.height) << entry.path();
    }
    EXPECT_GT(plain, all * 9 / 10) << "of " << all;
    RecordProperty("plain", plain);
}

}  // namespace
}  // namespace dynvit
