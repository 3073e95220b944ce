#include "dynvit/infer/inference_session.hpp"

#include "recorded_forward.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "dynvit/core/error.hpp"
#include "dynvit/data/data_settings.hpp"
#include "dynvit/models/macs.hpp"

namespace dynvit {
namespace {

void check(const PruningPlan& plan, const ModelSettings& settings) {
    const std::vector<std::string>& known = plan_policy_names();
    if (std::ranges::find(known, plan.policy) == known.end()) {
        throw Error("policy", "unknown selection policy '", plan.policy, "'; expected one of ", join(known, ", "));
    }
    const std::int64_t stages = settings.stages();
    const auto check_size = [&](const char* name, std::int64_t found) {
        if (found != stages) {
            throw Error("policy", plan.policy, ": found ", found, ' ', name, ", expected one a stage, ", stages);
        }
    };
    if (plan.policy == "per_image") {
        check_size("thresholds", std::ssize(plan.thresholds));
        for (const double threshold : plan.thresholds) {
            if (threshold >= 0 && threshold <= 1) continue;
            throw Error("policy", "per_image: found a threshold of ", threshold, ", expected 0 to 1");
        }
    } else if (plan.policy == "structural") {
        if (stages == 0) throw Error("policy", "structural: the model has no stage, expected one to pool at");
    } else if (!plan.tokens.empty()) {
        check_size("token counts", std::ssize(plan.tokens));
        std::int64_t before = settings.patches();
        for (const std::int64_t count : plan.tokens) {
            if (count < 0 || count > before) {
                throw Error("policy", plan.policy, ": found a count of ", count, ", expected 0 to ", before);
            }
            before = count;
        }
        if (plan.policy == "static") check_size("static scores", std::ssize(plan.static_scores));
    }
}

SessionOutput with_counts(const PrunedOutput& output, std::int64_t patches) {
    SessionOutput result{output.logits, {}, {}};
    const std::int64_t batch = output.logits.size(0);
    for (at::Tensor kept : output.kept) {  // (B, k)
        if (batch > 1) kept = kept + patches * at::arange(batch, kept.options()).unsqueeze(1);
        result.counts.emplace_back(static_cast<std::size_t>(batch), kept.size(1));
        result.kept.push_back(kept.flatten());
    }
    return result;
}

}  // namespace

const std::vector<std::string>& plan_policy_names() {
    static const std::vector<std::string> names = {"predicted", "per_image",     "random",
                                                   "static",    "cls_attention", "structural"};
    return names;
}

std::vector<std::int64_t> SessionOutput::kept_of(std::int64_t index, std::size_t stage, std::int64_t patches) const {
    std::int64_t first = 0;
    for (std::int64_t i = 0; i < index; ++i) first += counts[stage][i];
    const at::Tensor places = (kept[stage].narrow(0, first, counts[stage][index]) - index * patches).cpu();
    return {places.const_data_ptr<std::int64_t>(), places.const_data_ptr<std::int64_t>() + places.numel()};
}

InferenceSession::InferenceSession(std::shared_ptr<const InferenceModel> model, PruningPlan plan)
    : model_(std::move(model)) {
    set_plan(std::move(plan));
}

InferenceSession::InferenceSession(const DynamicVitImpl& model, PruningPlan plan, at::ScalarType precision)
    : InferenceSession(std::make_shared<InferenceModel>(model, precision), std::move(plan)) {}

InferenceSession::~InferenceSession() = default;

void InferenceSession::set_plan(PruningPlan plan) {
    check(plan, settings());
    policy_.reset();
    if (plan.policy == "static" && !plan.tokens.empty()) {
        policy_ = make_static_policy(plan.static_scores);
    } else if (plan.policy != "per_image" && plan.policy != "structural") {
        policy_ = make_policy(plan.tokens.empty() ? "predicted" : plan.policy, model_, plan.seed);
    }
    plan_ = std::move(plan);
    recorded_.reset();
    const bool draws = plan_.policy == "random" && !plan_.tokens.empty();  // on the CPU, anew each time
    if (plan_.policy != "per_image" && !draws && DeviceGraphs::supported(device())) {
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
    std::vector<std::int64_t> tokens = counts.empty() ? plan_.tokens : counts;
    if (plan_.policy == "structural") {
        sizes.pruning_loc = {sizes.pruning_loc[static_cast<std::size_t>(structural_stage(sizes))]};
        tokens = {structural_tokens(settings())};
    }
    const bool predicts = plan_.policy == "predicted" || plan_.policy == "per_image";
    std::vector<double> parts;
    for (const std::int64_t macs : count_macs_per_stage(sizes, tokens, predicts)) {
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
    if (plan_.policy == "per_image") {
        PerImageOutput output = per_image_forward(*model_, images, plan_.thresholds);
        return {output.logits, std::move(output.counts), std::move(output.kept)};
    }
    return recorded_ ? (*recorded_)(images) : fixed_shapes(model_->prepare(images));
}

OneImageBlocks* InferenceSession::one_image_blocks(std::int64_t batch) {
    const bool decides = !plan_.tokens.empty() || plan_.policy == "structural";
    if (batch != 1 || (decides && plan_.policy != "predicted")) return nullptr;
    if (!one_image_) one_image_ = model_->one_image_blocks();
    if (!one_image_) return nullptr;
    one_image_->prepare(1 + settings().patches());
    return one_image_.get();
}

SessionOutput InferenceSession::fixed_shapes(const at::Tensor& inputs, OneImageBlocks* one_image) const {
    const at::Tensor x = model_->embed_prepared(inputs);
    if (plan_.policy == "structural") {
        const StageOperation pool = average_two_by_two(settings(), structural_stage(settings()));
        return {staged_forward_embedded(*model_, x, pool).logits, {}, {}};
    }
    return with_counts(one_image ? pruned_forward_embedded(*model_, x, *one_image, plan_.tokens)
                                 : pruned_forward_embedded(*model_, x, *policy_, plan_.tokens),
                       settings().patches());
}

}  // namespace dynvit
