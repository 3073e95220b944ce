#include "dynvit/infer/inference_model.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/data/data_settings.hpp"
#include "dynvit/models/rotary_positions.hpp"
#include "dynvit/models/vit_forward.hpp"
#include "dynvit/ops/attention_heads.hpp"
#include "dynvit/ops/gpu_kernels.hpp"
#include "dynvit/ops/normed_mlp.hpp"
#include "dynvit/ops/patch_rows.hpp"
#include "dynvit/ops/prediction_head.hpp"
#include "dynvit/ops/residual_norm.hpp"
#include "dynvit/ops/self_attention.hpp"
#include "dynvit/ops/token_merge.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {
namespace {

PixelScaling scaling_of(const Preprocessing& preprocessing) {
    PixelScaling scaling;
    for (std::size_t c = 0; c < 3; ++c) {
        const auto mean = static_cast<float>(preprocessing.mean[c]), std = static_cast<float>(preprocessing.std[c]);
        scaling.scale[c] = 1 / (255 * std);
        scaling.shift[c] = -mean / std;
    }
    return scaling;
}

// What each head's first `looking` tokens attend to, their mean: (B, n, 3 C) -> (B, h, n), float32. @param sizes (B,
// n), or undefined
at::Tensor attention_of_first(const at::Tensor& qkv, std::int64_t heads, std::int64_t looking,
                              const at::Tensor& sizes = {}) {
    const std::int64_t head_dim = qkv.size(2) / (3 * heads);
    const at::Tensor parts = qkv.view({qkv.size(0), qkv.size(1), 3, heads, head_dim}).permute({2, 0, 3, 1, 4});
    const at::Tensor queries = parts[0].slice(2, 0, looking) / std::sqrt(static_cast<double>(head_dim));
    at::Tensor logits = at::matmul(queries, parts[1].transpose(-2, -1));  // (B, h, looking, n)
    if (sizes.defined()) logits = logits + sizes.log().unsqueeze(1).unsqueeze(1);
    return at::softmax(logits, -1, at::kFloat).mean(2);
}

// What [CLS] takes in of each patch token or, where the head does not read [CLS], all tokens do:
// (B, prefix + n, 3 C) -> (B, n), float32.
at::Tensor intake_of(const at::Tensor& qkv, std::int64_t heads, const ModelSettings& settings) {
    const at::Tensor attention = attention_of_first(qkv, heads, settings.pooling == "token" ? 1 : qkv.size(1));
    const at::Tensor values = qkv.view({qkv.size(0), qkv.size(1), 3, heads, -1}).select(2, 2);  // (B, n, h, d)
    const at::Tensor norms = at::linalg_vector_norm(values, 2, at::IntArrayRef{-1}, false, at::kFloat).transpose(1, 2);
    return (attention * norms).slice(2, settings.prefix_tokens()).mean(1);
}

// Throws where the device does not multiply 8 bits that way.
void check_precision(at::ScalarType precision, const at::Device& device) {
    if (precision == at::kQInt8 && !(device.is_cpu() && fast_on_cpu(precision))) {
        throw Error("precision", "int8 runs on processors with VNNI instructions only; take bfloat16 or float32 here");
    }
    if (precision != at::kFloat8_e4m3fn) return;
    if (const std::string reason = why_no_float8(device); !reason.empty()) {
        throw Error("precision", "float8 runs on GPUs of compute capability 9.0 only: ", reason,
                    "; take bfloat16 or float32 here");
    }
}

// Whether the kernel of one image's blocks knows every part of the model's: it has a DeiT-S's, at any depth, picture
// size and stages, with any tokens before the patches, and the head reads those alone. Whatever else a description may
// come to say makes it another model.
bool is_known_to_one_image_kernel(ModelSettings settings) {
    const ModelSettings known = model_settings("deit_small");
    settings.name = known.name;
    settings.image_size = known.image_size;
    settings.patch_size = known.patch_size;
    settings.num_classes = known.num_classes;
    settings.depth = known.depth;
    settings.drop_path = known.drop_path;
    settings.pruning_loc = known.pruning_loc;
    settings.norm_epsilon = known.norm_epsilon;
    settings.qkv_bias = known.qkv_bias;
    settings.position_resampling = known.position_resampling;
    settings.layer_scale = known.layer_scale;  // it is part of the layers
    settings.registers = known.registers;
    settings.distillation_token = known.distillation_token;
    settings.prefix_positions = known.prefix_positions;
    settings.patch_bias = known.patch_bias;
    settings.norm_before_blocks = known.norm_before_blocks;
    settings.head_bias = known.head_bias;
    return settings == known;
}

}  // namespace

// Reads weights by name.
class InferenceModel::Weights {
  public:
    Weights(const DynamicVitImpl& model, at::ScalarType precision)
        : tensors_(state_dict(model)), precision_(precision) {}

    at::Tensor tensor(const std::string& name) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) return {};
        return found->second.to(storage(), /*non_blocking=*/false, /*copy=*/true).contiguous();
    }
    // A block's.
    InferenceLinear linear(const LinearPart& part) const { return linear(part, precision_); }
    // One whose rounding would show more than its time does: never of 8 bits.
    InferenceLinear fine_linear(const LinearPart& part) const { return linear(part, storage()); }
    // From a block's normed tokens to what a stage compares: the keys' mean over the heads, which is a linear layer as
    // the keys are; where the keys are normed first, the keys.
    InferenceLinear compared_keys(const AttentionPart& part) const {
        const at::Tensor weight = tensors_.at(part.qkv.name + ".weight"),
                         bias = part.qkv.bias ? tensors_.at(part.qkv.name + ".bias") : at::Tensor();
        if (part.k_norm) return {weight.chunk(3)[1], bias.defined() ? bias.chunk(3)[1] : bias, storage()};
        const auto [mean_weight, mean_bias] = mean_key_layer(weight, bias, part.heads);
        return {mean_weight, mean_bias, storage()};
    }
    // A block's second half as one kernel, if there is one for it.
    std::optional<NormedMlp> normed_mlp(const BlockPart& block) const {
        const MlpPart& mlp = block.mlp;
        const bool gelu = mlp.activation == Activation::kGelu || mlp.activation == Activation::kGeluTanh;
        const at::Tensor& weight = tensors_.at(mlp.fc1.name + ".weight");
        if (!gelu || mlp.norm || !NormedMlp::supports(weight.device(), precision_, weight.size(1), weight.size(0))) {
            return {};
        }
        const auto fc1 = layer(mlp.fc1), fc2 = layer(mlp.fc2);
        const std::string& norm = block.norm2.name;
        return NormedMlp({tensors_.at(norm + ".weight"), tensors_.at(norm + ".bias"), block.norm2.epsilon, fc1.weight,
                          fc1.bias, fc2.weight, fc2.bias},
                         precision_);
    }
    PredictionHead prediction_head(const std::array<LinearPart, 3>& layers) const {
        const auto own = [&](const LinearPart& part) {
            return PredictionHead::Layer{tensors_.at(part.name + ".weight"), tensors_.at(part.name + ".bias")};
        };
        return {{own(layers[0]), own(layers[1]), own(layers[2])}, storage()};
    }

  private:
    struct Layer {
        at::Tensor weight, bias;
    };
    // LayerScale becomes part of the layer.
    Layer layer(const LinearPart& part) const {
        Layer layer{tensors_.at(part.name + ".weight"), {}};
        if (part.bias) layer.bias = tensors_.at(part.name + ".bias");
        if (!part.gamma.empty()) {
            const at::Tensor& gamma = tensors_.at(part.gamma);
            layer.weight = layer.weight * gamma.unsqueeze(1);
            if (layer.bias.defined()) layer.bias = layer.bias * gamma;
        }
        return layer;
    }
    InferenceLinear linear(const LinearPart& part, at::ScalarType precision) const {
        const auto [weight, bias] = layer(part);
        return {weight, bias, precision};
    }
    at::ScalarType storage() const { return activation_type(precision_); }

    TensorMap tensors_;
    at::ScalarType precision_;
};

InferenceModel::InferenceModel(const DynamicVitImpl& model, at::ScalarType precision, Preprocessing preprocessing)
    : settings_(model.settings()),
      parts_(vit_parts(settings_)),
      precision_(precision),
      preprocessing_(std::move(preprocessing)) {
    const torch::NoGradGuard no_grad;
    check_precision(precision, model.parameters().front().device());
    const Weights weights(model, precision);
    lay_out_stem(weights);
    lay_out_blocks(weights);
    lay_out_stages(weights);
    lay_out_reading(weights);
    rotary_table_ = dynvit::rotary_table(settings_);
    if (rotary_table_.defined()) rotary_table_ = rotary_table_.to(device());
    rotation_of_all_ = dynvit::rotation_of_all(rotary_table_, settings_.prefix_tokens());
}

void InferenceModel::add_norm(const Weights& weights, const NormPart& part) {
    norms_.emplace(part.name,
                   Norm{weights.tensor(part.name + ".weight"), weights.tensor(part.name + ".bias"), part.epsilon});
}

// The prefix tokens with their positions, the patches' positions, and the patches' layer.
void InferenceModel::lay_out_stem(const Weights& weights) {
    const StemPart& stem = parts_.stem;
    const at::Tensor patch_weight = weights.tensor(stem.patches.name + ".weight"),
                     patch_bias = weights.tensor(stem.patches.name + ".bias");
    const std::int64_t with_place = stem.prefix_positions ? settings_.prefix_tokens() : 0;
    at::Tensor positions = weights.tensor(stem.positions);
    if (!positions.defined()) {
        positions = at::zeros({1, stem.position_count, settings_.embed_dim}, patch_weight.options());
    }
    patch_positions_ = positions.slice(1, with_place);
    std::vector<at::Tensor> prefix;
    for (const PrefixPart& part : stem.prefix) prefix.push_back(weights.tensor(part.name));
    prefix_rows_ = prefix.empty() ? positions.slice(1, 0, 0) : at::cat(prefix, 1);
    if (stem.prefix_positions) prefix_rows_ = prefix_rows_ + positions.slice(1, 0, with_place);
    const at::Tensor columns = patch_weight.flatten(1);
    const at::Tensor padded = at::constant_pad_nd(columns, {0, patch_row_width(stem.patch_size) - columns.size(1)});
    if (InferenceLinear::fuses(padded, padded.scalar_type())) {
        patch_linear_.emplace(padded, patch_bias, padded.scalar_type());
    } else {
        patch_weight_ = patch_weight;
        patch_bias_ = patch_bias;
    }
    if (stem.norm) add_norm(weights, *stem.norm);
}

void InferenceModel::lay_out_blocks(const Weights& weights) {
    for (const BlockPart& block : parts_.blocks) {
        add_norm(weights, block.norm1);
        add_norm(weights, block.norm2);
        const AttentionPart& attention = block.attention;
        for (const LinearPart& part : {attention.qkv, attention.proj, block.mlp.fc1, block.mlp.fc2}) {
            linears_.emplace(part.name, weights.linear(part));
        }
        if (std::optional<NormedMlp> whole = weights.normed_mlp(block)) {
            normed_mlps_.emplace(block.mlp.fc1.name, std::move(*whole));
        }
        for (const std::optional<NormPart>& part :
             {attention.q_norm, attention.k_norm, attention.norm, block.mlp.norm}) {
            if (part) add_norm(weights, *part);
        }
    }
}

// What stages choose tokens by, and what they compare.
void InferenceModel::lay_out_stages(const Weights& weights) {
    for (const PredictionPart& predictor : parts_.predictors) {
        add_norm(weights, predictor.norm);
        linears_.emplace(predictor.in.name, weights.fine_linear(predictor.in));
        prediction_heads_.push_back(weights.prediction_head(predictor.out));
    }
    for (std::size_t s = 0; settings_.averages() && s < settings_.pruning_loc.size(); ++s) {
        const auto block = static_cast<std::size_t>(settings_.pruning_loc[s]);
        compared_keys_.push_back(weights.compared_keys(parts_.blocks[block].attention));
    }
}

// What follows the last block.
void InferenceModel::lay_out_reading(const Weights& weights) {
    if (parts_.norm) add_norm(weights, *parts_.norm);
    if (parts_.pool) {
        const PoolPart& pool = *parts_.pool;
        add_norm(weights, pool.norm);
        for (const LinearPart& part : {pool.q, pool.kv, pool.proj, pool.mlp.fc1, pool.mlp.fc2}) {
            linears_.emplace(part.name, weights.fine_linear(part));
        }
        latent_ = weights.tensor(pool.latent).select(1, 0);
    }
    for (const LinearPart& head : parts_.heads) linears_.emplace(head.name, weights.fine_linear(head));
}

// Operations without gradients, with what follows a product done inside it. @see vit_forward.hpp
struct InferenceModel::Ops {
    const InferenceModel& model;
    const PackedLayout* layout = nullptr;  // of packed sequences (T, C); null: (B, n, C)
    AttentionContext context = {};

    // A norm is put off until the layer behind it says in which type it reads the result.
    struct Normed {
        at::Tensor x;
        const Norm& norm;
        operator at::Tensor() const { return norm(x); }  // NOLINT: where a tensor is read, it is computed
    };

    Normed norm(const at::Tensor& x, const NormPart& part) const { return {x, model.norm(part)}; }
    at::Tensor linear(const Normed& normed, const LinearPart& part) const {
        const InferenceLinear& layer = model.linear(part);
        return layer.takes_scaled_rows() ? layer(normed.norm.quantized(normed.x)) : layer(at::Tensor(normed));
    }
    at::Tensor linear(const at::Tensor& x, const LinearPart& part) const { return model.linear(part)(x); }
    at::Tensor attention(const at::Tensor& qkv, const AttentionPart& part) const {
        return layout ? sized_self_attention(qkv, part.heads, *layout, context.sizes)
                      : sized_self_attention(qkv, part.heads, context.sizes);
    }
    void add_linear(at::Tensor& x, const at::Tensor& h, const LinearPart& part) const {
        x = model.linear(part).add(h, x);
    }
    void add_mlp(at::Tensor& x, const Normed& normed, const MlpPart& part) const {
        if (const NormedMlp* whole = model.normed_mlp(part); whole && whole->pays(x.numel() / x.size(-1))) {
            x = (*whole)(x);
            return;
        }
        const InferenceLinear &fc1 = model.linear(part.fc1), &fc2 = model.linear(part.fc2);
        const bool exact = part.activation == Activation::kGelu, tanh = part.activation == Activation::kGeluTanh;
        if ((exact || tanh) && !part.norm && fc2.takes_scaled_rows()) {  // GELU is done as its input is rounded
            x = fc2.add(quantize_rows(linear(normed, part.fc1), /*gelu=*/true), x);
            return;
        }
        const bool inside = exact || (tanh && fc1.fused());  // the product computes it
        at::Tensor h = inside ? fc1.gelu(normed) : activate(linear(normed, part.fc1), part.activation);
        if (part.norm) h = norm_rows(h, *part.norm);
        x = fc2.takes_scaled_rows() ? fc2.add(quantize_rows(h), x) : fc2.add(h, x);
    }
    at::Tensor norm_heads(const at::Tensor& qkv, const AttentionPart& part) const {
        return norm_queries_keys(qkv, model.head_norm(*part.q_norm), model.head_norm(*part.k_norm));
    }
    at::Tensor rotate(const at::Tensor& qkv, const AttentionPart& part) const {
        return rotate_queries_keys(qkv, context.rotation, *part.rotary);
    }
    at::Tensor norm_rows(const at::Tensor& x, const NormPart& part) const { return model.norm(part)(x); }
    at::Tensor prefix_token(const at::Tensor& x, std::int64_t index) const {
        return layout ? x.index_select(0, layout->offsets().slice(0, 0, -1) + index) : x.select(1, index);
    }
    at::Tensor patch_mean(const at::Tensor& x) const {
        const std::int64_t prefix = model.settings().prefix_tokens();
        const at::Tensor& sizes = context.sizes;
        if (layout) {
            if (!sizes.defined()) return packed_mean(x, *layout, prefix).to(x.scalar_type());
            const at::Tensor counted = sizes.unsqueeze(1);  // (T, 1)
            const at::Tensor sums = packed_mean(x * counted, *layout, prefix),
                             count = packed_mean(counted, *layout, prefix);
            return (sums / count.clamp_min(1)).to(x.scalar_type());  // a token stands for one patch at least
        }
        return counted_mean(x.slice(1, prefix), sizes.defined() ? sizes.slice(1, prefix) : sizes).to(x.scalar_type());
    }
    at::Tensor beside(const at::Tensor& x, const at::Tensor& y) const { return at::cat({x, y}, -1); }
    at::Tensor mean_of(const at::Tensor& x, const at::Tensor& y) const { return (x + y) / 2; }
    at::Tensor sum(const at::Tensor& x, const at::Tensor& y) const { return x + y; }
    at::Tensor activate(const at::Tensor& x, Activation activation) const { return dynvit::activate(x, activation); }
    at::Tensor latent(const std::string&) const { return model.latent_; }
    at::Tensor pool(const at::Tensor& query, const at::Tensor& kv, const PoolPart& part) const {
        if (!layout) return pooled_attention(query, kv, part.heads, context.sizes);
        return packed_pooled_attention(query, kv, part.heads, *layout, context.sizes);
    }
};

// Notes what is taken in of each token.
struct InferenceModel::SaliencyOps : Ops {
    std::vector<at::Tensor>& sums;  // (B, n) each

    at::Tensor attention(const at::Tensor& qkv, const AttentionPart& part) const {
        if (!sums.empty()) {
            const at::Tensor intake = intake_of(qkv, part.heads, model.settings());
            for (at::Tensor& sum : sums) sum = sum + intake;
        }
        return Ops::attention(qkv, part);
    }
};

// Behind the last attention only [CLS] goes on: (B, n, C) or (T, C) -> (B, C).
struct InferenceModel::LastBlockOps : Ops {
    at::Tensor attention(const at::Tensor& qkv, const AttentionPart& part) const {
        return Ops::prefix_token(Ops::attention(qkv, part), 0);
    }
    void add_linear(at::Tensor& x, const at::Tensor& h, const LinearPart& part) const {
        x = model.linear(part).add(h, Ops::prefix_token(x, 0));
    }
    at::Tensor prefix_token(const at::Tensor& x, std::int64_t) const { return x; }
};

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
        return (bytes ? normalize_images(images, device(), preprocessing_) : images).to(patch_positions_.options());
    }
    const std::int64_t size = settings_.patch_size;
    const at::Tensor inputs =
        at::empty({images.size(0), settings_.patches(), patch_row_width(size)}, patch_positions_.options());
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
                     images.scalar_type() == at::kByte ? scaling_of(preprocessing_) : PixelScaling());
}

at::Tensor InferenceModel::embed_prepared(const at::Tensor& inputs) const {
    const std::int64_t batch = inputs.size(0), prefix = settings_.prefix_tokens();
    if (patch_linear_) {
        at::Tensor x = at::empty({batch, prefix + settings_.patches(), settings_.embed_dim}, inputs.options());
        x.slice(1, 0, prefix).copy_(prefix_rows_);
        patch_linear_->write_sum(x.slice(1, prefix), inputs, patch_positions_);
        return norm_before_blocks(x);
    }
    const at::Tensor patches =
        at::conv2d(inputs, patch_weight_, patch_bias_, settings_.patch_size).flatten(2).transpose(1, 2);
    return norm_before_blocks(at::cat({prefix_rows_.expand({batch, -1, -1}), patches + patch_positions_}, 1));
}

at::Tensor InferenceModel::norm_before_blocks(const at::Tensor& x) const {
    return parts_.stem.norm ? norm(*parts_.stem.norm)(x) : x;
}

at::Tensor InferenceModel::embed(const at::Tensor& images) const {
    return embed_prepared(prepare(images));
}

at::Tensor InferenceModel::run_block(std::int64_t index, const at::Tensor& x, const AttentionContext& context,
                                     BlockPiece piece) const {
    return run_block(Ops{*this, nullptr, context}, index, x, piece);
}

at::Tensor InferenceModel::run_block(std::int64_t index, const at::Tensor& x, const PackedLayout& layout,
                                     const AttentionContext& context, BlockPiece piece) const {
    return run_block(Ops{*this, &layout, context}, index, x, piece);
}

at::Tensor InferenceModel::run_block(const Ops& ops, std::int64_t index, const at::Tensor& x, BlockPiece piece) const {
    at::Tensor stream = x;
    dynvit::run_block(ops, parts_.blocks[static_cast<std::size_t>(index)], stream, piece);
    return stream;
}

at::Tensor InferenceModel::logits(const at::Tensor& x, const at::Tensor& sizes) const {
    return classify(Ops{*this, nullptr, {.sizes = sizes}}, settings_, parts_, x).to(at::kFloat);
}

at::Tensor InferenceModel::logits(const at::Tensor& x, const PackedLayout& layout, const at::Tensor& sizes) const {
    return classify(Ops{*this, &layout, {.sizes = sizes}}, settings_, parts_, x).to(at::kFloat);
}

at::Tensor InferenceModel::last_block_logits(const at::Tensor& x, const AttentionContext& context) const {
    return last_block_logits(Ops{*this, nullptr, context}, x);
}

at::Tensor InferenceModel::last_block_logits(const at::Tensor& x, const PackedLayout& layout,
                                             const AttentionContext& context) const {
    return last_block_logits(Ops{*this, &layout, context}, x);
}

at::Tensor InferenceModel::last_block_logits(const Ops& all, const at::Tensor& x) const {
    at::Tensor stream = x;
    const auto run = [&](const auto& ops) {
        dynvit::run_block(ops, parts_.blocks.back(), stream);
        return classify(ops, settings_, parts_, stream).to(at::kFloat);
    };
    return settings_.reads_class_token_alone() ? run(LastBlockOps{all}) : run(all);
}

std::unique_ptr<OneImageBlocks> InferenceModel::one_image_blocks() const {
    if (!is_known_to_one_image_kernel(settings_)) return nullptr;
    const OneImageBlocks::Sizes sizes{settings_.embed_dim, settings_.num_heads, settings_.hidden_dim()};
    if (parts_.predictors.size() > OneImageBlocks::kMostStages ||
        !OneImageBlocks::supports(device(), precision_, sizes, settings_.prefix_tokens() + settings_.patches())) {
        return nullptr;
    }
    std::vector<OneImageBlocks::Block> blocks;
    for (const BlockPart& part : parts_.blocks) {
        const Norm &norm1 = norm(part.norm1), &norm2 = norm(part.norm2);
        const InferenceLinear &qkv = linear(part.attention.qkv), &proj = linear(part.attention.proj),
                              &fc1 = linear(part.mlp.fc1), &fc2 = linear(part.mlp.fc2);
        if (!(qkv.fused() && proj.fused() && fc1.fused() && fc2.fused())) return nullptr;
        blocks.push_back({norm1.weight, norm1.bias, qkv.weight(), qkv.bias(), proj.weight(), proj.bias(), norm2.weight,
                          norm2.bias, fc1.weight(), fc1.bias(), fc2.weight(), fc2.bias()});
    }
    std::vector<OneImageBlocks::Predictor> predictors;
    for (std::size_t s = 0; s < parts_.predictors.size(); ++s) {
        const Norm& before = norm(parts_.predictors[s].norm);
        const InferenceLinear& in = linear(parts_.predictors[s].in);
        if (!in.fused()) return nullptr;
        OneImageBlocks::Predictor made{settings_.pruning_loc[s], before.weight, before.bias, {}};
        made.layers[0] = {in.weight(), in.bias()};
        const auto behind = prediction_heads_[s].layers();
        for (std::size_t i = 0; i < behind.size(); ++i) made.layers[i + 1] = {behind[i].weight, behind[i].bias};
        predictors.push_back(std::move(made));
    }
    const double predictor_epsilon = prediction_part("", settings_.embed_dim).norm.epsilon;
    return std::make_unique<OneImageBlocks>(blocks, predictors, precision_,
                                            OneImageBlocks::Epsilons{settings_.norm_epsilon, predictor_epsilon},
                                            settings_.prefix_tokens());
}

at::Tensor InferenceModel::cls_attention(std::int64_t index, const at::Tensor& x,
                                         const AttentionContext& context) const {
    TORCH_CHECK(settings_.class_token, "the model has no class token");
    const BlockPart& block = parts_.blocks[static_cast<std::size_t>(index)];
    const Ops ops{*this, nullptr, context};
    const at::Tensor qkv = project_heads(ops, block, x);
    return attention_of_first(qkv, block.attention.heads, 1, context.sizes).slice(2, settings_.prefix_tokens()).mean(1);
}

at::Tensor InferenceModel::mean_keys(std::int64_t stage, const at::Tensor& x) const {
    const auto index = static_cast<std::size_t>(stage);
    TORCH_CHECK(index < compared_keys_.size(), "the model merges no tokens at stage ", stage);
    const BlockPart& block = parts_.blocks[static_cast<std::size_t>(settings_.pruning_loc[index])];
    const at::Tensor keys = compared_keys_[index](norm(block.norm1)(x));
    return block.attention.k_norm ? mean_normed_keys(keys, head_norm(*block.attention.k_norm)) : keys;
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& x,
                                                const RowGroups& groups) const {
    const auto index = static_cast<std::size_t>(stage);
    const PredictionPart& part = parts_.predictors[index];
    return prediction_heads_[index](linear(part.in).gelu(norm(part.norm)(x)), groups);
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& x) const {
    const std::int64_t prefix = settings_.prefix_tokens();
    return keep_log_probability(stage, x, RowGroups{prefix, nullptr}).slice(1, prefix);
}

at::Tensor InferenceModel::keep_log_probability(std::int64_t stage, const at::Tensor& x,
                                                const PackedLayout& layout) const {
    return keep_log_probability(stage, x, RowGroups{settings_.prefix_tokens(), &layout});
}

InferenceModel::DenseOutput InferenceModel::forward(const at::Tensor& images,
                                                    const std::vector<std::int64_t>& stages) const {
    const torch::NoGradGuard no_grad;
    DenseOutput output;
    const SaliencyOps ops{{*this, nullptr, context_of_all()}, output.saliency};
    const std::int64_t prefix = settings_.prefix_tokens();
    at::Tensor x = embed(images);
    for (std::size_t i = 0; i < parts_.blocks.size(); ++i) {
        const std::size_t next = output.saliency.size();
        if (next < stages.size() && stages[next] == static_cast<std::int64_t>(i)) {
            output.saliency.push_back(at::zeros({x.size(0), x.size(1) - prefix}, x.options().dtype(at::kFloat)));
        }
        dynvit::run_block(ops, parts_.blocks[i], x);
    }
    for (std::size_t s = 0; s < output.saliency.size(); ++s) {
        output.saliency[s] = output.saliency[s] / static_cast<double>(settings_.depth - stages[s]);
    }
    output.logits = logits(x);
    output.features = (parts_.norm ? norm(*parts_.norm)(x) : x).slice(1, prefix);
    return output;
}

}  // namespace dynvit
