// Compares with files written by the original library (golden), with headers spelled out here, and with what was put
// in.
#include "dynvit/io/safetensors.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "dynvit/core/error.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;

std::string bytes_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void put(const std::filesystem::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

std::string number(std::uint64_t value) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &value, 8);
    return bytes;
}

/// A file of this header and as many bytes of data.
std::string file_of(const std::string& header, std::size_t data_bytes) {
    return number(header.size()) + header + std::string(data_bytes, '\1');
}

class SafetensorsTest : public testing::Test {
  protected:
    Safetensors read(const std::string& bytes) {
        put(path(), bytes);
        return read_safetensors(path());
    }

    /// The error of reading these bytes; it must be one line and name the file.
    std::string error(const std::string& bytes) {
        const std::string text = error_of([&] { read(bytes); });
        EXPECT_EQ(text.find("[safetensors] " + path().string() + ": "), 0u) << text;
        for (const char letter : text) EXPECT_TRUE(letter >= 0x20 && letter < 0x7f) << text;
        return text;
    }

    void expect_error(const std::string& header, std::size_t data_bytes, const std::string& part) {
        const std::string text = error(file_of(header, data_bytes));
        EXPECT_NE(text.find(part), std::string::npos) << text << "\nfor " << header;
    }

    std::filesystem::path path() const { return folder_ / "t.safetensors"; }

    test::TemporaryFolder folder_;
};

const std::string kSmall = file_of(R"({"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[2,1],"data_offsets":[0,2]},)"
                                   R"("b":{"dtype":"F32","shape":[],"data_offsets":[2,6]}})",
                                   6);

TEST_F(SafetensorsTest, ReadsWhatTheOriginalLibraryWrote) {
    const Safetensors images = read_safetensors(test::golden("images/expected.safetensors"));
    EXPECT_EQ(images.tensors.size(), 23u);
    EXPECT_EQ(images.metadata.at("layout"), "H, W, C uint8; Pillow");
    const at::Tensor& grey = images.tensors.at("rgb.grey.png");
    EXPECT_EQ(grey.scalar_type(), at::kByte);
    EXPECT_EQ(grey.sizes(), (std::vector<std::int64_t>{47, 61, 3}));

    const Safetensors student = read_safetensors(test::golden("model/tiny_student.safetensors"));
    const at::Tensor& position = student.tensors.at("pos_embed");
    EXPECT_EQ(position.scalar_type(), at::kFloat);
    EXPECT_EQ(position.sizes(), (std::vector<std::int64_t>{1, 197, 32}));
    EXPECT_TRUE(position.isfinite().all().item<bool>());
    for (const auto& [name, tensor] : student.tensors) {
        EXPECT_TRUE(tensor.is_contiguous()) << name;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 16, 0u) << name;
    }
}

TEST_F(SafetensorsTest, EveryTypeThatPyTorchSaves) {
    const Safetensors file = read_safetensors(test::golden("checkpoints/types.safetensors"));
    int compared = 0;
    for (const auto& [name, expected] : file.tensors) {
        if (!name.ends_with(".float32")) continue;
        EXPECT_TRUE(at::equal(file.tensors.at(name.substr(0, name.size() - 8)).to(at::kFloat), expected)) << name;
        ++compared;
    }
    EXPECT_EQ(compared, 18);
    EXPECT_EQ(file.tensors.at("float8_e5m2fnuz").scalar_type(), at::ScalarType::Float8_e5m2fnuz);
    EXPECT_EQ(file.tensors.at("complex64").scalar_type(), at::kComplexFloat);
    EXPECT_EQ(file.unread,
              (std::map<std::string, std::string>{{"float4_e2m1fn_x2", "its type is F4, which is not read"}}));
}

TEST_F(SafetensorsTest, TypesOfLessThanAByteHaveSizes) {
    const auto header = [](const std::string& type, int count, int bytes) {
        return str(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":")", type, R"(","shape":[)",
                   count, R"(],"data_offsets":[4,)", 4 + bytes, "]}}");
    };
    EXPECT_EQ(read(file_of(header("F4", 6, 3), 7)).unread.at("b"), "its type is F4, which is not read");
    EXPECT_EQ(read(file_of(header("F6_E3M2", 4, 3), 7)).unread.at("b"), "its type is F6_E3M2, which is not read");
    EXPECT_EQ(read(file_of(header("I4", 6, 1), 5)).tensors.size(), 1u) << "nobody knows what it would need";
    expect_error(header("F4", 8, 3), 7, "tensor \"b\": shape [8] of F4 needs 4 bytes, data_offsets [4,7] give 3");
    expect_error(header("F6_E2M3", 8, 3), 7, "shape [8] of F6_E2M3 needs 6 bytes");
}

TEST_F(SafetensorsTest, ReadsABytewiseKnownFile) {
    const Safetensors file = read(kSmall);
    EXPECT_EQ(file.metadata, (std::map<std::string, std::string>{{"k", "v"}}));
    ASSERT_EQ(file.tensors.size(), 2u);
    EXPECT_TRUE(at::equal(file.tensors.at("a"), at::ones({2, 1}, at::kByte)));
    EXPECT_EQ(file.tensors.at("b").dim(), 0);
    EXPECT_EQ(file.tensors.at("b").item<float>(), std::bit_cast<float>(0x01010101));  // unaligned in the file
}

TEST_F(SafetensorsTest, WritesTheDocumentedLayout) {
    write_safetensors(path(), {{"b", at::zeros({1, 2}, at::kShort)}, {"a", at::ones({3}, at::kByte)}}, {{"k", "v"}});
    const std::string bytes = bytes_of(path());
    const std::string header = R"({"__metadata__":{"k":"v"},"a":{"data_offsets":[0,3],"dtype":"U8","shape":[3]},)"
                               R"("b":{"data_offsets":[3,7],"dtype":"I16","shape":[1,2]}})";
    const std::size_t padded = (header.size() + 7) / 8 * 8;
    EXPECT_EQ(bytes,
              number(padded) + header + std::string(padded - header.size(), ' ') + std::string("\1\1\1\0\0\0\0", 7));
}

TEST_F(SafetensorsTest, EveryTypeComesBack) {
    TensorMap tensors;
    for (const at::ScalarType type :
         {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kChar, at::kByte,
          at::kBool, at::kFloat8_e4m3fn, at::kFloat8_e5m2, at::kUInt64, at::kUInt32, at::kUInt16, at::kComplexFloat,
          at::ScalarType::Float8_e4m3fnuz, at::ScalarType::Float8_e5m2fnuz, at::ScalarType::Float8_e8m0fnu}) {
        EXPECT_TRUE(is_safetensors_type(type));
        tensors[std::string("values.") + c10::toString(type)] = at::arange(6, at::kFloat).view({2, 3}).to(type);
        tensors[std::string("scalar.") + c10::toString(type)] = at::scalar_tensor(1, at::kFloat).to(type);
        tensors[std::string("empty.") + c10::toString(type)] = at::empty({0, 4}, type);
    }
    tensors["name \"with\" \u00e4\n{}"] = at::ones({1, 1, 1, 1, 1});
    tensors[""] = at::ones({1});
    const std::map<std::string, std::string> metadata = {{"", ""}, {"note", "two\nlines \u00e4"}};
    write_safetensors(path(), tensors, metadata);

    const Safetensors back = read_safetensors(path());
    EXPECT_EQ(back.metadata, metadata);
    ASSERT_EQ(back.tensors.size(), tensors.size());
    for (const auto& [name, tensor] : tensors) {
        const at::Tensor& read = back.tensors.at(name);
        EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
        EXPECT_EQ(read.sizes(), tensor.sizes()) << name;
        if (tensor.numel() == 0) continue;
        EXPECT_EQ(std::memcmp(read.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()), 0) << name;
    }
}

TEST_F(SafetensorsTest, NoTensorsAreAFileToo) {
    write_safetensors(path(), {});
    EXPECT_TRUE(read_safetensors(path()).tensors.empty());
    EXPECT_TRUE(read(file_of("{}", 0)).tensors.empty());
    EXPECT_TRUE(read(file_of("{}      ", 0)).tensors.empty());
}

TEST_F(SafetensorsTest, EqualContentsGiveEqualBytes) {
    const at::Tensor values = at::arange(12, at::kFloat).view({3, 4});
    write_safetensors(folder_ / "a", {{"t", values.t().contiguous()}, {"s", values}}, {{"x", "1"}, {"y", "2"}});
    write_safetensors(folder_ / "b", {{"s", values.clone()}, {"t", values.t()}}, {{"y", "2"}, {"x", "1"}});
    EXPECT_EQ(bytes_of(folder_ / "a"), bytes_of(folder_ / "b"));
    write_safetensors(folder_ / "c", {{"s", values.add(1)}, {"t", values.t()}}, {{"y", "2"}, {"x", "1"}});
    EXPECT_NE(bytes_of(folder_ / "a"), bytes_of(folder_ / "c"));
}

TEST_F(SafetensorsTest, TensorsOutliveTheFile) {
    write_safetensors(path(), {{"t", at::arange(1000)}});
    const TensorMap tensors = read_safetensors(path()).tensors;
    put(path(), std::string(9000, 'x'));
    std::filesystem::remove(path());
    EXPECT_TRUE(at::equal(tensors.at("t"), at::arange(1000)));
}

TEST_F(SafetensorsTest, MissingFilesAndFoldersAreNamed) {
    EXPECT_EQ(error_of([&] { read_safetensors(folder_ / "none"); }),
              "[safetensors] " + (folder_ / "none").string() + ": no such file");
    EXPECT_EQ(error_of([&] { read_safetensors(folder_.path()); }),
              "[safetensors] " + folder_.path().string() + ": is a folder, not a file");
    EXPECT_EQ(error_of([&] { read_safetensors("/dev/zero"); }), "[safetensors] /dev/zero: is not a regular file");
}

TEST_F(SafetensorsTest, EveryTruncationAndEveryAdditionIsAnError) {
    for (std::size_t length = 0; length < kSmall.size(); ++length) error(kSmall.substr(0, length));
    EXPECT_NE(error(kSmall + "x").find("1 of 7 bytes of data belong to no tensor"), std::string::npos);
}

TEST_F(SafetensorsTest, HeaderLengthsThatLieAreErrors) {
    for (const std::uint64_t length : {std::uint64_t{9'000'000'000'000'000'000}, ~std::uint64_t{0},
                                       std::uint64_t{1} << 63, kSmall.size() - 7, ~std::uint64_t{0} - 7}) {
        const std::string text = error(number(length) + kSmall.substr(8));
        EXPECT_NE(text.find("header length " + std::to_string(length) + " is larger than the file"), std::string::npos)
            << text;
    }
    // Within the file but over the format's limit; the file is sparse.
    put(path(), number(100'000'001) + "{");
    std::filesystem::resize_file(path(), 100'000'100);
    EXPECT_NE(error_of([&] { read_safetensors(path()); }).find("over the limit of 100000000 bytes"), std::string::npos);
}

TEST_F(SafetensorsTest, HeadersThatAreNotJsonAreErrors) {
    expect_error("", 0, "does not start with '{'");
    expect_error(" {}", 0, "does not start with '{'");
    expect_error("[]", 0, "does not start with '{'");
    expect_error("{", 0, "not valid JSON");
    expect_error("{}}", 0, "not valid JSON");
    expect_error("{'a':1}", 0, "not valid JSON at its byte 2");
    expect_error("{\"\xff\":1}", 0, "not valid JSON");
    expect_error(R"({"a":1e999})", 0, "not valid JSON");
    expect_error(R"({"a":)" + std::string(1'000'000, '['), 0, "nested too deeply");
    std::string objects;
    for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
    expect_error(objects, 0, "nested too deeply");
}

TEST_F(SafetensorsTest, EntriesThatAreNotTensorsAreErrors) {
    expect_error(R"({"a":1})", 0, R"(tensor "a": is 1, expected an object)");
    expect_error(R"({"a":{}})", 0, "has no dtype");
    expect_error(R"({"a":{"dtype":"U8","shape":[0]}})", 0, "has no data_offsets");
    expect_error(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})", 0, "has no shape");
    expect_error(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"strides":[1]}})", 0,
                 R"(unknown field "strides")");
    expect_error(R"({"a":{"dtype":"F31","shape":[0],"data_offsets":[0,0]}})", 0,
                 R"(unknown type "F31", expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL F8_E4M3 F8_E5M2)");
    expect_error(R"({"a":{"dtype":7,"shape":[0],"data_offsets":[0,0]}})", 0, "unknown type 7");
    expect_error(R"({"\n\u0000":{"dtype":"f32","shape":[0],"data_offsets":[0,0]}})", 0,
                 R"(tensor "\n\u0000": unknown type)");
    expect_error(R"({"__metadata__":[]})", 0, "expected an object of strings");
    expect_error(R"({"__metadata__":{"a":1}})", 0, R"(__metadata__ "a" is 1, expected a string)");
}

TEST_F(SafetensorsTest, NamesThatAppearTwiceAreErrors) {
    const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
    expect_error(R"({"a":)" + entry + R"(,"a":)" + entry + "}", 1, R"(header names "a" twice)");
    expect_error(R"({"a":)" + entry + R"(,"\u0061":)" + entry + "}", 1, R"(header names "a" twice)");
    expect_error(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1,
                 R"(header names "dtype" twice)");
    expect_error(R"({"__metadata__":{"k":"1","k":"2"}})", 0, R"(header names "k" twice)");
    expect_error(R"({"__metadata__":{},"__metadata__":{}})", 0, R"(header names "__metadata__" twice)");
}

TEST_F(SafetensorsTest, ShapesThatLieAreErrors) {
    const auto expect_shape_error = [&](const std::string& shape, const std::string& part) {
        expect_error(R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,8]}})", 8, part);
    };
    expect_shape_error("[3]", "shape [3] of F32 needs 12 bytes, data_offsets [0,8] give 8");
    expect_shape_error("[]", "needs 4 bytes");
    expect_shape_error("[2,0]", "needs 0 bytes");
    expect_shape_error("[-2]", "holds what is no size");
    expect_shape_error("[-1,-2]", "holds what is no size");
    expect_shape_error("[2.0]", "holds what is no size");
    expect_shape_error("[\"2\"]", "holds what is no size");
    expect_shape_error("[null]", "holds what is no size");
    expect_shape_error("2", "expected a list of sizes");
    expect_shape_error("[18446744073709551616]", "holds what is no size");  // 2^64
    expect_shape_error("[18446744073709551615]", "is too large");
    expect_shape_error("[9223372036854775808]", "is too large");
    expect_shape_error("[4294967296,4294967296]", "is too large");  // 2^64 elements: 0 after overflow
    expect_shape_error("[4611686018427387906]", "is too large");    // x 4 bytes: 8 after overflow
    expect_shape_error("[0,9223372036854775807,9223372036854775807]", "is too large");
    std::string many = "[2";
    for (int i = 0; i < 64; ++i) many += ",1";
    expect_shape_error(many + "]", "has 65 dimensions");
}

TEST_F(SafetensorsTest, OffsetsThatLieAreErrors) {
    const auto tensor = [](const std::string& name, int count, const std::string& offsets) {
        return str('"', name, R"(":{"dtype":"U8","shape":[)", count, R"(],"data_offsets":)", offsets, "}");
    };
    expect_error("{" + tensor("a", 2, "[0,2]") + "," + tensor("b", 2, "[1,3]") + "}", 3,
                 R"(tensor "b": its bytes, from 1, overlap)");
    expect_error("{" + tensor("a", 2, "[0,2]") + "," + tensor("b", 2, "[0,2]") + "}", 2, "overlap");
    expect_error("{" + tensor("b", 2, "[0,2]") + "," + tensor("a", 2, "[3,5]") + "}", 5,
                 "bytes 2 to 3 before it belong to no tensor");
    expect_error("{" + tensor("a", 2, "[1,3]") + "}", 3, "bytes 0 to 1 before it belong to no tensor");
    expect_error("{" + tensor("a", 2, "[0,2]") + "}", 4, "2 of 4 bytes of data belong to no tensor");
    expect_error("{}", 4, "4 of 4 bytes of data belong to no tensor");
    expect_error("{" + tensor("a", 5, "[0,5]") + "}", 4, "do not lie in the file's 4 bytes of data");
    expect_error("{" + tensor("a", 2, "[2,0]") + "}", 2, "do not lie in the file's 2 bytes");
    expect_error("{" + tensor("a", 2, "[18446744073709551614,18446744073709551615]") + "}", 2, "do not lie");
    expect_error("{" + tensor("a", 0, "[7,7]") + "}", 2, "do not lie");
    for (const char* offsets : {"[0]", "[0,1,2]", "[-2,0]", "[0,2.0]", "{}", "\"0,2\"", "null", "2"})
        expect_error("{" + tensor("a", 2, offsets) + "}", 2, "expected [begin, end]");
}

TEST_F(SafetensorsTest, EmptyTensorsMayStandAnywhereBetween) {
    const Safetensors file = read(file_of(R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                          R"("a":{"dtype":"F64","shape":[3,0],"data_offsets":[2,2]},)"
                                          R"("b":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},)"
                                          R"("c":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                                          3));
    EXPECT_EQ(file.tensors.at("a").sizes(), (std::vector<std::int64_t>{3, 0}));
    EXPECT_EQ(file.tensors.at("c").item<int>(), 1);
}

TEST_F(SafetensorsTest, TruthValuesAreZeroOrOne) {
    std::string bytes = file_of(R"({"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})", 3);
    EXPECT_TRUE(read(bytes).tensors.at("a").all().item<bool>());
    bytes[bytes.size() - 2] = 2;
    EXPECT_NE(error(bytes).find("BOOL element 1 is 2, expected 0 or 1"), std::string::npos);
}

// A small fuzz: whatever one byte says, the file is read or refused with an Error; nothing else leaves the reader.
TEST_F(SafetensorsTest, AnyOneWrongByteIsReadOrRefused) {
    int refused = 0, read_anyway = 0;
    for (std::size_t at = 0; at < kSmall.size(); ++at)
        for (const int value : {0x00, 0x01, 0x22, 0x2d, 0x39, 0x5d, 0x7b, 0x7d, 0x80, 0xff}) {
            std::string bytes = kSmall;
            bytes[at] = static_cast<char>(value);
            try {
                read(bytes);
                ++read_anyway;
            } catch (const Error&) {
                ++refused;
            }
        }
    EXPECT_GT(refused, 1000);    // most of the header's bytes matter
    EXPECT_GT(read_anyway, 60);  // any data is valid data
}

TEST_F(SafetensorsTest, WhatCannotBeWrittenIsNamedAndLeavesTheOldFile) {
    write_safetensors(path(), {{"t", at::ones({3})}});
    const std::string before = bytes_of(path());
    const auto expect_refused = [&](const TensorMap& tensors, const std::map<std::string, std::string>& metadata,
                                    const std::string& part) {
        const std::string text = error_of([&] { write_safetensors(path(), tensors, metadata); });
        EXPECT_NE(text.find("[safetensors] " + path().string()), std::string::npos) << text;
        EXPECT_NE(text.find(part), std::string::npos) << text;
        EXPECT_EQ(bytes_of(path()), before);
    };
    expect_refused({{"c", at::zeros({2}, at::kComplexDouble)}}, {}, R"(tensor "c" is CPUComplexDoubleType)");
    expect_refused({{"s", at::ones({2, 2}).to_sparse()}}, {}, R"(tensor "s" is SparseCPUFloatType)");
    expect_refused({{"u", at::Tensor()}}, {}, R"(tensor "u" has no value)");
    expect_refused({{"__metadata__", at::ones({1})}}, {}, "__metadata__");
    expect_refused({{"\xff", at::ones({1})}}, {}, "not valid UTF-8");
    expect_refused({}, {{"k", "\xc3"}}, "not valid UTF-8");

    const std::filesystem::path nowhere = folder_ / "none" / "t.safetensors";
    EXPECT_NE(error_of([&] { write_safetensors(nowhere, {}); }).find(nowhere.string()), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
    std::filesystem::create_directory(folder_ / "folder");
    EXPECT_NE(error_of([&] { write_safetensors(folder_ / "folder", {}); }).find("folder"), std::string::npos);
    EXPECT_TRUE(std::filesystem::is_directory(folder_ / "folder"));
}

TEST_F(SafetensorsTest, AFullDiskLeavesTheOldFileAndNothingElse) {
    write_safetensors(path(), {{"t", at::ones({3})}});
    const std::string before = bytes_of(path());
    {
        const test::FileSizeLimit limit(64 * 1024);
        const std::string text = error_of([&] { write_safetensors(path(), {{"t", at::ones({100'000})}}); });
        EXPECT_NE(text.find(path().string()), std::string::npos) << text;
    }
    EXPECT_EQ(bytes_of(path()), before);
    const std::filesystem::directory_iterator files(folder_.path());
    EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

}  // namespace
}  // namespace dynvit
