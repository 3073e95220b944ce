#include "pth_container.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <sstream>
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

constexpr std::array<TypeName, 27> kTypes = {{
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
    {"QInt8Storage", "", at::kChar},     // of quantized tensors, which stay unread: their sizes matter
    {"QUInt8Storage", "", at::kByte},
    {"QUInt4x2Storage", "", at::kByte},
    {"QUInt2x4Storage", "", at::kByte},
    {"QInt32Storage", "", at::kInt},
    {"", "float8_e4m3fn", at::kFloat8_e4m3fn},
    {"", "float8_e5m2", at::kFloat8_e5m2},
    {"", "uint16", at::kUInt16},
    {"", "uint32", at::kUInt32},
    {"", "uint64", at::kUInt64},
    {"", "float8_e4m3fnuz", at::ScalarType::Float8_e4m3fnuz},
    {"", "float8_e5m2fnuz", at::ScalarType::Float8_e5m2fnuz},
    {"", "float8_e8m0fnu", at::ScalarType::Float8_e8m0fnu},
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

/// What is in an archive that torch.save did not write.
[[noreturn]] void fail_other_archive(const InputFile& file, const ZipDirectory& directory) {
    constexpr std::size_t kMost = 3;
    std::vector<std::string> names;
    bool arrays = false, checkpoint = false;
    for (const auto& [name, extent] : directory.files) {
        if (names.size() < kMost) names.push_back(quoted(name));
        arrays = arrays || name.ends_with(".npy");
        for (const char* ending : {".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar"}) {
            checkpoint = checkpoint || name.ends_with(ending);
        }
    }
    if (directory.files.size() > names.size()) names.emplace_back("...");
    file.fail("is a zip archive without a data.pkl, so not one that torch.save wrote",
              names.empty() ? "" : str(": it holds ", join(names, ", ")), arrays ? " (NumPy's .npz)" : "",
              checkpoint && !arrays ? "; unpack it first" : "");
}

/// The archive's name with '/', which all its files start with.
std::string archive_prefix(const InputFile& file, const ZipDirectory& directory) {
    constexpr std::string_view kPickle = "data.pkl";
    std::vector<std::string> prefixes;  // of the pickles that stand highest
    const auto depth = [](const std::string& name) { return std::count(name.begin(), name.end(), '/'); };
    const auto take = [&](const std::string& name) {
        if (name != kPickle && !name.ends_with("/data.pkl")) return;
        const std::string prefix = name.substr(0, name.size() - kPickle.size());
        if (!prefixes.empty() && depth(prefix) < depth(prefixes.front())) prefixes.clear();
        if (prefixes.empty() || depth(prefix) == depth(prefixes.front())) prefixes.push_back(prefix);
    };
    for (const auto& [name, extent] : directory.files) take(name);
    for (const auto& [name, how] : directory.unreadable) take(name);
    if (prefixes.empty()) fail_other_archive(file, directory);
    if (prefixes.size() > 1) {
        file.fail("is a zip archive of several checkpoints, ", quoted(prefixes[0]), " and ", quoted(prefixes[1]),
                  "; unpack it first");
    }
    return prefixes.front();
}

/// Where a file of the archive is. Throws Error for one that is there and cannot be read.
const Extent* find_file(const InputFile& file, const ZipDirectory& directory, const std::string& name) {
    if (const auto how = directory.unreadable.find(name); how != directory.unreadable.end()) {
        file.fail("is a zip archive in which ", quoted(name), " is ", how->second, "; expected files as they are, as ",
                  "torch.save has them, or deflated");
    }
    const auto found = directory.files.find(name);
    return found == directory.files.end() ? nullptr : &found->second;
}

std::string contents(InputFile& file, const Extent& extent, const std::string& name) {
    std::string bytes(extent.bytes, '\0');
    read_extent(file, extent, bytes.data(), name);
    return bytes;
}

bool is_big_endian(InputFile& file, const ZipDirectory& directory, const std::string& name) {
    constexpr std::uint64_t kLongest = 16;
    const Extent* extent = find_file(file, directory, name);
    if (!extent) return false;
    std::string order = extent->bytes > kLongest ? "" : contents(file, *extent, name);
    order.erase(order.find_last_not_of(" \t\r\n") + 1);  // of an editor's
    if (order != "little" && order != "big") {
        file.fail("its byte order is ", quoted(order), ", expected \"little\" or \"big\"");
    }
    return order == "big";
}

PthContainer read_zip(InputFile& file) {
    const ZipDirectory directory = read_zip_directory(file);
    const std::string prefix = archive_prefix(file, directory);
    PthContainer container;
    container.bytes = std::max(file.bytes(), directory.bytes);
    container.torchscript = is_torchscript(directory);
    container.big_endian = container.big_endian_untyped = is_big_endian(file, directory, prefix + "byteorder");
    const std::string name = prefix + "data.pkl";
    std::istringstream pickle(contents(file, *find_file(file, directory, name), name));
    container.pickle = read_pickle(pickle, pickle.view().size(), file.path() + ": data.pkl");
    const std::string storages = prefix + "data/";
    const auto& files = directory.files;
    for (auto at = files.lower_bound(storages); at != files.end() && at->first.starts_with(storages); ++at) {
        container.storages.emplace(at->first.substr(storages.size()), at->second);
    }
    for (const auto& [packed, how] : directory.unreadable) {
        if (packed.starts_with(storages)) find_file(file, directory, packed);
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
        PthContainer container;
        container.bytes = file_.bytes();
        container.big_endian_untyped = is_of_big_endian_machine();
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

    /// PyTorch writes elements little-endian everywhere, but for those of untyped storages, which have no elements.
    bool is_of_big_endian_machine() {
        const Pickle machine = next("its system information");
        if (!machine.root->is(Kind::kDict)) file_.fail("its system information is ", machine.root->description());
        const auto& items = machine.root->items;
        bool big = false;
        for (std::size_t i = 0; i < items.size(); i += 2) {
            if (items[i]->text == "little_endian") big = items[i + 1]->integer == 0;
        }
        return big;
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
        const Extent extent{position_, count * element_bytes};
        position_ += extent.bytes;
        return extent;
    }

    InputFile& file_;
    std::uint64_t position_ = 0;
};

// ---- Storages -------------------------------------------------------------------------------------------------------

struct View {
    std::int64_t begin, count;
};

std::optional<StorageId> make_id(std::string_view module, const std::string& name, const std::string& key,
                                 std::int64_t count, const std::optional<View>& view) {
    const auto type = type_of(&TypeName::storage, name);
    if (!module.starts_with("torch") || !type || count < 0) return std::nullopt;
    if (!view) return StorageId{key, *type, 0, static_cast<std::uint64_t>(count)};
    if (view->begin < 0 || view->count < 0) return std::nullopt;
    return StorageId{key, *type, static_cast<std::uint64_t>(view->begin), static_cast<std::uint64_t>(view->count)};
}

/// Python's text of a storage's identity: ('storage', <class 'torch.FloatStorage'>, 'KEY', 'cpu', 4) and, before
/// PyTorch 1.6, behind the number None or ('KEY', 0, 4).
class IdentityText {
  public:
    explicit IdentityText(std::string_view text) : rest_(text) {}

    std::optional<StorageId> read() {
        if (!take("('storage', <class '")) return std::nullopt;
        const std::string path = until("'>, '");
        const std::size_t dot = path.rfind('.');
        const std::string key = until("', '");
        until("', ");  // the location
        const std::int64_t count = number();
        std::optional<View> view;
        if (take(", ('")) {
            until("', ");  // the view's key
            const std::int64_t begin = number();
            fits_ = take(", ") && fits_;
            view = View{begin, number()};
            fits_ = take(")") && fits_;
        } else {
            take(", None");
        }
        if (!take(")") || !rest_.empty() || !fits_ || dot == std::string::npos) return std::nullopt;
        return make_id(std::string_view(path).substr(0, dot), path.substr(dot + 1), key, count, view);
    }

  private:
    bool take(std::string_view part) {
        const bool there = rest_.starts_with(part);
        if (there) rest_.remove_prefix(part.size());
        return there;
    }

    /// What stands before `end`, which is taken, too.
    std::string until(std::string_view end) {
        const std::size_t at = rest_.find(end);
        fits_ = fits_ && at != std::string_view::npos;
        if (!fits_) return {};
        std::string part(rest_.substr(0, at));
        rest_.remove_prefix(at + end.size());
        return part;
    }

    std::int64_t number() {
        std::int64_t value = -1;
        const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
        fits_ = fits_ && problem == std::errc();
        rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
        return value;
    }

    std::string_view rest_;
    bool fits_ = true;
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
    if (!value.is(Kind::kPersistent)) return std::nullopt;
    const PickleValue& identity = *value.items[0];
    if (identity.is(Kind::kString)) return IdentityText(identity.text).read();
    if (!identity.is(Kind::kTuple)) return std::nullopt;
    // ('storage', class, key, location, number of elements[, None or (key, begin, number) of a view])
    const auto& parts = identity.items;
    if (parts.size() < 5 || parts[0]->text != "storage" || !parts[1]->is(Kind::kGlobal) ||
        !parts[2]->is(Kind::kString) || !parts[4]->is(Kind::kInt)) {
        return std::nullopt;
    }
    std::optional<View> view;
    if (parts.size() > 5 && parts[5]->is(Kind::kTuple)) {
        const auto& numbers = parts[5]->items;
        if (numbers.size() != 3 || !numbers[1]->is(Kind::kInt) || !numbers[2]->is(Kind::kInt)) return std::nullopt;
        view = View{numbers[1]->integer, numbers[2]->integer};
    }
    return make_id(parts[1]->items[0]->text, parts[1]->items[1]->text, parts[2]->text, parts[4]->integer, view);
}

std::optional<at::ScalarType> type_of_dtype(const std::string& name) {
    return type_of(&TypeName::dtype, name);
}

}  // namespace dynvit
