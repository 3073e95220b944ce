#include "onnx_graph.hpp"

#include <charconv>
#include <functional>
#include <numeric>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

void set_attribute(onnx::AttributeProto& attribute, std::int64_t value) {
    attribute.set_type(onnx::AttributeProto::INT);
    attribute.set_i(value);
}

void set_attribute(onnx::AttributeProto& attribute, float value) {
    attribute.set_type(onnx::AttributeProto::FLOAT);
    attribute.set_f(value);
}

void set_attribute(onnx::AttributeProto& attribute, const std::vector<std::int64_t>& values) {
    attribute.set_type(onnx::AttributeProto::INTS);
    for (const std::int64_t value : values) attribute.add_ints(value);
}

void set_value_info(onnx::ValueInfoProto& info, const std::string& name, const std::vector<std::int64_t>& shape,
                    int type) {
    info.set_name(name);
    info.mutable_type()->mutable_tensor_type()->set_elem_type(type);
    onnx::TensorShapeProto& dimensions = *info.mutable_type()->mutable_tensor_type()->mutable_shape();
    dimensions.add_dim()->set_dim_param("batch");
    for (const std::int64_t size : shape) dimensions.add_dim()->set_dim_value(size);
}

}  // namespace

OnnxGraph::Values OnnxGraph::add_node(const std::string& type, const Values& inputs, std::size_t outputs,
                                      const Attributes& attributes) {
    onnx::NodeProto& node = *graph_.add_node();
    node.set_op_type(type);
    node.set_name(str(scope_, scope_.empty() ? "" : "/", type, '_', graph_.node_size()));
    for (const std::string& input : inputs) node.add_input(input);
    Values values;
    for (std::size_t i = 0; i < outputs; ++i) {
        values.push_back(i == 0 ? node.name() : str(node.name(), '.', i));
        node.add_output(values.back());
    }
    for (const auto& [name, value] : attributes) {
        onnx::AttributeProto& attribute = *node.add_attribute();
        attribute.set_name(name);
        std::visit([&](const auto& held) { set_attribute(attribute, held); }, value);
    }
    return values;
}

std::string OnnxGraph::add_node(const std::string& type, const Values& inputs, const Attributes& attributes) {
    return add_node(type, inputs, 1, attributes).front();
}

std::string OnnxGraph::integers(const std::vector<std::int64_t>& values) {
    return int64_constant(values, {static_cast<std::int64_t>(values.size())});
}

std::string OnnxGraph::integer(std::int64_t value) {
    return int64_constant({value}, {});
}

// Constants of equal values are one, named after them.
std::string OnnxGraph::int64_constant(const std::vector<std::int64_t>& values, const std::vector<std::int64_t>& shape) {
    const std::string name = shape.empty() ? str("int64 ", values.front()) : str("int64 [", join(values, ", "), ']');
    if (!initializers_.contains(name)) add_initializer(name, shape, onnx::TensorProto::INT64, values.data());
    return name;
}

std::string OnnxGraph::number(float value) {
    char digits[32];  // as many as tell the number from its neighbours
    const auto end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
    const std::string name = "float " + std::string(digits, end);
    if (!initializers_.contains(name)) add_initializer(name, {}, onnx::TensorProto::FLOAT, &value);
    return name;
}

std::string OnnxGraph::weight(const std::string& name, const WeightView& view) {
    if (!initializers_.contains(name)) add_initializer(name, view.shape, onnx::TensorProto::FLOAT, view.values);
    return name;
}

std::string OnnxGraph::add_input(const std::string& name, const std::vector<std::int64_t>& shape, int type) {
    set_value_info(*graph_.add_input(), name, shape, type);
    return name;
}

void OnnxGraph::add_output(const std::string& name, const std::string& value, const std::vector<std::int64_t>& shape,
                           int type) {
    onnx::NodeProto& node = *graph_.add_node();
    node.set_op_type("Identity");
    node.set_name(name);
    node.add_input(value);
    node.add_output(name);
    set_value_info(*graph_.add_output(), name, shape, type);
}

void OnnxGraph::add_initializer(const std::string& name, const std::vector<std::int64_t>& shape, int type,
                                const void* data) {
    initializers_.insert(name);
    onnx::TensorProto* tensor = graph_.add_initializer();
    tensor->set_name(name);
    tensor->set_data_type(type);
    for (const std::int64_t size : shape) tensor->add_dims(size);
    const std::int64_t count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    const std::size_t bytes = type == onnx::TensorProto::INT64 ? sizeof(std::int64_t) : sizeof(float);
    tensor->set_raw_data(data, static_cast<std::size_t>(count) * bytes);
}

}  // namespace dynvit
