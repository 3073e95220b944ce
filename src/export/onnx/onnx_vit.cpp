// The pruned Vision Transformer node by node.
#include <cmath>
#include <limits>
#include <numbers>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/models/vit_forward.hpp"
#include "dynvit/ops/bipartite.hpp"
#include "onnx_graph.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kOpset = 17;     // the first with LayerNormalization
constexpr std::int64_t kIrVersion = 8;  // opset 17 came with it
constexpr auto kFloat = onnx::TensorProto::FLOAT, kInt64 = onnx::TensorProto::INT64;
constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max(), kAxis1 = 1;

using Value = std::string;  // the name of a node's output
using Ints = std::vector<std::int64_t>;

// Operations as nodes. A value is the name of a node's output. @see vit_forward.hpp
class VitGraph {
  public:
    VitGraph(const ModelSettings& settings, const std::map<std::string, WeightView>& weights, onnx::GraphProto& graph)
        : s_(settings), parts_(vit_parts(settings)), weights_(weights), graph_(graph), patches_(settings.patches()) {}

    void build(const ExportOptions& options);

    Value patches(const Value& images, const StemPart& stem);
    Value prepend(const std::vector<PrefixPart>& prefix, const Value& x);
    Value plus(const Value& x, const std::string& name) { return graph_.add_node("Add", {x, weight(name)}); }
    Value norm(const Value& x, const NormPart& part);
    Value linear(const Value& x, const LinearPart& part);
    Value attention(const Value& qkv, const AttentionPart& part);
    void add_linear(Value& x, const Value& h, const LinearPart& part) {
        x = graph_.add_node("Add", {x, linear(h, part)});
    }
    void add_mlp(Value& x, const Value& normed, const MlpPart& part) {
        const Value h = activate(linear(normed, part.fc1), part.activation);
        add_linear(x, part.norm ? norm(h, *part.norm) : h, part.fc2);
    }
    Value norm_heads(const Value& qkv, const AttentionPart& part);
    Value rotate(const Value& qkv, const AttentionPart& part);
    Value norm_rows(const Value& x, const NormPart& part) { return norm(x, part); }
    Value activate(const Value& x, Activation activation);
    Value prefix_token(const Value& x, std::int64_t index) {
        return graph_.add_node("Gather", {x, graph_.integer(index)}, {{"axis", std::int64_t{1}}});
    }
    Value beside(const Value& x, const Value& y) { return graph_.add_node("Concat", {x, y}, {{"axis", kAxis1}}); }
    Value mean_of(const Value& x, const Value& y) { return graph_.add_node("Mul", {sum(x, y), graph_.number(0.5f)}); }
    Value sum(const Value& x, const Value& y) { return graph_.add_node("Add", {x, y}); }
    Value latent(const std::string& name) { return prefix_token(weight(name), 0); }
    Value pool(const Value& query, const Value& kv, const PoolPart& part);
    Value patch_mean(const Value& x) {
        const Value patches = slice(x, 1, s_.prefix_tokens(), kEnd);
        const OnnxGraph::Attributes over_tokens = {{"axes", Ints{1}}, {"keepdims", std::int64_t{0}}};
        if (patches_ == 0) return sum(patches, 1, false);  // zeros, as counted_mean has them
        if (sizes_.empty()) return graph_.add_node("ReduceMean", {patches}, over_tokens);
        const Value counted = unsqueeze(sizes_, 2), weighted = graph_.add_node("Mul", {patches, counted});
        return graph_.add_node("Div", {sum(weighted, 1, false), sum(counted, 1, false)});
    }
    Value gelu(const Value& x);
    Value share_mean(const Value& h);
    Value log_keep(const Value& x);

  private:
    struct Stage {
        Value positions;  // (B, count): on the original grid
        std::int64_t count;
    };
    struct Groups {
        Value places;  // (B, keep): of the tokens that go on
        Value joins;   // (B, keep, n): 1 where a token goes into one of them, which includes itself
    };

    Value weight(const std::string& name) { return graph_.weight(name, weights_.at(name)); }
    void turn_by(const Value& positions);
    Value plus_log_sizes(const Value& logits);
    Value rows_at(const Value& rows, const Value& places) {
        return graph_.add_node("GatherND", {rows, unsqueeze(places, 2)}, {{"batch_dims", std::int64_t{1}}});
    }
    Value unsqueeze(const Value& x, std::int64_t axis) {
        return graph_.add_node("Unsqueeze", {x, graph_.integers({axis})});
    }
    Value sum(const Value& x, std::int64_t axis, bool keep_axis) {
        return graph_.add_node("ReduceSum", {x, graph_.integers({axis})}, {{"keepdims", std::int64_t{keep_axis}}});
    }
    Value slice(const Value& x, std::int64_t axis, std::int64_t from, std::int64_t to);
    Value top(const Value& scores, std::int64_t count, bool largest, bool indices);
    void reduce(Value& x, std::int64_t stage, std::int64_t block, std::int64_t keep);
    Value unit_keys(const Value& patches, std::int64_t block);
    Value numbers(const Value& like, std::int64_t count);
    Value range(std::int64_t count);
    Value as_float(const Value& x);
    Value greatest(const Value& cosines, std::int64_t axis, bool keep_axis);
    Value join_nearest(const Value& patches, const Value& places, std::int64_t block, std::int64_t keep);
    Groups match(const Value& patches, std::int64_t block, std::int64_t keep);
    Value average(const Value& patches, const Value& joins);
    Value fuse(const Value& patches, const Value& places, const Value& scores);

    const ModelSettings& s_;
    const VitParts parts_;
    const std::map<std::string, WeightView>& weights_;
    OnnxGraph graph_;
    std::int64_t patches_;  // tokens that are left
    std::vector<Stage> stages_;
    Value before_;           // what the block with a stage in it has read
    Value cosines_, sines_;  // rotary positions' of the tokens that are left, see turn_by
    Value sizes_;            // (B, patches_): how many patches each patch token stands for; empty: one each
};

// (B, 3, H, W) -> (B, N, C)
Value VitGraph::patches(const Value& images, const StemPart& stem) {
    const Ints size = {stem.patch_size, stem.patch_size};
    const std::string& name = stem.patches.name;
    OnnxGraph::Values inputs = {images, weight(name + ".weight")};
    if (stem.patches.bias) inputs.push_back(weight(name + ".bias"));
    const Value grid = graph_.add_node("Conv", inputs, {{"kernel_shape", size}, {"strides", size}});
    const Value columns = graph_.add_node("Reshape", {grid, graph_.integers({0, stem.patches.outputs, s_.patches()})});
    return graph_.add_node("Transpose", {columns}, {{"perm", Ints{0, 2, 1}}});
}

Value VitGraph::prepend(const std::vector<PrefixPart>& prefix, const Value& x) {
    const Value batch = graph_.add_node("Shape", {x}, {{"start", std::int64_t{0}}, {"end", std::int64_t{1}}});
    OnnxGraph::Values rows;
    for (const PrefixPart& part : prefix) {
        const Value shape = graph_.add_node("Concat", {batch, graph_.integers({part.count, s_.embed_dim})},
                                            {{"axis", std::int64_t{0}}});
        rows.push_back(graph_.add_node("Expand", {weight(part.name), shape}));
    }
    rows.push_back(x);
    return graph_.add_node("Concat", rows, {{"axis", std::int64_t{1}}});
}

Value VitGraph::norm(const Value& x, const NormPart& part) {
    return graph_.add_node("LayerNormalization", {x, weight(part.name + ".weight"), weight(part.name + ".bias")},
                           {{"axis", std::int64_t{-1}}, {"epsilon", static_cast<float>(part.epsilon)}});
}

// (..., in) -> (..., out). The weight stays (out, in), as it is published; what runs the model folds the transposition.
Value VitGraph::linear(const Value& x, const LinearPart& part) {
    const Value transposed = graph_.add_node("Transpose", {weight(part.name + ".weight")}, {{"perm", Ints{1, 0}}});
    Value y = graph_.add_node("MatMul", {x, transposed});
    if (part.bias) y = graph_.add_node("Add", {y, weight(part.name + ".bias")});
    return part.gamma.empty() ? y : graph_.add_node("Mul", {y, weight(part.gamma)});
}

// Norms each head's queries and keys: (B, T, 3 C) -> (B, T, 3 C).
Value VitGraph::norm_heads(const Value& qkv, const AttentionPart& part) {
    const std::int64_t channels = part.proj.inputs;
    const auto third = [&](std::int64_t i) { return slice(qkv, 2, i * channels, (i + 1) * channels); };
    const auto normed = [&](const Value& x, const NormPart& norm_part) {
        const Value heads = graph_.add_node("Reshape", {x, graph_.integers({0, 0, part.heads, part.head_dim()})});
        return graph_.add_node("Reshape", {norm(heads, norm_part), graph_.integers({0, 0, channels})});
    };
    return graph_.add_node("Concat", {normed(third(0), *part.q_norm), normed(third(1), *part.k_norm), third(2)},
                           {{"axis", std::int64_t{2}}});
}

// What rotate_queries_keys does, by cosines_ and sines_.
Value VitGraph::rotate(const Value& qkv, const AttentionPart& part) {
    const bool halves = *part.rotary == RotaryLayout::kHalves;
    const std::int64_t half = part.head_dim() / 2, both = 2 * part.proj.inputs, axis = halves ? 3 : 4;
    const Ints shape = halves ? Ints{0, 0, 2 * part.heads, 2, half} : Ints{0, 0, 2 * part.heads, half, 2};
    const Value turned = graph_.add_node("Reshape", {slice(qkv, 2, 0, both), graph_.integers(shape)});
    const auto channels = [&](std::int64_t i) {  // (B, T, 2 h, d / 2)
        return graph_.add_node("Gather", {turned, graph_.integer(i)}, {{"axis", axis}});
    };
    const auto times = [&](const Value& x, const Value& y) { return graph_.add_node("Mul", {x, y}); };
    const Value first = channels(0), second = channels(1);
    const Value parts[] = {graph_.add_node("Sub", {times(first, cosines_), times(second, sines_)}),
                           sum(times(second, cosines_), times(first, sines_))};
    const Value stacked =
        graph_.add_node("Concat", {unsqueeze(parts[0], axis), unsqueeze(parts[1], axis)}, {{"axis", axis}});
    const Value flat = graph_.add_node("Reshape", {stacked, graph_.integers({0, 0, both})});
    return graph_.add_node("Concat", {flat, slice(qkv, 2, both, kEnd)}, {{"axis", std::int64_t{2}}});
}

// Sets cosines_ and sines_, (B or 1, prefix + n, 1, d / 2), of the tokens at these positions.
void VitGraph::turn_by(const Value& positions) {
    const Value padded = graph_.add_node(
        "Pad", {positions, graph_.integers({0, s_.prefix_tokens(), 0, 0}), graph_.integer(s_.patches())});
    const Value rows = graph_.add_node("Gather", {weight(kRotaryTable), padded}, {{"axis", std::int64_t{0}}});
    const auto part = [&](std::int64_t i) {  // (B, T, 2, d / 2) -> (B, T, 1, d / 2)
        return slice(rows, 2, i, i + 1);
    };
    cosines_ = part(0);
    sines_ = part(1);
}

Value VitGraph::activate(const Value& x, Activation activation) {
    const auto times = [&](const Value& a, const Value& b) { return graph_.add_node("Mul", {a, b}); };
    switch (activation) {
        case Activation::kGelu:
            return gelu(x);
        case Activation::kGeluTanh: {  // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
            const Value cube = times(times(x, x), times(x, graph_.number(0.044715f)));
            const float factor = std::sqrt(2.0f * std::numbers::inv_pi_v<float>);
            const Value inner = graph_.add_node("Tanh", {times(sum(x, cube), graph_.number(factor))});
            return times(times(x, sum(inner, graph_.number(1.0f))), graph_.number(0.5f));
        }
        case Activation::kQuickGelu:
            return times(x, graph_.add_node("Sigmoid", {times(x, graph_.number(1.702f))}));
        case Activation::kSwiGlu: {
            const OnnxGraph::Values halves = graph_.add_node("Split", {x}, 2, {{"axis", std::int64_t{-1}}});
            return times(times(halves[0], graph_.add_node("Sigmoid", {halves[0]})), halves[1]);
        }
    }
    return {};
}

// Attention pooling's attention: the query (1, C), keys and values (B, T, 2 C) -> (B, C).
Value VitGraph::pool(const Value& query, const Value& kv, const PoolPart& part) {
    const std::int64_t channels = part.proj.inputs, head_dim = channels / part.heads;
    const Value parts = graph_.add_node("Reshape", {kv, graph_.integers({0, 0, 2, part.heads, head_dim})});
    const auto half = [&](std::int64_t i) {  // (B, T, h, d)
        return graph_.add_node("Gather", {parts, graph_.integer(i)}, {{"axis", std::int64_t{2}}});
    };
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    const Value q = graph_.add_node("Reshape", {graph_.add_node("Mul", {query, graph_.number(scale)}),
                                                graph_.integers({1, part.heads, 1, head_dim})});
    const Value k = graph_.add_node("Transpose", {half(0)}, {{"perm", Ints{0, 2, 3, 1}}});
    const Value v = graph_.add_node("Transpose", {half(1)}, {{"perm", Ints{0, 2, 1, 3}}});
    const Value weights =
        graph_.add_node("Softmax", {plus_log_sizes(graph_.add_node("MatMul", {q, k}))}, {{"axis", std::int64_t{-1}}});
    return graph_.add_node("Reshape", {graph_.add_node("MatMul", {weights, v}), graph_.integers({-1, channels})});
}

// Counts a token as the patches that it stands for; prefix tokens as one. @param logits (B, h, T or 1, T)
Value VitGraph::plus_log_sizes(const Value& logits) {
    if (sizes_.empty()) return logits;
    const Value logs =
        graph_.add_node("Pad", {graph_.add_node("Log", {sizes_}), graph_.integers({0, s_.prefix_tokens(), 0, 0})});
    return graph_.add_node("Add", {logits, unsqueeze(unsqueeze(logs, 1), 1)});
}

// x (1 + erf(x / sqrt 2)) / 2
Value VitGraph::gelu(const Value& x) {
    const Value scaled = graph_.add_node("Div", {x, graph_.number(std::numbers::sqrt2_v<float>)});
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

// (B, T, 3 C) -> (B, T, C)
Value VitGraph::attention(const Value& qkv, const AttentionPart& part) {
    const std::int64_t channels = part.proj.inputs, head_dim = channels / part.heads;
    const std::int64_t tokens = s_.prefix_tokens() + patches_;
    const Value parts = graph_.add_node("Reshape", {qkv, graph_.integers({0, tokens, 3, part.heads, head_dim})});
    const Value turned = graph_.add_node("Transpose", {parts}, {{"perm", Ints{2, 0, 3, 1, 4}}});  // (3, B, h, T, d)
    const auto third = [&](std::int64_t i) {
        return graph_.add_node("Gather", {turned, graph_.integer(i)}, {{"axis", std::int64_t{0}}});
    };
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    const Value q = graph_.add_node("Mul", {third(0), graph_.number(scale)});
    const Value k = graph_.add_node("Transpose", {third(1)}, {{"perm", Ints{0, 1, 3, 2}}});
    const Value logits = plus_log_sizes(graph_.add_node("MatMul", {q, k}));
    const Value weights = graph_.add_node("Softmax", {logits}, {{"axis", std::int64_t{-1}}});
    const Value attended =
        graph_.add_node("Transpose", {graph_.add_node("MatMul", {weights, third(2)})}, {{"perm", Ints{0, 2, 1, 3}}});
    return graph_.add_node("Reshape", {attended, graph_.integers({0, tokens, channels})});
}

Value VitGraph::share_mean(const Value& h) {
    const std::int64_t half = s_.embed_dim / 2;
    const Value mean = graph_.add_node("ReduceMean", {slice(h, 2, half, kEnd)}, {{"axes", Ints{1}}});
    const Value shared = graph_.add_node("Expand", {mean, graph_.integers({1, patches_, 1})});
    return graph_.add_node("Concat", {slice(h, 2, 0, half), shared}, {{"axis", std::int64_t{2}}});
}

Value VitGraph::log_keep(const Value& x) {
    const Value log_prob = graph_.add_node("LogSoftmax", {x}, {{"axis", std::int64_t{-1}}});
    return graph_.add_node("Gather", {log_prob, graph_.integer(0)}, {{"axis", std::int64_t{2}}});
}

// What the model's stages do, see reduce_tokens.
void VitGraph::reduce(Value& x, std::int64_t stage, std::int64_t block, std::int64_t keep) {
    graph_.set_scope(str("stage.", stage));
    const Value before = stages_.empty() ? Value() : stages_.back().positions;
    if (patches_ == 0) {
        stages_.push_back(stages_.back());
        return;
    }
    const Value patches = slice(x, 1, s_.prefix_tokens(), kEnd);
    const bool fuses = s_.fuses() && keep < patches_;
    Value scores, places, kept;  // places: (B, keep), ascending
    if (s_.matches()) {
        const Groups groups = match(patches, block, keep);
        places = groups.places;
        kept = average(patches, groups.joins);
    } else {
        scores = predict(*this, parts_.predictors[static_cast<std::size_t>(stage)], patches);
        places = top(top(scores, keep, true, true), keep, false, false);
        const bool merges = s_.merges() && keep > 0;
        kept = merges ? average(patches, join_nearest(patches, places, block, keep)) : rows_at(patches, places);
    }
    if (keep == 0) sizes_.clear();  // none is left
    Value positions = before.empty() ? places : graph_.add_node("GatherElements", {before, places}, {{"axis", kAxis1}});
    OnnxGraph::Values rows = {slice(x, 1, 0, s_.prefix_tokens()), kept};
    if (fuses) {
        rows.push_back(fuse(patches, places, scores));
        positions = graph_.add_node("Pad", {positions, graph_.integers({0, 0, 0, 1}), graph_.integer(s_.patches())});
    }
    x = graph_.add_node("Concat", rows, {{"axis", kAxis1}});
    patches_ = s_.tokens_behind(patches_, keep);
    stages_.push_back({positions, patches_});
    if (s_.rope != "none") turn_by(positions);
}

// The keys of a block, the mean over its heads, of length 1: (B, n, C) -> (B, n, d).
Value VitGraph::unit_keys(const Value& patches, std::int64_t block) {
    const BlockPart& part = parts_.blocks[static_cast<std::size_t>(block)];
    const AttentionPart& attention = part.attention;
    const std::int64_t channels = attention.proj.inputs, head_dim = attention.head_dim();
    const Value keyed = s_.stages_in_blocks() ? slice(before_, 1, s_.prefix_tokens(), kEnd) : patches;
    const Value normed = norm(keyed, part.norm1);
    const auto of_keys = [&](const char* parameter) {
        return slice(weight(attention.qkv.name + parameter), 0, channels, 2 * channels);
    };
    const auto mean = [&](const Value& heads, std::int64_t axis) {
        return graph_.add_node("ReduceMean", {heads}, {{"axes", Ints{axis}}, {"keepdims", std::int64_t{0}}});
    };
    const auto in_heads = [&](const Value& x, const Ints& shape) {
        return graph_.add_node("Reshape", {x, graph_.integers(shape)});
    };
    const auto layer = [&](const Value& weights, const Value& bias) {
        const Value turned = graph_.add_node("Transpose", {weights}, {{"perm", Ints{1, 0}}});
        const Value product = graph_.add_node("MatMul", {normed, turned});
        return bias.empty() ? product : sum(product, bias);
    };
    Value keys;
    if (attention.k_norm) {
        const Value all = layer(of_keys(".weight"), attention.qkv.bias ? of_keys(".bias") : Value());
        keys = mean(norm(in_heads(all, {0, 0, attention.heads, head_dim}), *attention.k_norm), 2);
    } else {
        keys = layer(mean(in_heads(of_keys(".weight"), {attention.heads, head_dim, channels}), 0),
                     attention.qkv.bias ? mean(in_heads(of_keys(".bias"), {attention.heads, head_dim}), 0) : Value());
    }
    const Value length = graph_.add_node("ReduceL2", {keys}, {{"axes", Ints{2}}, {"keepdims", std::int64_t{1}}});
    return graph_.add_node("Div", {keys, graph_.add_node("Max", {length, graph_.number(1e-12f)})});
}

// 0, 1, ..., count - 1, for each image: (B, count).
Value VitGraph::numbers(const Value& like, std::int64_t count) {
    const Value batch = graph_.add_node("Shape", {like}, {{"start", std::int64_t{0}}, {"end", std::int64_t{1}}});
    const Value shape = graph_.add_node("Concat", {batch, graph_.integers({count})}, {{"axis", std::int64_t{0}}});
    return graph_.add_node("Expand", {range(count), shape});
}

Value VitGraph::range(std::int64_t count) {
    return graph_.add_node("Range", {graph_.integer(0), graph_.integer(count), graph_.integer(1)});
}

Value VitGraph::as_float(const Value& x) {
    return graph_.add_node("Cast", {x}, {{"to", static_cast<std::int64_t>(kFloat)}});
}

// The greatest cosines along an axis; rounding may have made them greater than 1.
Value VitGraph::greatest(const Value& cosines, std::int64_t axis, bool keep_axis) {
    const Value found =
        graph_.add_node("ReduceMax", {cosines}, {{"axes", Ints{axis}}, {"keepdims", std::int64_t{keep_axis}}});
    return graph_.add_node("Min", {found, graph_.number(1.0f)});
}

// What dynvit's join_nearest does: (B, keep, n), 1 where a token goes into a kept one, which includes itself.
Value VitGraph::join_nearest(const Value& patches, const Value& places, std::int64_t block, std::int64_t keep) {
    const Value unit = unit_keys(patches, block);
    const Value turned = graph_.add_node("Transpose", {unit}, {{"perm", Ints{0, 2, 1}}});
    const Value cosines = graph_.add_node("MatMul", {rows_at(unit, places), turned});  // (B, keep, n)
    const Value nearest = greatest(cosines, 1, true);
    const Value slot = graph_.add_node("ArgMax", {cosines}, {{"axis", kAxis1}, {"keepdims", std::int64_t{1}}});
    const Value own = as_float(graph_.add_node("Equal", {unsqueeze(places, 2), range(patches_)}));
    const Value is_dropped = graph_.add_node("Less", {sum(own, 1, true), graph_.number(0.5f)});  // (B, 1, n)
    const Value near_enough =
        graph_.add_node("Greater", {nearest, graph_.number(static_cast<float>(s_.merge_threshold))});
    const Value here = graph_.add_node("Equal", {slot, unsqueeze(range(keep), 1)});
    const Value joins = graph_.add_node("And", {here, graph_.add_node("And", {near_enough, is_dropped})});
    return graph_.add_node("Add", {own, as_float(joins)});
}

// What match_bipartite does.
VitGraph::Groups VitGraph::match(const Value& patches, std::int64_t block, std::int64_t keep) {
    const std::int64_t first = first_even(s_.prefix_tokens()), joining = patches_ - keep;
    const Value all = numbers(patches, patches_);  // (B, n)
    if (joining == 0) return {all, as_float(graph_.add_node("Equal", {unsqueeze(all, 2), unsqueeze(all, 1)}))};
    const Value unit = unit_keys(patches, block);
    const auto half = [&](std::int64_t from) {
        return graph_.add_node("Slice", {unit, graph_.integers({from}), graph_.integers({kEnd}), graph_.integers({1}),
                                         graph_.integers({2})});
    };
    const Value odd_keys = graph_.add_node("Transpose", {half(1 - first)}, {{"perm", Ints{0, 2, 1}}});
    const Value cosines = graph_.add_node("MatMul", {half(first), odd_keys});  // (B, even, odd)
    const Value nearest = greatest(cosines, 2, false);
    const Value odd = graph_.add_node("ArgMax", {cosines}, {{"axis", std::int64_t{2}}, {"keepdims", std::int64_t{0}}});
    const std::int64_t even_count = count_even(patches_, s_.prefix_tokens()), left = even_count - joining;
    const Value order = top(nearest, even_count, true, true);
    const Value joins = slice(order, 1, 0, joining);
    Value rest = slice(order, 1, joining, kEnd);  // (B, left)
    if (s_.prefix_tokens() > 0) rest = top(rest, left, false, false);
    const auto scaled = [&](const Value& number, std::int64_t factor, std::int64_t offset) {
        const Value product = graph_.add_node("Mul", {number, graph_.integer(factor)});
        return graph_.add_node("Add", {product, graph_.integer(offset)});
    };
    const OnnxGraph::Attributes along_tokens = {{"axis", kAxis1}};
    const Value odds = numbers(patches, patches_ - even_count);
    const Value with_rest =
        graph_.add_node("ScatterElements", {scaled(order, 0, 0), rest, numbers(patches, left)}, along_tokens);
    const Value joined = scaled(graph_.add_node("GatherElements", {odd, joins}, along_tokens), 1, left);
    const Value slots_of_even = graph_.add_node("ScatterElements", {with_rest, joins, joined}, along_tokens);
    Ints turned;  // where each token is when the even places stand before the odd ones
    for (std::int64_t i = 0; i < patches_; ++i) turned.push_back(i / 2 + (i % 2 != first ? even_count : 0));
    const Value halves = graph_.add_node("Concat", {slots_of_even, scaled(odds, 1, left)}, along_tokens);
    const Value slots = graph_.add_node("Gather", {halves, graph_.integers(turned)}, along_tokens);
    const Value here = graph_.add_node("Equal", {unsqueeze(slots, 1), unsqueeze(range(keep), 1)});
    return {graph_.add_node("Concat", {scaled(rest, 2, first), scaled(odds, 2, 1 - first)}, along_tokens),
            as_float(here)};
}

// What average_groups does: the means, (B, keep, C), and sizes_. @param joins (B, keep, n)
Value VitGraph::average(const Value& patches, const Value& joins) {
    const Value shares = sizes_.empty() ? joins : graph_.add_node("Mul", {joins, unsqueeze(sizes_, 1)});
    const Value total = sum(shares, 2, true);  // (B, keep, 1)
    sizes_ = graph_.add_node("Squeeze", {total, graph_.integers({2})});
    return graph_.add_node("MatMul", {graph_.add_node("Div", {shares, total}), patches});
}

// What fuse_dropped does, with the weights of log-probabilities: (B, 1, C).
Value VitGraph::fuse(const Value& patches, const Value& places, const Value& scores) {
    const Value own = as_float(graph_.add_node("Equal", {unsqueeze(places, 2), range(patches_)}));  // (B, keep, n)
    const Value lost = graph_.add_node("Sub", {graph_.number(1.0f), sum(own, 1, true)});            // (B, 1, n)
    const Value shares = unsqueeze(graph_.add_node("Softmax", {scores}, {{"axis", std::int64_t{-1}}}), 1);
    return graph_.add_node("MatMul", {graph_.add_node("Mul", {shares, lost}), patches});
}

void VitGraph::build(const ExportOptions& options) {
    const Value images = graph_.add_input("images", {3, s_.image_height(), s_.image_width()}, kFloat);
    graph_.set_scope("patch_embed");
    Value x = embed(*this, parts_.stem, images);
    if (s_.rope != "none") turn_by(unsqueeze(range(s_.patches()), 0));
    walk_blocks(
        s_, static_cast<std::int64_t>(options.plan.tokens.size()),
        [&](std::int64_t stage, std::int64_t block) {
            reduce(x, stage, block, options.plan.tokens[static_cast<std::size_t>(stage)]);
        },
        [&](std::int64_t block, BlockPiece piece) {
            graph_.set_scope(str("blocks.", block));
            if (piece == BlockPiece::kAttention) before_ = x;
            run_block(*this, parts_.blocks[static_cast<std::size_t>(block)], x, piece);
        });
    graph_.set_scope("head");
    graph_.add_output("logits", classify(*this, s_, parts_, x), {s_.outputs()}, kFloat);
    if (!options.kept_tokens) return;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
        graph_.add_output(str("kept_", s + 1), stages_[s].positions, {stages_[s].count}, kInt64);
    }
}

}  // namespace

std::string onnx_model(const ModelSettings& settings, const ExportOptions& options,
                       const std::map<std::string, WeightView>& weights) {
    onnx::ModelProto model;
    model.set_ir_version(kIrVersion);
    model.set_producer_name("dynvit");
    model.add_opset_import()->set_version(kOpset);
    model.set_doc_string("images: " + describe(options.preprocessing, settings.image_height(), settings.image_width()));
    onnx::StringStringEntryProto* preprocessing = model.add_metadata_props();
    preprocessing->set_key("dynvit.preprocessing");
    preprocessing->set_value(write_config(options.preprocessing, false));
    model.mutable_graph()->set_name(settings.name);
    VitGraph(settings, weights, *model.mutable_graph()).build(options);
    if (model.ByteSizeLong() > std::numeric_limits<std::int32_t>::max()) {
        throw Error("export", "the model has ", model.ByteSizeLong() >> 20, " MB, and an ONNX file holds 2048 MB");
    }
    return model.SerializeAsString();
}

}  // namespace dynvit
