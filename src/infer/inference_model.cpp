#include "dynvit/infer/inference_model.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "dynvit/core/error.hpp"
#include "dynvit/data/data_settings.hpp"
#include "dynvit/data/transforms.hpp"
#include "dynvit/ops/gpu_kernels.hpp"
#include "dynvit/ops/patch_rows.hpp"
#include "dynvit/ops/prediction_head.hpp"
#include "dynvit/ops/residual_norm.hpp"
#include "dynvit/ops/self_attention.hpp"
#include "dynvit/weights/state_dict.hpp"

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
    PredictionHead prediction_head(const std::string& prefix) const {
        const auto layer = [&](const char* index) {
            return PredictionHead::Layer{tensors_.at(prefix + index + ".weight"),
                                         tensors_.at(prefix + index + ".bias")};
        };
        return {{layer("0"), layer("2"), layer("4")}, storage()};
    }

  private:
    InferenceLinear linear(const std::string& name, at::ScalarType precision) const {
        const auto bias = tensors_.find(name + ".bias");
        return {tensors_.at(name + ".weight"), bias == tensors_.end() ? at::Tensor() : bias->second, precision};
    }
    at::ScalarType storage() const { return activation_type(precision_); }

    TensorMap tensors_;
    at::ScalarType precision_;
};

PixelScaling image_net_scaling() {
    PixelScaling scaling;
    for (std::size_t c = 0; c < 3; ++c) {
        scaling.scale[c] = 1 / (255 * kImageNetStd[c]);
        scaling.shift[c] = -kImageNetMean[c] / kImageNetStd[c];
    }
    return scaling;
}

// The attention of each head's [CLS] to every token: (B, n, 3 C) -> (B, h, n), float32.
at::Tensor cls_attention_of(const at::Tensor& qkv, std::int64_t heads) {
    const std::int64_t head_dim = qkv.size(2) / (3 * heads);
    const at::Tensor parts = qkv.view({qkv.size(0), qkv.size(1), 3, heads, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor cls = parts[0].slice(2, 0, 1) / std::sqrt(static_cast<double>(head_dim));  // (B, h, 1, d)
    return at::softmax(at::matmul(cls, parts[1].transpose(-2, -1)), -1, at::kFloat).select(2, 0);
}

// What [CLS] takes in of each patch token: (B, n, 3 C) -> (B, n - 1), float32.
at::Tensor cls_intake(const at::Tensor& qkv, std::int64_t heads) {
    const at::Tensor values = qkv.view({qkv.size(0), qkv.size(1), 3, heads, -1}).select(2, 2);  // (B, n, h, d)
    const at::Tensor norms = at::linalg_vector_norm(values, 2, at::IntArrayRef{-1}, false, at::kFloat).transpose(1, 2);
    return (cls_attention_of(qkv, heads) * norms).slice(2, 1).mean(1);
}

}  // namespace

InferenceModel::InferenceModel(const DynamicVitImpl& model, at::ScalarType precision)
    : settings_(model.settings()), precision_(precision) {
    const torch::NoGradGuard no_grad;
    if (precision == at::kQInt8 && !(model.parameters().front().is_cpu() && fast_on_cpu(precision))) {
        throw Error("precision", "int8 runs on processors with VNNI instructions only; take bfloat16 or float32 here");
    }
    if (precision == at::kFloat8_e4m3fn) {
        const std::string reason = why_no_float8(model.parameters().front().device());
        if (!reason.empty()) {
            throw Error("precision", "float8 runs on GPUs of compute capability 9.0 only: ", reason,
                        "; take bfloat16 or float32 here");
        }
    }
    const Weights weights(model, precision);
    const auto norm = [&](const std::string& name, double epsilon) {
        return Norm{weights.tensor(name + ".weight"), weights.tensor(name + ".bias"), epsilon};
    };
    cls_token_ = weights.tensor("cls_token");
    pos_embed_ = weights.tensor("pos_embed");
    const at::Tensor patch_weight = weights.tensor("patch_embed.proj.weight"),
                     patch_bias = weights.tensor("patch_embed.proj.bias");
    if (InferenceLinear::fuses(patch_weight.flatten(1), patch_weight.scalar_type())) {
        patch_linear_.emplace(patch_weight.flatten(1), patch_bias, patch_weight.scalar_type());
    } else {
        patch_weight_ = patch_weight;
        patch_bias_ = patch_bias;
    }
    first_row_ = (cls_token_ + pos_embed_.slice(1, 0, 1)).squeeze(0);
    for (std::int64_t i = 0; i < settings_.depth; ++i) {
        const std::string name = str("blocks.", i, '.');
        blocks_.push_back({norm(name + "norm1", kNormEpsilon), weights.linear(name + "attn.qkv"),
                           weights.linear(name + "attn.proj"), norm(name + "norm2", kNormEpsilon),
                           weights.linear(name + "mlp.fc1"), weights.linear(name + "mlp.fc2")});
    }
    for (std::int64_t s = 0; s < settings_.stages(); ++s) {
        const std::string name = str("score_predictor.", s, '.');
        predictors_.push_back({norm(name + "in_conv.0", kPredictorNormEpsilon), weights.fine_linear(name + "in_conv.1"),
                               weights.prediction_head(name + "out_conv.")});
    }
    norm_ = norm("norm", kNormEpsilon);
    head_ = weights.fine_linear("head");
}

at::Tensor InferenceModel::Norm::operator()(const at::Tensor& x) const {
    if (!x.is_cuda()) return at::layer_norm(x, weight.sizes(), weight, bias, epsilon);
    return residual_norm(x, {}, {}, weight, bias, epsilon, x.scalar_type()).normed;
}

ScaledRows InferenceModel::Norm::quantized(const at::Tensor& x) const {
    return quantize_normed_rows(x, weight, bias, epsilon);
}

at::Tensor InferenceModel::prepare(const at::Tensor& images) const {
    check_images(images, settings_);
    if (!patch_linear_) {
        const bool bytes = images.scalar_type() == at::kByte;
        return (bytes ? normalize_images(images, device()) : images).to(pos_embed_.options());
    }
    const std::int64_t size = settings_.patch_size;
    const at::Tensor inputs = at::empty({images.size(0), settings_.patches(), 3 * size * size}, pos_embed_.options());
    prepare_into(inputs, images);
    return inputs;
}

void InferenceModel::prepare_into(const at::Tensor& inputs, const at::Tensor& images) const {
    if (!patch_linear_) {
        inputs.copy_(prepare(images));
        return;
    }
    check_images(images, settings_);
    write_patch_rows(inputs, images.to(device(), images.scalar_type(), /*non_blocking=*/true), settings_.patch_size,
                     images.scalar_type() == at::kByte ? image_net_scaling() : PixelScaling());
}

at::Tensor InferenceModel::embed_prepared(const at::Tensor& inputs) const {
    if (patch_linear_) {
        at::Tensor x = at::empty({inputs.size(0), 1 + settings_.patches(), settings_.embed_dim}, inputs.options());
        x.select(1, 0).copy_(first_row_);
        patch_linear_->write_sum(x.slice(1, 1), inputs, pos_embed_.slice(1, 1));
        return x;
    }
    const at::Tensor patches =
        at::conv2d(inputs, patch_weight_, patch_bias_, settings_.patch_size).flatten(2).transpose(1, 2);
    return at::cat({cls_token_.expand({inputs.size(0), -1, -1}), patches}, 1).add_(pos_embed_);
}

at::Tensor InferenceModel::embed(const at::Tensor& images) const {
    return embed_prepared(prepare(images));
}

at::Tensor InferenceModel::after_norm(const InferenceLinear& linear, const Norm& norm, const at::Tensor& x) {
    return linear.takes_scaled_rows() ? linear(norm.quantized(x)) : linear(norm(x));
}

at::Tensor InferenceModel::finish(const Block& block, const at::Tensor& x, const at::Tensor& attended) const {
    const at::Tensor y = block.proj.add(attended, x);
    if (block.fc2.takes_scaled_rows()) {  // GELU is done as its input is rounded
        return block.fc2.add(quantize_rows(after_norm(block.fc1, block.norm2, y), /*gelu=*/true), y);
    }
    return block.fc2.add(block.fc1.gelu(block.norm2(y)), y);
}

at::Tensor InferenceModel::run_block(std::int64_t index, const at::Tensor& x) const {
    const Block& block = blocks_[static_cast<std::size_t>(index)];
    return finish(block, x, self_attention(qkv_of(block, x), settings_.num_heads));
}

at::Tensor InferenceModel::run_block(std::int64_t index, const at::Tensor& x, const PackedLayout& layout) const {
    const Block& block = blocks_[static_cast<std::size_t>(index)];
    return finish(block, x, self_attention(qkv_of(block, x), settings_.num_heads, layout));
}

at::Tensor InferenceModel::run_last_block(const at::Tensor& x) const {
    const at::Tensor attended = self_attention(qkv_of(blocks_.back(), x), settings_.num_heads);
    return finish(blocks_.back(), x.select(1, 0), attended.select(1, 0));
}

at::Tensor InferenceModel::run_last_block(const at::Tensor& x, const PackedLayout& layout) const {
    const at::Tensor attended = self_attention(qkv_of(blocks_.back(), x), settings_.num_heads, layout);
    const at::Tensor firsts = layout.offsets().slice(0, 0, -1);
    return finish(blocks_.back(), x.index_select(0, firsts), attended.index_select(0, firsts));
}

std::unique_ptr<OneImageBlocks> InferenceModel::one_image_blocks() const {
    const OneImageBlocks::Sizes sizes{settings_.embed_dim, settings_.num_heads, settings_.hidden_dim()};
    if (predictors_.size() > OneImageBlocks::kMostStages ||
        !OneImageBlocks::supports(device(), precision_, sizes, 1 + settings_.patches())) {
        return nullptr;
    }
    std::vector<OneImageBlocks::Block> blocks;
    for (const Block& block : blocks_) {
        if (!(block.qkv.fused() && block.proj.fused() && block.fc1.fused() && block.fc2.fused())) return nullptr;
        blocks.push_back({block.norm1.weight, block.norm1.bias, block.qkv.weight(), block.qkv.bias(),
                          block.proj.weight(), block.proj.bias(), block.norm2.weight, block.norm2.bias,
                          block.fc1.weight(), block.fc1.bias(), block.fc2.weight(), block.fc2.bias()});
    }
    std::vector<OneImageBlocks::Predictor> predictors;
    for (std::size_t s = 0; s < predictors_.size(); ++s) {
        const Predictor& predictor = predictors_[s];
        if (!predictor.in.fused()) return nullptr;
        OneImageBlocks::Predictor part{settings_.pruning_loc[s], predictor.norm.weight, predictor.norm.bias, {}};
        part.layers[0] = {predictor.in.weight(), predictor.in.bias()};
        const auto behind = predictor.head.layers();
        for (std::size_t i = 0; i < behind.size(); ++i) part.layers[i + 1] = {behind[i].weight, behind[i].bias};
        predictors.push_back(std::move(part));
    }
    return std::make_unique<OneImageBlocks>(blocks, predictors, precision_,
                                            OneImageBlocks::Epsilons{kNormEpsilon, kPredictorNormEpsilon});
}

at::Tensor InferenceModel::cls_attention(std::int64_t index, const at::Tensor& x) const {
    return cls_attention_of(qkv_of(blocks_[static_cast<std::size_t>(index)], x), settings_.num_heads)
        .slice(2, 1)
        .mean(1);
}

// @param x of one stage's tokens, with each group's [CLS]
at::Tensor InferenceModel::Predictor::operator()(const at::Tensor& x, const RowGroups& groups) const {
    return head(in.gelu(norm(x)), groups);
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& x) const {
    return predictors_[static_cast<std::size_t>(stage)](x, {1, nullptr}).slice(1, 1);
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& x,
                                                const PackedLayout& layout) const {
    return predictors_[static_cast<std::size_t>(stage)](x, {1, &layout});
}

InferenceModel::DenseOutput InferenceModel::forward(const at::Tensor& images,
                                                    const std::vector<std::int64_t>& stages) const {
    const torch::NoGradGuard no_grad;
    DenseOutput output;
    at::Tensor x = embed(images);
    for (std::int64_t i = 0; i < settings_.depth; ++i) {
        const Block& block = blocks_[static_cast<std::size_t>(i)];
        const at::Tensor qkv = qkv_of(block, x);
        if (output.saliency.size() < stages.size() && stages[output.saliency.size()] == i) {
            output.saliency.push_back(at::zeros({x.size(0), x.size(1) - 1}, x.options().dtype(at::kFloat)));
        }
        if (!output.saliency.empty()) {
            const at::Tensor intake = cls_intake(qkv, settings_.num_heads);
            for (at::Tensor& sum : output.saliency) sum = sum + intake;
        }
        x = finish(block, x, self_attention(qkv, settings_.num_heads));
    }
    for (std::size_t s = 0; s < output.saliency.size(); ++s) {
        output.saliency[s] = output.saliency[s] / static_cast<double>(settings_.depth - stages[s]);
    }
    x = (*norm_)(x);
    output.logits = (*head_)(x.select(1, 0)).to(at::kFloat);
    output.features = x.slice(1, 1);
    return output;
}

at::Tensor InferenceModel::classify(const at::Tensor& cls) const {
    return (*head_)((*norm_)(cls)).to(at::kFloat);
}

}  // namespace dynvit
