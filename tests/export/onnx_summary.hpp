// What stands in an ONNX file, in plain types: protobuf's headers and LibTorch's must not meet.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace dynvit::test {

struct OnnxTensor {
    std::vector<std::int64_t> shape;
    int type = 0;       // of onnx::TensorProto: 1 float32, 7 int64
    std::string bytes;  // raw_data
};

struct OnnxSummary {
    std::int64_t opset = 0;
    std::string doc;
    std::map<std::string, std::string> metadata;
    std::map<std::string, std::vector<std::string>> inputs, outputs;  // dimensions: a number or a name
    std::map<std::string, OnnxTensor> initializers;
    std::map<std::string, int> nodes;  // how many of each type
    std::string fault;                 // of ONNX's checker; empty: none
};

OnnxSummary read_onnx(const std::filesystem::path& path);

}  // namespace dynvit::test
