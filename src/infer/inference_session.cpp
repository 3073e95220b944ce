#include "dynvit/infer/inference_session.hpp"

#include "recorded_forward.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "dynvit/models/macs.hpp"

namespace dynvit {
namespace {

SessionOutput with_counts(const PrunedOutput& output, const ModelSettings& settings) {
    SessionOutput result{output.logits, {}, {}};
    const std::int64_t batch = output.logits.size(0), patches = settings.patches();
    at::Tensor first;  // (B, 1): of the batch's places those where an image's begin
    if (batch > 1 && !output.kept.empty()) {
        first = at::arange(0, batch * patches, patches, output.kept.front().options()).unsqueeze(1);
    }
    for (at::Tensor kept : output.kept) {  // (B, k)
        const at::Tensor is_fused = settings.fuses() ? kept == patches : at::Tensor();
        if (first.defined()) kept = kept + first;
        if (is_fused.defined()) kept = kept.masked_fill(is_fused, kFused);
        result.counts.emplace_back(static_cast<std::size_t>(batch), kept.size(1));
        result.kept.push_back(kept.flatten());
    }
    return result;
}

}  // namespace

std::vector<std::int64_t> SessionOutput::kept_of(std::int64_t index, std::size_t stage, std::int64_t patches) const {
    std::int64_t first = 0;
    for (std::int64_t i = 0; i < index; ++i) first += counts[stage][i];
    const at::Tensor places = kept[stage].narrow(0, first, counts[stage][index]).cpu();
    std::vector<std::int64_t> own;
    for (std::int64_t i = 0; i < places.numel(); ++i) {
        const std::int64_t place = places.const_data_ptr<std::int64_t>()[i];
        if (place != kFused) own.push_back(place - index * patches);
    }
    std::ranges::sort(own);  // those of matched tokens are in another order
    return own;
}

InferenceSession::InferenceSession(std::shared_ptr<const InferenceModel> model, PruningPlan plan,
                                   const PolicyInputs& inputs)
    : model_(std::move(model)) {
    set_plan(std::move(plan), inputs);
}

InferenceSession::InferenceSession(const DynamicVitImpl& model, PruningPlan plan, at::ScalarType precision,
                                   const PolicyInputs& inputs, const Preprocessing& preprocessing)
    : InferenceSession(std::make_shared<InferenceModel>(model, precision, preprocessing), std::move(plan), inputs) {}

InferenceSession::~InferenceSession() = default;

void InferenceSession::set_plan(PruningPlan plan, const PolicyInputs& inputs) {
    plan = complete_plan(std::move(plan), *model_, inputs);
    const bool scores = !plan.dense() && find_policy(plan.policy).selects == Selects::kBest;
    use(plan, scores ? make_policy(plan.policy, model_, inputs) : nullptr);
}

void InferenceSession::set_plan(PruningPlan plan, std::unique_ptr<SelectionPolicy> policy) {
    use(complete_plan(std::move(plan), *model_, {}), std::move(policy));
}

void InferenceSession::use(PruningPlan plan, std::unique_ptr<SelectionPolicy> policy) {
    entry_ = &find_policy(plan.policy);
    policy_ = std::move(policy);
    plan_ = std::move(plan);
    recorded_.reset();
    const bool draws = entry_->draws && !plan_.dense();  // on the processor, anew each time
    if (entry_->selects != Selects::kAbove && !draws && DeviceGraphs::supported(device())) {
        recorded_ = std::make_unique<RecordedForward>(
            model_,
            [this](const at::Tensor& inputs, bool recording) {
                return fixed_shapes(inputs, recording ? one_image_blocks(inputs.size(0)) : nullptr);
            },
            [this](std::int64_t batch) { one_image_blocks(batch); });
    }
}

std::vector<double> InferenceSession::gmacs_per_stage(const std::vector<std::int64_t>& counts) const {
    ModelSettings sizes = settings();
    const std::vector<std::int64_t>& tokens = counts.empty() ? plan_.tokens : counts;
    if (entry_->selects == Selects::kAveraged) {
        sizes.reduction = "delete";
        sizes.pruning_loc = {sizes.pruning_loc[static_cast<std::size_t>(structural_stage(sizes))]};
    }
    std::vector<double> parts;
    for (const std::int64_t macs : count_macs_per_stage(sizes, tokens, entry_->predicts)) {
        parts.push_back(1e-9 * static_cast<double>(macs));
    }
    return parts;
}

double InferenceSession::gmacs(const std::vector<std::int64_t>& counts) const {
    const std::vector<double> parts = gmacs_per_stage(counts);
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

SessionOutput InferenceSession::run(const at::Tensor& images) const {
    const torch::NoGradGuard no_grad;
    if (entry_->selects == Selects::kAbove) {
        PerImageOutput output = per_image_forward(*model_, images, plan_.thresholds);
        return {output.logits, std::move(output.counts), std::move(output.kept)};
    }
    return recorded_ ? (*recorded_)(images) : fixed_shapes(model_->prepare(images));
}

std::vector<at::Tensor> InferenceSession::sources(const at::Tensor& images) const {
    const torch::NoGradGuard no_grad;
    TORCH_CHECK(keeps_tokens(*entry_) && !plan_.dense(), "tokens are kept by a pruned model's stages alone");
    const auto sources_of = [&](const at::Tensor& some, SelectionPolicy* policy, std::vector<std::int64_t> counts) {
        const StageOperation operation = stage_operation(*model_, policy, std::move(counts));
        const PrunedOutput output = staged_forward_embedded(*model_, model_->embed(some), operation);
        return dynvit::sources(output.kept, output.slots, settings().patches());
    };
    if (entry_->selects != Selects::kAbove) return sources_of(images, policy_.get(), plan_.tokens);
    // The tokens above a threshold are an image's best, as many as they are.
    const auto predicted = make_policy(kPredicted, model_);
    const PerImageOutput output = per_image_forward(*model_, images, plan_.thresholds);
    std::vector<std::vector<at::Tensor>> stages(output.counts.size());
    for (std::int64_t b = 0; b < images.size(0); ++b) {
        std::vector<std::int64_t> counts;
        for (const auto& stage : output.counts) counts.push_back(stage[static_cast<std::size_t>(b)]);
        const std::vector<at::Tensor> found = sources_of(images.slice(0, b, b + 1), predicted.get(), counts);
        for (std::size_t s = 0; s < stages.size(); ++s) stages[s].push_back(found[s]);
    }
    std::vector<at::Tensor> all;
    for (const std::vector<at::Tensor>& stage : stages) all.push_back(at::cat(stage));
    return all;
}

OneImageBlocks* InferenceSession::one_image_blocks(std::int64_t batch) {
    if (batch != 1 || !(plan_.dense() || entry_->is_prediction)) return nullptr;
    if (!one_image_) one_image_ = model_->one_image_blocks();
    if (!one_image_) return nullptr;
    one_image_->prepare(settings().prefix_tokens() + settings().patches());
    return one_image_.get();
}

SessionOutput InferenceSession::fixed_shapes(const at::Tensor& inputs, OneImageBlocks* one_image) const {
    const at::Tensor x = model_->embed_prepared(inputs);
    if (entry_->selects == Selects::kAveraged) {
        const StageOperation average = average_two_by_two(settings(), structural_stage(settings()));
        return {staged_forward_embedded(*model_, x, average).logits, {}, {}};
    }
    if (one_image) {
        return with_counts(pruned_forward_embedded(*model_, x, *one_image, plan_.tokens), settings());
    }
    const StageOperation operation = stage_operation(*model_, policy_.get(), plan_.tokens);
    return with_counts(staged_forward_embedded(*model_, x, operation), settings());
}

}  // namespace dynvit
