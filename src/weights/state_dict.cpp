#include "dynvit/weights/state_dict.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

std::string shape_text(at::IntArrayRef shape) {
    return '(' + join(shape, ", ") + ')';
}

// The embedding for the model's grid, where the stored one is that of a square.
at::Tensor fit_pos_embed(const at::Tensor& stored, const ModelSettings& settings) {
    if (stored.dim() != 3 || stored.size(0) != 1 || stored.size(2) != settings.embed_dim) return stored;
    const std::int64_t prefix = settings.prefix_positions ? settings.prefix_tokens() : 0;
    const std::int64_t patches = stored.size(1) - prefix;
    const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(std::max<std::int64_t>(patches, 0))));
    if (side < 1 || side * side != patches) return stored;
    return resize_pos_embed(stored, side, side, settings.grid_height(), settings.grid_width(), prefix);
}

}  // namespace

std::string LoadReport::text(std::size_t most) const {
    std::string line;
    const auto add = [&](const char* kind, const std::vector<std::string>& keys) {
        if (keys.empty()) return;
        line += str(line.empty() ? "" : "; ", keys.size(), ' ', kind, ": ");
        for (std::size_t i = 0; i < std::min(most, keys.size()); ++i) line += (i ? ", " : "") + keys[i];
        if (keys.size() > most) line += ", ...";
    };
    add("missing", missing);
    add("unexpected", unexpected);
    add("mis-shaped", mis_shaped);
    return line;
}

TensorMap state_dict(const torch::nn::Module& module) {
    TensorMap tensors;
    for (const auto& item : module.named_parameters()) tensors.emplace(item.key(), item.value().detach());
    return tensors;
}

LoadReport load_state_dict(DynamicVitImpl& model, const TensorMap& weights) {
    const torch::NoGradGuard no_grad;
    LoadReport report;
    const auto parameters = model.named_parameters();
    for (const auto& item : parameters) {
        const auto found = weights.find(item.key());
        if (found == weights.end()) {
            report.missing.push_back(item.key());
            continue;
        }
        at::Tensor parameter = item.value(), stored = found->second;
        if (item.key() == "pos_embed" && stored.sizes() != parameter.sizes()) {
            stored = fit_pos_embed(stored, model.settings());
            report.pos_embed_resized = stored.sizes() == parameter.sizes();
        }
        if (stored.sizes() != parameter.sizes()) {
            report.mis_shaped.push_back(str(item.key(), ": ", shape_text(stored.sizes()), " in the weights, ",
                                            shape_text(parameter.sizes()), " in the model"));
            continue;
        }
        parameter.copy_(stored);
    }
    for (const auto& [key, tensor] : weights) {
        if (!parameters.contains(key)) report.unexpected.push_back(key);
    }
    return report;
}

void copy_state(const TensorMap& from, const TensorMap& to, const std::string& file) {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : to) {
        const auto found = from.find(name);
        if (found == from.end())
            throw Error("run", file, ": found no ", name, ", expected the state of this experiment's run");
        if (found->second.sizes() != tensor.sizes()) {
            throw Error("run", file, ": ", name, ": found the shape ", shape_text(found->second.sizes()), ", expected ",
                        shape_text(tensor.sizes()));
        }
        tensor.copy_(found->second);
    }
}

}  // namespace dynvit
