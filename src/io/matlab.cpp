#include "dynvit/io/matlab.hpp"

#define ZLIB_CONST  // input is not written to
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/files.hpp"

namespace dynvit {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr const char* kArea = "matlab";
constexpr std::size_t kFileHeader = 128;
constexpr std::size_t kMostUnpacked = 64 << 20;

// What a data element holds ("mi..." in MATLAB's description of the format).
enum Type : std::uint32_t {
    kInt8 = 1,
    kUint8 = 2,
    kInt16 = 3,
    kUint16 = 4,
    kInt32 = 5,
    kUint32 = 6,
    kSingle = 7,
    kDouble = 9,
    kInt64 = 12,
    kUint64 = 13,
    kMatrix = 14,
    kPacked = 15,
    kUtf8 = 16,
    kUtf16 = 17,
};

// What an array is ("mx...").
constexpr std::uint8_t kStruct = 2, kChar = 4, kFirstNumeric = 6, kLastNumeric = 15;

template <class Number>
Number number_at(Bytes bytes, std::size_t at) {
    Number number;
    std::memcpy(&number, bytes.data() + at, sizeof number);
    return number;
}

struct Element {
    std::uint32_t type = 0;
    Bytes data;
};

/// Data elements one after the other.
class Elements {
  public:
    Elements(Bytes bytes, const std::string& file, std::size_t start) : rest_(bytes), file_(file), at_(start) {}

    bool empty() const { return rest_.empty(); }

    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw Error(kArea, file_, ": at byte ", at_, ": ", parts...);
    }

    Element next() {
        constexpr std::size_t kTag = 8, kSmallTag = 4;
        if (rest_.size() < kTag) fail("the file ends within a tag: it was cut short");
        const auto word = number_at<std::uint32_t>(rest_, 0);
        const bool is_small = word >> 16 != 0;  // up to four bytes within the tag
        const std::uint32_t type = is_small ? word & 0xffff : word;
        const std::size_t size = is_small ? word >> 16 : number_at<std::uint32_t>(rest_, kSmallTag);
        const std::size_t start = is_small ? kSmallTag : kTag;
        if (size > rest_.size() - start || (is_small && size > kTag - kSmallTag))
            fail("a data element of ", size, " bytes, but only ", rest_.size() - start,
                 " are left: it was cut short, or is damaged");
        const Element element{type, rest_.subspan(start, size)};
        std::size_t end = is_small ? kTag : start + size;
        if (!is_small && type != kPacked) end = (end + kTag - 1) / kTag * kTag;
        end = std::min(end, rest_.size());
        rest_ = rest_.subspan(end);
        at_ += end;
        return element;
    }

    /// The next one, of this type.
    Bytes next(std::uint32_t type, const char* what) {
        const Element element = next();
        if (element.type != type) fail("found a data element of type ", element.type, ", expected ", what);
        return element.data;
    }

    std::size_t at() const { return at_; }
    const std::string& file() const { return file_; }

  private:
    Bytes rest_;
    const std::string& file_;
    std::size_t at_;  // byte in the file or in what was unpacked
};

std::vector<std::uint8_t> unpacked(Bytes packed, const Elements& place) {
    z_stream stream{};
    if (inflateInit(&stream) != Z_OK) place.fail("zlib has no memory left");
    const std::unique_ptr<z_stream, int (*)(z_stream*)> ended(&stream, inflateEnd);
    std::vector<std::uint8_t> out, piece(1 << 16);
    stream.next_in = packed.data();
    stream.avail_in = static_cast<uInt>(packed.size());
    int result = Z_OK;
    while (result == Z_OK) {
        if (out.size() > kMostUnpacked) place.fail("packed data of more than ", kMostUnpacked, " bytes");
        stream.next_out = piece.data();
        stream.avail_out = static_cast<uInt>(piece.size());
        result = inflate(&stream, Z_NO_FLUSH);
        out.insert(out.end(), piece.data(), stream.next_out);
    }
    if (result != Z_STREAM_END) place.fail("damaged packed data");
    return out;
}

/// An array's head: what stands before its values.
struct Array {
    explicit Array(const Elements& parts) : values(parts) {}

    std::uint8_t kind = 0;
    std::size_t count = 1;  // elements
    std::string name;
    Elements values;
};

std::optional<Array> open_array(Bytes matrix, const std::string& file, std::size_t at) {
    if (matrix.empty()) return std::nullopt;  // as MATLAB writes an empty one
    Array array(Elements(matrix, file, at));
    Elements& parts = array.values;
    const Bytes flags = parts.next(kUint32, "an array's flags");
    if (flags.size() != 8) parts.fail("an array's flags of ", flags.size(), " bytes, expected 8");
    array.kind = flags[0];
    const Bytes sizes = parts.next(kInt32, "an array's sizes");
    for (std::size_t i = 0; i + 4 <= sizes.size(); i += 4) {
        const auto size = number_at<std::int32_t>(sizes, i);
        if (size < 0) parts.fail("an array of size ", size);
        array.count = size == 0 ? 0 : array.count * static_cast<std::size_t>(size);
        if (array.count > kMostUnpacked) parts.fail("an array of more than ", kMostUnpacked, " elements");
    }
    const Bytes name = parts.next(kInt8, "an array's name");
    array.name.assign(name.begin(), name.end());
    return array;
}

std::string text_of(const Element& element) {
    const bool wide = element.type == kUint16 || element.type == kUtf16;
    std::string text;
    for (std::size_t i = 0; i + (wide ? 1 : 0) < element.data.size(); i += wide ? 2 : 1) {
        const unsigned letter = wide ? number_at<std::uint16_t>(element.data, i) : element.data[i];
        text += letter >= 0x20 && letter < 0x7f ? static_cast<char>(letter) : '?';
    }
    return text;
}

template <class Number>
std::string first_of(Bytes data) {
    return data.size() < sizeof(Number) ? "" : str(+number_at<Number>(data, 0));
}

std::string first_number(const Element& element) {
    switch (element.type) {
        case kInt8:
            return first_of<std::int8_t>(element.data);
        case kUint8:
            return first_of<std::uint8_t>(element.data);
        case kInt16:
            return first_of<std::int16_t>(element.data);
        case kUint16:
            return first_of<std::uint16_t>(element.data);
        case kInt32:
            return first_of<std::int32_t>(element.data);
        case kUint32:
            return first_of<std::uint32_t>(element.data);
        case kSingle:
            return first_of<float>(element.data);
        case kDouble:
            return first_of<double>(element.data);
        case kInt64:
            return first_of<std::int64_t>(element.data);
        case kUint64:
            return first_of<std::uint64_t>(element.data);
        default:
            return "";
    }
}

std::string value_of(Bytes matrix, const Elements& place) {
    std::optional<Array> array = open_array(matrix, place.file(), place.at() - matrix.size());
    if (!array || array->values.empty()) return "";
    if (array->kind == kChar) return text_of(array->values.next());
    const bool is_number = array->kind >= kFirstNumeric && array->kind <= kLastNumeric;
    return is_number ? first_number(array->values.next()) : "";
}

MatlabStructs read_structs(Array& array) {
    Elements& parts = array.values;
    const Bytes length_data = parts.next(kInt32, "the length of field names");
    const std::int32_t length = length_data.size() == 4 ? number_at<std::int32_t>(length_data, 0) : 0;
    if (length <= 0) parts.fail("field names of ", length, " bytes");
    const Bytes names = parts.next(kInt8, "field names");
    MatlabStructs table;
    for (std::size_t i = 0; i + length <= names.size(); i += static_cast<std::size_t>(length)) {
        const Bytes name = names.subspan(i, static_cast<std::size_t>(length));
        table.fields.emplace_back(name.begin(), std::ranges::find(name, std::uint8_t{0}));
    }
    if (table.fields.empty()) parts.fail("a struct array without a field");
    for (std::size_t row = 0; row < array.count; ++row) {
        std::vector<std::string> values;
        for (std::size_t field = 0; field < table.fields.size(); ++field)
            values.push_back(value_of(parts.next(kMatrix, "an array"), parts));
        table.rows.push_back(std::move(values));
    }
    return table;
}

std::optional<MatlabStructs> find_structs(Bytes matrix, const std::string& file, std::size_t at,
                                          const std::string& variable) {
    std::optional<Array> array = open_array(matrix, file, at);
    if (!array || array->name != variable) return std::nullopt;
    if (array->kind != kStruct)
        array->values.fail("the variable ", variable, " is of kind ", +array->kind, ", expected a struct array");
    return read_structs(*array);
}

void check_header(Bytes bytes, const std::string& file) {
    const bool level_5 = bytes.size() >= kFileHeader && number_at<std::uint16_t>(bytes, 124) == 0x0100 &&
                         bytes[126] == 'I' && bytes[127] == 'M';
    if (level_5) return;
    const bool other_machine = bytes.size() >= kFileHeader && bytes[126] == 'M' && bytes[127] == 'I';
    throw Error(kArea, file, ": found ",
                other_machine ? "a MAT-file of a big-endian machine" : describe_file(bytes, bytes.size()),
                ", expected a little-endian MAT-file of level 5 (save -v7)");
}

}  // namespace

MatlabStructs read_matlab_structs(const std::filesystem::path& path, const std::string& variable) {
    const std::string file = path.string();
    const std::vector<std::uint8_t> bytes = read_file(path, kArea);
    check_header(bytes, file);
    Elements elements(Bytes(bytes).subspan(kFileHeader), file, kFileHeader);
    while (!elements.empty()) {
        const Element element = elements.next();
        std::optional<MatlabStructs> found;
        if (element.type == kPacked) {
            const std::vector<std::uint8_t> matrix = unpacked(element.data, elements);
            const std::string inside = file + " (unpacked)";
            Elements parts(matrix, inside, 0);
            found = find_structs(parts.next(kMatrix, "an array"), inside, 8, variable);
        } else if (element.type == kMatrix) {
            found = find_structs(element.data, file, elements.at() - element.data.size(), variable);
        }
        if (found) return std::move(*found);
    }
    throw Error(kArea, file, ": no variable ", variable, " in it");
}

}  // namespace dynvit
