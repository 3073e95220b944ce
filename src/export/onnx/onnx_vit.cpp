// The pruned Vision Transformer node by node; vision_transformer.cpp, prediction_module.cpp and dynamic_vit.cpp define
// it.
#include <cmath>
#include <limits>

#include "dynvit/core/error.hpp"
#include "onnx_graph.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kOpset = 17;     // the first with LayerNormalization
constexpr std::int64_t kIrVersion = 8;  // opset 17 came with it
constexpr float kBlockEpsilon = 1e-6f, kPredictionEpsilon = 1e-5f;
constexpr auto kFloat = onnx::TensorProto::FLOAT, kInt64 = onnx::TensorProto::INT64;
constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();

constexpr const char* kInput =
    "images: RGB, (value / 255 - mean) / std, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)";

using Value = std::string;  // the name of a node's output
using Ints = std::vector<std::int64_t>;

class VitGraph {
  public:
    VitGraph(const ModelSettings& settings, const std::map<std::string, WeightView>& weights, onnx::GraphProto& graph)
        : s_(settings), weights_(weights), graph_(graph) {}

    void build(const ExportOptions& options);

  private:
    struct Tokens {
        Value x;               // (B, 1 + count, C): [CLS] first
        std::int64_t count;    // patch tokens
        Value positions = {};  // (B, count): on the original grid; empty before the first stage
    };

    Value weight(const std::string& name) { return graph_.weight(name, weights_.at(name)); }
    Value linear(const Value& x, const std::string& name);
    Value layer_norm(const Value& x, const std::string& name, float epsilon);
    Value gelu(const Value& x);
    Value slice(const Value& x, std::int64_t axis, std::int64_t from, std::int64_t to);
    Value top(const Value& scores, std::int64_t count, bool largest, bool indices);

    Value embed(const Value& images);
    Value attention(const Value& x, const std::string& name, std::int64_t tokens);
    Value block(const Value& x, const std::string& name, std::int64_t tokens);
    Value predict(const Value& patches, const std::string& name, std::int64_t count);
    Tokens prune(const Tokens& tokens, std::int64_t stage, std::int64_t keep);
    Value classify(const Value& x);

    const ModelSettings& s_;
    const std::map<std::string, WeightView>& weights_;
    OnnxGraph graph_;
};

// (..., in) -> (..., out). The weight stays (out, in), as it is published; what runs the model folds the transposition.
Value VitGraph::linear(const Value& x, const std::string& name) {
    const Value transposed = graph_.add_node("Transpose", {weight(name + ".weight")}, {{"perm", Ints{1, 0}}});
    const Value product = graph_.add_node("MatMul", {x, transposed});
    const bool bias = weights_.contains(name + ".bias");
    return bias ? graph_.add_node("Add", {product, weight(name + ".bias")}) : product;
}

Value VitGraph::layer_norm(const Value& x, const std::string& name, float epsilon) {
    return graph_.add_node("LayerNormalization", {x, weight(name + ".weight"), weight(name + ".bias")},
                           {{"axis", std::int64_t{-1}}, {"epsilon", epsilon}});
}

// x (1 + erf(x / sqrt 2)) / 2
Value VitGraph::gelu(const Value& x) {
    const Value scaled = graph_.add_node("Div", {x, graph_.number(std::sqrt(2.0f))});
    const Value sum = graph_.add_node("Add", {graph_.add_node("Erf", {scaled}), graph_.number(1.0f)});
    return graph_.add_node("Mul", {graph_.add_node("Mul", {x, sum}), graph_.number(0.5f)});
}

Value VitGraph::slice(const Value& x, std::int64_t axis, std::int64_t from, std::int64_t to) {
    return graph_.add_node("Slice", {x, graph_.integers({from}), graph_.integers({to}), graph_.integers({axis})});
}

// The `count` largest (or smallest) along the last axis in order, ties to the lower index; their indices or themselves.
Value VitGraph::top(const Value& scores, std::int64_t count, bool largest, bool indices) {
    const OnnxGraph::Attributes attributes = {
        {"axis", std::int64_t{-1}}, {"largest", std::int64_t{largest}}, {"sorted", std::int64_t{1}}};
    return graph_.add_node("TopK", {scores, graph_.integers({count})}, 2, attributes)[indices ? 1 : 0];
}

// (B, 3, H, W) -> (B, 1 + N, C)
Value VitGraph::embed(const Value& images) {
    graph_.set_scope("patch_embed");
    const Ints patch = {s_.patch_size, s_.patch_size};
    const Value grid =
        graph_.add_node("Conv", {images, weight("patch_embed.proj.weight"), weight("patch_embed.proj.bias")},
                        {{"kernel_shape", patch}, {"strides", patch}});
    const Value columns = graph_.add_node("Reshape", {grid, graph_.integers({0, s_.embed_dim, s_.patches()})});
    const Value patches = graph_.add_node("Transpose", {columns}, {{"perm", Ints{0, 2, 1}}});
    const Value batch = graph_.add_node("Shape", {images}, {{"start", std::int64_t{0}}, {"end", std::int64_t{1}}});
    const Value shape =
        graph_.add_node("Concat", {batch, graph_.integers({1, s_.embed_dim})}, {{"axis", std::int64_t{0}}});
    const Value cls = graph_.add_node("Expand", {weight("cls_token"), shape});
    const Value all = graph_.add_node("Concat", {cls, patches}, {{"axis", std::int64_t{1}}});
    return graph_.add_node("Add", {all, weight("pos_embed")});
}

Value VitGraph::attention(const Value& x, const std::string& name, std::int64_t tokens) {
    const std::int64_t head_dim = s_.embed_dim / s_.num_heads;
    const Value joined =
        graph_.add_node("Reshape", {linear(x, name + ".qkv"), graph_.integers({0, tokens, 3, s_.num_heads, head_dim})});
    const Value qkv = graph_.add_node("Transpose", {joined}, {{"perm", Ints{2, 0, 3, 1, 4}}});  // (3, B, h, T, d)
    const auto part = [&](std::int64_t i) {
        return graph_.add_node("Gather", {qkv, graph_.integer(i)}, {{"axis", std::int64_t{0}}});
    };
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    const Value q = graph_.add_node("Mul", {part(0), graph_.number(scale)});
    const Value k = graph_.add_node("Transpose", {part(1)}, {{"perm", Ints{0, 1, 3, 2}}});
    const Value weights = graph_.add_node("Softmax", {graph_.add_node("MatMul", {q, k})}, {{"axis", std::int64_t{-1}}});
    const Value attended =
        graph_.add_node("Transpose", {graph_.add_node("MatMul", {weights, part(2)})}, {{"perm", Ints{0, 2, 1, 3}}});
    const Value rows = graph_.add_node("Reshape", {attended, graph_.integers({0, tokens, s_.embed_dim})});
    return linear(rows, name + ".proj");
}

Value VitGraph::block(const Value& x, const std::string& name, std::int64_t tokens) {
    graph_.set_scope(name);
    const Value attended =
        graph_.add_node("Add", {x, attention(layer_norm(x, name + ".norm1", kBlockEpsilon), name + ".attn", tokens)});
    const Value hidden = gelu(linear(layer_norm(attended, name + ".norm2", kBlockEpsilon), name + ".mlp.fc1"));
    return graph_.add_node("Add", {attended, linear(hidden, name + ".mlp.fc2")});
}

// log pi_keep: (B, n, C) -> (B, n)
Value VitGraph::predict(const Value& patches, const std::string& name, std::int64_t count) {
    graph_.set_scope(name);
    const Value h = gelu(linear(layer_norm(patches, name + ".in_conv.0", kPredictionEpsilon), name + ".in_conv.1"));
    const std::int64_t half = s_.embed_dim / 2;
    const Value mean = graph_.add_node("ReduceMean", {slice(h, 2, half, kEnd)}, {{"axes", Ints{1}}});
    const Value global = graph_.add_node("Expand", {mean, graph_.integers({1, count, 1})});
    const Value z = graph_.add_node("Concat", {slice(h, 2, 0, half), global}, {{"axis", std::int64_t{2}}});
    const Value narrow = gelu(linear(gelu(linear(z, name + ".out_conv.0")), name + ".out_conv.2"));
    const Value log_prob =
        graph_.add_node("LogSoftmax", {linear(narrow, name + ".out_conv.4")}, {{"axis", std::int64_t{-1}}});
    return graph_.add_node("Gather", {log_prob, graph_.integer(0)}, {{"axis", std::int64_t{2}}});
}

// Only the `keep` patch tokens with the highest scores go on, in the order of the grid.
VitGraph::Tokens VitGraph::prune(const Tokens& tokens, std::int64_t stage, std::int64_t keep) {
    if (tokens.count == 0) return tokens;
    const Value patches = slice(tokens.x, 1, 1, kEnd);
    const Value scores = predict(patches, str("score_predictor.", stage), tokens.count);
    const Value places = top(top(scores, keep, true, true), keep, false, false);  // (B, keep), ascending
    const Value rows = graph_.add_node("Unsqueeze", {places, graph_.integers({2})});
    const Value kept = graph_.add_node("GatherND", {patches, rows}, {{"batch_dims", std::int64_t{1}}});
    const Value x = graph_.add_node("Concat", {slice(tokens.x, 1, 0, 1), kept}, {{"axis", std::int64_t{1}}});
    if (tokens.positions.empty()) return {x, keep, places};
    return {x, keep, graph_.add_node("GatherElements", {tokens.positions, places}, {{"axis", std::int64_t{1}}})};
}

// [CLS] (B, 1 + n, C) -> (B, classes)
Value VitGraph::classify(const Value& x) {
    graph_.set_scope("head");
    const Value cls = graph_.add_node("Gather", {x, graph_.integer(0)}, {{"axis", std::int64_t{1}}});
    return linear(layer_norm(cls, "norm", kBlockEpsilon), "head");
}

void VitGraph::build(const ExportOptions& options) {
    Tokens tokens{embed(graph_.add_input("images", {3, s_.image_height(), s_.image_width()}, kFloat)), s_.patches()};
    std::vector<Tokens> kept;
    for (std::int64_t i = 0; i < s_.depth; ++i) {
        const std::size_t stage = kept.size();
        if (stage < options.tokens.size() && s_.pruning_loc[stage] == i) {
            tokens = prune(tokens, static_cast<std::int64_t>(stage), options.tokens[stage]);
            kept.push_back(tokens);
        }
        tokens.x = block(tokens.x, str("blocks.", i), 1 + tokens.count);
    }
    graph_.add_output("logits", classify(tokens.x), {s_.num_classes}, kFloat);
    if (!options.kept_tokens) return;
    for (std::size_t s = 0; s < kept.size(); ++s) {
        graph_.add_output(str("kept_", s + 1), kept[s].positions, {kept[s].count}, kInt64);
    }
}

}  // namespace

std::string onnx_model(const ModelSettings& settings, const ExportOptions& options,
                       const std::map<std::string, WeightView>& weights) {
    onnx::ModelProto model;
    model.set_ir_version(kIrVersion);
    model.set_producer_name("dynvit");
    model.add_opset_import()->set_version(kOpset);
    model.set_doc_string(kInput);
    model.mutable_graph()->set_name(settings.name);
    VitGraph(settings, weights, *model.mutable_graph()).build(options);
    if (model.ByteSizeLong() > std::numeric_limits<std::int32_t>::max()) {
        throw Error("export", "the model has ", model.ByteSizeLong() >> 20, " MB, and an ONNX file holds 2048 MB");
    }
    return model.SerializeAsString();
}

}  // namespace dynvit
