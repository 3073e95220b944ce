#include "dynvit/weights/canonical_weights.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <set>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr std::string_view kAverages[] = {"ema", "model_ema", "ema_model", "averaged_model", "swa_model"};

bool is_average(const NamedBackbone& backbone) {
    std::string rest = backbone.prefix;
    for (std::size_t dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
        if (std::ranges::find(kAverages, rest.substr(0, dot)) != std::end(kAverages)) return true;
        rest = rest.substr(dot + 1);
    }
    return false;
}

std::string prefix_text(const NamedBackbone& backbone) {
    return backbone.prefix.empty() ? "no prefix" : '"' + backbone.prefix + '"';
}

std::string with_dot(std::string prefix) {
    if (!prefix.empty() && prefix.back() != '.') prefix += '.';
    return prefix;
}

// The one that is meant. Plain weights go before their moving average.
NamedBackbone choose(const std::vector<NamedBackbone>& found, const std::string& file, const std::string& wanted,
                     std::vector<std::string>& notes) {
    std::vector<std::string> prefixes;
    for (const NamedBackbone& backbone : found) prefixes.push_back(prefix_text(backbone));
    if (!wanted.empty()) {
        for (const NamedBackbone& backbone : found) {
            if (backbone.prefix == with_dot(wanted)) return backbone;
        }
        throw Error("weights", file, ": no Vision Transformer has the prefix \"", wanted, "\", expected one of ",
                    join(prefixes, ", "));
    }
    if (found.size() == 1) return found.front();
    std::vector<NamedBackbone> plain;
    std::ranges::copy_if(found, std::back_inserter(plain), [](const auto& one) { return !is_average(one); });
    if (plain.size() != 1) {
        throw Error("weights", file, ": holds several Vision Transformers, behind the prefixes ", join(prefixes, ", "),
                    ", expected one of them: --weights-prefix");
    }
    notes.push_back(str("taken: the weights behind ", prefix_text(plain.front()), " of ", join(prefixes, ", ")));
    return plain.front();
}

// "a.b.c." -> "a.b."
std::string parent_of(const std::string& prefix) {
    const std::size_t dot = prefix.rfind('.', prefix.size() - 2);
    return dot == std::string::npos || prefix.size() < 2 ? "" : prefix.substr(0, dot + 1);
}

// DINOv2 trains with blocks in chunks, "blocks.CHUNK.BLOCK.", counted through all chunks.
std::string without_chunk(const std::string& name) {
    constexpr std::string_view kBlocks = "blocks.";
    if (!name.starts_with(kBlocks)) return name;
    const std::size_t dot = name.find('.', kBlocks.size());
    if (dot == std::string::npos || dot + 1 >= name.size() ||
        !std::isdigit(static_cast<unsigned char>(name[dot + 1]))) {
        return name;
    }
    return std::string(kBlocks) + name.substr(dot + 1);
}

class Renamer {
  public:
    Renamer(const NamedBackbone& backbone, const std::string& file, const std::map<std::string, std::string>& unread,
            CanonicalWeights& result)
        : backbone_(backbone), file_(file), unread_(unread), result_(result) {
        for (std::string prefix = backbone.prefix; !prefix.empty();) {
            prefix = parent_of(prefix);
            parents_.push_back(prefix);
        }
    }

    void rename(TensorMap& tensors) {
        for (auto& [name, tensor] : tensors) take(name, tensor);
        if (!unknown_.empty()) {
            throw Error("weights", file_, ": is no Vision Transformer that dynvit knows: it has ", unknown_.size(),
                        " tensor", unknown_.size() > 1 ? "s" : "", " that no model here has, such as ",
                        join(std::vector(unknown_.begin(),
                                         unknown_.begin() + std::min<std::ptrdiff_t>(3, std::ssize(unknown_))),
                             ", "));
        }
    }

  private:
    void take(const std::string& name, const at::Tensor& tensor) {
        if (name.starts_with(backbone_.prefix)) {
            const std::string inner = without_chunk(name.substr(backbone_.prefix.size()));
            if (put(renamed(inner, backbone_.naming->renamings), name, tensor)) return;
            if (put(renamed(inner, head_names()), name, tensor)) return;
            const auto starts = [&](std::string_view part) { return inner.starts_with(part); };
            if (std::ranges::any_of(backbone_.naming->essential, starts) && !inner.ends_with("num_batches_tracked")) {
                unknown_.push_back(name);
                return;
            }
        } else if (put_head(name, tensor)) {
            return;
        }
        pass_over(name);
    }

    // Heads stand beside the backbone, too.
    bool put_head(const std::string& name, const at::Tensor& tensor) {
        return std::ranges::any_of(parents_, [&](const std::string& parent) {
            return name.starts_with(parent) && put(renamed(name.substr(parent.size()), head_names()), name, tensor);
        });
    }

    bool put(const std::optional<std::string>& to, const std::string& name, const at::Tensor& tensor) {
        if (!to) return false;
        if (to->empty()) {
            pass_over(name);
            return true;
        }
        if (!tensor.defined()) throw Error("weights", file_, ": tensor ", name, ": ", unread_.at(name));
        if (tensor.is_complex()) {
            throw Error("weights", file_, ": tensor ", name, ": holds complex numbers (",
                        c10::toString(tensor.scalar_type()), "), expected real ones");
        }
        if (c10::isIntegralType(tensor.scalar_type(), true)) note_integers(name, tensor);
        if (!result_.tensors.emplace(*to, computable(tensor)).second) {
            throw Error("weights", file_, ": ", name, " is one of several tensors that ", *to, " may be read from");
        }
        return true;
    }

    // Of a quantized model, whose scales stand somewhere else, they would be noise.
    void note_integers(const std::string& name, const at::Tensor& tensor) {
        if (integers_++ > 0) return;
        result_.notes.push_back(str("whole numbers are taken as the weights that they are: ", name, " (",
                                    c10::toString(tensor.scalar_type()), ')'));
    }

    void pass_over(const std::string& name) {
        result_.has_mask_token = result_.has_mask_token || name.ends_with("mask_token");
        result_.has_decoder = result_.has_decoder || name.find("decoder") != std::string::npos;
        result_.passed_over.push_back(name);
    }

    const NamedBackbone& backbone_;
    const std::string& file_;
    const std::map<std::string, std::string>& unread_;
    CanonicalWeights& result_;
    int integers_ = 0;
    std::vector<std::string> parents_;
    std::vector<std::string> unknown_;
};

at::Tensor take(TensorMap& tensors, const std::string& name) {
    auto node = tensors.extract(name);
    return node.empty() ? at::Tensor() : node.mapped();
}

// `to` of parts that stand apart, one behind the other; those that are missing are zeros of `like`'s shape.
void join_parts(TensorMap& tensors, const std::string& to, const std::vector<std::string>& from) {
    std::vector<at::Tensor> parts;
    at::Tensor like;
    for (const std::string& name : from) {
        parts.push_back(take(tensors, name));
        if (parts.back().defined()) like = parts.back();
    }
    if (!like.defined()) return;
    for (at::Tensor& part : parts) {
        if (!part.defined()) part = at::zeros_like(like);
        part = part.to(like.scalar_type());
    }
    tensors.insert_or_assign(to, at::cat(parts));
}

// All blocks' numbers.
std::set<std::string> blocks_of(const TensorMap& tensors) {
    std::set<std::string> blocks;
    constexpr std::string_view kBlocks = "blocks.";
    for (const auto& [name, tensor] : tensors) {
        if (name.starts_with(kBlocks)) blocks.insert(name.substr(0, name.find('.', kBlocks.size()) + 1));
    }
    return blocks;
}

void join_block(CanonicalWeights& weights, const std::string& block) {
    TensorMap& t = weights.tensors;
    const std::string attn = block + "attn.", mlp = block + "mlp.";
    weights.queries_apart = weights.queries_apart || t.contains(attn + "q.weight") || t.contains(attn + "q_bias");
    if (t.contains(attn + "q.weight") && t.contains(attn + "k.weight") && t.contains(attn + "v.weight")) {
        join_parts(t, attn + "qkv.weight", {attn + "q.weight", attn + "k.weight", attn + "v.weight"});
    }
    join_parts(t, attn + "qkv.bias", {attn + "q.bias", attn + "k.bias", attn + "v.bias"});
    join_parts(t, attn + "qkv.bias", {attn + "q_bias", attn + "k_bias", attn + "v_bias"});
    const at::Tensor mask = take(t, attn + "qkv.bias_mask");
    if (mask.defined() && t.contains(attn + "qkv.bias")) {
        at::Tensor& bias = t.at(attn + "qkv.bias");
        bias = at::where(mask.ne(0), bias, at::zeros_like(bias));
    }
    for (const std::string kind : {".weight", ".bias"}) {
        if (t.contains(mlp + "gate" + kind)) {
            join_parts(t, mlp + "fc1" + kind, {mlp + "gate" + kind, mlp + "up" + kind});
        } else if (const at::Tensor up = take(t, mlp + "up" + kind); up.defined()) {
            t.insert_or_assign(mlp + "fc1" + kind, up);
        }
    }
}

void join_pool(TensorMap& tensors) {
    for (const std::string kind : {"weight", "bias"}) {
        const at::Tensor rows = take(tensors, "attn_pool.in_proj_" + kind);
        if (!rows.defined() || rows.size(0) % 3 != 0) continue;
        const std::int64_t c = rows.size(0) / 3;
        tensors.insert_or_assign("attn_pool.q." + kind, rows.slice(0, 0, c));
        tensors.insert_or_assign("attn_pool.kv." + kind, rows.slice(0, c));
    }
}

// (C), (n, C) and (1, n, C) are all found.
void give_three_dimensions(TensorMap& tensors, const std::string& name) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return;
    while (found->second.dim() < 3) found->second = found->second.unsqueeze(0);
}

}  // namespace

at::Tensor computable(const at::Tensor& tensor) {
    const at::ScalarType type = tensor.scalar_type();
    const bool wide_unsigned = type == at::kUInt16 || type == at::kUInt32 || type == at::kUInt64;
    return wide_unsigned || (tensor.is_floating_point() && tensor.element_size() == 1) ? tensor.to(at::kFloat) : tensor;
}

std::optional<CanonicalWeights> canonical_weights(TensorMap tensors, const std::string& file, const std::string& prefix,
                                                  const std::map<std::string, std::string>& unread) {
    for (const auto& [name, reason] : unread) tensors.emplace(name, at::Tensor());
    const std::vector<NamedBackbone> found = find_backbones(tensors);
    if (found.empty()) return std::nullopt;
    CanonicalWeights result;
    const NamedBackbone backbone = choose(found, file, prefix, result.notes);
    result.naming = backbone.naming;
    result.prefix = backbone.prefix;
    Renamer(backbone, file, unread, result).rename(tensors);
    for (const std::string& block : blocks_of(result.tensors)) join_block(result, block);
    join_pool(result.tensors);
    for (const char* name : {"cls_token", "dist_token", "reg_token", "pos_embed"}) {
        give_three_dimensions(result.tensors, name);
    }
    if (const at::Tensor projection = take(result.tensors, "projection"); projection.defined()) {
        result.tensors.insert_or_assign("head.weight", projection.t().contiguous());
    }
    return result;
}

std::string describe_passed_over(const std::vector<std::string>& names) {
    if (names.empty()) return "";
    std::map<std::string, std::vector<std::string>> groups;  // by what stands before the first dot
    for (const std::string& name : names) groups[name.substr(0, name.find('.'))].push_back(name);
    constexpr std::size_t kMost = 6;
    std::vector<std::string> shown;
    for (const auto& [group, members] : groups) {
        if (shown.size() == kMost) {
            shown.emplace_back("...");
            break;
        }
        shown.push_back(members.size() == 1 ? members.front() : str(group, ".* (", members.size(), ')'));
    }
    return str("passed over ", names.size(), " tensor", names.size() > 1 ? "s" : "", ": ", join(shown, ", "));
}

}  // namespace dynvit
