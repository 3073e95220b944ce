// Building an ONNX graph: nodes and constants by the names of what they give.
#pragma once

#include <onnx/onnx_pb.h>

#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "onnx_model.hpp"

namespace dynvit {

class OnnxGraph {
  public:
    using Values = std::vector<std::string>;
    using Attribute = std::variant<std::int64_t, float, std::vector<std::int64_t>>;
    using Attributes = std::vector<std::pair<std::string, Attribute>>;

    explicit OnnxGraph(onnx::GraphProto& graph) : graph_(graph) {}

    /// Names of the nodes from here on begin with "scope/".
    void set_scope(const std::string& scope) { scope_ = scope; }

    /// A node, with one value by default. @return the values' names, or the only one's
    Values add_node(const std::string& type, const Values& inputs, std::size_t outputs,
                    const Attributes& attributes = {});
    std::string add_node(const std::string& type, const Values& inputs, const Attributes& attributes = {});

    /// Constants: int64 in one dimension, an int64 and a float32 without dimensions.
    std::string integers(const std::vector<std::int64_t>& values);
    std::string integer(std::int64_t value);
    std::string number(float value);

    /// An initializer of that name. @return the name
    std::string weight(const std::string& name, const WeightView& view);

    /// The graph's own; a first dimension "batch" goes before `shape`. @param type of onnx::TensorProto
    std::string add_input(const std::string& name, const std::vector<std::int64_t>& shape, int type);
    void add_output(const std::string& name, const std::string& value, const std::vector<std::int64_t>& shape,
                    int type);

  private:
    void add_initializer(const std::string& name, const std::vector<std::int64_t>& shape, int type, const void* data);
    std::string int64_constant(const std::vector<std::int64_t>& values, const std::vector<std::int64_t>& shape);

    onnx::GraphProto& graph_;
    std::string scope_;
    std::set<std::string> initializers_;
};

}  // namespace dynvit
