// Compares with what PyTorch itself put into files: golden/model's student, in two containers and two precisions,
// against its safetensors file; golden/checkpoints (written by PyTorch 2.11: zip.pth with protocol 2, legacy.pth with
// protocol 4 and the location "cuda:0"; the others by its make.py) against the closed forms that they were filled with.
// What PyTorch would not write is spelled out here, byte by byte.
#include "dynvit/io/pth.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dynvit/core/random.hpp"
#include "dynvit/io/weights_format.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;
using Files = std::vector<std::pair<std::string, std::string>>;
using Ints = std::vector<std::int64_t>;

std::string bytes_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void put(const std::filesystem::path& path, const std::string& bytes) {
    std::filesystem::remove(path);  // a new file: some file systems wait for the disk when an old one is cut to nothing
    std::ofstream(path, std::ios::binary) << bytes;
}

// ---- Pickles ----

std::string little(std::uint64_t value, int bytes) {
    std::string text;
    for (; bytes > 0; --bytes, value >>= 8) text += static_cast<char>(value & 0xff);
    return text;
}

std::string text(const std::string& letters) {
    return str('X', little(letters.size(), 4), letters);
}
std::string integer(std::int64_t value) {
    return "\x8a\x08" + little(static_cast<std::uint64_t>(value), 8);
}
std::string global(const std::string& module, const std::string& name) {
    return "c" + module + "\n" + name + "\n";
}
std::string tuple(const std::vector<std::string>& items) {
    return str('(', join(items, ""), 't');
}
std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
    std::string bytes = "}(";
    for (const auto& [key, value] : items) bytes += text(key) + value;
    return bytes + "u";
}
std::string call(const std::string& callable, const std::vector<std::string>& arguments) {
    return callable + tuple(arguments) + "R";
}
std::string pickle(const std::string& object) {
    return "\x80\x02" + object + ".";
}
std::string repeated(const std::string& part, std::size_t times) {
    std::string all;
    for (; times > 0; --times) all += part;
    return all;
}

std::string ints(const Ints& values) {
    std::vector<std::string> items;
    for (const std::int64_t value : values) items.push_back(integer(value));
    return tuple(items);
}

std::string storage(const std::string& type, const std::string& key, std::int64_t count) {
    return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(count)}) + "Q";
}

const std::string kNoHooks = global("collections", "OrderedDict") + ")R";

std::string tensor(const std::string& storage, std::int64_t offset, const Ints& sizes, const Ints& strides) {
    return call(global("torch._utils", "_rebuild_tensor_v2"),
                {storage, integer(offset), ints(sizes), ints(strides), "\x89", kNoHooks});
}

/// A float tensor of all of storage "0".
std::string plain_tensor(std::int64_t count) {
    return tensor(storage("FloatStorage", "0", count), 0, {count}, {1});
}

std::string floats(int count) {  // 0, 1, 2 ...
    std::string bytes(4 * static_cast<std::size_t>(count), '\0');
    for (int i = 0; i < count; ++i) {
        const auto value = static_cast<float>(i);
        std::memcpy(bytes.data() + 4 * i, &value, 4);
    }
    return bytes;
}

// ---- Containers ----

const std::string kMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const std::string kProtocol = "\x80\x02M\xe9\x03.";
const std::string kMachine = pickle(dict({{"protocol_version", "M\xe9\x03"}, {"little_endian", "\x88"}}));

/// The old format: this object, these storages of 4-byte elements.
std::string legacy(const std::string& object, const Files& storages = {}) {
    std::string keys = "](", data;
    for (const auto& [key, bytes] : storages) {
        keys += text(key);
        data += little(bytes.size() / 4, 8) + bytes;
    }
    return kMagic + kProtocol + kMachine + object + pickle(keys + "e") + data;
}

/// What a test may get wrong in a zip archive.
struct ZipLies {
    int method = 0;               // of the last file
    int flags = 0;                // likewise
    std::int64_t bytes = -1;      // of the last file, in the directory
    std::int64_t unpacked = -1;   // of the last file, before it was packed
    std::int64_t header = -1;     // where the last file's header is
    std::string local_name = {};  // of the last file, in its header
    std::uint32_t crc = 0;
    std::int64_t directory = -1;  // where the directory is
    std::int64_t directory_bytes = -1;
};

std::string zip(const Files& files, const ZipLies& lies = {}) {
    std::string data, directory;
    for (const auto& [name, bytes] : files) {
        const bool last = &name == &files.back().first;
        const std::string local = last && !lies.local_name.empty() ? lies.local_name : name;
        const std::uint64_t size = last && lies.bytes >= 0 ? static_cast<std::uint64_t>(lies.bytes) : bytes.size();
        const std::uint64_t header = last && lies.header >= 0 ? static_cast<std::uint64_t>(lies.header) : data.size();
        const std::uint64_t unpacked = last && lies.unpacked >= 0 ? static_cast<std::uint64_t>(lies.unpacked) : size;
        directory += "PK\1\2" + little(0, 4) + little(static_cast<std::uint64_t>(last ? lies.flags : 0), 2) +
                     little(static_cast<std::uint64_t>(last ? lies.method : 0), 2) + little(0, 4) +
                     little(last ? lies.crc : 0, 4) + little(size, 4) + little(unpacked, 4) + little(name.size(), 2) +
                     little(0, 12) + little(header, 4) + name;
        data += "PK\3\4" + little(0, 22) + little(local.size(), 2) + little(0, 2) + local + bytes;
    }
    const auto or_else = [](std::int64_t lie, std::size_t truth) {
        return lie >= 0 ? static_cast<std::uint64_t>(lie) : std::uint64_t{truth};
    };
    return data + directory + "PK\5\6" + little(0, 4) + little(files.size(), 2) + little(files.size(), 2) +
           little(or_else(lies.directory_bytes, directory.size()), 4) +
           little(or_else(lies.directory, data.size()), 4) + little(0, 2);
}

/// DEFLATE's way to say that bytes are not packed: one last block.
std::string deflated(const std::string& bytes) {
    return '\1' + little(bytes.size(), 2) + little(~bytes.size() & 0xffff, 2) + bytes;
}

/// The new format: this object, these storages.
std::string archive(const std::string& object, const Files& storages = {}, const ZipLies& lies = {}) {
    Files files = {{"a/data.pkl", object}, {"a/byteorder", "little"}};
    for (const auto& [key, bytes] : storages) files.emplace_back("a/data/" + key, bytes);
    return zip(files, lies);
}

class PthTest : public testing::Test {
  protected:
    Pth read(const std::string& bytes, WeightsPart part = WeightsPart::kPlain) const {
        put(path(), bytes);
        return read_pth(path(), part);
    }

    /// The error of reading these bytes; it must be one line and name the file.
    std::string error(const std::string& bytes, WeightsPart part = WeightsPart::kPlain) const {
        const std::string text = error_of([&] { read(bytes, part); });
        EXPECT_EQ(text.find("[pth] " + path().string() + ": "), 0u) << text;
        for (const char letter : text) EXPECT_TRUE(letter >= 0x20 && letter < 0x7f) << text;
        return text;
    }

    void expect_error(const std::string& bytes, const std::string& part) const {
        const std::string text = error(bytes);
        EXPECT_NE(text.find(part), std::string::npos) << text << "\nexpected: " << part;
    }

    /// The object that these bytes make, in either container, must be refused.
    void expect_bad_object(const std::string& object, const std::string& part) const {
        expect_error(legacy("\x80\x02" + object), part);
        expect_error(archive("\x80\x02" + object), part);
    }

    /// The same of a tensor with storage "0" of four floats.
    void expect_bad_tensor(const std::string& tensor, const std::string& part) const {
        const std::string object = pickle(dict({{"w", tensor}}));
        const std::string text = error(archive(object, {{"0", floats(4)}}));
        EXPECT_NE(text.find("tensor \"w\": "), std::string::npos) << text;
        EXPECT_NE(text.find(part), std::string::npos) << text << "\nexpected: " << part;
    }

    std::filesystem::path path() const { return folder_ / "t.pth"; }

    test::TemporaryFolder folder_;
};

void expect_equal(const TensorMap& found, const TensorMap& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
        ASSERT_TRUE(found.contains(name)) << name;
        EXPECT_EQ(found.at(name).scalar_type(), tensor.scalar_type()) << name;
        EXPECT_TRUE(found.at(name).is_contiguous()) << name;
        EXPECT_TRUE(found.at(name).equal(tensor)) << name;
    }
}

// ---- What PyTorch writes ----

const std::vector<std::string> kStudentRest = {"\"optimizer\"", "\"epoch\"", "\"args\"", "\"scaler\""};

TEST_F(PthTest, StudentOfTheZipFormat) {
    const Pth file = read_pth(test::golden("model/tiny_student_zip.pth"));
    expect_equal(file.tensors, read_safetensors(test::golden("model/tiny_student.safetensors")).tensors);
    EXPECT_EQ(file.part, "model");
    EXPECT_EQ(file.skipped, kStudentRest);
}

TEST_F(PthTest, StudentOfTheFormatBeforePyTorch16) {
    const Pth file = read_pth(test::golden("model/tiny_student_legacy.pth"));
    expect_equal(file.tensors, read_safetensors(test::golden("model/tiny_student.safetensors")).tensors);
    EXPECT_EQ(file.part, "model");
    EXPECT_EQ(file.skipped, kStudentRest);
}

TEST_F(PthTest, BareStudentInHalfPrecision) {
    const Pth file = read_pth(test::golden("model/tiny_student_half_bare.pth"));
    TensorMap expected = read_safetensors(test::golden("model/tiny_student.safetensors")).tensors;
    for (auto& [name, tensor] : expected) tensor = tensor.to(at::kHalf);  // rounds to nearest, as PyTorch did
    expect_equal(file.tensors, expected);
    EXPECT_EQ(file.part, "");
    EXPECT_TRUE(file.skipped.empty());
}

// golden/checkpoints: views of one storage, parameters, types; the moving average is one higher.
TensorMap checkpoint_weights(double add) {
    const at::Tensor base = at::arange(24, at::kFloat).view({4, 6}) + add;
    return {{"whole", base},
            {"transposed", base.t()},
            {"window", base.slice(0, 1, 3).slice(1, 2, 5)},
            {"column", base.select(1, 3)},
            {"stepped", base.slice(0, 0, 4, 2).slice(1, 0, 6, 3)},
            {"parameter", at::arange(3, at::kFloat) + add},
            {"scalar", at::scalar_tensor(7 + add, at::kFloat)},
            {"empty", at::empty({0, 3})},
            {"half", (at::arange(4, at::kFloat) + add).to(at::kHalf)},
            {"bfloat", (at::arange(4, at::kFloat) + add).to(at::kBFloat16)},
            {"double", at::arange(4, at::kDouble) + add},
            {"count", at::arange(4, at::kLong) + static_cast<std::int64_t>(add)},
            {"flags", at::arange(3, at::kLong).ne(1)}};
}

TEST_F(PthTest, ViewsParametersTypesAndPrefixes) {
    for (const char* name : {"checkpoints/zip.pth", "checkpoints/legacy.pth"}) {
        SCOPED_TRACE(name);
        const Pth plain = read_pth(test::golden(name)), ema = read_pth(test::golden(name), WeightsPart::kEma);
        expect_equal(plain.tensors, checkpoint_weights(0));
        expect_equal(ema.tensors, checkpoint_weights(1));
        EXPECT_EQ(plain.part, "model");
        EXPECT_EQ(ema.part, "model_ema");
        EXPECT_EQ(join(plain.skipped, " "), R"("model_ema" "optimizer" "epoch" "args" "best")");
        EXPECT_EQ(join(ema.skipped, " "), R"("model" "optimizer" "epoch" "args" "best")");
    }
}

// golden/checkpoints/make.py's VALUES.
TensorMap values_of_make() {
    const at::Tensor twelve = at::arange(12, at::kFloat).view({3, 4});
    const c10::complex<float> first(1, 2), second(0, -3);
    return {{"floats", twelve / 8 - 0.5},
            {"turned", twelve.t()},
            {"halves", (at::arange(5, at::kFloat) * 1.5).to(at::kHalf)},
            {"doubles", at::arange(3, at::kDouble) / 3},
            {"longs", at::tensor({-(std::int64_t{1} << 40), std::int64_t{-1}, std::int64_t{0}, std::int64_t{1} << 40})},
            {"shorts", at::tensor({-300, 300}, at::kShort)},
            {"bytes", at::arange(7, at::kByte)},
            {"truths", at::arange(3, at::kLong).ne(1)},
            {"unsigned", at::tensor({1, 40000}, at::kInt).to(at::kUInt16)},
            {"complex", at::tensor({first, second})},
            {"\u00fc name", at::ones({1})}};
}

TEST_F(PthTest, EveryContainerProtocolAndByteOrder) {
    for (const char* name : {"proto0", "proto1", "proto0_legacy", "proto1_legacy", "deflated", "big_endian"}) {
        SCOPED_TRACE(name);
        const Pth file = read_pth(test::golden(str("checkpoints/", name, ".pth")));
        expect_equal(file.tensors, values_of_make());
        EXPECT_EQ(file.part, "model");
        EXPECT_EQ(join(file.skipped, " "), R"("epoch" "lr" "large" "negative" "text" "flag")");
        EXPECT_TRUE(file.unread.empty());
    }
}

TEST_F(PthTest, EveryTypeThatPyTorchSaves) {
    const Pth file = read_pth(test::golden("checkpoints/types.pth"));
    int compared = 0;
    for (const auto& [name, expected] : file.tensors) {
        if (!name.ends_with(".float32")) continue;
        const at::Tensor& stored = file.tensors.at(name.substr(0, name.size() - 8));
        EXPECT_TRUE(stored.to(at::kFloat).equal(expected)) << name;
        ++compared;
    }
    EXPECT_EQ(compared, 18);
    EXPECT_EQ(file.tensors.at("float8_e4m3fnuz").scalar_type(), at::ScalarType::Float8_e4m3fnuz);
    for (const char* name : {"complex64", "complex128"}) {
        EXPECT_TRUE(at::real(file.tensors.at(name).to(at::kComplexDouble)).equal(at::tensor({0., 1., -2., .5, 96.})));
    }
    std::vector<std::string> unread;
    for (const auto& [name, reason] : file.unread) {
        unread.push_back(name);
        EXPECT_EQ(reason, "its type is torch." + name + ", which is not read");
    }
    EXPECT_EQ(join(unread, " "), "bits16 bits1x8 bits2x4 bits4x2 bits8 complex32 float4_e2m1fn_x2");
}

TEST_F(PthTest, TensorsThatAreNoDenseNumbersAreLeftUnread) {
    const Pth file = read_pth(test::golden("checkpoints/others.pth"));
    expect_equal(file.tensors, {{"plain", at::arange(4, at::kFloat)}});
    EXPECT_TRUE(file.skipped.empty());
    EXPECT_EQ(file.unread, (std::map<std::string, std::string>{
                               {"per_tensor", "is quantized (torch.per_tensor_affine of torch.QInt8Storage)"},
                               {"per_channel", "is quantized (torch.per_channel_affine of torch.QUInt8Storage)"},
                               {"sparse", "is sparse (torch.sparse_coo)"},
                               {"rows", "is sparse (torch.sparse_csr)"},
                               {"nested", "is a nested tensor"},
                               {"meta", "is a meta tensor, which has no numbers"},
                               {"conjugated", "is a lazily negated or conjugated view"}}));
    const auto made_by = [](const char* name) { return call(global("torch._utils", name), {"N", "N"}); };
    expect_error(archive(pickle(dict({{"w", made_by("_rebuild_sparse_tensor")}}))),
                 "tensor \"w\": is sparse (of an unknown layout)");
    expect_error(archive(pickle(dict({{"w", made_by("_rebuild_qtensor")}}))),
                 "tensor \"w\": is quantized (in an unknown way)");
    expect_error(archive(pickle(dict({{"w", made_by("_rebuild_wrapper_subclass")}}))),
                 "tensor \"w\": is made by torch._utils._rebuild_wrapper_subclass, which is not known");
}

TEST_F(PthTest, SharedMemoryStaysShared) {
    const std::string four = storage("FloatStorage", "0", 4);
    const std::string object = dict({{"a", tensor(four, 0, {4}, {1})}, {"b", tensor(four, 0, {2, 2}, {2, 1})}});
    const TensorMap tensors = read(archive(pickle(object), {{"0", floats(4)}})).tensors;
    EXPECT_EQ(tensors.at("a").const_data_ptr(), tensors.at("b").const_data_ptr());
}

TEST_F(PthTest, TensorsOutliveTheFile) {
    const TensorMap tensors = read(archive(pickle(dict({{"w", plain_tensor(4)}})), {{"0", floats(4)}})).tensors;
    put(path(), std::string(9000, 'x'));
    std::filesystem::remove(path());
    EXPECT_TRUE(tensors.at("w").equal(at::arange(4, at::kFloat)));
}

// ---- Where the weights are ----

TEST_F(PthTest, PartsByName) {
    const auto one = [](std::int64_t offset) {  // a tensor that holds `offset`
        return dict({{"w", tensor(storage("FloatStorage", "0", 4), offset, {1}, {1})}});
    };
    const auto value = [&](const std::string& object, WeightsPart part = WeightsPart::kPlain) {
        return read(archive(pickle(object), {{"0", floats(4)}}), part).tensors.at("w").item<float>();
    };
    for (const char* name : {"model", "state_dict", "model_state_dict", "net", "params"}) {
        EXPECT_EQ(value(dict({{name, one(2)}, {"epoch", "K\3"}})), 2) << name;
        EXPECT_EQ(value(dict({{"model_ema", one(1)}, {name, one(2)}})), 2) << name;
    }
    for (const char* name : {"model_ema", "state_dict_ema", "model_ema_state_dict", "ema"}) {
        EXPECT_EQ(value(dict({{"model", one(2)}, {name, one(1)}}), WeightsPart::kEma), 1) << name;
    }
    EXPECT_EQ(value(dict({{"model", one(1)}, {"model", one(3)}})), 3) << "the last of equal keys, as in Python";
    EXPECT_EQ(value(dict({{"model", dict({{"lr", "N"}})}, {"state_dict", one(3)}})), 3) << "a dict without tensors";
    EXPECT_EQ(value(dict({{"optimizer", one(1)}, {"state_dict", dict({{"model", one(2)}})}})), 2) << "one in another";
    EXPECT_EQ(value(dict({{"a_name", one(2)}, {"epoch", "K\3"}})), 2) << "the only one";
    EXPECT_EQ(value(dict({{"ema", one(2)}})), 2) << "nothing but the average";
}

TEST_F(PthTest, PartsByKey) {
    const auto one = [](std::int64_t offset) {
        return dict({{"w", tensor(storage("FloatStorage", "0", 4), offset, {1}, {1})}});
    };
    const std::string object = dict({{"student", one(1)}, {"teacher", dict({{"model", one(2)}})}});
    const std::string bytes = archive(pickle(object), {{"0", floats(4)}});
    EXPECT_EQ(error(bytes), "[pth] " + path().string() +
                                ": holds weights under student, teacher.model, expected one of them: --weights-part");
    const Pth teacher = read_pth(path(), WeightsPart::kPlain, "teacher.model");
    EXPECT_EQ(teacher.tensors.at("w").item<float>(), 2);
    EXPECT_EQ(teacher.part, "teacher.model");
    EXPECT_EQ(join(teacher.other_parts, " "), "student");
    EXPECT_EQ(error_of([&] { read_pth(path(), WeightsPart::kPlain, "teacher"); }),
              "[pth] " + path().string() +
                  ": holds no dict of tensors under \"teacher\", expected one of student, teacher.model");
}

TEST_F(PthTest, TensorsOfUnknownTypesAreLeftUnread) {
    const std::string odd = tensor(storage("NoStorage", "1", 4), 0, {4}, {1});
    const Pth file = read(archive(pickle(dict({{"odd", odd}, {"w", plain_tensor(4)}})), {{"0", floats(4)}}));
    EXPECT_EQ(file.tensors.size(), 1u);
    EXPECT_EQ(file.unread.at("odd"), "its storage is of no known type (torch.NoStorage)");
}

TEST_F(PthTest, TorchScriptArchive) {
    const Pth file = read_pth(test::golden("backbones/openai_clip_jit/model.pt"));
    EXPECT_TRUE(file.torchscript);
    EXPECT_EQ(file.tensors.at("visual.conv1.weight").sizes(), at::IntArrayRef({64, 3, 8, 8}));
    EXPECT_EQ(file.tensors.at("visual.conv1.weight").scalar_type(), at::kHalf);
}

TEST_F(PthTest, WithoutWeightsTheErrorSaysWhatIsThere) {
    const std::string model = dict({{"w", plain_tensor(4)}});
    EXPECT_EQ(error(archive(pickle(dict({{"model", model}, {"epoch", "K\3"}})), {{"0", floats(4)}}), WeightsPart::kEma),
              "[pth] " + path().string() +
                  ": holds no EMA weights; expected a dict of tensors under model_ema, state_dict_ema, "
                  "model_ema_state_dict, ema, ema_model, ema_state_dict, params_ema; found \"model\" (a dict of "
                  "tensors), \"epoch\" (an int)");
    EXPECT_EQ(error(archive(pickle(dict({{"optimizer", model}, {"model", global("models", "Vit") + ")\x81"}})),
                            {{"0", floats(4)}})),
              "[pth] " + path().string() +
                  ": holds no weights; expected a dict of tensors under model, state_dict, model_state_dict, module, "
                  "net, network, params, weights, model_state, or as the whole file; found \"optimizer\" (a dict of "
                  "tensors), \"model\" (an object of \"models.Vit\")");
    expect_error(archive(pickle(dict({}))), "found nothing");
    expect_error(archive(pickle("N")), "holds None, expected a dict of tensors");
    expect_error(archive(pickle(global("models", "Vit") + ")\x81}b")), "holds an object of \"models.Vit\"");
    std::string many;
    for (int i = 0; i < 100; ++i) many += text(str("key", i)) + "N";
    const std::string listed = error(archive(pickle("}(" + many + "u")));
    EXPECT_NE(listed.find("\"key11\" (None), ..."), std::string::npos) << listed;
    EXPECT_EQ(listed.find("key12"), std::string::npos) << listed;
}

TEST_F(PthTest, WrapperPrefixes) {
    const at::Tensor a = at::ones({1}), b = at::zeros({1});
    const auto names = [](TensorMap tensors, std::map<std::string, std::string> unread = {}) {
        take_off_wrapper_prefixes(tensors, unread);
        std::vector<std::string> found;
        for (const auto& [name, tensor] : tensors) found.push_back(name);
        for (const auto& [name, reason] : unread) found.push_back(str('(', name, ')'));
        return join(found, " ");
    };
    EXPECT_EQ(names({{"module.a", a}, {"module.b", b}}), "a b");
    EXPECT_EQ(names({{"module._orig_mod.a", a}, {"module._orig_mod.b", b}}), "a b");
    EXPECT_EQ(names({{"_orig_mod.module.a", a}, {"_orig_mod.module.b", b}}), "a b");
    EXPECT_EQ(names({{"module.a", a}, {"b", b}}), "b module.a");
    EXPECT_EQ(names({{"backbone.a", a}, {"backbone.b", b}}), "backbone.a backbone.b");
    EXPECT_EQ(names({{"module.a", a}}, {{"module.b", "is sparse"}}), "a (b)");
    EXPECT_EQ(names({{"module.a", a}}, {{"b", "is sparse"}}), "module.a (b)");
    EXPECT_EQ(names({}), "");
}

// ---- Tensors that PyTorch writes more rarely ----

TEST_F(PthTest, OtherWaysToWriteATensor) {
    const std::string four = storage("FloatStorage", "0", 4);
    const std::string size = call(global("torch", "Size"), {ints({2, 2})});
    const std::string viewed =  // elements 1 and 2 of the storage, of which the last one
        tuple({text("storage"), global("torch.cuda", "FloatStorage"), text("0"), text("cuda:0"), integer(4),
               tuple({text("1"), integer(1), integer(2)})}) +
        "Q";
    const std::string untyped = storage("UntypedStorage", "0", 16);
    const auto v3 = [&](std::int64_t offset, std::int64_t count) {
        return call(global("torch._utils", "_rebuild_tensor_v3"),
                    {untyped, integer(offset), ints({count}), ints({1}), "\x89", kNoHooks, global("torch", "int32")});
    };
    const std::string object = dict({
        {"v1", call(global("torch._utils", "_rebuild_tensor"), {four, integer(1), ints({2}), ints({2})})},
        {"size",
         call(global("torch._utils", "_rebuild_tensor_v2"), {four, integer(0), size, ints({1, 2}), "\x89", kNoHooks})},
        {"parameter",
         call(global("torch._utils", "_rebuild_parameter_with_state"), {plain_tensor(4), "\x88", kNoHooks, "}"})},
        {"subclass", call(global("torch._tensor", "_rebuild_from_type_v2"),
                          {global("torch._utils", "_rebuild_parameter"), global("lib", "Special"),
                           tuple({plain_tensor(4), "\x88", kNoHooks}), "}"})},
        {"viewed", tensor(viewed, 1, {1}, {1})},
        {"expanded", tensor(four, 3, {2, 3}, {0, 0})},
        {"v3", v3(1, 3)},
    });
    const TensorMap tensors = read(archive(pickle(object), {{"0", floats(4)}})).tensors;
    const at::Tensor all = at::arange(4, at::kFloat);
    expect_equal(tensors, {{"v1", all.slice(0, 1, 4, 2)},
                           {"size", all.view({2, 2}).t()},
                           {"parameter", all},
                           {"subclass", all},
                           {"viewed", all.slice(0, 2, 3)},
                           {"expanded", at::full({2, 3}, 3.0F)},
                           {"v3", all.view(at::kInt).slice(0, 1)}});
    EXPECT_TRUE(read(legacy(pickle(dict({{"viewed", tensor(viewed, 1, {1}, {1})}})), {{"0", floats(4)}}))
                    .tensors.at("viewed")
                    .equal(all.slice(0, 2, 3)));
}

TEST_F(PthTest, OrderedDictOfPython2) {  // made from a list of lists, with strings of the old kind
    const std::string items = "](](U\1w" + plain_tensor(4) + "e](U\1n" + "K\1ee";
    const Pth file = read(archive(pickle(call(global("collections", "OrderedDict"), {items})), {{"0", floats(4)}}));
    EXPECT_TRUE(file.tensors.at("w").equal(at::arange(4, at::kFloat)));
    EXPECT_EQ(file.skipped, (std::vector<std::string>{"\"n\""}));
}

TEST_F(PthTest, TextOfProtocol0) {
    const auto rebuilt = [](const std::string& identity, const std::string& size) {
        return "ctorch._utils\n_rebuild_tensor_v2\n(P" + identity + "\nI1\n(" + size + "t(L1L\ntI00\n" + kNoHooks +
               "tR";
    };
    const std::string four = "('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 4)";
    const std::string part = "('storage', <class 'torch.cuda.FloatStorage'>, '0', 'cuda:0', 4, ('1', 1, 3))";
    const std::string whole = "('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 4, None)";
    const std::string items = "S'a\\x41\\t\\101\\''\n" + rebuilt(four, "I3\n") + "V\\u20ac\xe9\n" +
                              rebuilt(part, "I2\n") + "p5\nS\"w\"\ng5\n" + "Vr\n" + rebuilt(whole, "I1\n") +
                              "Vf\nF1e-3\nVi\n(F-inf\nios\nx\n";
    const Pth file = read(archive("(" + items + "d.", {{"0", floats(4)}}));
    const at::Tensor all = at::arange(4, at::kFloat);
    expect_equal(file.tensors, {{"aA\tA'", all.slice(0, 1)},
                                {"\u20ac\u00e9", all.slice(0, 2)},
                                {"w", all.slice(0, 2)},
                                {"r", all.slice(0, 1, 2)}});
    EXPECT_EQ(join(file.skipped, " "), R"("f" "i")");
    expect_error(archive("I-12\n."), "holds an int, expected a dict");
    expect_error(archive("(I1\nl."), "holds a list, expected a dict");
    for (const std::string& identity :
         {std::string("('storage', <class 'torch.FloatStorage'>, '0', 'cpu', x)"),
          std::string("('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 4"),
          std::string("('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 4, ('1', 1))"),
          std::string("('storage', <class 'FloatStorage'>, '0', 'cpu', 4)"),
          std::string("('storage', <class 'os.FloatStorage'>, '0', 'cpu', 4)"), std::string("storage"), four + " "}) {
        expect_error(archive("(Vw\n" + rebuilt(identity, "I1\n") + "d.", {{"0", floats(4)}}),
                     "its storage is of no known type");
    }
    expect_error(archive("(Vw\n" + rebuilt(four, "I-1\n") + "d.", {{"0", floats(4)}}), "its sizes are not all numbers");
    expect_error(archive("(Vw\n" + rebuilt(four, "L18446744073709551616L\n") + "d.", {{"0", floats(4)}}),
                 "its sizes are not all numbers");
    for (const std::string number : {"", "-", "1x", "1 ", "LL"}) {
        expect_error(archive("L" + number + "\n."), "expected at most 4300 decimal digits");
    }
    expect_error(archive("L" + std::string(4301, '1') + "\n."), "a number of 4301 letters");
    expect_error(archive("Fnone\n."), "a number with a fraction that is none");
    for (const std::string text : {"abc", "'abc", "'", "'\\q'", "'\\x4'", "'\\400'", "'\\'"}) {
        expect_error(archive("S" + text + "\n."), "a line that is not a string in quotes");
    }
    for (const std::string text : {"\\u12", "\\u12g4", "\\U00110000"}) {
        expect_error(archive("V" + text + "\n."), "a line that is not raw Unicode");
    }
    expect_error(archive("gx\n."), "a memo entry without a number");
    expect_error(archive("g7\n."), "memo entry 7 was not written before");
    expect_error(archive("(Nd."), "a key without a value");
}

// ---- Nothing is executed ----

TEST_F(PthTest, ForeignClassesAndFunctionsAreNeverCalled) {
    const std::filesystem::path mark = folder_ / "executed";
    const std::string command = text("touch " + mark.string());
    const std::string code = text("open('" + mark.string() + "', 'w')");
    const std::vector<std::string> attacks = {
        call(global("os", "system"), {command}),
        call(global("posix", "system"), {command}),
        call(global("builtins", "eval"), {code}),
        call(global("builtins", "exec"), {code}),
        text("os") + text("system") + "\x93" + tuple({command}) + "R",
        global("subprocess", "Popen") + tuple({command}) + "\x81",
        global("subprocess", "Popen") + tuple({command}) + dict({{"shell", "\x88"}}) + "\x92",
        "(" + global("os", "system") + command + "o",
        call(call(global("builtins", "getattr"), {global("os", "path"), text("system")}), {command}),
        global("models", "Vit") + ")\x81" + dict({{"__setstate__", global("os", "system")}}) + "b",
        tuple({text("module"), global("os", "system"), command, command}) + "Q" + tuple({command}) + "R",
    };
    for (const std::string& attack : attacks) {
        const std::string object =
            pickle(dict({{"extra", attack}, {"model", dict({{"w", plain_tensor(4)}, {"x", attack}})}}));
        for (const std::string& bytes : {archive(object, {{"0", floats(4)}}), legacy(object, {{"0", floats(4)}})}) {
            const Pth file = read(bytes);
            EXPECT_TRUE(file.tensors.at("w").equal(at::arange(4, at::kFloat)));
            EXPECT_EQ(join(file.skipped, " "), R"("extra" "x")");
        }
        error(archive(pickle(attack)));
        EXPECT_FALSE(std::filesystem::exists(mark));
    }
}

// ---- Pickles that lie ----

TEST_F(PthTest, StackUnderflow) {
    expect_bad_object(".", "ends with 0 values and 0 marks");
    expect_bad_object("NN.", "ends with 2 values and 0 marks");
    expect_bad_object("(N.", "ends with 1 values and 1 marks");
    expect_bad_object("0.", "needs a value where the stack has none");
    for (const std::string operation :
         {"2", "a", "s", "b", "R", "\x81", "\x92", "Q", "q\1", "r\1\1\1\1", "\x94", "\x93"}) {
        expect_bad_object(operation + ".", "needs a value where the stack has none");
        expect_bad_object("N(" + operation + ".", "needs a value where the stack has none");
    }
    expect_bad_object("\x85.", "a tuple of 1 where the stack has 0");
    expect_bad_object("NN\x87.", "a tuple of 3 where the stack has 2");
    expect_bad_object("NN(N\x86.", "a tuple of 2 where the stack has 1");
}

TEST_F(PthTest, MissingMarks) {
    for (const std::string operation : {"t", "u", "e", "1", "o", "\x90", "\x91", "d", "l", "ios\nx\n"}) {
        expect_bad_object("N" + operation + ".", "needs a mark where the stack has none");
    }
    expect_bad_object("(e.", "needs a value where the stack has none");
    expect_bad_object("(o.", "an object without a class");
    expect_bad_object("}(Nu.", "a key without a value");
}

TEST_F(PthTest, MemoEntriesThatWereNeverWritten) {
    expect_bad_object("h\7.", "memo entry 7 was not written before");
    expect_bad_object("j\xff\xff\xff\xff.", "memo entry 4294967295 was not written before");
    expect_bad_object(
        "Nr\xff\xff\xff\xff"
        "0h\xff.",
        "memo entry 255 was not written before");
}

TEST_F(PthTest, LengthsPastTheEnd) {
    for (const std::string operation : {"X", "T", "B", "\x8b"}) {
        for (const std::uint64_t length : {std::uint64_t{0xffffffff}, std::uint64_t{0x7fffffff}, std::uint64_t{1000}}) {
            expect_bad_object(operation + little(length, 4) + "abc.", str("a length of ", length, " where "));
        }
    }
    for (const std::string operation : {"\x8d", "\x8e", "\x96"}) {
        expect_bad_object(operation + little(~std::uint64_t{0}, 8) + "abc.", "a length of 18446744073709551615 where ");
    }
    for (const std::string operation : {"U", "\x8c", "C", "\x8a"}) {
        expect_error(archive("\x80\x02" + operation +
                             "\xff"
                             "abc."),
                     "a length of 255 where 4 bytes are left");
    }
    expect_bad_object("\x95" + little(std::uint64_t{1} << 62, 8) + "N.", "a frame of 4611686018427387904 bytes");
    expect_error(archive("\x80\x02G123"), "wants 8 bytes where 3 are left");
    expect_error(archive("\x80\x02"
                         "cos\nsystem"),
                 "wants 1 bytes where 0 are left");
}

TEST_F(PthTest, OperationsOnTheWrongValues) {
    expect_bad_object("K\1)R.", "calls an int");
    expect_bad_object(global("os", "system") + "NR.", "passes None, expected a tuple");
    expect_bad_object("NNs.", "needs a value");
    expect_bad_object("NNNs.", "sets items of None");
    expect_bad_object("NNa.", "appends to None");
    expect_bad_object("N(N\x90.", "adds members to None");
    expect_bad_object("]Nb.", "gives a state to a list");
    expect_bad_object("NK\1\x93.", "a class named by None and an int");
    expect_bad_object(call(global("collections", "OrderedDict"), {"](Ne"}) + ".", "an OrderedDict of None");
    expect_bad_object(call(global("collections", "OrderedDict"), {"](]e"}) + ".", "an OrderedDict of lists of 0");
    expect_bad_object("\x80\x06N.", "protocol 6, expected at most 5");
    for (const std::string& operation : std::vector<std::string>{"\x82", "\x97", "\x98", "\xff", {'\0'}}) {
        expect_bad_object(operation + ".", "unknown operation");
    }
    EXPECT_NE(error(archive("\x80\x02NNNs.")).find(": data.pkl, byte 5: sets items"), std::string::npos);
}

TEST_F(PthTest, DepthAndCirclesAreHarmless) {
    const std::string weights = text("w") + plain_tensor(4);
    const std::size_t deep = 200'000;
    for (const std::string& value : std::vector<std::string>{
             repeated("]", deep) + repeated("a", deep - 1),  // [[[...
             repeated("(", deep) + repeated("t", deep),      // ((()))
             "]q\1h\1a",                                     // a list in itself
             "}q\1" + text("self") + "h\1s",                 // a dict in itself
             global("f", "g") +
                 "q\1"
                 "0N" +
                 repeated("\x85q\2"
                          "0h\1h\2R",
                          deep),  // f.g(f.g(f.g(...
         }) {
        const Pth file = read(archive(pickle("}(" + weights + text("x") + value + "u"), {{"0", floats(4)}}));
        EXPECT_EQ(file.tensors.size(), 1u);
        EXPECT_EQ(file.skipped.size(), 1u);
    }
    const std::string parameter = global("torch._utils", "_rebuild_parameter") +
                                  "q\1"
                                  "0";
    const std::string wrapped = plain_tensor(4) + repeated(
                                                      "\x85q\2"
                                                      "0h\1h\2R",
                                                      deep);
    EXPECT_EQ(read(archive(pickle(parameter + dict({{"w", wrapped}})), {{"0", floats(4)}})).tensors.size(), 1u);
}

TEST_F(PthTest, WorkIsBounded) {
    expect_error(archive("\x80\x02" + repeated("N0", std::size_t{1} << 21) + "N."), "has more than 4194304 operations");
    // A list of many pairs, made a dict again and again: the square of the file's size.
    const std::size_t many = 50'000;
    expect_bad_object(global("collections", "OrderedDict") + "q\1](" + repeated("NN\x86", many) +
                          "eq\2\x85q\3"
                          "0" +
                          repeated("h\1h\3R0", many) + "N.",
                      "has more than 4194304 operations");
}

// ---- Tensors that lie ----

TEST_F(PthTest, StoragesThatAreTooShortOrMissing) {
    expect_bad_tensor(plain_tensor(5), "its storage \"0\" has 16 bytes, expected 5 elements of 4 bytes");
    expect_bad_tensor(tensor(storage("DoubleStorage", "0", 4), 0, {4}, {1}), "expected 4 elements of 8 bytes");
    expect_bad_tensor(tensor(storage("FloatStorage", "0", std::int64_t{1} << 62), 0, {4}, {1}), "has 16 bytes");
    expect_bad_tensor(tensor(storage("FloatStorage", "1", 4), 0, {4}, {1}), "its storage \"1\" is not in the file");
    expect_bad_tensor(plain_tensor(-1), "its storage is of no known type");
    expect_bad_tensor(tensor(storage("NoStorage", "0", 4), 0, {4}, {1}), "its storage is of no known type");
    expect_bad_tensor(tensor("N", 0, {4}, {1}), "its storage is of no known type");
    expect_bad_tensor(tensor(tuple({text("storage")}) + "Q", 0, {4}, {1}), "its storage is of no known type");
    expect_bad_tensor(tensor(text("0") + "Q", 0, {4}, {1}), "its storage is of no known type");
}

TEST_F(PthTest, ViewsOutsideOfTheirStorage) {
    constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
    const std::string four = storage("FloatStorage", "0", 4);
    for (const auto& [offset, sizes, strides] : std::vector<std::tuple<std::int64_t, Ints, Ints>>{
             {1, {4}, {1}},
             {4, {1}, {1}},
             {kHuge, {1}, {1}},
             {0, {5}, {1}},
             {0, {2, 2}, {3, 1}},
             {0, {2}, {kHuge}},
             {0, {2, 2}, {kHuge, kHuge}},
             {3, {2}, {kHuge - 2}},
             {0, {3, 3}, {std::int64_t{1} << 62, std::int64_t{1} << 62}},  // 2^64, which is 0 after overflow
             {4, {}, {}},
         }) {
        expect_bad_tensor(tensor(four, offset, sizes, strides), "does not lie inside of its storage of 4 elements");
    }
    // A storage longer than the tensor says does not count.
    expect_bad_tensor(tensor(storage("FloatStorage", "0", 2), 1, {2}, {1}), "its storage of 2 elements");
    const std::string part = tuple({text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"),
                                    integer(4), tuple({text("1"), integer(3), integer(2)})}) +
                             "Q";
    expect_bad_tensor(tensor(part, 0, {1}, {1}), "expected 2 elements of 4 bytes from element 3 on");
}

TEST_F(PthTest, SizesAndStridesThatAreNone) {
    const std::string four = storage("FloatStorage", "0", 4);
    expect_bad_tensor(tensor(four, -1, {4}, {1}), "its offset is no number from 0 on");
    expect_bad_tensor(tensor(four, 0, {-4}, {1}), "its sizes are not all numbers from 0 on");
    expect_bad_tensor(tensor(four, 3, {4}, {-1}), "its strides are not all numbers from 0 on");
    expect_bad_tensor(tensor(four, 0, {2, 2}, {1}), "has 2 sizes and 1 strides");
    expect_bad_tensor(tensor(four, 0, Ints(65, 1), Ints(65, 1)), "has 65 sizes; at most 64");
    expect_bad_tensor(tensor(four, 0, {1LL << 32, 1LL << 32}, {0, 0}), "is too large");  // 2^64 elements
    expect_bad_tensor(tensor(four, 0, {0, 1LL << 62, 1LL << 62}, {0, 0, 0}), "is too large");
    const auto with = [&](const std::string& sizes, const std::string& strides) {
        return call(global("torch._utils", "_rebuild_tensor_v2"), {four, integer(0), sizes, strides, "\x89", kNoHooks});
    };
    expect_bad_tensor(with("N", ints({1})), "its sizes are None, expected a tuple");
    expect_bad_tensor(with(tuple({text("4")}), ints({1})), "its sizes are not all numbers");
    expect_bad_tensor(with(tuple({"\x8a\x09" + little(0, 8) + "\1"}), ints({1})),
                      "its sizes are not all numbers");  // 2^64
    expect_bad_tensor(with(ints({4}), call(global("torch", "Size"), {})), "its strides are an object of");
    expect_bad_tensor(call(global("torch._utils", "_rebuild_tensor_v2"), {four, integer(0)}), "has only 2 arguments");
    expect_bad_tensor(call(global("torch._utils", "_rebuild_tensor_v3"),
                           {four, integer(0), ints({4}), ints({1}), "\x89", kNoHooks, global("torch", "float7")}),
                      "its type is torch.float7, which is not read");
    expect_bad_tensor(call(global("torch._utils", "_rebuild_tensor_v2"),
                           {four, integer(0), ints({4}), ints({1}), "\x89", kNoHooks, dict({{"conj", "\x88"}})}),
                      "is a lazily negated or conjugated view");
    expect_bad_tensor(tensor(storage("BoolStorage", "0", 16), 0, {16}, {1}), "a bool is neither 0 nor 1");
}

TEST_F(PthTest, SmallFilesMakeNoLargeTensors) {
    expect_error(archive(pickle(dict({{"w", tensor(storage("FloatStorage", "0", 4), 0, {1LL << 40}, {0})}})),
                         {{"0", floats(4)}}),
                 "its tensors would take more than twice as many bytes as the file has");
    std::string views;  // each takes as much as the storage
    for (int i = 0; i < 1000; ++i) views += text(str('w', i)) + "h\1h\2R";
    const std::string object =
        global("torch._utils", "_rebuild_tensor_v2") +
        "q\1"
        "0" +
        tuple({storage("FloatStorage", "0", 10'000), integer(0), ints({100, 100}), ints({1, 100}), "\x89", kNoHooks}) +
        "q\2"
        "0";
    expect_error(archive(pickle(object + "}(" + views + "u"), {{"0", floats(10'000)}}),
                 "its tensors would take more than twice");
}

// ---- Containers that lie ----

TEST_F(PthTest, MissingFilesAndFoldersAreNamed) {
    EXPECT_EQ(error_of([&] { read_pth(folder_ / "none"); }), "[pth] " + (folder_ / "none").string() + ": no such file");
    EXPECT_EQ(error_of([&] { read_pth(folder_.path()); }),
              "[pth] " + folder_.path().string() + ": is a folder, not a file");
    expect_error("", "found an empty file, expected a PyTorch checkpoint");
    expect_error("P", "found text (1 byte) that starts with 'P', expected a PyTorch checkpoint");
    expect_error(
        "version https://git-lfs.github.com/spec/v1\n",
        "found a git-lfs pointer (43 bytes), expected a PyTorch checkpoint: `git lfs pull` brings the file itself");
}

TEST_F(PthTest, TruncationIsAnError) {
    for (const char* name : {"model/tiny_student_zip.pth", "model/tiny_student_legacy.pth",
                             "model/tiny_student_half_bare.pth", "checkpoints/zip.pth", "checkpoints/legacy.pth",
                             "checkpoints/deflated.pth", "checkpoints/proto0_legacy.pth"}) {
        std::string bytes = bytes_of(test::golden(name));
        put(path(), bytes);
        const std::size_t step = bytes.size() > 100'000 ? 4999 : 13;
        for (std::size_t length = bytes.size() - 1; length > 0; length -= std::min(length, step)) {
            std::filesystem::resize_file(path(), length);
            const std::string text = error_of([&] { read_pth(path()); });
            EXPECT_EQ(text.find("[pth] " + path().string() + ": "), 0u) << name << ' ' << length << ' ' << text;
        }
    }
}

TEST_F(PthTest, ZipDirectoriesThatLie) {
    const std::string object = pickle(dict({{"w", plain_tensor(4)}}));
    const auto lie = [&](const std::string& part, const ZipLies& lies) {
        expect_error(archive(object, {{"0", floats(4)}}, lies), part);
    };
    EXPECT_EQ(read(archive(object, {{"0", floats(4)}})).tensors.size(), 1u);
    lie("\"a/data/0\" is packed by LZMA; expected", {.method = 14});
    lie("\"a/data/0\" is packed by method 7; expected", {.method = 7});
    lie("\"a/data/0\" is encrypted; expected", {.flags = 1});
    lie("\"a/data/0\" is not packed, but has two sizes", {.unpacked = 15});
    lie("the 17 bytes of \"a/data/0\" do not lie before the directory", {.bytes = 17});
    lie("the 4294967294 bytes of \"a/data/0\" do not lie before", {.bytes = 0xfffffffe});
    lie("its storage \"0\" has 15 bytes", {.bytes = 15});
    lie("the header of \"a/data/0\" is not at byte 0", {.header = 0});
    lie("the header of \"a/data/0\" is not at byte 1", {.header = 1});
    lie("does not lie before the directory", {.header = 0x7fffffff});
    lie("does not lie before the directory", {.header = 0xffffffff});
    lie("the header of \"a/data/0\" is not at byte", {.local_name = "a/data/1"});
    lie("the checksum of \"data/0\" is wrong", {.crc = 1});
    lie("no directory entry is at byte 0", {.directory = 0});
    lie("does not lie before its end record", {.directory = 0x7fffffff});
    lie("does not lie before its end record", {.directory = 0xffffffff});
    lie("does not lie before its end record", {.directory_bytes = 0xffffffff});
    lie("is cut off", {.directory_bytes = 110});
    lie("is a zip archive without a data.pkl", {.directory_bytes = 0});
    expect_error(zip({{"a/data.pkl", object}, {"a/data.pkl", object}}), "it names \"a/data.pkl\" twice");
    expect_error(zip({{"a/data.pkl", object}, {"a/byteorder", "middle"}}),
                 "its byte order is \"middle\", expected \"little\" or \"big\"");
    const auto with = [&](const std::string& prefix, const std::string& order) {
        return zip({{prefix + "data.pkl", object}, {prefix + "byteorder", order}, {prefix + "data/0", floats(4)}});
    };
    for (const std::string& bytes : {with("a/", "little\n"), with("", "little"), with("a/b/", "little\r\n")}) {
        EXPECT_TRUE(read(bytes).tensors.at("w").equal(at::arange(4, at::kFloat)));
    }
    expect_error(zip({{"a/data.pkl", object}, {"b/data.pkl", object}}),
                 "is a zip archive of several checkpoints, \"a/\" and \"b/\"; unpack it first");
    expect_error(zip({{"a.npy", "x"}, {"b.npy", "x"}}),
                 "not one that torch.save wrote: it holds \"a.npy\", \"b.npy\" (NumPy's .npz)");
    expect_error(zip({{"model.pth", "x"}}), "wrote: it holds \"model.pth\"; unpack it first");
    expect_error(zip({{"a/data.pkl", object}, {"a/constants.pkl", object}}), "is a TorchScript archive");
    expect_error(zip({{"a/b.txt", object}}), "is a zip archive without a data.pkl");
    expect_error("PK", "it has no end record");
}

TEST_F(PthTest, DeflatedFilesThatLie) {
    const std::string object = pickle(dict({{"w", plain_tensor(4)}}));
    const std::string packed = deflated(floats(4));
    const auto with = [&](const std::string& bytes, std::int64_t unpacked, std::uint32_t crc = 0) {
        return archive(object, {{"0", bytes}}, {.method = 8, .unpacked = unpacked, .crc = crc});
    };
    EXPECT_TRUE(read(with(packed, 16)).tensors.at("w").equal(at::arange(4, at::kFloat)));
    expect_error(with(packed, 16, 1), "the checksum of \"data/0\" is wrong");
    expect_error(with(packed, 17), "\"data/0\" inflates to 16 of the 17 bytes");
    expect_error(with(packed, 100), "\"data/0\" inflates to 16 of the 100 bytes");
    expect_error(with(deflated(floats(5)), 16), "\"data/0\" inflates to more than the 16 bytes");
    expect_error(with(packed, 0), "its storage \"0\" has 0 bytes");
    expect_error(with(packed.substr(0, 18), 16), "\"data/0\" is cut off after 13 of the 16 bytes");
    expect_error(with("\7" + packed, 16), "\"data/0\" is not deflated");
    expect_error(with(packed, 0x7fffffff), "\"a/data/0\" has 21 bytes, which cannot be inflated to 2147483647");
    expect_error(with("", 16), "\"a/data/0\" has 0 bytes, which cannot be inflated to 16");
    expect_error(with(std::string(100'000, 'x'), 100'000'000), "its files unpack to 1000");
}

TEST_F(PthTest, ZipArchivesOf64Bits) {  // every size in the extra field and the 64-bit end record, as above 4 GB
    const std::string object = pickle(dict({{"w", plain_tensor(4)}}));
    const auto zip64 = [&](std::uint64_t size, std::uint64_t end_offset) {
        std::string data, directory;
        for (const auto& [name, bytes] : Files{{"a/data.pkl", object}, {"a/data/0", floats(4)}}) {
            const std::uint64_t stored = size > 0 ? size : bytes.size();
            directory += "PK\1\2" + little(0, 16) + little(~0u, 4) + little(~0u, 4) + little(name.size(), 2) +
                         little(28, 2) + little(0, 10) + little(~0u, 4) + name + little(1, 2) + little(24, 2) +
                         little(stored, 8) + little(stored, 8) + little(data.size(), 8);
            data += "PK\3\4" + little(0, 22) + little(name.size(), 2) + little(0, 2) + name + bytes;
        }
        const std::uint64_t end = end_offset > 0 ? end_offset : data.size() + directory.size();
        return data + directory + "PK\6\6" + little(44, 8) + little(0, 12) + little(2, 8) + little(2, 8) +
               little(directory.size(), 8) + little(data.size(), 8) + "PK\6\7" + little(0, 4) + little(end, 8) +
               little(1, 4) + "PK\5\6" + little(0, 4) + little(0xffff, 2) + little(0xffff, 2) + little(~0u, 4) +
               little(~0u, 4) + little(0, 2);
    };
    EXPECT_TRUE(read(zip64(0, 0)).tensors.at("w").equal(at::arange(4, at::kFloat)));
    expect_error(zip64(std::uint64_t{1} << 62, 0), "do not lie before the directory");
    expect_error(zip64(~std::uint64_t{0}, 0), "do not lie before the directory");
    expect_error(zip64(0, std::uint64_t{1} << 62), "lie outside of its");
    expect_error(zip64(0, ~std::uint64_t{0}), "lie outside of its");
    expect_error(zip64(0, 1), "its 64-bit end record is not at byte 1");
}

TEST_F(PthTest, LegacyFilesThatLie) {
    const std::string object = pickle(dict({{"w", plain_tensor(4)}}));
    EXPECT_EQ(read(legacy(object, {{"0", floats(4)}})).tensors.size(), 1u);
    expect_error(pickle("}"), "is a pickle, but not one that torch.save wrote");
    expect_error(kMagic + pickle("K\1"), "its protocol is not 1001");
    expect_error(kMagic + kProtocol + pickle("N"), "its system information is None");
    const std::string other_machine = pickle(dict({{"little_endian", "\x89"}}));  // which writes numbers as all do
    std::string from_there = legacy(object, {{"0", floats(4)}});
    from_there.replace(from_there.find(kMachine), kMachine.size(), other_machine);
    EXPECT_TRUE(read(from_there).tensors.at("w").equal(at::arange(4, at::kFloat)));
    expect_error(legacy(object, {{"1", floats(4)}}), "storage \"1\" belongs to no tensor");
    expect_error(legacy(object), "its storage \"0\" is not in the file");
    expect_error(legacy(object, {{"0", floats(3)}}), "its storage \"0\" has 12 bytes, expected 4 elements");
    const std::string head = kMagic + kProtocol + kMachine + object;
    expect_error(head + pickle("N"), "its storage keys are None");
    expect_error(head + pickle("](Ne"), "belongs to no tensor");
    const std::string keys = head + pickle("](" + text("0") + "e");
    for (const std::uint64_t count : {~std::uint64_t{0}, std::uint64_t{1} << 62, std::uint64_t{5}}) {
        expect_error(keys + little(count, 8) + floats(4),
                     str("storage \"0\" has ", count, " elements of 4 bytes where 16 bytes"));
    }
    expect_error(keys, "expected 8 bytes from byte");
}

void mutate(std::string& bytes, Random& random) {
    const auto at = static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(bytes.size())));
    switch (random.integer(0, 4)) {
        case 0:
            bytes.insert(at, 1, static_cast<char>(random.integer(0, 256)));
            break;
        case 1:
            bytes.erase(at, static_cast<std::size_t>(random.integer(1, 9)));
            break;
        case 2:
            bytes[at] = static_cast<char>(random.integer(0, 256));
            break;
        default:
            bytes[at] = random.chance(0.5) ? '\xff' : '\x7f';
    }
}

// A few thousand random mutations of real files: each one is read or refused.
TEST_F(PthTest, MutationsAreReadOrRefused) {
    Random random(1);
    for (const char* name :
         {"checkpoints/zip.pth", "checkpoints/legacy.pth", "checkpoints/proto0.pth", "checkpoints/deflated.pth"}) {
        std::string whole = bytes_of(test::golden(name));
        for (std::size_t at = 0; (at = whole.find("PK\1\2", at)) != std::string::npos; at += 4) {
            whole.replace(at + 16, 4, 4, '\0');  // no checksums, which would hide the pickle behind them
        }
        int read_ones = 0, refused = 0;
        for (int i = 0; i < 2000; ++i) {
            std::string bytes = whole;
            for (std::int64_t changes = random.integer(1, 4); changes > 0; --changes) mutate(bytes, random);
            put(path(), bytes);
            try {
                read_pth(path(), random.chance(0.5) ? WeightsPart::kPlain : WeightsPart::kEma);
                ++read_ones;
            } catch (const Error&) {
                ++refused;
            }
        }
        EXPECT_GT(read_ones, 20) << name;  // little of what is packed can be changed
        EXPECT_GT(refused, 100) << name;
    }
}

// ---- Which format a file has ----

TEST_F(PthTest, FormatsByTheFirstBytes) {
    for (const char* name : {"zip.pth", "legacy.pth", "proto0_legacy.pth", "proto1_legacy.pth"}) {
        EXPECT_EQ(weights_format(test::golden(str("checkpoints/", name))), WeightsFormat::kPth);
    }
    EXPECT_EQ(weights_format(test::golden("model/tiny_student.safetensors")), WeightsFormat::kSafetensors);
    put(path(), little(0x80, 8) + "{" + std::string(0x7f, ' '));  // a header as long as a pickle's first byte
    EXPECT_EQ(weights_format(path()), WeightsFormat::kSafetensors);
    const std::string expected = ", expected a safetensors file or a PyTorch checkpoint";
    const auto refused = [&](const std::string& bytes, const std::string& found, const std::string& advice) {
        put(path(), bytes);
        EXPECT_EQ(error_of([&] { weights_format(path()); }),
                  "[weights] " + path().string() + ": found " + found + expected + advice);
    };
    refused("", "an empty file", ": a download or copy that did not finish");
    refused("This is a text.\n", "text (16 bytes) that starts with 'This is a text.\\x0a'", "");
    refused("\x89PNG\r\n\x1a\n", "a PNG picture (8 bytes)", "");
    refused("\x1f\x8b\x08", "a gzip file (3 bytes)", ": unpack it first");
    refused(std::string(257, 'n') + "ustar", "a tar archive (262 bytes)", ": unpack it first");
    refused(std::string("sys_info\0", 9) + std::string(248, '\0') + "ustar",
            "a checkpoint of PyTorch before 0.2 (262 bytes)",
            ": torch.load and torch.save bring it into the present format");
    refused("<html>", "an HTML page (6 bytes)", ": a download that brought a web page in place of the file");
    refused("version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer (43 bytes)",
            ": `git lfs pull` brings the file itself");
    refused("{\"a\": [{\"b\": 1}]}", "JSON (17 bytes)", "");
    EXPECT_EQ(error_of([&] { weights_format(folder_ / "none"); }),
              "[weights] " + (folder_ / "none").string() + ": no such file");
}

}  // namespace
}  // namespace dynvit
