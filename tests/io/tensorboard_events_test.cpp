// Compares with records that TensorBoard's own Python writer made of the same events, with published CRC-32C values,
// and with what was put in, read back by a reader of the test's own: records, checksums computed bit by bit, fields.
#include "dynvit/io/tensorboard_events.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dynvit/core/files.hpp"
#include "dynvit/core/random.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using Bytes = std::vector<std::uint8_t>;
using test::error_of;

// ---- a reader of the test's own -------------------------------------------------------------------------------------

/// What a sequence of bytes holds, from its front; any step past its end fails the test and gives zeros.
class Cursor {
  public:
    explicit Cursor(std::string bytes) : bytes_(std::move(bytes)) {}

    bool done() const { return at_ == bytes_.size(); }

    std::string take(std::uint64_t count) {
        const bool there = count <= bytes_.size() - at_;
        EXPECT_TRUE(there) << count << " bytes at " << at_ << " of " << bytes_.size();
        if (!there) at_ = bytes_.size();
        const std::string part = there ? bytes_.substr(at_, count) : std::string();
        at_ += part.size();
        return part;
    }

    template <class Value>
    Value fixed() {
        Value value{};
        const std::string part = take(sizeof value);
        std::memcpy(&value, part.data(), part.size());
        return value;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const auto byte = fixed<std::uint8_t>();
            value |= std::uint64_t{byte & 0x7fu} << shift;
            if (byte < 0x80) return value;
        }
        ADD_FAILURE() << "a varint does not end";
        return value;
    }

  private:
    std::string bytes_;
    std::size_t at_ = 0;
};

std::uint32_t slow_crc32c(const std::string& bytes) {
    std::uint32_t crc = 0xffffffff;
    for (const char byte : bytes) {
        for (int bit = 0; bit < 8; ++bit) {
            const bool odd = (crc ^ static_cast<std::uint8_t>(byte) >> bit) & 1;
            crc = crc >> 1 ^ (odd ? 0x82f63b78 : 0);
        }
    }
    return ~crc;
}

std::uint32_t slow_masked_crc(const std::string& bytes) {
    const std::uint32_t crc = slow_crc32c(bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/// The data of a file's records.
std::vector<std::string> records_of(const std::filesystem::path& path) {
    const Bytes file = read_file(path, "test");
    Cursor cursor({file.begin(), file.end()});
    std::vector<std::string> records;
    while (!cursor.done() && !testing::Test::HasFailure()) {
        const std::string length_bytes = cursor.take(8);
        const auto length = Cursor(length_bytes).fixed<std::uint64_t>();
        EXPECT_EQ(cursor.fixed<std::uint32_t>(), slow_masked_crc(length_bytes));
        records.push_back(cursor.take(length));
        EXPECT_EQ(cursor.fixed<std::uint32_t>(), slow_masked_crc(records.back()));
    }
    return records;
}

/// A message's fields: numbers as they are, bytes, or the bits of a float or double. No field appears twice here.
struct Message {
    std::map<int, std::uint64_t> numbers;
    std::map<int, std::string> bytes;
    std::map<int, float> floats;
    std::map<int, double> doubles;
};

Message parse(const std::string& text) {
    Message message;
    std::set<int> seen;
    for (Cursor cursor(text); !cursor.done();) {
        const std::uint64_t key = cursor.varint();
        const int field = static_cast<int>(key >> 3);
        EXPECT_TRUE(seen.insert(field).second) << field;
        switch (key & 7) {
            case 0:
                message.numbers[field] = cursor.varint();
                break;
            case 1:
                message.doubles[field] = cursor.fixed<double>();
                break;
            case 2:
                message.bytes[field] = cursor.take(cursor.varint());
                break;
            case 5:
                message.floats[field] = cursor.fixed<float>();
                break;
            default:
                ADD_FAILURE() << "wire type " << (key & 7);
                return message;
        }
    }
    return message;
}

struct Event {
    double wall_time = 0;
    std::int64_t step = 0;
    std::string file_version;
    std::optional<std::uint64_t> session_status;
    std::string tag;
    Message value;  // of the summary's only value
};

std::vector<Event> events_of(const std::filesystem::path& path) {
    std::vector<Event> events;
    for (const std::string& record : records_of(path)) {
        Message message = parse(record);
        Event event;
        event.wall_time = message.doubles[1];
        event.step = static_cast<std::int64_t>(message.numbers[2]);
        event.file_version = message.bytes[3];
        if (message.bytes.contains(7)) event.session_status = parse(message.bytes[7]).numbers[1];
        if (message.bytes.contains(5)) event.value = parse(parse(message.bytes[5]).bytes[1]);
        event.tag = event.value.bytes[1];
        events.push_back(std::move(event));
    }
    return events;
}

// ---- the tests ------------------------------------------------------------------------------------------------------

std::string hex_of(const std::filesystem::path& path) {
    std::string text;
    for (const std::uint8_t byte : read_file(path, "test"))
        for (const int digit : {byte >> 4, byte & 15}) text += "0123456789abcdef"[digit];
    return text;
}

TensorBoardWriter::Clock stopped(double seconds) {
    return [seconds] { return seconds; };
}

class TensorBoardTest : public testing::Test {
  protected:
    std::filesystem::path logs() const { return folder_ / "logs"; }

    test::TemporaryFolder folder_;
};

TEST(Crc32c, PublishedValues) {  // the check value of the CRC catalogue; RFC 3720, B.4
    const std::string digits = "123456789";
    EXPECT_EQ(crc32c(Bytes(digits.begin(), digits.end())), 0xe3069283u);
    EXPECT_EQ(slow_crc32c(digits), 0xe3069283u);
    EXPECT_EQ(crc32c({}), 0u);
    Bytes bytes(32, 0);
    EXPECT_EQ(crc32c(bytes), 0x8a9136aau);
    bytes.assign(32, 255);
    EXPECT_EQ(crc32c(bytes), 0x62a8ab43u);
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    EXPECT_EQ(crc32c(bytes), 0x46dd794eu);
    std::iota(bytes.rbegin(), bytes.rend(), std::uint8_t{0});
    EXPECT_EQ(crc32c(bytes), 0x113fdb5cu);
}

TEST_F(TensorBoardTest, WritesTheBytesOfTensorBoardsOwnWriter) {
    TensorBoardWriter writer(logs(), 300, stopped(1700000000.25));
    writer.scalar("loss", 300, 0.75F);
    writer.scalar("z", 0, 0.0F);
    writer.scalar("n", -1, -2.0F);
    writer.text("config", 0, "*a*");
    EXPECT_EQ(hex_of(writer.path()),
              "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"  // brain.Event:2
              "100000000000000095fbfe180900001040fc54d94110ac023a0208016b3b88f1"  // session start at 300
              "1b000000000000001a0d9e130900001040fc54d94110ac022a0d0a0b0a046c6f7373150000403f88db8a14"
              "1500000000000000d6ab6b2b0900001040fc54d9412a0a0a080a017a15000000004ee0f765"
              "200000000000000029eda9500900001040fc54d94110ffffffffffffffffff012a0a0a080a016e15000000c02e4c3134"
              "2c00000000000000f4aecc450900001040fc54d9412a210a1f0a06636f6e66696742090807120042032a612a"
              "4a0a0a060a04746578742002501d232e");
}

TEST_F(TensorBoardTest, ScalarsComeBack) {
    std::vector<float> values = {0.0F, -0.0F, 1e-45F, 3.4e38F, INFINITY, -INFINITY};
    std::vector<std::int64_t> steps = {0, 1, 127, 128, 16384, std::numeric_limits<std::int64_t>::max()};
    Random random(7);
    while (values.size() < 500) {
        values.push_back(static_cast<float>(random.normal()));
        steps.push_back(static_cast<std::int64_t>(random.bits() >> random.integer(1, 64)));
    }
    double now = 1.5e9;
    TensorBoardWriter writer(logs(), 0, [&now] { return now += 0.125; });
    const double opened = now;
    for (std::size_t i = 0; i < values.size(); ++i) writer.scalar(std::string(i, 't'), steps[i], values[i]);

    const std::vector<Event> events = events_of(writer.path());
    ASSERT_EQ(events.size(), values.size() + 2);
    EXPECT_EQ(events[0].file_version, "brain.Event:2");
    EXPECT_EQ(events[1].session_status, 1u);
    for (std::size_t i = 0; i < values.size(); ++i) {
        const Event& event = events[i + 2];
        EXPECT_EQ(event.wall_time, opened + 0.125 * static_cast<double>(i + 1));
        EXPECT_EQ(event.step, steps[i]);
        EXPECT_EQ(event.tag, std::string(i, 't'));
        ASSERT_EQ(event.value.floats.count(2), 1u);
        EXPECT_EQ(std::bit_cast<std::uint32_t>(event.value.floats.at(2)), std::bit_cast<std::uint32_t>(values[i]));
    }
}

TEST_F(TensorBoardTest, NotANumberIsAValueToo) {
    TensorBoardWriter writer(logs(), 0, stopped(1));
    writer.scalar("loss", 3, NAN);
    EXPECT_TRUE(std::isnan(events_of(writer.path()).at(2).value.floats.at(2)));
}

TEST_F(TensorBoardTest, PicturesComeBack) {
    Image image(37, 5);
    Random random(3);
    for (std::uint8_t& pixel : image.pixels) pixel = static_cast<std::uint8_t>(random.integer(0, 256));
    TensorBoardWriter writer(logs(), 0, stopped(1));
    writer.image("kept", 9, image);

    const Event event = events_of(writer.path()).at(2);
    EXPECT_EQ(event.step, 9);
    EXPECT_EQ(event.tag, "kept");
    Message picture = parse(event.value.bytes.at(4));
    EXPECT_EQ(picture.numbers, (std::map<int, std::uint64_t>{{1, 5}, {2, 37}, {3, 3}}));  // height, width, RGB
    const std::string& png = picture.bytes.at(4);
    EXPECT_EQ(decode_image(Bytes(png.begin(), png.end()), "kept").pixels, image.pixels);
}

TEST_F(TensorBoardTest, AnEventIsInTheFileAtOnce) {
    TensorBoardWriter writer(logs(), 0, stopped(1));
    EXPECT_EQ(records_of(writer.path()).size(), 2u);
    for (std::size_t i = 0; i < 5; ++i) {
        writer.scalar("loss", 1, 1.0F);
        EXPECT_EQ(records_of(writer.path()).size(), i + 3);
    }
}

TEST_F(TensorBoardTest, AResumedRunMakesALaterFileThatSaysWhereItStarts) {
    std::vector<std::filesystem::path> paths;
    for (const double now : {1700000000.9, 1700000000.1, 1600000000.0, 1700000005.0}) {
        TensorBoardWriter writer(logs(), static_cast<std::int64_t>(10 * paths.size()), stopped(now));
        writer.scalar("loss", 7, 1.0F);
        paths.push_back(writer.path());
    }
    EXPECT_EQ(paths[0], logs() / "events.out.tfevents.1700000000.dynvit");
    EXPECT_EQ(paths[1], logs() / "events.out.tfevents.1700000001.dynvit");  // started in the same second
    EXPECT_EQ(paths[2], logs() / "events.out.tfevents.1700000002.dynvit");  // the clock was set back
    EXPECT_EQ(paths[3], logs() / "events.out.tfevents.1700000005.dynvit");
    for (std::size_t i = 0; i < paths.size(); ++i) {
        const std::vector<Event> events = events_of(paths[i]);
        ASSERT_EQ(events.size(), 3u);
        EXPECT_EQ(events[1].session_status, 1u);
        EXPECT_EQ(events[1].step, 10 * static_cast<std::int64_t>(i));
    }
}

TEST_F(TensorBoardTest, OtherFilesDoNotCountForTheName) {
    make_directory(logs(), "test");
    for (const char* name : {"events.out.tfevents.", "events.out.tfevents.99", "events.out.tfevents.99999999x9.host",
                             "events.out.tfevents.-999999999.host", "old.events.out.tfevents.1800000000.host", "9"})
        write_file_atomically(logs() / name, "", "test");
    EXPECT_EQ(TensorBoardWriter(logs(), 0, stopped(12)).path(), logs() / "events.out.tfevents.0000000012.dynvit");
    write_file_atomically(logs() / "events.out.tfevents.1800000000.host.1.0.v2", "", "test");
    EXPECT_EQ(TensorBoardWriter(logs(), 0, stopped(12)).path(), logs() / "events.out.tfevents.1800000001.dynvit");
}

TEST_F(TensorBoardTest, FoldersThatCannotBeWrittenAreNamed) {
    write_file_atomically(logs(), "", "test");
    EXPECT_EQ(error_of([&] { TensorBoardWriter(logs(), 0, stopped(1)); }),
              "[tensorboard] " + logs().string() + ": the folder cannot be made: Not a directory");
    const std::string text = error_of([&] { TensorBoardWriter("/proc/self", 0, stopped(1)); });
    EXPECT_EQ(text.find("[tensorboard] /proc/self/events.out.tfevents.0000000001.dynvit: cannot be written: "), 0u)
        << text;
}

TEST_F(TensorBoardTest, AFullDiskLeavesWholeRecords) {
    TensorBoardWriter writer(logs(), 0, stopped(1));
    writer.scalar("loss", 1, 0.5F);
    const Bytes before = read_file(writer.path(), "test");
    {
        const test::FileSizeLimit limit(before.size() + 10);  // a part of the next record still fits
        EXPECT_EQ(error_of([&] { writer.scalar("loss", 2, 0.25F); }),
                  "[tensorboard] " + writer.path().string() + ": cannot be written: File too large");
        EXPECT_EQ(read_file(writer.path(), "test"), before);
    }
    writer.scalar("loss", 3, 0.125F);
    const std::vector<Event> events = events_of(writer.path());
    ASSERT_EQ(events.size(), 4u);
    EXPECT_EQ(events[2].step, 1);
    EXPECT_EQ(events[3].step, 3);
}

TEST_F(TensorBoardTest, AFullDiskAtTheStartIsAnError) {
    const std::string text = error_of([&] {
        const test::FileSizeLimit limit(10);
        TensorBoardWriter(logs(), 0, stopped(1));
    });
    EXPECT_NE(text.find("events.out.tfevents.0000000001.dynvit: cannot be written: File too large"), std::string::npos)
        << text;
}

TEST_F(TensorBoardTest, WhatTensorBoardCouldNotReadIsAnErrorAndNotWritten) {
    TensorBoardWriter writer(logs(), 0, stopped(1));
    const Bytes before = read_file(writer.path(), "test");
    const std::string start = "[tensorboard] " + writer.path().string() + ": ";
    EXPECT_EQ(error_of([&] { writer.scalar("a\xff", 1, 1.0F); }), start + "the tag \"a\\ufffd\" is not valid UTF-8");
    EXPECT_EQ(error_of([&] { writer.image("\xc3", 1, Image(1, 1)); }),
              start + "the tag \"\\ufffd\" is not valid UTF-8");
    EXPECT_EQ(error_of([&] { writer.text("a", 1, "\x80\n"); }), start + "the text \"\\ufffd\\n\" is not valid UTF-8");
    EXPECT_EQ(error_of([&] { writer.image("a", 1, Image()); }), "[image] picture to encode: has no pixels (0 x 0)");
    EXPECT_EQ(read_file(writer.path(), "test"), before);
}

}  // namespace
}  // namespace dynvit
