#include "dynvit/infer/inference_model.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "dynvit/core/error.hpp"
#include "dynvit/models/state_dict.hpp"
#include "dynvit/ops/self_attention.hpp"

namespace dynvit {
namespace {

// Reads weights by name.
class Weights {
  public:
    Weights(const DynamicVitImpl& model, at::ScalarType precision)
        : tensors_(state_dict(model)), precision_(precision) {}

    at::Tensor tensor(const std::string& name) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) return {};
        return found->second.to(storage(), /*non_blocking=*/false, /*copy=*/true).contiguous();
    }
    // A block's.
    InferenceLinear linear(const std::string& name) const { return linear(name, precision_); }
    // One whose rounding would show more than its time does: never of 8 bits.
    InferenceLinear fine_linear(const std::string& name) const { return linear(name, storage()); }

  private:
    InferenceLinear linear(const std::string& name, at::ScalarType precision) const {
        const auto bias = tensors_.find(name + ".bias");
        return {tensors_.at(name + ".weight"), bias == tensors_.end() ? at::Tensor() : bias->second, precision};
    }
    at::ScalarType storage() const { return precision_ == at::kQInt8 ? at::kFloat : precision_; }

    TensorMap tensors_;
    at::ScalarType precision_;
};

}  // namespace

InferenceModel::InferenceModel(const DynamicVitImpl& model, at::ScalarType precision)
    : settings_(model.settings()), precision_(precision) {
    const torch::NoGradGuard no_grad;
    if (precision == at::kQInt8 && !(model.parameters().front().is_cpu() && fast_on_cpu(precision))) {
        throw Error("precision", "int8 runs on processors with VNNI instructions only; take bfloat16 or float32 here");
    }
    const Weights weights(model, precision);
    const auto norm = [&](const std::string& name, double epsilon) {
        return Norm{weights.tensor(name + ".weight"), weights.tensor(name + ".bias"), epsilon};
    };
    patch_weight_ = weights.tensor("patch_embed.proj.weight");
    patch_bias_ = weights.tensor("patch_embed.proj.bias");
    cls_token_ = weights.tensor("cls_token");
    pos_embed_ = weights.tensor("pos_embed");
    for (std::int64_t i = 0; i < settings_.depth; ++i) {
        const std::string name = str("blocks.", i, '.');
        blocks_.push_back({norm(name + "norm1", kNormEpsilon), weights.linear(name + "attn.qkv"),
                           weights.linear(name + "attn.proj"), norm(name + "norm2", kNormEpsilon),
                           weights.linear(name + "mlp.fc1"), weights.linear(name + "mlp.fc2")});
    }
    for (std::int64_t s = 0; s < settings_.stages(); ++s) {
        const std::string name = str("score_predictor.", s, '.');
        predictors_.push_back({norm(name + "in_conv.0", kPredictorNormEpsilon), weights.fine_linear(name + "in_conv.1"),
                               weights.fine_linear(name + "out_conv.0"), weights.fine_linear(name + "out_conv.2"),
                               weights.fine_linear(name + "out_conv.4")});
    }
    norm_ = norm("norm", kNormEpsilon);
    head_ = weights.fine_linear("head");
}

at::Tensor InferenceModel::Norm::operator()(const at::Tensor& x) const {
    return at::layer_norm(x, weight.sizes(), weight, bias, epsilon);
}

at::Tensor InferenceModel::embed(const at::Tensor& images) const {
    check_images(images, settings_);
    const at::Tensor patches =
        at::conv2d(images.to(patch_weight_.scalar_type()), patch_weight_, patch_bias_, settings_.patch_size)
            .flatten(2)
            .transpose(1, 2);
    return at::cat({cls_token_.expand({images.size(0), -1, -1}), patches}, 1).add_(pos_embed_);
}

at::Tensor InferenceModel::mlp_of(const Block& block, const at::Tensor& x) const {
    return block.fc2(block.fc1.gelu(block.norm2(x))).add_(x);
}

at::Tensor InferenceModel::run_block(std::int64_t index, const at::Tensor& x) const {
    const Block& block = blocks_[static_cast<std::size_t>(index)];
    return mlp_of(block, block.proj(self_attention(block.qkv(block.norm1(x)), settings_.num_heads)).add_(x));
}

at::Tensor InferenceModel::run_block(std::int64_t index, const at::Tensor& x, const PackedLayout& layout) const {
    const Block& block = blocks_[static_cast<std::size_t>(index)];
    return mlp_of(block, block.proj(self_attention(block.qkv(block.norm1(x)), settings_.num_heads, layout)).add_(x));
}

at::Tensor InferenceModel::cls_attention(std::int64_t index, const at::Tensor& x) const {
    const Block& block = blocks_[static_cast<std::size_t>(index)];
    const std::int64_t head_dim = settings_.embed_dim / settings_.num_heads;
    const at::Tensor qkv =
        block.qkv(block.norm1(x)).view({x.size(0), x.size(1), 3, settings_.num_heads, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor cls = qkv[0].slice(2, 0, 1) / std::sqrt(static_cast<double>(head_dim));  // (B, h, 1, d)
    const at::Tensor attention = at::softmax(at::matmul(cls, qkv[1].transpose(-2, -1)), -1, at::kFloat);
    return attention.select(2, 0).slice(2, 1).mean(1);
}

// Each token's own features beside the mean, both (..., C / 2).
at::Tensor InferenceModel::Predictor::keep_log_probability(const at::Tensor& local, const at::Tensor& mean) const {
    const at::Tensor z = at::cat({local, mean.to(local.scalar_type())}, -1);
    return at::log_softmax(out4(out2.gelu(out0.gelu(z))), -1, at::kFloat).select(-1, 0);
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& patches) const {
    const Predictor& predictor = predictors_[static_cast<std::size_t>(stage)];
    const at::Tensor h = predictor.in.gelu(predictor.norm(patches));
    const std::int64_t half = h.size(2) / 2;
    const at::Tensor local = h.slice(2, 0, half), global = h.slice(2, half);
    const at::Tensor mean = h.size(1) > 0 ? global.mean(1, true) : global.sum(1, true);  // without tokens: zero
    return predictor.keep_log_probability(local, mean.expand_as(local));
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& patches,
                                                const PackedLayout& layout) const {
    const Predictor& predictor = predictors_[static_cast<std::size_t>(stage)];
    const at::Tensor h = predictor.in.gelu(predictor.norm(patches));
    const std::int64_t half = h.size(1) / 2;
    const at::Tensor means = packed_mean(h.slice(1, half), layout);  // (B, C / 2)
    return predictor.keep_log_probability(h.slice(1, 0, half), means.index_select(0, layout.sequence_of_row()));
}

at::Tensor InferenceModel::classify(const at::Tensor& cls) const {
    return (*head_)((*norm_)(cls)).to(at::kFloat);
}

}  // namespace dynvit
