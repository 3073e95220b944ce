// How the parts of a Vision Transformer are wired, written once. Whatever runs the model, counts what it costs or
// writes it down for another program brings its operations, `Ops`, and hands them to these functions:
//
//     training        src/models/vision_transformer.cpp
//     inference       src/infer/inference_model.cpp
//     its cost        src/models/macs.cpp
//     TorchScript     src/export/torchscript.cpp
//     ONNX            src/export/onnx/onnx_vit.cpp
//
// A value is what the operations say it is: a tensor, a name in a file, a number of tokens.
#pragma once

#include "dynvit/models/vit_parts.hpp"

namespace dynvit {

/// What is run of a block at a time: all of it, or what stands before and behind a stage in it.
enum class BlockPiece { kWhole, kAttention, kMlp };

/// Meets blocks and stages in the order in which tokens do: `on_stage(stage, block)` where the settings place it at its
/// block, and `on_block(block, piece)`, all counted from 0. @param stages how many of the first stages there are
template <class OnStage, class OnBlock>
void walk_blocks(const ModelSettings& settings, std::int64_t stages, const OnStage& on_stage, const OnBlock& on_block) {
    std::int64_t stage = 0;
    for (std::int64_t block = 0; block < settings.depth; ++block) {
        const bool is_staged = stage < stages && settings.pruning_loc[static_cast<std::size_t>(stage)] == block;
        const bool inside = is_staged && settings.stages_in_blocks();
        if (inside) on_block(block, BlockPiece::kAttention);
        if (is_staged) on_stage(stage++, block);
        on_block(block, inside ? BlockPiece::kMlp : BlockPiece::kWhole);
    }
}

/// From pictures to tokens, prefix tokens first: Ops has patches(images, part), prepend(prefix tokens, x),
/// plus(x, a parameter's name) and norm(x, part).
template <class Ops, class Images>
auto embed(Ops&& ops, const StemPart& stem, const Images& images) {
    auto x = ops.patches(images, stem);
    const bool adds = !stem.positions.empty();
    if (adds && !stem.prefix_positions) x = ops.plus(x, stem.positions);
    if (!stem.prefix.empty()) x = ops.prepend(stem.prefix, x);
    if (adds && stem.prefix_positions) x = ops.plus(x, stem.positions);
    if (stem.norm) x = ops.norm(x, *stem.norm);
    return x;
}

/// Queries, keys and values of a block, (..., 3 C), as its attention takes them. Ops has norm_heads(qkv, part) and
/// rotate(qkv, part), which norm and turn each head's queries and keys, beside norm and linear.
template <class Ops, class Stream>
auto project_heads(Ops&& ops, const BlockPart& block, Stream& x) {
    auto qkv = ops.linear(ops.norm(x, block.norm1), block.attention.qkv);
    if (block.attention.q_norm) qkv = ops.norm_heads(qkv, block.attention);
    if (block.attention.rotary) qkv = ops.rotate(qkv, block.attention);
    return qkv;
}

/// x + attention(norm(x)), then x + mlp(norm(x)). A stream is tokens that branches are added to; Ops may put an
/// addition off until the norm that reads its sum.
///     norm(stream, part)               the normed tokens
///     norm_rows(x, part)               normed rows that are no stream's
///     linear(x, part)                  a linear layer
///     attention(qkv, part)             among the tokens, without the projection
///     add_linear(stream, x, part)      adds the layer's outputs of x
///     add_mlp(stream, normed, part)    adds the MLP's
template <class Ops, class Stream>
void run_block(Ops&& ops, const BlockPart& block, Stream& x, BlockPiece piece = BlockPiece::kWhole) {
    if (piece != BlockPiece::kMlp) {
        const AttentionPart& attention = block.attention;
        const auto attended = ops.attention(project_heads(ops, block, x), attention);
        ops.add_linear(x, attention.norm ? ops.norm_rows(attended, *attention.norm) : attended, attention.proj);
    }
    if (piece != BlockPiece::kAttention) ops.add_mlp(x, ops.norm(x, block.norm2), block.mlp);
}

/// The head's outputs, or what it would read.
template <class Ops, class Embedding>
auto apply_head(Ops&& ops, const VitParts& parts, const Embedding& embedding)
    -> decltype(ops.linear(embedding, parts.heads.front())) {
    if (parts.heads.empty()) return embedding;
    return ops.linear(embedding, parts.heads.front());
}

/// Attention pooling of normed tokens: (B, n, C) -> (B, C). Ops has latent(a parameter's name), a row of C for all
/// images, pool(query, kv, part), the tokens' values as the query takes them in, activate(x, activation) and sum(x, y),
/// beside norm and linear.
template <class Ops, class Normed>
auto attention_pool(Ops&& ops, const PoolPart& part, const Normed& normed) {
    const auto query = ops.linear(ops.latent(part.latent), part.q);
    const auto x = ops.linear(ops.pool(query, ops.linear(normed, part.kv), part), part.proj);
    const auto h = ops.activate(ops.linear(ops.norm(x, part.norm), part.mlp.fc1), part.mlp.activation);
    return ops.sum(x, ops.linear(h, part.mlp.fc2));
}

/// From normed tokens, or those of a model without a final norm, to the logits: Ops has prefix_token(x, index) and
/// patch_mean(x), each (B, C) of what is (B, n, C), beside(x, y), which joins their channels, and mean_of(x, y), beside
/// what attention_pool uses.
template <class Ops, class Normed>
auto classify_normed(Ops&& ops, const ModelSettings& settings, const VitParts& parts, const Normed& normed) {
    if (settings.pooling == "mean") return apply_head(ops, parts, ops.patch_mean(normed));
    if (settings.pooling == "map") return apply_head(ops, parts, attention_pool(ops, *parts.pool, normed));
    const auto cls = ops.prefix_token(normed, 0);
    if (settings.pooling == "token_mean") return apply_head(ops, parts, ops.beside(cls, ops.patch_mean(normed)));
    if (!settings.distillation_token) return apply_head(ops, parts, cls);
    return ops.mean_of(ops.linear(cls, parts.heads[0]), ops.linear(ops.prefix_token(normed, 1), parts.heads[1]));
}

/// From the tokens behind the last block to the logits.
template <class Ops, class Tokens>
auto classify(Ops&& ops, const ModelSettings& settings, const VitParts& parts, Tokens& x) {
    if (!parts.norm) return classify_normed(ops, settings, parts, x);
    if (settings.norm_after_pooling) {
        auto mean = ops.patch_mean(x);
        return apply_head(ops, parts, ops.norm(mean, *parts.norm));
    }
    if (settings.reads_class_token_alone()) {
        auto cls = ops.prefix_token(x, 0);
        return apply_head(ops, parts, ops.norm(cls, *parts.norm));
    }
    return classify_normed(ops, settings, parts, ops.norm(x, *parts.norm));
}

/// A prediction module for a model that removes tokens: the patch tokens' log pi_keep. Ops has gelu(x), share_mean(x)
/// (each token's first half beside the mean of the second half over the tokens) and log_keep(x) (the first of two
/// log-softmax values), beside norm and linear.
template <class Ops, class Patches>
auto predict(Ops&& ops, const PredictionPart& part, Patches& x) {
    auto h = ops.gelu(ops.linear(ops.norm(x, part.norm), part.in));
    h = ops.gelu(ops.linear(ops.share_mean(h), part.out[0]));
    h = ops.gelu(ops.linear(h, part.out[1]));
    return ops.log_keep(ops.linear(h, part.out[2]));
}

}  // namespace dynvit
