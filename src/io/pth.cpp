#include "dynvit/io/pth.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <type_traits>
#include <utility>

#include "pth_container.hpp"

namespace dynvit {
namespace {

using Kind = PickleValue::Kind;
using Values = std::vector<const PickleValue*>;

constexpr std::size_t kMaxDimensions = 64;  // what LibTorch's operators take
constexpr std::uint64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();

// ---- Finding the state dict -----------------------------------------------------------------------------------------

/// A function of torch and what it would be called with.
struct Call {
    const PickleValue* function;
    const Values* arguments;

    bool of(std::string_view name) const { return function->is_global("torch._utils", name); }
    bool dense() const { return of("_rebuild_tensor") || of("_rebuild_tensor_v2") || of("_rebuild_tensor_v3"); }
    const PickleValue* argument(std::size_t place) const {
        return place < arguments->size() ? (*arguments)[place] : nullptr;
    }
};

/// _rebuild_tensor_v2, and as well _rebuild_qtensor, _rebuild_sparse_tensor and whatever PyTorch will add.
bool makes_tensor(const PickleValue& function) {
    return function.is(Kind::kGlobal) && function.items[0]->text == "torch._utils" &&
           function.items[1]->text.starts_with("_rebuild_");
}

/// The call that makes a tensor, inside of those that make it a parameter or a tensor of a subclass; nothing for any
/// other value.
std::optional<Call> tensor_call(const PickleValue& value) {
    const PickleValue* object = &value;
    while (object->is(Kind::kObject) && !object->items.empty()) {
        Call call{object->items[0], &object->items[1]->items};
        if (call.function->is_global("torch._tensor", "_rebuild_from_type_v2")) {  // (function, type, arguments, state)
            const Values& wrapped = *call.arguments;
            if (wrapped.size() < 3 || !wrapped[2]->is(Kind::kTuple)) return std::nullopt;
            call = {wrapped[0], &wrapped[2]->items};
        }
        const bool parameter = call.of("_rebuild_parameter") || call.of("_rebuild_parameter_with_state");
        if (!parameter) return makes_tensor(*call.function) ? std::optional(call) : std::nullopt;
        if (call.arguments->empty()) return std::nullopt;
        object = call.arguments->front();
    }
    return std::nullopt;
}

bool is_tensor_entry(const PickleValue& key, const PickleValue& value) {
    return key.is(Kind::kString) && tensor_call(value).has_value();
}

bool is_state_dict(const PickleValue& value) {
    if (!value.is(Kind::kDict)) return false;
    for (std::size_t i = 0; i < value.items.size(); i += 2) {
        if (is_tensor_entry(*value.items[i], *value.items[i + 1])) return true;
    }
    return false;
}

std::string shown_key(const PickleValue& key) {
    if (key.is(Kind::kInt)) return std::to_string(key.integer);
    return key.is(Kind::kString) ? quoted(key.text) : key.description();
}

// Usual names of a model's weights and of their moving average, the likelier ones first.
const std::vector<std::string>& plain_names() {
    static const std::vector<std::string> names = {"model",   "state_dict", "model_state_dict", "module",     "net",
                                                   "network", "params",     "weights",          "model_state"};
    return names;
}
const std::vector<std::string>& ema_names() {
    static const std::vector<std::string> names = {
        "model_ema", "state_dict_ema", "model_ema_state_dict", "ema", "ema_model", "ema_state_dict", "params_ema"};
    return names;
}

// Dicts of tensors in these are no weights.
const std::vector<std::string>& no_weights() {
    static const std::vector<std::string> names = {"optimizer", "optimizers",    "optimizer_states", "lr_scheduler",
                                                   "scaler",    "lr_schedulers", "callbacks",        "hyper_parameters",
                                                   "loops",     "amp_scaler",    "rng_state",        "args"};
    return names;
}

bool is_one_of(const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

/// A dict of tensors, and the keys that lead to it.
struct Part {
    const PickleValue* dict;
    std::vector<std::string> keys;

    std::string name() const { return join(keys, "."); }
    std::size_t tensors() const {
        std::size_t count = 0;
        for (std::size_t i = 0; i < dict->items.size(); i += 2) {
            count += is_tensor_entry(*dict->items[i], *dict->items[i + 1]) ? 1 : 0;
        }
        return count;
    }
    bool is_plain() const {
        return std::all_of(keys.begin(), keys.end(), [](const auto& key) { return is_one_of(plain_names(), key); });
    }
    bool is_ema() const {
        return std::any_of(keys.begin(), keys.end(), [](const auto& key) { return is_one_of(ema_names(), key); });
    }
};

/// A dict's values under strings that may be names, in order; the last of equal keys counts.
std::vector<std::pair<std::string, const PickleValue*>> named_values(const PickleValue& dict) {
    constexpr std::size_t kLongestName = 200;
    std::vector<std::pair<std::string, const PickleValue*>> values;
    std::map<std::string, std::size_t> places;
    for (std::size_t i = 0; i < dict.items.size(); i += 2) {
        const PickleValue& key = *dict.items[i];
        if (!key.is(Kind::kString) || key.text.size() > kLongestName) continue;
        const auto [place, is_new] = places.try_emplace(key.text, values.size());
        if (is_new) {
            values.emplace_back(key.text, dict.items[i + 1]);
        } else {
            values[place->second].second = dict.items[i + 1];
        }
    }
    return values;
}

/// @param seen dicts that were looked through: one may be in several others, or in itself
void find_parts(const PickleValue& dict, const std::vector<std::string>& keys, std::set<const PickleValue*>& seen,
                std::vector<Part>& found) {
    constexpr std::size_t kMostKeys = 3;
    if (!seen.insert(&dict).second) return;
    if (is_state_dict(dict)) found.push_back({&dict, keys});
    if (keys.size() == kMostKeys) return;
    for (const auto& [key, value] : named_values(dict)) {
        if (!value->is(Kind::kDict) || is_one_of(no_weights(), key)) continue;
        std::vector<std::string> inner = keys;
        inner.push_back(key);
        find_parts(*value, inner, seen, found);
    }
}

/// The one whose first key stands first among the names.
const Part* first_named(const std::vector<const Part*>& parts, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        for (const Part* part : parts) {
            if (!part->keys.empty() && part->keys.front() == name) return part;
        }
    }
    return parts.empty() ? nullptr : parts.front();
}

// ---- Reading it -----------------------------------------------------------------------------------------------------

/// Where a tensor's elements are.
struct Layout {
    StorageId storage;
    bool typed;  // the storage knows what it holds
    at::ScalarType type;
    std::int64_t offset;  // in elements, as the strides are
    std::vector<std::int64_t> sizes, strides;
};

class Reader {
  public:
    explicit Reader(const std::filesystem::path& path) : file_(path, "pth"), container_(read_pth_container(file_)) {}

    Pth read(WeightsPart wanted, const std::string& name) {
        const PickleValue& root = *container_.pickle.root;
        if (container_.torchscript) return read_module(root);
        if (!root.is(Kind::kDict)) file_.fail("holds ", kind_of(root), ", expected a dict of tensors");
        std::vector<Part> parts;
        std::set<const PickleValue*> seen;
        find_parts(root, {}, seen, parts);
        const Part& part = name.empty() ? choose(parts, wanted) : named(parts, name);
        Pth result;
        result.part = part.name();
        for (const Part& other : parts) {
            if (&other != &part && !other.keys.empty()) result.other_parts.push_back(other.name());
        }
        for (std::size_t i = 0; !part.keys.empty() && i < root.items.size(); i += 2) {
            if (root.items[i]->text != part.keys.front()) skip(*root.items[i], result);
        }
        read_state_dict(*part.dict, result);
        return result;
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail_tensor(const std::string& key, const Parts&... parts) const {
        file_.fail("tensor ", quoted(key), ": ", parts...);
    }

    /// A compiled module's tensors by the attributes that lead to them, which is what its state dict has.
    Pth read_module(const PickleValue& root) {
        Pth result;
        result.torchscript = true;
        std::set<const PickleValue*> seen;
        read_attributes(root, "", seen, result);
        if (result.tensors.empty()) file_.fail("is a TorchScript archive without weights");
        return result;
    }

    void read_attributes(const PickleValue& module, const std::string& prefix, std::set<const PickleValue*>& seen,
                         Pth& result) {
        constexpr std::size_t kLongestName = 500;
        if (!is_module(module) || !seen.insert(&module).second || prefix.size() > kLongestName) return;
        const PickleValue& state = *module.items[2];
        for (std::size_t i = 0; i < state.items.size(); i += 2) {
            if (!state.items[i]->is(Kind::kString)) continue;
            const std::string name = prefix + state.items[i]->text;
            if (is_tensor_entry(*state.items[i], *state.items[i + 1])) {
                take_tensor(name, *tensor_call(*state.items[i + 1]), result);
            } else {
                read_attributes(*state.items[i + 1], name + ".", seen, result);
            }
        }
    }

    /// An object of a compiled class, with a dict of attributes.
    static bool is_module(const PickleValue& value) {
        return value.is(Kind::kObject) && value.items.size() == 3 && value.items[0]->is(Kind::kGlobal) &&
               value.items[0]->items[0]->text.starts_with("__torch__") && value.items[2]->is(Kind::kDict);
    }

    void take_tensor(const std::string& name, const Call& call, Pth& result) {
        if (const std::string reason = unread_reason(call); !reason.empty()) {
            result.tensors.erase(name);  // the last of equal keys counts
            result.unread.insert_or_assign(name, reason);
        } else {
            result.unread.erase(name);
            result.tensors.insert_or_assign(name, read_tensor(name, call));
        }
    }

    /// Plain weights under a usual name, all of the file, or the only ones that are there.
    const Part& choose(const std::vector<Part>& parts, WeightsPart wanted) const {
        std::vector<const Part*> plain, averages, others;
        const Part* whole = nullptr;
        for (const Part& part : parts) {
            if (part.keys.empty()) {
                whole = &part;
            } else {
                (part.is_ema() ? averages : part.is_plain() ? plain : others).push_back(&part);
            }
        }
        if (wanted == WeightsPart::kEma) {
            if (averages.empty()) fail_without_weights(wanted);
            return *first_named(averages, ema_names());
        }
        if (!plain.empty()) return *first_named(plain, plain_names());
        if (others.empty()) others = std::move(averages);
        const auto has_more = [&](const Part* other) { return other->tensors() > whole->tensors(); };
        if (whole && std::none_of(others.begin(), others.end(), has_more)) return *whole;
        if (others.empty()) fail_without_weights(wanted);
        if (others.size() > 1) fail_ambiguous(others);
        return *others.front();
    }

    const Part& named(const std::vector<Part>& parts, const std::string& name) const {
        std::vector<std::string> names;
        for (const Part& part : parts) {
            if (part.name() == name) return part;
            if (!part.keys.empty()) names.push_back(part.name());
        }
        file_.fail("holds no dict of tensors under ", quoted(name), ", expected one of ",
                   names.empty() ? "none: the file is one" : join(names, ", "));
    }

    [[noreturn]] void fail_ambiguous(const std::vector<const Part*>& parts) const {
        std::vector<std::string> names;
        for (const Part* part : parts) names.push_back(part->name());
        file_.fail("holds weights under ", join(names, ", "), ", expected one of them: --weights-part");
    }

    [[noreturn]] void fail_without_weights(WeightsPart wanted) const {
        constexpr std::size_t kMostKeys = 12;
        const PickleValue& root = *container_.pickle.root;
        const bool ema = wanted == WeightsPart::kEma;
        std::vector<std::string> found;
        for (std::size_t i = 0; i < root.items.size() && found.size() < kMostKeys; i += 2) {
            found.push_back(str(shown_key(*root.items[i]), " (", kind_of(*root.items[i + 1]), ')'));
        }
        if (root.items.size() > 2 * kMostKeys) found.push_back("...");
        file_.fail("holds no ", ema ? "EMA weights" : "weights", "; expected a dict of tensors under ",
                   join(ema ? ema_names() : plain_names(), ", "), ema ? "" : ", or as the whole file", "; found ",
                   found.empty() ? "nothing" : join(found, ", "));
    }

    static std::string kind_of(const PickleValue& value) {
        if (tensor_call(value)) return "a tensor";
        return is_state_dict(value) ? "a dict of tensors" : value.description();
    }

    static void skip(const PickleValue& key, Pth& result) {
        constexpr std::size_t kMostNames = 100;
        if (result.skipped.size() < kMostNames) result.skipped.push_back(shown_key(key));
    }

    void read_state_dict(const PickleValue& dict, Pth& result) {
        for (std::size_t i = 0; i < dict.items.size(); i += 2) {
            const PickleValue &key = *dict.items[i], &value = *dict.items[i + 1];
            if (!is_tensor_entry(key, value)) {
                skip(key, result);
                continue;
            }
            take_tensor(key.text, *tensor_call(value), result);
        }
        if (result.tensors.empty() && !result.unread.empty()) {
            fail_tensor(result.unread.begin()->first, result.unread.begin()->second);
        }
        take_off_wrapper_prefixes(result.tensors, result.unread);
    }

    /// Why such a tensor is not read; empty where it is.
    static std::string unread_reason(const Call& call) {
        const PickleValue* first = call.argument(0);
        if (call.of("_rebuild_qtensor")) return str("is quantized (", quantized_type(call), ')');
        if (call.of("_rebuild_sparse_tensor")) return str("is sparse (", layout_name(first), ')');
        if (call.of("_rebuild_nested_tensor")) return "is a nested tensor";
        if (call.of("_rebuild_meta_tensor_no_storage")) return "is a meta tensor, which has no numbers";
        if (!call.dense()) return str("is made by ", dotted(*call.function), ", which is not known");
        if (!first || !storage_id(*first)) return str("its storage is of no known type", storage_class(first));
        if (!call.of("_rebuild_tensor_v3")) return is_lazy(call.argument(6)) ? kLazy : "";
        const PickleValue* type = call.argument(6);
        if (type && !known_dtype(*type)) return str("its type is ", dotted(*type), ", which is not read");
        return is_lazy(call.argument(7)) ? kLazy : "";
    }

    static constexpr const char* kLazy = "is a lazily negated or conjugated view";

    /// Whether metadata says that the numbers are to be negated or conjugated on reading, which no weights are.
    static bool is_lazy(const PickleValue* metadata) {
        return metadata && std::ranges::any_of(metadata->items, [](const PickleValue* value) {
                   return value->is(Kind::kBool) && value->integer != 0;
               });
    }

    /// "torch.uint4" of a class or function; what else it is, where it is none.
    static std::string dotted(const PickleValue& value) {
        if (!value.is(Kind::kGlobal)) return value.description();
        const std::string name = quoted(value.items[0]->text + '.' + value.items[1]->text);
        return name.substr(1, name.size() - 2);
    }

    /// " (torch.QInt8Storage)" of a storage's identity, where it has a class.
    static std::string storage_class(const PickleValue* storage) {
        if (!storage || !storage->is(Kind::kPersistent)) return "";
        const Values& parts = storage->items[0]->items;
        return parts.size() > 1 && parts[1]->is(Kind::kGlobal) ? str(" (", dotted(*parts[1]), ')') : "";
    }

    /// "torch.per_tensor_affine of torch.QInt8Storage".
    static std::string quantized_type(const Call& call) {
        const PickleValue* parameters = call.argument(4);
        const bool named = parameters && parameters->is(Kind::kTuple) && !parameters->items.empty();
        const PickleValue* storage = call.argument(0);
        const Values* parts = storage && storage->is(Kind::kPersistent) ? &storage->items[0]->items : nullptr;
        const bool typed = parts && parts->size() > 1;
        return str(named ? dotted(*parameters->items[0]) : "in an unknown way", typed ? " of " : "",
                   typed ? dotted(*(*parts)[1]) : "");
    }

    /// "torch.sparse_coo" of torch.serialization._get_layout("torch.sparse_coo").
    static std::string layout_name(const PickleValue* layout) {
        const bool named = layout && layout->is(Kind::kObject) && layout->items.size() >= 2 &&
                           layout->items[1]->items.size() == 1 && layout->items[1]->items[0]->is(Kind::kString);
        if (!named) return "of an unknown layout";
        const std::string name = quoted(layout->items[1]->items[0]->text);
        return name.substr(1, name.size() - 2);
    }

    at::Tensor read_tensor(const std::string& key, const Call& call) {
        const Layout layout = read_layout(key, call);
        const std::uint64_t bytes = check_sizes(key, layout);
        const Extent& extent = check_storage(key, layout.storage);
        const auto options = at::TensorOptions().dtype(layout.type);
        if (bytes == 0) return at::empty(layout.sizes, options);
        check_reach(key, layout);

        at::Tensor tensor = at::empty({0}, options);
        tensor.set_(storage(layout.storage.key, extent, swapped_bytes(layout)),
                    static_cast<std::int64_t>(layout.storage.begin) + layout.offset, layout.sizes, layout.strides);
        if (!tensor.is_contiguous()) {
            reserve(bytes);
            tensor = tensor.contiguous();
        }
        if (layout.type == at::kBool) check_truth_values(key, tensor);
        return tensor;
    }

    /// Of _rebuild_tensor(storage, offset, sizes, strides), _v2 (the same, requires_grad, hooks[, metadata]) or _v3
    /// (the same, requires_grad, hooks, dtype[, metadata]).
    Layout read_layout(const std::string& key, const Call& call) const {
        const Values& arguments = *call.arguments;
        const bool typed = !call.of("_rebuild_tensor_v3");
        if (arguments.size() < (typed ? 4 : 7)) fail_tensor(key, "has only ", arguments.size(), " arguments");
        const std::optional<StorageId> id = storage_id(*arguments[0]);
        if (!id) fail_tensor(key, "its storage is of no known type");
        // A view of an untyped storage starts at a byte, which might not be where an element may; torch writes none.
        if (!typed && id->begin != 0) fail_tensor(key, "is a view of an untyped storage");
        if (!arguments[1]->is(Kind::kInt) || arguments[1]->integer < 0) {
            fail_tensor(key, "its offset is no number from 0 on");
        }
        return {*id,
                typed,
                typed ? id->type : *known_dtype(*arguments[6]),  // others were left unread
                arguments[1]->integer,
                numbers(key, "sizes", *arguments[2]),
                numbers(key, "strides", *arguments[3])};
    }

    static std::optional<at::ScalarType> known_dtype(const PickleValue& value) {
        const bool named = value.is(Kind::kGlobal) && value.items[0]->text == "torch";
        return named ? type_of_dtype(value.items[1]->text) : std::nullopt;
    }

    /// A tuple of sizes or strides, or a torch.Size of one.
    std::vector<std::int64_t> numbers(const std::string& key, const char* what, const PickleValue& value) const {
        const PickleValue* tuple = &value;
        if (value.is(Kind::kObject) && !value.items.empty() && value.items[0]->is_global("torch", "Size") &&
            value.items[1]->items.size() == 1) {
            tuple = value.items[1]->items[0];
        }
        if (!tuple->is(Kind::kTuple))
            fail_tensor(key, "its ", what, " are ", value.description(), ", expected a tuple");
        if (tuple->items.size() > kMaxDimensions) {
            fail_tensor(key, "has ", tuple->items.size(), ' ', what, "; at most ", kMaxDimensions, " are possible");
        }
        std::vector<std::int64_t> found;
        for (const PickleValue* item : tuple->items) {
            if (!item->is(Kind::kInt) || item->integer < 0) {
                fail_tensor(key, "its ", what, " are not all numbers from 0 on");
            }
            found.push_back(item->integer);
        }
        return found;
    }

    /// How many bytes the tensor has.
    std::uint64_t check_sizes(const std::string& key, const Layout& layout) const {
        if (layout.sizes.size() != layout.strides.size()) {
            fail_tensor(key, "has ", layout.sizes.size(), " sizes and ", layout.strides.size(), " strides");
        }
        std::uint64_t without_zeros = c10::elementSize(layout.type);  // must fit too: strides are computed from it
        bool empty = false;
        for (const std::int64_t size : layout.sizes) {
            const auto count = static_cast<std::uint64_t>(size);
            empty = empty || count == 0;
            if (count > kMaxBytes / without_zeros)
                fail_tensor(key, "shape (", join(layout.sizes, ", "), ") is too large");
            without_zeros *= std::max<std::uint64_t>(count, 1);
        }
        return empty ? 0 : without_zeros;
    }

    /// Where the storage is. It must have as many elements as the tensor says.
    const Extent& check_storage(const std::string& key, const StorageId& id) const {
        const auto found = container_.storages.find(id.key);
        if (found == container_.storages.end()) fail_tensor(key, "its storage ", quoted(id.key), " is not in the file");
        const Extent& extent = found->second;
        const std::uint64_t elements = extent.bytes / c10::elementSize(id.type);
        if (id.begin > elements || id.count > elements - id.begin) {
            fail_tensor(key, "its storage ", quoted(id.key), " has ", extent.bytes, " bytes, expected ", id.count,
                        " elements of ", c10::elementSize(id.type), " bytes from element ", id.begin, " on");
        }
        return extent;
    }

    /// The last element must lie inside of the storage.
    void check_reach(const std::string& key, const Layout& layout) const {
        const std::uint64_t room =
            layout.storage.count * c10::elementSize(layout.storage.type) / c10::elementSize(layout.type);
        auto last = static_cast<std::uint64_t>(layout.offset);
        bool inside = last < room;
        for (std::size_t i = 0; inside && i < layout.sizes.size(); ++i) {
            const auto steps = static_cast<std::uint64_t>(layout.sizes[i] - 1);
            const auto stride = static_cast<std::uint64_t>(layout.strides[i]);
            if (stride == 0 || steps == 0) continue;
            inside = steps <= (room - 1 - last) / stride;
            if (inside) last += steps * stride;
        }
        if (inside) return;
        fail_tensor(key, "shape (", join(layout.sizes, ", "), ") with strides (", join(layout.strides, ", "),
                    ") from element ", layout.offset, " on does not lie inside of its storage of ", room, " elements");
    }

    /// Many views may share a storage, and a stride of 0 repeats it: what that would take is bounded here.
    void reserve(std::uint64_t bytes) {
        const std::uint64_t left =
            2 * container_.bytes - reserved_;  // each byte once in its storage, once in a copied view
        if (bytes > left) file_.fail("its tensors would take more than twice as many bytes as the file has");
        reserved_ += bytes;
    }

    /// How many bytes of an element stand in reverse order: those of one number. 1: none.
    std::size_t swapped_bytes(const Layout& layout) const {
        if (!(layout.typed ? container_.big_endian : container_.big_endian_untyped)) return 1;
        const std::size_t bytes = c10::elementSize(layout.type);
        return c10::isComplexType(layout.type) ? bytes / 2 : bytes;
    }

    /// @param swapped see swapped_bytes(); an untyped storage may hold elements of several sizes
    const at::Storage& storage(const std::string& key, const Extent& extent, std::size_t swapped) {
        const auto found = storages_.find({key, swapped});
        if (found != storages_.end()) return found->second;
        reserve(extent.bytes);
        at::Tensor bytes = at::empty({static_cast<std::int64_t>(extent.bytes)}, at::TensorOptions().dtype(at::kByte));
        auto* begin = static_cast<std::uint8_t*>(bytes.mutable_data_ptr());
        read_extent(file_, extent, begin, "data/" + key);
        for (std::uint64_t at = 0; swapped > 1 && at + swapped <= extent.bytes; at += swapped) {
            std::reverse(begin + at, begin + at + swapped);
        }
        return storages_.emplace(std::pair(key, swapped), bytes.storage()).first->second;
    }

    void check_truth_values(const std::string& key,
                            const at::Tensor& tensor) const {  // another value would be undefined
        const auto* bytes = static_cast<const std::uint8_t*>(tensor.const_data_ptr());
        if (std::any_of(bytes, bytes + tensor.numel(), [](std::uint8_t byte) { return byte > 1; })) {
            fail_tensor(key, "a bool is neither 0 nor 1");
        }
    }

    InputFile file_;
    PthContainer container_;
    std::map<std::pair<std::string, std::size_t>, at::Storage> storages_;
    std::uint64_t reserved_ = 0;
};

}  // namespace

Pth read_pth(const std::filesystem::path& path, WeightsPart part, const std::string& name) {
    return Reader(path).read(part, name);
}

void take_off_wrapper_prefixes(TensorMap& tensors, std::map<std::string, std::string>& unread) {
    const auto take_off = [](auto& map, const std::string& prefix) {
        std::remove_reference_t<decltype(map)> renamed;
        for (auto& [name, value] : map) renamed.emplace(name.substr(prefix.size()), std::move(value));
        map = std::move(renamed);
    };
    for (const std::string prefix : {"module.", "_orig_mod.", "module."}) {
        const auto has_it = [&](const auto& entry) { return entry.first.starts_with(prefix); };
        if (!std::ranges::all_of(tensors, has_it) || !std::ranges::all_of(unread, has_it)) continue;
        take_off(tensors, prefix);
        take_off(unread, prefix);
    }
}

}  // namespace dynvit
