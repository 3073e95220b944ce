#include "dynvit/io/tensorboard_events.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <optional>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"

namespace dynvit {
namespace fs = std::filesystem;

namespace {

// ---- TFRecord -------------------------------------------------------------------------------------------------------

constexpr std::uint32_t kCastagnoli = 0x82f63b78;  // 0x1EDC6F41 with its bits reversed: the lowest bit goes first

constexpr std::array<std::uint32_t, 256> kCrcOfByte = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kCastagnoli : 0);
        table[byte] = crc;
    }
    return table;
}();

/// Little-endian, whatever the machine is.
template <class Unsigned>
void append_fixed(std::string& bytes, Unsigned value) {
    for (std::size_t i = 0; i < sizeof value; ++i) bytes.push_back(static_cast<char>(value >> 8 * i));
}

/// The CRC as a record holds it, turned and shifted (TensorFlow's lib/hash/crc32c.h): the plain CRC of data that has
/// its own CRC in it says little.
std::uint32_t masked_crc(std::string_view bytes) {
    const std::uint32_t crc = crc32c({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
    return std::rotr(crc, 15) + 0xa282ead8;
}

/// Length, its CRC, the data, its CRC.
std::string record_of(std::string_view data) {
    std::string record;
    record.reserve(data.size() + 16);
    append_fixed(record, std::uint64_t{data.size()});
    append_fixed(record, masked_crc(record));
    record += data;
    append_fixed(record, masked_crc(data));
    return record;
}

// ---- Protocol buffers: https://protobuf.dev/programming-guides/encoding --------------------------------------------

enum WireType { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

// Field numbers of TensorFlow's event.proto, summary.proto and tensor.proto, an enumeration a message.
enum EventField { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7 };
enum SessionLogField { kStatus = 1 };
enum SummaryField { kValue = 1 };
enum ValueField { kTag = 1, kSimpleValue = 2, kImage = 4, kTensor = 8, kMetadata = 9 };
enum ImageField { kHeight = 1, kWidth = 2, kColorspace = 3, kEncodedImage = 4 };
enum TensorField { kType = 1, kShape = 2, kStringValue = 8 };
enum MetadataField { kPluginData = 1, kDataClass = 4 };
enum PluginDataField { kPluginName = 1 };

// What some of the fields can hold.
constexpr int kStart = 1;        // a session's status
constexpr int kRgb = 3;          // a colour space
constexpr int kString = 7;       // a tensor's type
constexpr int kTensorClass = 2;  // a data class

void append_varint(std::string& bytes, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
    bytes.push_back(static_cast<char>(value));
}

void put_key(std::string& message, int field, WireType type) {
    append_varint(message, static_cast<std::uint64_t>(field << 3 | type));
}

/// Zero is what a reader takes for a field that is not there.
void put_integer(std::string& message, int field, std::int64_t number) {
    if (number == 0) return;
    put_key(message, field, kVarint);
    append_varint(message, static_cast<std::uint64_t>(number));
}

void put_float(std::string& message, int field, float number) {
    put_key(message, field, kFixed32);
    append_fixed(message, std::bit_cast<std::uint32_t>(number));
}

void put_double(std::string& message, int field, double number) {
    put_key(message, field, kFixed64);
    append_fixed(message, std::bit_cast<std::uint64_t>(number));
}

/// Strings and messages in a message.
void put_bytes(std::string& message, int field, std::string_view bytes) {
    put_key(message, field, kLengthDelimited);
    append_varint(message, bytes.size());
    message += bytes;
}

// ---- Files ----------------------------------------------------------------------------------------------------------

constexpr std::string_view kNameStart = "events.out.tfevents.";
constexpr std::size_t kSecondDigits = 10;  // as many as every writer gives, so that names sort by time

/// The second that a file is named after, if it is an event file.
std::optional<std::int64_t> second_of(const std::string& name) {
    if (!name.starts_with(kNameStart)) return std::nullopt;
    const char* digits = name.data() + kNameStart.size();
    const char* end = name.data() + std::min(name.size(), kNameStart.size() + kSecondDigits);
    std::int64_t second = 0;
    const auto parsed = std::from_chars(digits, end, second);
    if (parsed.ec != std::errc() || parsed.ptr != digits + kSecondDigits) return std::nullopt;
    return second;
}

/// `now`, or the first second after the event files in the folder.
std::int64_t free_second(const fs::path& folder, std::int64_t now) {
    std::error_code problem;
    for (fs::directory_iterator entry(folder, problem), end; !problem && entry != end; entry.increment(problem)) {
        if (const auto second = second_of(entry->path().filename().string())) now = std::max(now, *second + 1);
    }
    if (problem) throw Error("tensorboard", folder.string(), ": cannot be listed: ", problem.message());
    return now;
}

}  // namespace

std::uint32_t crc32c(std::span<const std::uint8_t> bytes) {
    std::uint32_t crc = ~std::uint32_t{0};
    for (const std::uint8_t byte : bytes) crc = crc >> 8 ^ kCrcOfByte[(crc ^ byte) & 0xff];
    return ~crc;
}

/// A new file that grows by whole records.
class TensorBoardWriter::File {
  public:
    File(const fs::path& folder, std::int64_t second) {
        for (;; ++second) {  // another writer may have taken the name a moment ago
            path_ = folder / str(kNameStart, std::setfill('0'), std::setw(kSecondDigits), second, ".dynvit");
            descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
            if (descriptor_ >= 0) return;
            if (errno != EEXIST) fail(errno);
        }
    }
    ~File() { ::close(descriptor_); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    /// Throws Error; the file is then as it was before.
    void append(std::string_view record) {
        for (std::string_view rest = record; !rest.empty();) {
            const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
            if (written >= 0) {
                rest.remove_prefix(static_cast<std::size_t>(written));
            } else if (errno != EINTR) {
                const int why = errno;
                const bool mended = ::ftruncate(descriptor_, size_) == 0;
                fail(why, mended ? "" : "; it ends in a broken record now");
            }
        }
        size_ += static_cast<off_t>(record.size());
    }

    const fs::path& path() const { return path_; }

  private:
    [[noreturn]] void fail(int why, const char* state = "") const {
        throw Error("tensorboard", path_.string(), ": cannot be written: ", std::strerror(why), state);
    }

    fs::path path_;
    int descriptor_ = -1;
    off_t size_ = 0;
};

TensorBoardWriter::TensorBoardWriter(const fs::path& folder, std::int64_t first_step, Clock clock)
    : clock_(std::move(clock)) {
    make_directory(folder, "tensorboard");
    file_ = std::make_unique<File>(folder, free_second(folder, static_cast<std::int64_t>(clock_())));
    add_event(0, kFileVersion, "brain.Event:2");
    std::string start;
    put_integer(start, kStatus, kStart);
    add_event(first_step, kSessionLog, start);
}

TensorBoardWriter::~TensorBoardWriter() = default;

const fs::path& TensorBoardWriter::path() const {
    return file_->path();
}

void TensorBoardWriter::scalar(std::string_view tag, std::int64_t step, float number) {
    std::string content;
    put_float(content, kSimpleValue, number);
    add_value(tag, step, content);
}

void TensorBoardWriter::image(std::string_view tag, std::int64_t step, const Image& image) {
    const std::vector<std::uint8_t> png = encode_png(image);
    std::string message;
    put_integer(message, kHeight, image.height);
    put_integer(message, kWidth, image.width);
    put_integer(message, kColorspace, kRgb);
    put_bytes(message, kEncodedImage, {reinterpret_cast<const char*>(png.data()), png.size()});
    std::string content;
    put_bytes(content, kImage, message);
    add_value(tag, step, content);
}

// The text plugin's form: a tensor of one string, of the shape of a scalar.
void TensorBoardWriter::text(std::string_view tag, std::int64_t step, std::string_view markdown) {
    check_utf8("the text", markdown);
    std::string message;
    put_integer(message, kType, kString);
    put_bytes(message, kShape, "");
    put_bytes(message, kStringValue, markdown);
    std::string plugin;
    put_bytes(plugin, kPluginName, "text");
    std::string about;
    put_bytes(about, kPluginData, plugin);
    put_integer(about, kDataClass, kTensorClass);
    std::string content;
    put_bytes(content, kTensor, message);
    put_bytes(content, kMetadata, about);
    add_value(tag, step, content);
}

void TensorBoardWriter::add_value(std::string_view tag, std::int64_t step, std::string_view content) {
    check_utf8("the tag", tag);
    std::string message;
    put_bytes(message, kTag, tag);
    message += content;
    std::string summary;
    put_bytes(summary, kValue, message);
    add_event(step, kSummary, summary);
}

void TensorBoardWriter::add_event(std::int64_t step, int kind, std::string_view content) {
    std::string message;
    put_double(message, kWallTime, clock_());
    put_integer(message, kStep, step);
    put_bytes(message, kind, content);
    file_->append(record_of(message));
}

// A reader of protocol buffers refuses a string that is no UTF-8, and TensorBoard then reads no further in the file.
void TensorBoardWriter::check_utf8(const char* what, std::string_view text) const {
    try {
        nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
        throw Error("tensorboard", path().string(), ": ", what, ' ',
                    nlohmann::json(text.substr(0, 60)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace),
                    " is not valid UTF-8");
    }
}

}  // namespace dynvit
