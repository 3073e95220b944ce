// A model as ONNX's bytes. Knows neither LibTorch nor protobuf, so that either side may include it.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "dynvit/export/export_options.hpp"
#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// The rotary table's name among the weights, see rotary_positions.hpp.
inline constexpr const char* kRotaryTable = "rotary_table";

/// A weight in row-major order, float32.
struct WeightView {
    std::vector<std::int64_t> shape;
    const float* values = nullptr;
};

/// A model of opset 17 (see export_onnx) as the bytes of its file. @param weights by their published names
/// Throws Error where they are more than the 2 GB that such a file holds.
std::string onnx_model(const ModelSettings& settings, const ExportOptions& options,
                       const std::map<std::string, WeightView>& weights);

/// Reads a file and runs ONNX's checker and shape inference on it, which must arrive at the declared outputs.
/// @param written where the file is; @param path what an error calls it
/// Throws Error naming the path and what is wrong.
void check_onnx(const std::filesystem::path& written, const std::filesystem::path& path);

}  // namespace dynvit
