#include "export/onnx_summary.hpp"

#include <onnx/checker.h>

#include <fstream>

namespace dynvit::test {
namespace {

std::vector<std::string> dimensions(const onnx::ValueInfoProto& info) {
    std::vector<std::string> found;
    for (const auto& dimension : info.type().tensor_type().shape().dim()) {
        found.push_back(dimension.has_dim_param() ? dimension.dim_param() : std::to_string(dimension.dim_value()));
    }
    return found;
}

}  // namespace

OnnxSummary read_onnx(const std::filesystem::path& path) {
    onnx::ModelProto model;
    std::ifstream file(path, std::ios::binary);
    OnnxSummary summary;
    if (!model.ParseFromIstream(&file)) {
        summary.fault = "no ONNX file";
        return summary;
    }
    summary.opset = model.opset_import(0).version();
    summary.doc = model.doc_string();
    for (const auto& entry : model.metadata_props()) summary.metadata[entry.key()] = entry.value();
    for (const auto& input : model.graph().input()) summary.inputs[input.name()] = dimensions(input);
    for (const auto& output : model.graph().output()) summary.outputs[output.name()] = dimensions(output);
    for (const auto& node : model.graph().node()) ++summary.nodes[node.op_type()];
    for (const auto& tensor : model.graph().initializer()) {
        summary.initializers[tensor.name()] = {
            {tensor.dims().begin(), tensor.dims().end()}, tensor.data_type(), tensor.raw_data()};
    }
    try {
        onnx::checker::check_model(model);
    } catch (const std::exception& error) {
        summary.fault = error.what();
    }
    return summary;
}

}  // namespace dynvit::test
