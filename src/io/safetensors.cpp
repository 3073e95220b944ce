#include "dynvit/io/safetensors.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "input_file.hpp"

namespace dynvit {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian and read as they are");

using nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;                             // the original library's limit
constexpr std::size_t kMaxDimensions = 64;                                         // what LibTorch's operators take
constexpr std::uint64_t kMaxBits = std::numeric_limits<std::uint64_t>::max() - 7;  // of a tensor
constexpr const char* kMetadataKey = "__metadata__";

struct StoredType {
    const char* name;
    at::ScalarType type;
};

constexpr std::array<StoredType, 19> kTypes = {{
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
    {"U64", at::kUInt64},
    {"U32", at::kUInt32},
    {"U16", at::kUInt16},
    {"C64", at::kComplexFloat},
    {"F8_E4M3FNUZ", at::ScalarType::Float8_e4m3fnuz},
    {"F8_E5M2FNUZ", at::ScalarType::Float8_e5m2fnuz},
    {"F8_E8M0", at::ScalarType::Float8_e8m0fnu},
}};

/// Types of the format that LibTorch cannot turn into others.
struct PackedType {
    const char* name;
    std::uint64_t bits;
};

constexpr std::array<PackedType, 3> kPackedTypes = {{{"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}}};

const StoredType* stored_type(at::ScalarType type) {
    const auto* const found = std::ranges::find(kTypes, type, &StoredType::type);
    return found == kTypes.end() ? nullptr : found;
}

std::string type_names() {
    std::vector<std::string> names;
    for (const StoredType& type : kTypes) names.emplace_back(type.name);
    return join(names, " ");
}

/// A short rendering of a wrong value.
std::string shown(const json& value) {
    std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    return text;
}

/// What the header says of one tensor, checked.
struct Entry {
    std::string name;
    at::ScalarType type;
    std::vector<std::int64_t> shape;
    std::uint64_t begin, end;  // in the data, which starts after the header
    std::string unread = {};   // why it can't be read; empty: it can
};

class Reader {
  public:
    explicit Reader(const std::filesystem::path& path) : file_(path, "safetensors") {}

    Safetensors read() {
        Safetensors result;
        const json header = read_header();
        std::vector<Entry> entries;
        for (const auto& [name, value] : header.items()) {
            if (name == kMetadataKey) {
                result.metadata = metadata(value);
            } else {
                entries.push_back(entry(name, value));
            }
        }
        check_layout(entries);
        for (const Entry& entry : entries) {
            if (entry.unread.empty()) {
                result.tensors.emplace(entry.name, read_tensor(entry));
            } else {
                result.unread.emplace(entry.name, entry.unread);
            }
        }
        if (result.tensors.empty() && !result.unread.empty()) {
            fail_tensor(result.unread.begin()->first, result.unread.begin()->second);
        }
        return result;
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        file_.fail(parts...);
    }

    template <class... Parts>
    [[noreturn]] void fail_tensor(const std::string& name, const Parts&... parts) const {
        fail("tensor ", quoted(name), ": ", parts...);
    }

    /// Reads up to where the data starts.
    json read_header() {
        std::uint64_t length = 0;
        if (file_.bytes() < sizeof length)
            fail("has ", file_.bytes(), " bytes; even an empty safetensors file has more than ", sizeof length);
        file_.read(0, &length, sizeof length);
        if (length > file_.bytes() - sizeof length)
            fail("header length ", length, " is larger than the file (", file_.bytes(), " bytes)");
        if (length > kMaxHeaderBytes)
            fail("header length ", length, " is over the limit of ", kMaxHeaderBytes, " bytes");
        data_begin_ = sizeof length + length;
        data_bytes_ = file_.bytes() - data_begin_;
        std::string text(length, '\0');
        file_.read(sizeof length, text.data(), length);
        if (text.empty() || text[0] != '{') fail("is not a safetensors file: its header does not start with '{'");

        // The names seen in the objects that are open: JSON leaves open which of two equal names counts.
        std::vector<std::set<std::string>> open_objects;
        const auto watch = [&](int depth, json::parse_event_t event, json& value) {
            if (event == json::parse_event_t::object_start) {
                if (depth > 2) fail("header is nested too deeply");
                open_objects.emplace_back();
            } else if (event == json::parse_event_t::array_start) {
                if (depth > 2) fail("header is nested too deeply");
            } else if (event == json::parse_event_t::object_end) {
                open_objects.pop_back();
            } else if (event == json::parse_event_t::key) {
                const auto& key = value.get_ref<const std::string&>();
                if (!open_objects.back().insert(key).second) fail("header names ", quoted(key), " twice");
            }
            return true;
        };
        try {
            return json::parse(text, watch);
        } catch (const json::parse_error& error) {
            fail("header is not valid JSON at its byte ", error.byte);
        } catch (const json::exception&) {
            fail("header is not valid JSON: a number is out of range");
        }
    }

    std::map<std::string, std::string> metadata(const json& value) const {
        if (!value.is_object()) fail(kMetadataKey, " is ", shown(value), ", expected an object of strings");
        std::map<std::string, std::string> result;
        for (const auto& [key, text] : value.items()) {
            if (!text.is_string()) fail(kMetadataKey, ' ', quoted(key), " is ", shown(text), ", expected a string");
            result.emplace(key, text.get<std::string>());
        }
        return result;
    }

    Entry entry(const std::string& name, const json& value) const {
        if (!value.is_object()) fail_tensor(name, "is ", shown(value), ", expected an object");
        for (const auto& [key, ignored] : value.items())
            if (key != "dtype" && key != "shape" && key != "data_offsets")
                fail_tensor(name, "unknown field ", quoted(key), "; dtype, shape and data_offsets are understood");
        for (const char* key : {"dtype", "shape", "data_offsets"})
            if (!value.contains(key)) fail_tensor(name, "has no ", key);

        Entry result{name, at::kFloat, {}, 0, 0};
        const json& dtype = value["dtype"];
        std::uint64_t bits = 8;  // of an element; 8: one of a type without a known size, which nobody checks
        bool known = true;
        const auto* const type = std::ranges::find_if(kTypes, [&](const StoredType& t) { return dtype == t.name; });
        const auto* const packed =
            std::ranges::find_if(kPackedTypes, [&](const PackedType& t) { return dtype == t.name; });
        if (type != kTypes.end()) {
            result.type = type->type;
            bits = 8 * c10::elementSize(type->type);
        } else if (packed != kPackedTypes.end()) {
            result.unread = str("its type is ", packed->name, ", which is not read");
            bits = packed->bits;
        } else {
            result.unread = str("unknown type ", shown(dtype), ", expected one of ", type_names());
            known = false;
        }

        const json& shape = value["shape"];
        if (!shape.is_array()) fail_tensor(name, "shape is ", shown(shape), ", expected a list of sizes");
        if (shape.size() > kMaxDimensions)
            fail_tensor(name, "has ", shape.size(), " dimensions; at most ", kMaxDimensions, " are possible");
        // The product without the zeros must fit too: strides are computed from it.
        std::uint64_t without_zeros = bits;
        bool empty = false;
        for (const json& size : shape) {
            if (!size.is_number_unsigned()) fail_tensor(name, "shape ", shown(shape), " holds what is no size");
            const std::uint64_t count = size.get<std::uint64_t>();
            empty = empty || count == 0;
            if (count > kMaxBits / without_zeros) fail_tensor(name, "shape ", shown(shape), " is too large");
            without_zeros *= std::max<std::uint64_t>(count, 1);
            result.shape.push_back(static_cast<std::int64_t>(count));
        }
        const std::uint64_t bytes = empty ? 0 : (without_zeros + 7) / 8;

        const json& offsets = value["data_offsets"];
        if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
            !offsets[1].is_number_unsigned())
            fail_tensor(name, "data_offsets is ", shown(offsets), ", expected [begin, end]");
        result.begin = offsets[0].get<std::uint64_t>();
        result.end = offsets[1].get<std::uint64_t>();
        if (result.begin > result.end || result.end > data_bytes_)
            fail_tensor(name, "data_offsets ", shown(offsets), " do not lie in the file's ", data_bytes_,
                        " bytes of data");
        if (known && result.end - result.begin != bytes)
            fail_tensor(name, "shape ", shown(shape), " of ", dtype.get<std::string>(), " needs ", bytes,
                        " bytes, data_offsets ", shown(offsets), " give ", result.end - result.begin);
        return result;
    }

    /// Puts the entries in the order of their bytes, which must cover the data once.
    void check_layout(std::vector<Entry>& entries) const {
        std::sort(entries.begin(), entries.end(),
                  [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
        std::uint64_t position = 0;
        for (const Entry& entry : entries) {
            if (entry.begin < position)
                fail_tensor(entry.name, "its bytes, from ", entry.begin, ", overlap those before, which end at ",
                            position);
            if (entry.begin > position)
                fail_tensor(entry.name, "bytes ", position, " to ", entry.begin, " before it belong to no tensor");
            position = entry.end;
        }
        if (position != data_bytes_)
            fail(data_bytes_ - position, " of ", data_bytes_, " bytes of data belong to no tensor");
    }

    at::Tensor read_tensor(const Entry& entry) {
        at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(entry.type));
        if (entry.begin == entry.end) return tensor;
        file_.read(data_begin_ + entry.begin, tensor.mutable_data_ptr(), entry.end - entry.begin);
        if (entry.type == at::kBool) {  // reading another value as a bool is undefined
            const auto* bytes = static_cast<const std::uint8_t*>(tensor.const_data_ptr());
            const auto* wrong = std::find_if(bytes, bytes + tensor.numel(), [](std::uint8_t byte) { return byte > 1; });
            if (wrong != bytes + tensor.numel())
                fail_tensor(entry.name, "BOOL element ", wrong - bytes, " is ", int{*wrong}, ", expected 0 or 1");
        }
        return tensor;
    }

    InputFile file_;
    std::uint64_t data_begin_ = 0;
    std::uint64_t data_bytes_ = 0;
};

const char* stored_name(const std::string& name, const at::Tensor& tensor, const std::filesystem::path& path) {
    if (!tensor.defined()) throw Error("safetensors", path.string(), ": tensor ", quoted(name), " has no value");
    const StoredType* type = stored_type(tensor.scalar_type());
    if (!type || tensor.layout() != at::kStrided)
        throw Error("safetensors", path.string(), ": tensor ", quoted(name), " is ", tensor.toString(),
                    "; the format holds dense tensors of ", type_names());
    return type->name;
}

}  // namespace

Safetensors read_safetensors(const std::filesystem::path& path) {
    return Reader(path).read();
}

bool is_safetensors_type(at::ScalarType type) {
    return stored_type(type) != nullptr;
}

void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata) {
    json header = json::object();
    if (!metadata.empty()) header[kMetadataKey] = metadata;
    std::uint64_t position = 0;
    for (const auto& [name, tensor] : tensors) {
        if (name == kMetadataKey) throw Error("safetensors", path.string(), ": no tensor may be called ", kMetadataKey);
        const char* dtype = stored_name(name, tensor, path);
        const std::uint64_t end = position + tensor.nbytes();
        header[name] = {{"dtype", dtype}, {"shape", tensor.sizes().vec()}, {"data_offsets", {position, end}}};
        position = end;
    }

    std::string text;
    try {
        text = header.dump();
    } catch (const json::exception&) {
        throw Error("safetensors", path.string(), ": a tensor's name or metadata is not valid UTF-8");
    }
    text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts aligned
    const std::uint64_t length = text.size();
    if (length > kMaxHeaderBytes)
        throw Error("safetensors", path.string(), ": header of ", length, " bytes is over the limit of ",
                    kMaxHeaderBytes);

    AtomicFile file(path, "safetensors");
    file.write(&length, sizeof length);
    file.write(text.data(), text.size());
    for (const auto& [name, tensor] : tensors) {
        const at::Tensor plain = tensor.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
        file.write(plain.const_data_ptr(), plain.nbytes());
    }
    file.commit();
}

}  // namespace dynvit
