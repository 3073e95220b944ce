#include <onnx/checker.h>
#include <onnx/shape_inference/implementation.h>

#include <fstream>

#include "dynvit/core/error.hpp"
#include "onnx_model.hpp"

namespace dynvit {

void check_onnx(const std::filesystem::path& written, const std::filesystem::path& path) {
    onnx::ModelProto model;
    std::ifstream file(written, std::ios::binary);
    if (!model.ParseFromIstream(&file)) throw Error("export", path.string(), ": cannot be read back as ONNX");
    try {
        onnx::checker::check_model(model);
        const onnx::ShapeInferenceOptions strict(/*check_type=*/true, /*strict_mode=*/1, /*data_prop=*/true);
        onnx::shape_inference::InferShapes(model, onnx::OpSchemaRegistry::Instance(), strict);
    } catch (const std::runtime_error& error) {
        const std::string text = error.what();
        throw Error("export", path.string(), ": is not valid ONNX: ", text.substr(0, text.find('\n')));
    }
}

}  // namespace dynvit
