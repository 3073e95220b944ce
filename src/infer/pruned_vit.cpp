#include "dynvit/infer/pruned_vit.hpp"

#include <ATen/ATen.h>

namespace dynvit {
namespace {

// The tokens of all images that are left, each image's [CLS] before its patches.
struct PackedTokens {
    at::Tensor x;          // (T + B, C)
    at::Tensor positions;  // (T), int64, of the patches on the original grid
    PackedLayout patches;  // T rows

    PackedLayout with_cls() const {
        std::vector<std::int64_t> lengths = patches.lengths();
        for (std::int64_t& length : lengths) ++length;
        return {std::move(lengths), x.device()};
    }
    // Where the patches stand in x: (T).
    at::Tensor patch_rows() const {
        return at::arange(patches.rows(), positions.options()) + patches.sequence_of_row() + 1;
    }
    // Where each [CLS] stands in x: (B).
    at::Tensor cls_rows() const {
        return patches.offsets().slice(0, 0, -1).to(at::kLong) + at::arange(patches.sequences(), positions.options());
    }
};

PackedTokens pack(const at::Tensor& x) {  // (B, N + 1, C)
    const std::int64_t batch = x.size(0), count = x.size(1) - 1;
    const at::Tensor positions = at::arange(count, x.options().dtype(at::kLong)).repeat({batch});
    return {x.reshape({batch * (count + 1), x.size(2)}), positions,
            PackedLayout(std::vector<std::int64_t>(static_cast<std::size_t>(batch), count), x.device())};
}

// The places of the true elements, in order: nonzero() for a count that is known already, so that nobody waits for it.
// @param mask (n), bool @return (count), int64
at::Tensor places_of(const at::Tensor& mask, std::int64_t count) {
    const at::Tensor target = at::where(mask, mask.cumsum(0) - 1, count);  // the false ones all go behind the others
    const at::Tensor places = at::empty({count + 1}, target.options());
    return places.scatter_(0, target, at::arange(mask.size(0), target.options())).narrow(0, 0, count);
}

// Waits for the device once, to know how many tokens each image keeps.
// @param kept (T), bool: the patches that go on
PackedTokens keep(const PackedTokens& from, const at::Tensor& kept) {
    const at::Tensor before = at::constant_pad_nd(kept.cumsum(0), {1, 0});  // (T + 1): kept ones before each row
    const at::Tensor rows = at::ones({from.x.size(0)}, kept.options()).index_copy_(0, from.patch_rows(), kept);
    const at::Tensor counts = before.index_select(0, from.patches.offsets()).diff().cpu();
    const PackedLayout patches({counts.data_ptr<std::int64_t>(), counts.data_ptr<std::int64_t>() + counts.numel()},
                               from.x.device());
    return {from.x.index_select(0, places_of(rows, patches.rows() + patches.sequences())),
            from.positions.index_select(0, places_of(kept, patches.rows())), patches};
}

}  // namespace

PrunedOutput pruned_forward(const InferenceModel& model, const at::Tensor& images, SelectionPolicy& policy,
                            const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    return pruned_forward_embedded(model, model.embed(images), policy, tokens);
}

PrunedOutput pruned_forward_embedded(const InferenceModel& model, const at::Tensor& x, SelectionPolicy& policy,
                                     const std::vector<std::int64_t>& tokens) {
    const torch::NoGradGuard no_grad;
    PrunedTokens result = remove_tokens(
        model.settings(), x, [&](std::int64_t index, const at::Tensor& input) { return model.run_block(index, input); },
        [&](const StageInput& input) { return policy.scores(input); }, tokens);
    return {model.classify(result.tokens.select(1, 0)), std::move(result.kept)};
}

PerImageOutput per_image_forward(const InferenceModel& model, const at::Tensor& images,
                                 const std::vector<double>& thresholds) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    TORCH_CHECK(std::ssize(thresholds) == settings.stages(), "one threshold a stage is needed");
    PerImageOutput output;
    PackedTokens tokens = pack(model.embed(images));
    PackedLayout layout = tokens.with_cls();
    for (std::int64_t i = 0, stage = 0; i < settings.depth; ++i) {
        if (stage < settings.stages() && settings.pruning_loc[stage] == i) {
            const at::Tensor pi_keep =
                model.keep_log_probability(stage, tokens.x, layout).index_select(0, tokens.patch_rows()).exp();
            tokens = keep(tokens, pi_keep > thresholds[stage]);
            layout = tokens.with_cls();
            output.counts.push_back(tokens.patches.lengths());
            output.positions.push_back(tokens.positions);
            output.keep_probabilities.push_back(pi_keep);
            ++stage;
        }
        tokens.x = model.run_block(i, tokens.x, layout);
    }
    output.logits = model.classify(tokens.x.index_select(0, tokens.cls_rows()));
    return output;
}

at::Tensor structural_forward(const InferenceModel& model, const at::Tensor& images, std::int64_t block) {
    const torch::NoGradGuard no_grad;
    return structural_forward_embedded(model, model.embed(images), block);
}

at::Tensor structural_forward_embedded(const InferenceModel& model, at::Tensor x, std::int64_t block) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    for (std::int64_t i = 0; i < settings.depth; ++i) {
        if (i == block) {
            const at::Tensor grid = x.slice(1, 1).transpose(1, 2).reshape(
                {x.size(0), x.size(2), settings.grid_height(), settings.grid_width()});
            const at::Tensor pooled = at::avg_pool2d(grid, 2, 2, 0, /*ceil_mode=*/true, /*count_include_pad=*/false);
            x = at::cat({x.slice(1, 0, 1), pooled.flatten(2).transpose(1, 2)}, 1);
        }
        x = model.run_block(i, x);
    }
    return model.classify(x.select(1, 0));
}

std::int64_t structural_block(const ModelSettings& settings) {
    return settings.pruning_loc[settings.pruning_loc.size() / 2];
}

std::int64_t structural_tokens(const ModelSettings& settings) {
    return ((settings.grid_height() + 1) / 2) * ((settings.grid_width() + 1) / 2);
}

}  // namespace dynvit
