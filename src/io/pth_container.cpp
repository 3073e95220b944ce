#include "pth_container.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "dynvit/core/file_kind.hpp"

namespace dynvit {
namespace {

using Kind = PickleValue::Kind;

struct TypeName {
    const char* storage;  // its class; "": only ever in an untyped storage
    const char* dtype;
    at::ScalarType type;
};

constexpr std::array<TypeName, 25> kTypes = {{
    {"DoubleStorage", "float64", at::kDouble},
    {"FloatStorage", "float32", at::kFloat},
    {"HalfStorage", "float16", at::kHalf},
    {"BFloat16Storage", "bfloat16", at::kBFloat16},
    {"LongStorage", "int64", at::kLong},
    {"IntStorage", "int32", at::kInt},
    {"ShortStorage", "int16", at::kShort},
    {"CharStorage", "int8", at::kChar},
    {"ByteStorage", "uint8", at::kByte},
    {"BoolStorage", "bool", at::kBool},
    {"ComplexFloatStorage", "complex64", at::kComplexFloat},
    {"ComplexDoubleStorage", "complex128", at::kComplexDouble},
    {"UntypedStorage", "", at::kByte},
    {"_UntypedStorage", "", at::kByte},  // of PyTorch 1.11 to 1.13
    {"QInt8Storage", "", at::kChar},     // of quantized tensors, which are skipped: their sizes matter
    {"QUInt8Storage", "", at::kByte},
    {"QUInt4x2Storage", "", at::kByte},
    {"QInt32Storage", "", at::kInt},
    {"", "float8_e4m3fn", at::kFloat8_e4m3fn},
    {"", "float8_e5m2", at::kFloat8_e5m2},
    {"", "uint16", at::kUInt16},
    {"", "uint32", at::kUInt32},
    {"", "uint64", at::kUInt64},
    {"", "float8_e4m3fnuz", at::ScalarType::Float8_e4m3fnuz},
    {"", "float8_e5m2fnuz", at::ScalarType::Float8_e5m2fnuz},
}};

std::optional<at::ScalarType> type_of(const char* TypeName::*column, const std::string& name) {
    const auto found =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& type) { return type.*column == name; });
    if (name.empty() || found == kTypes.end()) return std::nullopt;
    return found->type;
}

// Since PyTorch 1.6: a zip archive of NAME/data.pkl, NAME/byteorder and NAME/data/KEY for each storage.

bool is_torchscript(const ZipDirectory& directory) {
    const auto of_it = [](const auto& entry) { return entry.first.ends_with("/constants.pkl"); };
    return std::any_of(directory.files.begin(), directory.files.end(), of_it);
}

/// The archive's name with '/', which all its files start with.
std::string archive_prefix(const InputFile& file, const ZipDirectory& directory) {
    const bool torchscript = is_torchscript(directory);
    for (const std::string& name : directory.packed) {
        if (torchscript && name.find("/code/") != std::string::npos) continue;  // which nobody reads
        file.fail("is a zip archive in which ", quoted(name),
                  " is compressed or encrypted; torch.save stores files as they are");
    }
    for (const auto& [name, extent] : directory.files) {
        if (name.ends_with("/data.pkl")) return name.substr(0, name.rfind('/') + 1);
    }
    file.fail("is a zip archive without a data.pkl, so not one that torch.save wrote");
}

std::string contents(InputFile& file, const Extent& extent, const std::string& name) {
    std::string bytes(extent.bytes, '\0');
    file.read(extent.offset, bytes.data(), extent.bytes);
    check_crc(file, extent, bytes.data(), name);
    return bytes;
}

PthContainer read_zip(InputFile& file) {
    const ZipDirectory directory = read_zip_directory(file);
    const std::map<std::string, Extent>& files = directory.files;
    const std::string prefix = archive_prefix(file, directory);
    if (const auto order = files.find(prefix + "byteorder"); order != files.end()) {
        const std::string found = contents(file, order->second, order->first);
        if (found != "little") file.fail("its byte order is ", quoted(found), ", expected \"little\"");
    }

    PthContainer container;
    container.torchscript = is_torchscript(directory);
    const Extent& pickle = files.at(prefix + "data.pkl");
    contents(file, pickle, prefix + "data.pkl");  // compares the checksum
    container.pickle = read_pickle(file.stream_at(pickle.offset), pickle.bytes, file.path() + ": data.pkl");
    const std::string storages = prefix + "data/";
    for (auto at = files.lower_bound(storages); at != files.end() && at->first.starts_with(storages); ++at) {
        container.storages.emplace(at->first.substr(storages.size()), at->second);
    }
    return container;
}

// Before: five pickles (a magic number, a protocol, the machine, the object, the storages' keys), then for each key the
// number of its elements in 8 bytes, and they.

constexpr std::string_view kMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr std::int64_t kProtocol = 1001;

class LegacyReader {
  public:
    explicit LegacyReader(InputFile& file) : file_(file) {}

    PthContainer read() {
        check_magic();
        check_machine();
        PthContainer container;
        container.pickle = next("its object");
        const std::map<std::string, at::ScalarType> types = storage_types(container.pickle);
        const Pickle keys = next("its storage keys");
        if (!keys.root->is(Kind::kList)) file_.fail("its storage keys are ", keys.root->description());
        for (const PickleValue* key : keys.root->items) {
            const auto type = types.find(key->text);
            if (!key->is(Kind::kString) || type == types.end()) {
                file_.fail("storage ", quoted(key->text), " belongs to no tensor, so its size is not known");
            }
            container.storages[key->text] = take_storage(key->text, c10::elementSize(type->second));
        }
        return container;
    }

  private:
    Pickle next(const char* what) {
        std::istream& stream = file_.stream_at(position_);
        Pickle pickle = read_pickle(stream, file_.bytes() - position_, file_.path() + ": " + what);
        position_ = static_cast<std::uint64_t>(stream.tellg());
        return pickle;
    }

    void check_magic() {
        const Pickle magic = next("its first pickle");
        if (!magic.root->is(Kind::kBigInt) || magic.root->text != kMagic) {
            file_.fail("is a pickle, but not one that torch.save wrote");
        }
        const Pickle protocol = next("its protocol");
        if (!protocol.root->is(Kind::kInt) || protocol.root->integer != kProtocol) {
            file_.fail("its protocol is not ", kProtocol);
        }
    }

    void check_machine() {
        const Pickle machine = next("its system information");
        if (!machine.root->is(Kind::kDict)) file_.fail("its system information is ", machine.root->description());
        const auto& items = machine.root->items;
        for (std::size_t i = 0; i < items.size(); i += 2) {
            if (items[i]->text == "little_endian" && items[i + 1]->integer != 1) file_.fail("it is big-endian");
        }
    }

    /// The types of the storages that the object refers to.
    static std::map<std::string, at::ScalarType> storage_types(const Pickle& pickle) {
        std::map<std::string, at::ScalarType> types;
        for (const PickleValue& value : pickle.values) {
            if (const auto id = storage_id(value)) types.emplace(id->key, id->type);
        }
        return types;
    }

    Extent take_storage(const std::string& key, std::uint64_t element_bytes) {
        std::uint64_t count = 0;
        file_.read(position_, &count, sizeof count);
        position_ += sizeof count;
        if (count > (file_.bytes() - position_) / element_bytes) {
            file_.fail("storage ", quoted(key), " has ", count, " elements of ", element_bytes, " bytes where ",
                       file_.bytes() - position_, " bytes are left");
        }
        const Extent extent{position_, count * element_bytes, 0};
        position_ += extent.bytes;
        return extent;
    }

    InputFile& file_;
    std::uint64_t position_ = 0;
};

}  // namespace

PthContainer read_pth_container(InputFile& file) {
    std::vector<std::uint8_t> first(std::min<std::uint64_t>(file.bytes(), kKindBytes));
    file.read(0, first.data(), first.size());
    const FileKind kind = file_kind(first);
    if (first.size() >= 2 && first[0] == 'P' && first[1] == 'K') return read_zip(file);  // what is left of one, too
    const bool pickle = kind == FileKind::kPickle || (kind == FileKind::kUnknown && first[0] == 0x80);
    if (!pickle)
        file.fail("found ", describe_file(first, file.bytes()), ", expected a PyTorch checkpoint", advice(kind));
    return LegacyReader(file).read();
}

std::optional<StorageId> storage_id(const PickleValue& value) {
    if (!value.is(Kind::kPersistent) || !value.items[0]->is(Kind::kTuple)) return std::nullopt;
    // ('storage', class, key, location, number of elements[, None or (key, begin, number) of a view])
    const auto& parts = value.items[0]->items;
    if (parts.size() < 5 || parts[0]->text != "storage" || !parts[1]->is(Kind::kGlobal) ||
        !parts[2]->is(Kind::kString) || !parts[4]->is(Kind::kInt) || parts[4]->integer < 0) {
        return std::nullopt;
    }
    if (!parts[1]->items[0]->text.starts_with("torch")) return std::nullopt;
    const auto type = type_of(&TypeName::storage, parts[1]->items[1]->text);
    if (!type) return std::nullopt;
    StorageId id{parts[2]->text, *type, 0, static_cast<std::uint64_t>(parts[4]->integer)};
    if (parts.size() > 5 && parts[5]->is(Kind::kTuple)) {
        const auto& view = parts[5]->items;
        if (view.size() != 3 || !view[1]->is(Kind::kInt) || !view[2]->is(Kind::kInt)) return std::nullopt;
        if (view[1]->integer < 0 || view[2]->integer < 0) return std::nullopt;
        id.begin = static_cast<std::uint64_t>(view[1]->integer);
        id.count = static_cast<std::uint64_t>(view[2]->integer);
    }
    return id;
}

std::optional<at::ScalarType> type_of_dtype(const std::string& name) {
    return type_of(&TypeName::dtype, name);
}

void check_crc(const InputFile& file, const Extent& extent, const void* bytes, const std::string& name) {
    if (extent.crc == 0) return;
    const auto found = crc32_z(crc32_z(0, nullptr, 0), static_cast<const Bytef*>(bytes), extent.bytes);
    if (found != extent.crc) file.fail("damaged: the checksum of ", quoted(name), " is wrong");
}

}  // namespace dynvit
