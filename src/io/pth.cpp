#include "dynvit/io/pth.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
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
};

/// The call that makes a dense tensor, inside of those that make it a parameter or a tensor of a subclass; nothing for
/// any other value.
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
        if (!parameter) {
            const bool tensor =
                call.of("_rebuild_tensor") || call.of("_rebuild_tensor_v2") || call.of("_rebuild_tensor_v3");
            return tensor ? std::optional(call) : std::nullopt;
        }
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

const PickleValue* find(const PickleValue& dict, const std::string& key) {
    for (std::size_t i = dict.items.size(); i > 0; i -= 2) {
        if (dict.items[i - 2]->is(Kind::kString) && dict.items[i - 2]->text == key) return dict.items[i - 1];
    }
    return nullptr;
}

std::string shown_key(const PickleValue& key) {
    if (key.is(Kind::kInt)) return std::to_string(key.integer);
    return key.is(Kind::kString) ? quoted(key.text) : key.description();
}

std::vector<std::string> part_names(WeightsPart part) {
    if (part == WeightsPart::kEma) return {"model_ema", "state_dict_ema", "model_ema_state_dict"};
    return {"model", "state_dict", "model_state_dict"};
}

// ---- Reading it -----------------------------------------------------------------------------------------------------

/// Where a tensor's elements are.
struct Layout {
    StorageId storage;
    at::ScalarType type;
    std::int64_t offset;  // in elements, as the strides are
    std::vector<std::int64_t> sizes, strides;
};

class Reader {
  public:
    explicit Reader(const std::filesystem::path& path) : file_(path, "pth"), container_(read_pth_container(file_)) {}

    Pth read(WeightsPart part) {
        const PickleValue& root = *container_.pickle.root;
        if (!root.is(Kind::kDict)) file_.fail("holds ", root.description(), ", expected a dict of tensors");
        Pth result;
        for (const std::string& name : part_names(part)) {
            const PickleValue* found = find(root, name);
            if (!found || !is_state_dict(*found)) continue;
            result.part = name;
            for (std::size_t i = 0; i < root.items.size(); i += 2) {
                if (root.items[i]->text != name) skip(*root.items[i], result);
            }
            read_state_dict(*found, result);
            return result;
        }
        if (part == WeightsPart::kEma || !is_state_dict(root)) fail_without_weights(root, part);
        read_state_dict(root, result);
        return result;
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail_tensor(const std::string& key, const Parts&... parts) const {
        file_.fail("tensor ", quoted(key), ": ", parts...);
    }

    [[noreturn]] void fail_without_weights(const PickleValue& root, WeightsPart part) const {
        constexpr std::size_t kMostKeys = 12;
        std::vector<std::string> found;
        for (std::size_t i = 0; i < root.items.size() && found.size() < kMostKeys; i += 2) {
            found.push_back(str(shown_key(*root.items[i]), " (", kind_of(*root.items[i + 1]), ')'));
        }
        if (root.items.size() > 2 * kMostKeys) found.push_back("...");
        file_.fail("holds no ", part == WeightsPart::kEma ? "EMA weights" : "weights",
                   "; expected a dict of tensors under ", join(part_names(part), ", "),
                   part == WeightsPart::kEma ? "" : ", or as the whole file", "; found ",
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
            if (is_tensor_entry(key, value)) {
                result.tensors.insert_or_assign(key.text, read_tensor(key.text, *tensor_call(value)));
            } else {
                skip(key, result);
            }
        }
        result.tensors = without_wrapper_prefixes(std::move(result.tensors));
    }

    at::Tensor read_tensor(const std::string& key, const Call& call) {
        const Layout layout = read_layout(key, call);
        const std::uint64_t bytes = check_sizes(key, layout);
        const Extent& extent = check_storage(key, layout.storage);
        const auto options = at::TensorOptions().dtype(layout.type);
        if (bytes == 0) return at::empty(layout.sizes, options);
        check_reach(key, layout);

        at::Tensor tensor = at::empty({0}, options);
        tensor.set_(storage(layout.storage.key, extent),
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
        check_metadata(key, arguments, typed ? 6 : 7);
        if (!arguments[1]->is(Kind::kInt) || arguments[1]->integer < 0) {
            fail_tensor(key, "its offset is no number from 0 on");
        }
        return {*id, typed ? id->type : dtype(key, *arguments[6]), arguments[1]->integer,
                numbers(key, "sizes", *arguments[2]), numbers(key, "strides", *arguments[3])};
    }

    at::ScalarType dtype(const std::string& key, const PickleValue& value) const {
        const bool named = value.is(Kind::kGlobal) && value.items[0]->text == "torch";
        const auto type = named ? type_of_dtype(value.items[1]->text) : std::nullopt;
        if (!type) fail_tensor(key, "its type is ", value.description(), ", which is not known");
        return *type;
    }

    /// Metadata says whether the numbers are to be negated or conjugated on reading, which no weights are.
    void check_metadata(const std::string& key, const Values& arguments, std::size_t place) const {
        if (arguments.size() <= place) return;
        for (const PickleValue* value : arguments[place]->items) {
            if (value->is(Kind::kBool) && value->integer != 0)
                fail_tensor(key, "is a lazily negated or conjugated view");
        }
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
            2 * file_.bytes() - reserved_;  // each byte once in its storage, once in a copied view
        if (bytes > left) file_.fail("its tensors would take more than twice as many bytes as the file has");
        reserved_ += bytes;
    }

    const at::Storage& storage(const std::string& key, const Extent& extent) {
        const auto found = storages_.find(key);
        if (found != storages_.end()) return found->second;
        reserve(extent.bytes);
        at::Tensor bytes = at::empty({static_cast<std::int64_t>(extent.bytes)}, at::TensorOptions().dtype(at::kByte));
        file_.read(extent.offset, bytes.mutable_data_ptr(), extent.bytes);
        check_crc(file_, extent, bytes.const_data_ptr(), "data/" + key);
        return storages_.emplace(key, bytes.storage()).first->second;
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
    std::map<std::string, at::Storage> storages_;
    std::uint64_t reserved_ = 0;
};

}  // namespace

Pth read_pth(const std::filesystem::path& path, WeightsPart part) {
    return Reader(path).read(part);
}

TensorMap without_wrapper_prefixes(TensorMap tensors) {
    for (const std::string prefix : {"module.", "_orig_mod.", "module."}) {
        const auto has_it = [&](const auto& entry) { return entry.first.starts_with(prefix); };
        if (tensors.empty() || !std::all_of(tensors.begin(), tensors.end(), has_it)) continue;
        TensorMap renamed;
        for (auto& [name, tensor] : tensors) renamed.emplace(name.substr(prefix.size()), std::move(tensor));
        tensors = std::move(renamed);
    }
    return tensors;
}

}  // namespace dynvit
