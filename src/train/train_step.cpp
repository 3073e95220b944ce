#include "dynvit/train/train_step.hpp"

#include <ATen/ATen.h>

#include "dynvit/data/data_settings.hpp"
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

// All that a step draws for its batch number `index`.
StepInputs draw_inputs(const Learner& learner, const Batch& batch, const TrainSettings& settings, std::int64_t step,
                       std::size_t index, const at::Device& device) {
    const DynamicVitImpl& student = *learner.student;
    const std::int64_t classes = student.settings().num_classes;
    Random random(seed_for(settings.seed, SeedUse::kMix, step, index));
    StepInputs inputs{normalize_images(batch.images, device, learner.preprocessing), {}, {}};
    if (settings.loss.need_labels()) {
        inputs.target = soft_targets(batch.labels.to(device, at::kLong, /*non_blocking=*/true), classes,
                                     settings.loss.label_smoothing);
    }
    if (settings.mixup.on()) {
        const auto shares =
            draw_mix(settings.mixup, inputs.images.size(0), inputs.images.size(2), inputs.images.size(3), random);
        inputs.images = mix_images(inputs.images, shares);
        if (inputs.target.defined()) inputs.target = mix_targets(inputs.target, shares);
    }
    inputs.noise = student.draw_noise(
        batch.images.size(0), make_generator(device, seed_for(settings.seed, SeedUse::kNoise, step, index)), device);
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

void add(StepOutput& sum, const Losses& losses, const std::vector<at::Tensor>& shares) {
    for (const auto& [name, value] : losses.each) add(sum.losses.each[name], value);
    add(sum.losses.total, losses.total);
    sum.keep_ratios.resize(shares.size());
    for (std::size_t s = 0; s < shares.size(); ++s) add(sum.keep_ratios[s], shares[s]);
}

// All of a step that does not differ from one to the next but by its inputs: it draws nothing, and waits for nothing.
StepOutput run_step(Learner& learner, const TrainSettings& settings, const StepSelection& selection,
                    const std::vector<StepInputs>& batches) {
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
            losses = compute_losses(settings.loss, out, teacher, batch.target, selection.targets);
            add(output, losses, shares_kept(out, selection));
        }
        learner.scaler.scale(losses.total / count).backward();
    }
    for (at::Tensor* mean : output.tensors()) *mean = *mean / count;

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

TrainStep::TrainStep(Learner& learner, const TrainSettings& settings)
    : learner_(learner), settings_(settings), device_(learner.student->parameters().front().device()) {
    if (settings.record_steps && DeviceGraphs::supported(device_)) {
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
        return run_step(learner_, settings_, plan.selection, given);
    };
    StepOutput output = recorded_ ? recorded_->run(work, plan.selection, inputs) : work(inputs);
    if (learner_.ema) learner_.ema->update(*learner_.student, plan.step);
    return output;
}

}  // namespace dynvit
