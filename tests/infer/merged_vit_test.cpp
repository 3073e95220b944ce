// Inference that merges tokens, against a loop over images and tokens.
#include <ATen/ATen.h>

#include "dynvit/infer/inference_session.hpp"
#include "dynvit/models/macs.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr double kThreshold = 0.3;

// The weights of the golden model, in one that merges.
DynamicVit merging_student(double threshold = kThreshold) {
    const DynamicVit student = test::tiny_student();
    ModelSettings settings = student->settings();
    settings.reduction = "merge";
    settings.merge_threshold = threshold;
    DynamicVit model(settings, test::generator());
    const torch::NoGradGuard no_grad;
    const auto from = student->named_parameters();
    for (const auto& item : model->named_parameters()) item.value().copy_(from[item.key()]);
    return model;
}

at::Tensor linear(const DynamicVit& model, const std::string& name, const at::Tensor& x) {
    const auto parameters = model->named_parameters();
    return at::linear(x, parameters[name + ".weight"], parameters[name + ".bias"]);
}

at::Tensor norm(const DynamicVit& model, const std::string& name, const at::Tensor& x) {
    const auto parameters = model->named_parameters();
    return at::layer_norm(x, {x.size(-1)}, parameters[name + ".weight"], parameters[name + ".bias"],
                          model->settings().norm_epsilon);
}

// A block on one image's tokens, (n, C), of which each counts `sizes` times as a key.
at::Tensor run_block(const DynamicVit& model, std::int64_t index, const at::Tensor& x,
                     const std::vector<double>& sizes) {
    const std::string name = "blocks." + std::to_string(index) + '.';
    const std::int64_t heads = model->settings().num_heads, n = x.size(0), d = x.size(1) / heads;
    const at::Tensor qkv =
        linear(model, name + "attn.qkv", norm(model, name + "norm1", x)).view({n, 3, heads, d}).permute({1, 2, 0, 3});
    at::Tensor weights = (at::matmul(qkv[0], qkv[1].transpose(1, 2)) / std::sqrt(double(d))).exp();
    weights = weights * at::tensor(sizes, at::kFloat);
    weights = weights / weights.sum(-1, true);
    const at::Tensor attended = at::matmul(weights, qkv[2]).transpose(0, 1).reshape({n, heads * d});
    const at::Tensor y = x + linear(model, name + "attn.proj", attended);
    return y +
           linear(model, name + "mlp.fc2", at::gelu(linear(model, name + "mlp.fc1", norm(model, name + "norm2", y))));
}

// One image with [CLS], stage by stage and token by token. @return its logits
at::Tensor by_hand(DynamicVit model, const at::Tensor& image, const std::vector<std::int64_t>& counts) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& s = model->settings();
    at::Tensor x = model->backbone().embed(image.unsqueeze(0))[0];  // (1 + N, C)
    std::vector<double> sizes(static_cast<std::size_t>(x.size(0)), 1);
    std::size_t stage = 0;
    for (std::int64_t block = 0; block < s.depth; ++block) {
        if (stage < counts.size() && s.pruning_loc[stage] == block) {
            const at::Tensor patches = x.slice(0, 1);
            const at::Tensor scores =
                model->score_predictor(static_cast<std::int64_t>(stage))(patches.unsqueeze(0))[0].select(1, 0);
            const at::Tensor kept = std::get<0>(std::get<1>(scores.topk(counts[stage])).sort(0));
            const std::string name = "blocks." + std::to_string(block) + '.';
            const at::Tensor keys = linear(model, name + "attn.qkv", norm(model, name + "norm1", patches))
                                        .view({patches.size(0), 3, s.num_heads, -1})
                                        .select(1, 1)
                                        .mean(1);
            std::vector<at::Tensor> sums;
            std::vector<double> weight;
            for (std::int64_t j = 0; j < kept.size(0); ++j) {
                const auto place = kept[j].item<std::int64_t>();
                weight.push_back(sizes[static_cast<std::size_t>(place) + 1]);
                sums.push_back(patches[place] * weight.back());
            }
            for (std::int64_t i = 0; i < patches.size(0); ++i) {
                if ((kept == i).any().item<bool>()) continue;
                const at::Tensor cosines = at::cosine_similarity(keys[i].unsqueeze(0), keys.index_select(0, kept), 1);
                const auto slot = cosines.argmax().item<std::int64_t>();
                if (cosines[slot].item<double>() <= s.merge_threshold) continue;
                const double size = sizes[static_cast<std::size_t>(i) + 1];
                sums[static_cast<std::size_t>(slot)] = sums[static_cast<std::size_t>(slot)] + patches[i] * size;
                weight[static_cast<std::size_t>(slot)] += size;
            }
            std::vector<at::Tensor> rows = {x[0]};
            for (std::size_t j = 0; j < sums.size(); ++j) rows.push_back(sums[j] / weight[j]);
            x = at::stack(rows);
            sizes = {1};
            sizes.insert(sizes.end(), weight.begin(), weight.end());
            ++stage;
        }
        x = run_block(model, block, x, sizes);
    }
    return linear(model, "head", norm(model, "norm", x)[0]);
}

TEST(MergedForward, EqualsALoopOverImagesAndTokens) {
    const std::vector<std::int64_t> counts = {120, 50, 11};
    const at::Tensor images = at::randn({3, 3, 224, 224}, test::generator(11));
    for (const double threshold : {-1.0, kThreshold, 1.0}) {
        DynamicVit model = merging_student(threshold);
        const PrunedOutput output = test::prune(model, images, counts);
        for (std::int64_t b = 0; b < 3; ++b) {
            EXPECT_CLOSE(output.logits[b], by_hand(model, images[b], counts), 1e-4) << threshold;
        }
    }
}

TEST(MergedForward, AThresholdOfOneDeletes) {
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(12));
    const PrunedOutput merged = test::prune(merging_student(1.0), images, {120, 50, 11});
    const PrunedOutput deleted = test::prune(test::tiny_student(), images, {120, 50, 11});
    EXPECT_CLOSE(merged.logits, deleted.logits, 1e-5);
    EXPECT_TRUE(merged.kept[2].equal(deleted.kept[2]));
    const PrunedOutput other = test::prune(merging_student(-1.0), images, {120, 50, 11});
    EXPECT_GT((other.logits - deleted.logits).abs().max().item<double>(), 1e-3) << "merging changes something";
}

// What training runs is what inference runs.
TEST(MergedForward, TrainingMergesAsInferenceDoes) {
    DynamicVit model = merging_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(13));
    const std::vector<std::int64_t> counts = {120, 50, 11};
    const auto scores = [&](const StageInput& input) {
        return model->score_predictor(input.stage)(input.tokens).select(2, 0);
    };
    const auto metric = [&](const StageInput& input) { return model->backbone().mean_keys(input.block, input.tokens); };
    const PrunedTokens pruned = model->forward_pruned(images, reduce_tokens(model->settings(), scores, metric, counts));
    const at::Tensor logits = model->backbone().read_out({pruned.tokens}, pruned.sizes.slice(1, 1)).logits;
    EXPECT_CLOSE(logits, test::prune(model, images, counts).logits, 1e-4);
    logits.square().sum().backward();
    for (const auto& item : model->named_parameters()) {
        if (is_of_prediction_module(item.key())) continue;
        EXPECT_TRUE(item.value().grad().defined()) << item.key();
    }
}

TEST(MergedForward, OnTheGpuAsOnTheProcessor) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    DynamicVit model = merging_student();
    const at::Tensor images = at::randn({4, 3, 224, 224}, test::generator(14));
    const PruningPlan plan{.tokens = {120, 50, 11}};
    const at::Tensor expected = InferenceSession(*model, plan).run(images).logits;
    model->to(at::kCUDA);
    const InferenceSession session(*model, plan);
    for (int run = 0; run < 3; ++run) {  // as it is, recorded, replayed
        EXPECT_CLOSE(session.run(images.cuda()).logits.cpu(), expected, 1e-3);
    }
    const InferenceSession half(*model, plan, at::kBFloat16);
    EXPECT_CLOSE(half.run(images.cuda()).logits.cpu(), expected, 0.2);
}

TEST(MergedForward, CostsItsComparisonsAndMeans) {
    ModelSettings settings = model_settings("deit_small");
    const std::vector<std::int64_t> counts = {137, 96, 67};
    const std::int64_t deleting = count_macs(settings, counts);
    settings.reduction = "merge";
    std::int64_t expected = deleting, before = 196;
    for (const std::int64_t count : counts) {
        expected += before * 384 * 64 + before * count * (64 + 384);
        before = count;
    }
    EXPECT_EQ(count_macs(settings, counts), expected);
    EXPECT_EQ(count_macs(settings, {}), count_macs(model_settings("deit_small"), {})) << "dense";
}

TEST(MergedForward, WhatCannotMergeSaysSo) {
    DynamicVit model = merging_student();
    EXPECT_EQ(test::error_of([&] { InferenceSession(*model, plan_for_thresholds(model->settings(), {0.5})); }),
              "[policy] per_image: found model.reduction merge, expected delete");
}

}  // namespace
}  // namespace dynvit
