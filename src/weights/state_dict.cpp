#include "dynvit/weights/state_dict.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <set>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

struct Grid {
    std::int64_t height, width;
};

std::optional<Grid> square_of(std::int64_t patches) {
    const auto side =
        static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(std::max<std::int64_t>(patches, 0)))));
    if (side < 1 || side * side != patches) return std::nullopt;
    return Grid{side, side};
}

// The embedding for the model's grid, where the stored one is that of its own model's, or of a square.
at::Tensor fit_pos_embed(const at::Tensor& stored, const ModelSettings& settings,
                         const std::optional<ModelSettings>& own) {
    if (stored.dim() != 3 || stored.size(0) != 1 || stored.size(2) != settings.embed_dim) return stored;
    const std::int64_t prefix = settings.prefix_positions ? settings.prefix_tokens() : 0;
    const std::int64_t patches = stored.size(1) - prefix;
    std::optional<Grid> grid = square_of(patches);
    if (own && own->patches() == patches) grid = Grid{own->grid_height(), own->grid_width()};
    if (!grid) return stored;
    return resize_pos_embed(stored, grid->height, grid->width, settings.grid_height(), settings.grid_width(), prefix,
                            settings.position_resampling);
}

// Whether the embedding is of another grid: of another shape, or of one of as many patches.
bool is_of_other_grid(const at::Tensor& stored, const at::Tensor& wanted, const ModelSettings& settings,
                      const std::optional<ModelSettings>& own) {
    if (stored.sizes() != wanted.sizes()) return true;
    return own && (own->grid_height() != settings.grid_height() || own->grid_width() != settings.grid_width());
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

std::vector<std::pair<std::string, at::Tensor>> named_state(const torch::nn::Module& module) {
    std::vector<std::pair<std::string, at::Tensor>> state;
    for (const auto& item : module.named_parameters()) state.emplace_back(item.key(), item.value());
    for (const auto& item : module.named_buffers()) state.emplace_back(item.key(), item.value());
    return state;
}

TensorMap state_dict(const torch::nn::Module& module) {
    TensorMap tensors;
    for (const auto& [name, tensor] : named_state(module)) tensors.emplace(name, tensor.detach());
    return tensors;
}

std::string shape_text(at::IntArrayRef shape) {
    return '(' + join(shape, ", ") + ')';
}

LoadReport load_state_dict(DynamicVitImpl& model, const TensorMap& weights, const std::optional<ModelSettings>& own) {
    const torch::NoGradGuard no_grad;
    LoadReport report;
    std::set<std::string> known;
    for (const auto& [key, tensor] : named_state(model)) {
        known.insert(key);
        const auto found = weights.find(key);
        if (found == weights.end()) {
            report.missing.push_back(key);
            continue;
        }
        at::Tensor stored = found->second;
        if (key == "pos_embed" && is_of_other_grid(stored, tensor, model.settings(), own)) {
            stored = fit_pos_embed(stored, model.settings(), own);
            report.pos_embed_resized = stored.sizes() == tensor.sizes();
        }
        if (stored.sizes() != tensor.sizes()) {
            report.mis_shaped.push_back(str(key, ": ", shape_text(stored.sizes()), " in the weights, ",
                                            shape_text(tensor.sizes()), " in the model"));
            continue;
        }
        if (stored.is_complex()) {
            report.mis_shaped.push_back(str(key, ": complex numbers in the weights, real ones in the model"));
            continue;
        }
        tensor.copy_(stored);
    }
    for (const auto& [key, tensor] : weights) {
        if (!known.contains(key)) report.unexpected.push_back(key);
    }
    return report;
}

}  // namespace dynvit
