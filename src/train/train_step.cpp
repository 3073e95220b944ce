#include "dynvit/train/train_step.hpp"

#include <ATen/ATen.h>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/dist/process_group.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/train/autocast.hpp"
#include "dynvit/train/seed_use.hpp"
#include "recorded_step.hpp"

namespace dynvit {
namespace {

at::Generator make_generator(const at::Device& device, std::uint64_t seed) {
    at::Generator generator = at::globalContext().defaultGenerator(device).clone();
    generator.set_current_seed(seed);
    return generator;
}

// What is drawn for a whole batch, of the rows that this process has of it: partners of mixup are among them, see
// BatchShare.
std::vector<MixShare> rows_of(const std::vector<MixShare>& whole, const Batch& batch) {
    if (std::ssize(whole) == batch.images.size(0)) return whole;
    std::vector<MixShare> own;
    for (const std::int64_t row : batch.rows) own.push_back(whole[static_cast<std::size_t>(row)]);
    return own;
}

TrainingNoise rows_of(TrainingNoise noise, const Batch& batch) {
    if (batch.whole <= batch.images.size(0)) return noise;
    const at::Tensor rows = at::tensor(at::ArrayRef<std::int64_t>(batch.rows), at::kLong);
    for (at::Tensor& gumbel : noise.gumbel) gumbel = gumbel.index_select(0, rows.to(gumbel.device()));
    if (noise.drop_path.defined()) {
        noise.drop_path = noise.drop_path.index_select(1, rows.to(noise.drop_path.device()));
    }
    return noise;
}

// All that a step draws for its batch number `index`.
StepInputs draw_inputs(const Learner& learner, const Batch& batch, const TrainSettings& settings, std::int64_t step,
                       std::size_t index, const at::Device& device) {
    const DynamicVitImpl& student = *learner.student;
    const std::int64_t classes = student.settings().num_classes;
    Random random(seed_for(settings.seed, SeedUse::kMix, step, index));
    StepInputs inputs{normalize_images(batch.images, device, learner.preprocessing), {}, {}};
    const std::int64_t own = batch.images.size(0), whole = std::max(own, batch.whole);
    inputs.share = static_cast<double>(own) / static_cast<double>(whole);
    if (settings.loss.need_labels()) {
        inputs.target = soft_targets(batch.labels.to(device, at::kLong, /*non_blocking=*/true), classes,
                                     settings.loss.label_smoothing);
    }
    if (settings.mixup.on()) {
        const auto shares =
            rows_of(draw_mix(settings.mixup, whole, inputs.images.size(2), inputs.images.size(3), random), batch);
        inputs.images = mix_images(inputs.images, shares);
        if (inputs.target.defined()) inputs.target = mix_targets(inputs.target, shares);
    }
    inputs.noise =
        rows_of(student.draw_noise(whole, make_generator(device, seed_for(settings.seed, SeedUse::kNoise, step, index)),
                                   device),
                batch);
    return inputs;
}

// Tokens removed as at inference.
// @param learns whether the prediction modules get a gradient, from their log-probabilities and from what these weigh
// in a fused token; none reaches the backbone
TrainingOutput forward_deterministic(DynamicVitImpl& student, const at::Tensor& images, const StepSelection& selection,
                                     const TrainingNoise& noise, bool learns) {
    TrainingOutput output;
    const auto scores = [&](const StageInput& input) {
        const torch::AutoGradMode gradient(learns);
        const at::Tensor log_prob = student.score_predictor(input.stage)(input.tokens.detach());
        output.log_probs.push_back(log_prob);
        output.positions.push_back(input.positions);
        return log_prob.select(-1, 0);
    };
    const auto counts = tokens_per_stage(selection.targets, student.settings().patches());
    const auto metric = [&](const StageInput& input) {
        return student.backbone().mean_keys(input.block, input.keyed.detach());
    };
    const StageOperation stage = reduce_tokens(student.settings(), {.scores = scores, .metric = metric}, counts);
    at::Tensor owners;
    const StageOperation reduce = [&](const StageInput& input) {
        output.owners.push_back(owners);
        Tokens tokens = stage(input);
        if (tokens.slots.defined()) owners = owners_behind(owners, tokens.slots);  // else tokens stay themselves, or go
        return tokens;
    };
    const PrunedTokens pruned = student.forward_pruned(images, reduce, noise.drop_path);
    const at::Tensor sizes =
        pruned.sizes.defined() ? pruned.sizes.slice(1, student.settings().prefix_tokens()) : at::Tensor();
    const VisionTransformerImpl::Output read = student.backbone().read_out({pruned.tokens}, sizes);
    output.kept = pruned.kept.back();
    output.logits = read.logits;
    output.features = read.features;
    return output;
}

std::vector<at::Tensor> shares_kept(const TrainingOutput& output, const StepSelection& selection) {
    std::vector<at::Tensor> shares;
    for (const at::Tensor& decision : output.decisions) shares.push_back(decision.detach().mean());
    if (shares.empty()) {
        for (const double target : selection.targets)
            shares.push_back(at::full({}, target, output.logits.options().dtype(at::kFloat)));
    }
    return shares;
}

void add(at::Tensor& sum, const at::Tensor& value) {
    sum = sum.defined() ? sum + value.detach() : value.detach();
}

// @param share of the whole batch's pictures, which means are weighted by
void add(StepOutput& sum, const Losses& losses, const std::vector<at::Tensor>& kept, double share) {
    const auto weighted = [&](const at::Tensor& value) { return share == 1 ? value : value * share; };
    for (const auto& [name, value] : losses.each) add(sum.losses.each[name], weighted(value));
    add(sum.losses.total, weighted(losses.total));
    sum.keep_ratios.resize(kept.size());
    for (std::size_t s = 0; s < kept.size(); ++s) add(sum.keep_ratios[s], weighted(kept[s]));
}

// What a process divides its sum over kept tokens by, so that the processes' values, weighted by their shares of the
// pictures, add up to the mean over all tokens.
TokenCount token_count(const TrainSettings& settings, const ProcessGroup* group, double share) {
    if (!group || settings.loss.distill_mean == "process") return {};
    return [group, share](const at::Tensor& kept) {
        at::Tensor all = kept.clone();
        group->add_up(all);
        return all.clamp_min(1.0) * share;
    };
}

// All of a step that does not differ from one to the next but by its inputs: it draws nothing, and waits for nothing.
StepOutput run_step(Learner& learner, const TrainSettings& settings, const StepSelection& selection,
                    const std::vector<StepInputs>& batches, const ProcessGroup* group) {
    DynamicVitImpl& student = *learner.student;
    const at::Device device = student.parameters().front().device();
    const at::ScalarType precision = parse_precision(settings.precision);
    const double count = static_cast<double>(batches.size());
    const bool ranks = settings.loss.need_saliency();
    StepOutput output;
    learner.optimizer.zero_grad();
    for (const StepInputs& batch : batches) {
        std::optional<InferenceModel::DenseOutput> teacher;
        if (learner.teacher) {
            teacher = learner.teacher->forward(batch.images,
                                               ranks ? student.settings().pruning_loc : std::vector<std::int64_t>());
        }
        Losses losses;
        {
            const Autocast autocast(device, precision);
            const TrainingOutput out =
                selection.deterministic
                    ? forward_deterministic(student, batch.images, selection, batch.noise, ranks)
                    : student.forward_train(batch.images, batch.noise, settings.selection.temperature);
            losses = compute_losses(settings.loss, out, teacher, batch.target, selection.targets,
                                    token_count(settings, group, batch.share));
            add(output, losses, shares_kept(out, selection), batch.share);
        }
        learner.scaler.scale(batch.share == 1 ? losses.total / count : losses.total * (batch.share / count)).backward();
    }
    for (at::Tensor* mean : output.tensors()) *mean = *mean / count;
    if (group) {
        std::vector<at::Tensor> sums = learner.optimizer.gradients();
        for (const at::Tensor* mean : output.tensors()) sums.push_back(*mean);
        group->add_up(sums);
    }

    const at::Tensor bad_gradient = learner.scaler.unscale(learner.optimizer.gradients());
    output.bad_loss = output.losses.total.isfinite().logical_not().to(at::kFloat).unsqueeze(0);
    output.skipped = at::maximum(bad_gradient, output.bad_loss);
    learner.optimizer.step(output.skipped);
    learner.scaler.update(output.skipped);
    return output;
}

}  // namespace

std::vector<at::Tensor*> StepOutput::tensors() {
    std::vector<at::Tensor*> tensors = {&losses.total, &bad_loss, &skipped};
    for (auto& [name, value] : losses.each) tensors.push_back(&value);
    for (at::Tensor& ratio : keep_ratios) tensors.push_back(&ratio);
    std::erase_if(tensors, [](const at::Tensor* tensor) { return !tensor->defined(); });
    return tensors;
}

TrainStep::TrainStep(Learner& learner, const TrainSettings& settings, const ProcessGroup* group)
    : learner_(learner),
      settings_(settings),
      group_(group && !group->alone() ? group : nullptr),
      device_(learner.student->parameters().front().device()) {
    if (settings.record_steps && !group_ && DeviceGraphs::supported(device_)) {
        recorded_ = std::make_unique<RecordedStep>(device_, parse_precision(settings.precision));
    }
}

TrainStep::~TrainStep() = default;

StepOutput TrainStep::operator()(const StepPlan& plan, const std::vector<Batch>& batches) {
    std::vector<StepInputs> inputs;
    for (std::size_t b = 0; b < batches.size(); ++b) {
        inputs.push_back(draw_inputs(learner_, batches[b], settings_, plan.step, b, device_));
    }
    learner_.optimizer.set_learning_rates(plan.lr, plan.backbone_lr);
    const auto work = [&](const std::vector<StepInputs>& given) {
        return run_step(learner_, settings_, plan.selection, given, group_);
    };
    StepOutput output = recorded_ ? recorded_->run(work, plan.selection, inputs) : work(inputs);
    if (learner_.ema) learner_.ema->update(*learner_.student, plan.step);
    return output;
}

}  // namespace dynvit
