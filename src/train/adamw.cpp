#include "dynvit/train/adamw.hpp"

#include <ATen/ATen.h>

#include "copy_state.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

bool OptimizerSettings::trains(const std::string& name) const {
    if (name == "cls_token" || name == "pos_embed") return train_embeddings && frozen_blocks == 0;
    if (name.starts_with("patch_embed.")) return frozen_blocks == 0;
    constexpr std::string_view kBlocks = "blocks.";
    return !name.starts_with(kBlocks) || std::stoll(name.substr(kBlocks.size())) >= frozen_blocks;
}

AdamW::AdamW(torch::nn::Module& model, const OptimizerSettings& settings) : settings_(settings) {
    const at::Device device = model.parameters().front().device();
    // Of the type that LibTorch's kernels read.
    lr_ = at::zeros({}, at::device(device).dtype(device.is_cpu() ? at::kDouble : at::kFloat));
    backbone_lr_ = at::zeros_like(lr_);
    for (const bool backbone : {false, true}) {
        for (const bool decay : {false, true}) {
            groups_.emplace_back();
            groups_.back().backbone = backbone;
            groups_.back().decay = decay;
        }
    }
    for (const auto& item : model.named_parameters()) {
        const std::string& name = item.key();
        const at::Tensor& parameter = item.value();
        if (!settings_.trains(name)) continue;
        const bool backbone = !is_of_prediction_module(name);
        const bool decay = parameter.dim() > 1 && name != "cls_token" && name != "pos_embed";
        Group& group = groups_[2 * backbone + decay];
        group.names.push_back(name);
        group.parameters.push_back(parameter);
        group.exp_avg.push_back(at::zeros_like(parameter));
        group.exp_avg_sq.push_back(at::zeros_like(parameter));
        group.steps.push_back(at::zeros({}, parameter.options()));
    }
}

std::vector<at::Tensor> AdamW::gradients() const {
    std::vector<at::Tensor> gradients;
    for (const Group& group : groups_) {
        for (const at::Tensor& parameter : group.parameters) {
            if (parameter.grad().defined()) gradients.push_back(parameter.grad());
        }
    }
    return gradients;
}

void AdamW::set_learning_rates(double lr, double backbone_lr) {
    lr_.fill_(lr);
    backbone_lr_.fill_(backbone_lr);
}

void AdamW::step(const at::Tensor& skip) {
    const torch::NoGradGuard no_grad;
    if (settings_.clip_grad > 0) clip_grad_norm(gradients(), settings_.clip_grad);
    const std::optional<at::Tensor> found_inf = skip.defined() ? std::optional(skip.squeeze(0)) : std::nullopt;
    for (Group& group : groups_) {
        std::vector<at::Tensor> parameters, gradients, exp_avg, exp_avg_sq, steps;
        for (std::size_t i = 0; i < group.parameters.size(); ++i) {
            if (!group.parameters[i].grad().defined()) continue;
            parameters.push_back(group.parameters[i]);
            gradients.push_back(group.parameters[i].grad());
            exp_avg.push_back(group.exp_avg[i]);
            exp_avg_sq.push_back(group.exp_avg_sq[i]);
            steps.push_back(group.steps[i]);
        }
        if (parameters.empty()) continue;
        at::_foreach_add_(steps, found_inf ? 1 - *found_inf : at::ones_like(steps.front()));
        at::_fused_adamw_(parameters, gradients, exp_avg, exp_avg_sq, {}, steps, group.backbone ? backbone_lr_ : lr_,
                          settings_.beta1, settings_.beta2, group.decay ? settings_.weight_decay : 0.0, settings_.eps,
                          /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
    }
}

void AdamW::zero_grad() {
    for (Group& group : groups_) {
        for (at::Tensor& parameter : group.parameters) parameter.mutable_grad().reset();
    }
}

TensorMap AdamW::state() const {
    TensorMap state;
    for (const Group& group : groups_) {
        for (std::size_t i = 0; i < group.names.size(); ++i) {
            state.emplace("exp_avg." + group.names[i], group.exp_avg[i]);
            state.emplace("exp_avg_sq." + group.names[i], group.exp_avg_sq[i]);
            state.emplace("step." + group.names[i], group.steps[i]);
        }
    }
    return state;
}

// NOLINTNEXTLINE(readability-make-member-function-const): what its tensors hold changes
void AdamW::load_state(const TensorMap& state, const std::string& file) {
    copy_state(state, this->state(), file);
}

at::Tensor clip_grad_norm(const std::vector<at::Tensor>& gradients, double max_norm) {
    const at::Tensor norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients, 2)), 2);
    const at::Tensor factor = (max_norm / (norm + 1e-6)).clamp_max(1.0);
    at::_foreach_mul_(gradients, factor);
    return norm;
}

}  // namespace dynvit
