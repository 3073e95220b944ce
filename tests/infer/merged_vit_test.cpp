// Inference that merges tokens, against a loop over images and tokens.
#include <ATen/ATen.h>

#include <map>

#include "dynvit/infer/inference_session.hpp"
#include "dynvit/models/macs.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr double kThreshold = 0.3;

// The golden model's weights where stages do something else, and may stand elsewhere.
DynamicVit student_that(const std::string& reduction, const std::string& place, double threshold = kThreshold) {
    const DynamicVit student = test::tiny_student();
    ModelSettings settings = student->settings();
    settings.reduction = reduction;
    settings.stage_place = place;
    settings.merge_threshold = threshold;
    DynamicVit model(settings, test::generator());
    load_state_dict(*model, state_dict(*student));
    return model;
}

DynamicVit merging_student(double threshold = kThreshold) {
    return student_that("merge", "before_block", threshold);
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
    const auto metric = [&](const StageInput& input) { return model->backbone().mean_keys(input.block, input.keyed); };
    const PrunedTokens pruned =
        model->forward_pruned(images, reduce_tokens(model->settings(), {.scores = scores, .metric = metric}, counts));
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
        EXPECT_CLOSE(session.run(images.cuda()).logits.cpu(), expected, 1e-4);
    }
    const InferenceSession half(*model, plan, at::kBFloat16);
    EXPECT_CLOSE(half.run(images.cuda()).logits.cpu(), expected, 0.2);
}

TEST(Stages, OnTheGpuAsOnTheProcessor) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor images = at::randn({4, 3, 224, 224}, test::generator(20)),
                     pictures = at::randint(0, 256, {4, 3, 224, 224}, test::generator(18), at::kByte);
    for (const char* reduction : {"merge", "fuse", "tome"}) {
        for (const char* place : {"before_block", "after_attention"}) {
            DynamicVit model = student_that(reduction, place);
            std::vector<PruningPlan> plans = {{.policy = own_policy(model->settings()), .tokens = {120, 70, 41}}};
            if (model->settings().predicts()) {  // with thresholds that keep some tokens of each image
                plans.push_back(InferenceSession(*model, {.policy = kPerImage, .tokens = {120, 70, 30}}, at::kFloat,
                                                 {.pictures = pictures})
                                    .plan());
            }
            std::vector<SessionOutput> expected;
            for (const PruningPlan& plan : plans) expected.push_back(InferenceSession(*model, plan).run(images));
            model->to(at::kCUDA);
            for (std::size_t p = 0; p < plans.size(); ++p) {
                const InferenceSession session(*model, plans[p]);
                for (int run = 0; run < 3; ++run) {  // as it is, recorded, replayed
                    const SessionOutput output = session.run(images.cuda());
                    const std::string what = str(reduction, ' ', place, ' ', plans[p].policy);
                    EXPECT_CLOSE(output.logits.cpu(), expected[p].logits, 1e-4) << what;
                    for (std::int64_t b = 0; b < 4; ++b) {
                        EXPECT_EQ(output.kept_of(b, 2, 196), expected[p].kept_of(b, 2, 196)) << what;
                    }
                }
            }
        }
    }
}

TEST(MergedForward, CostsItsComparisonsAndMeans) {
    ModelSettings settings = model_settings("deit_small");
    const std::vector<std::int64_t> counts = {137, 96, 67};
    const std::int64_t deleting = count_macs(settings, counts);
    settings.reduction = "merge";
    std::int64_t expected = deleting, before = 196;
    for (const std::int64_t count : counts) {
        expected += (1 + before) * 384 * 64 + (before - count) * (count * 64 + 384);
        before = count;
    }
    EXPECT_EQ(count_macs(settings, counts), expected);
    EXPECT_EQ(count_macs(settings, {}), count_macs(model_settings("deit_small"), {})) << "dense";
}

// The model that the published code ran, see tests/golden/merging/make.py. @param blocks that have a stage in them
DynamicVit published_model(const std::string& name, const std::string& reduction, std::vector<std::int64_t> blocks) {
    ModelSettings settings;
    settings.name = "custom";
    settings.image_size = {64};
    settings.patch_size = 8;
    settings.embed_dim = 24;
    settings.depth = 4;
    settings.num_heads = 3;
    settings.mlp_ratio = 2;
    settings.num_classes = 7;
    settings.reduction = reduction;
    settings.stage_place = "after_attention";
    settings.pruning_loc = std::move(blocks);
    DynamicVit model(settings, test::generator());
    TensorMap weights;
    for (const auto& [key, tensor] : read_safetensors(test::golden("merging/" + name)).tensors) {
        if (key.starts_with("weights.")) weights[key.substr(8)] = tensor;
    }
    const LoadReport report = load_state_dict(*model, weights);
    EXPECT_TRUE(report.unexpected.empty() && report.mis_shaped.empty()) << report.text();
    return model;
}

// (B, tokens, 65), which of [CLS] and 64 patches are in each token, to (B, 64): the first patch of the token that each
// patch is part of.
at::Tensor first_patches(const at::Tensor& source) {
    const at::Tensor patches = source.slice(2, 1).to(at::kFloat);  // (B, tokens, 64)
    return patches.argmax(2).gather(1, patches.argmax(1));
}

at::Tensor first_patches_of(const at::Tensor& sources) {  // (B, 64): a token's place, to the same
    at::Tensor found = at::empty_like(sources);
    for (std::int64_t b = 0; b < sources.size(0); ++b) {
        for (std::int64_t i = 0; i < sources.size(1); ++i) {
            found[b][i] = (sources[b] == sources[b][i]).to(at::kInt).argmax();
        }
    }
    return found;
}

TEST(PublishedCode, ToMeMergesTheSameTokens) {
    const TensorMap golden = read_safetensors(test::golden("merging/tome.safetensors")).tensors;
    const DynamicVit model = published_model("tome.safetensors", "tome", {0, 1, 2, 3});
    for (const auto& [r, counts] : std::map<int, std::vector<std::int64_t>>{
             {5, {59, 54, 49, 44}}, {20, {44, 24, 12, 6}}}) {  // it merges half of the tokens at most
        const InferenceSession session(*model, {.policy = kSimilarity, .tokens = counts});
        const std::string suffix = std::to_string(r);
        EXPECT_CLOSE(session.run(golden.at("images")).logits, golden.at("logits_" + suffix), 1e-5) << r;
        const at::Tensor sources = session.sources(golden.at("images")).back();
        EXPECT_TRUE(first_patches_of(sources).equal(first_patches(golden.at("source_" + suffix)))) << r;
    }
}

TEST(PublishedCode, EVitFusesTheSameTokens) {
    const TensorMap golden = read_safetensors(test::golden("merging/evit.safetensors")).tensors;
    const DynamicVit model = published_model("evit.safetensors", "fuse", {1, 2});
    const PruningPlan plan{.policy = "cls_attention", .tokens = {39, 20}};  // ceil(0.6 x 64), ceil(0.5 x 40)
    const SessionOutput output = InferenceSession(*model, plan).run(golden.at("images"));
    EXPECT_CLOSE(output.logits, golden.at("logits"), 1e-5);
    EXPECT_EQ(output.kept.front().numel(), 3 * 40) << "39 and the fused one";
    EXPECT_EQ(output.kept_of(1, 0, 64).size(), 39u) << "which is at no place";
}

TEST(Stages, TrainingDoesWhatInferenceDoes) {
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(13));
    const std::vector<std::int64_t> counts = {120, 70, 41};
    for (const char* reduction : {"delete", "merge", "fuse", "tome"}) {
        for (const char* place : {"before_block", "after_attention"}) {
            DynamicVit model = student_that(reduction, place);
            StageChoices choices;
            choices.scores = [&](const StageInput& input) {
                return model->score_predictor(input.stage)(input.tokens).select(2, 0);
            };
            choices.metric = [&](const StageInput& input) {
                return model->backbone().mean_keys(input.block, input.keyed);
            };
            const PrunedTokens pruned =
                model->forward_pruned(images, reduce_tokens(model->settings(), choices, counts));
            const at::Tensor logits = model->backbone().read_out({pruned.tokens}).logits;
            const InferenceSession session(*model, {.policy = own_policy(model->settings()), .tokens = counts});
            EXPECT_CLOSE(logits, session.run(images).logits, 1e-4) << reduction << ' ' << place;
            logits.square().sum().backward();
            for (const auto& item : model->named_parameters()) {
                if (is_of_prediction_module(item.key())) continue;
                EXPECT_TRUE(item.value().grad().defined()) << item.key() << ' ' << reduction << ' ' << place;
            }
        }
    }
}

// A stage after the attention of block b - 1 differs from one before block b by the MLP that deleted tokens don't need.
TEST(Stages, InABlockTheyDeleteBehindTheAttention) {
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(14));
    const DynamicVit model = student_that("delete", "after_attention");
    const at::Tensor logits = test::prune(model, images, {120, 50, 11}).logits;
    const torch::NoGradGuard no_grad;
    const auto engine = test::engine_of(model);
    at::Tensor x = engine->embed(images);
    std::size_t stage = 0;
    for (std::int64_t block = 0; block < model->settings().depth; ++block) {
        x = engine->run_block(block, x, {}, BlockPiece::kAttention);
        if (stage < 3 && model->settings().pruning_loc[stage] == block) {
            const at::Tensor scores = engine->keep_log_probability(static_cast<std::int64_t>(stage), x);
            const std::int64_t count = std::vector<std::int64_t>{120, 50, 11}[stage++];
            const at::Tensor best = std::get<0>(std::get<1>(scores.topk(count, 1)).sort(1)) + 1;  // behind [CLS]
            const at::Tensor rows = at::constant_pad_nd(best, {1, 0});
            x = x.gather(1, rows.unsqueeze(2).expand({-1, -1, x.size(2)}));
        }
        x = engine->run_block(block, x, {}, BlockPiece::kMlp);
    }
    EXPECT_CLOSE(logits, engine->logits(x), 1e-5);
}

TEST(Sources, TellWhatBecameOfEachPatch) {
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(15));
    const std::vector<std::int64_t> counts = {120, 70, 41};
    const DynamicVit deleting = student_that("delete", "before_block"), merging = merging_student(-1),
                     fusing = student_that("fuse", "before_block");
    const InferenceSession deletes(*deleting, {.tokens = counts}), merges(*merging, {.tokens = counts}),
        fuses(*fusing, {.tokens = counts});
    for (std::int64_t b = 0; b < 2; ++b) {
        for (std::size_t s = 0; s < 3; ++s) {
            const at::Tensor gone = deletes.sources(images)[s][b], merged = merges.sources(images)[s][b],
                             fused = fuses.sources(images)[s][b];
            const at::Tensor numbers = at::arange(196);
            EXPECT_EQ((gone == numbers).sum().item<std::int64_t>(), counts[s]) << "kept";
            EXPECT_EQ((gone == -1).sum().item<std::int64_t>(), 196 - counts[s]) << "deleted";
            EXPECT_EQ(std::get<0>(at::_unique2(merged)).numel(), counts[s]) << "all are in one of the kept tokens";
            EXPECT_TRUE(merged.gather(0, merged).equal(merged)) << "of which each stands for itself";
            EXPECT_LE((fused == numbers).sum().item<std::int64_t>(), counts[s]);
            EXPECT_GE((fused == 196).sum().item<std::int64_t>(), 196 - counts[s]) << "the others are fused";
        }
    }
}

// With its own number of tokens in each image: as each image alone, with its number.
TEST(Stages, PerImageMergesAndFusesAsEachImageAlone) {
    ModelSettings mean = test::tiny_settings();
    mean.class_token = false;
    mean.pooling = "mean";
    mean.reduction = "merge";
    mean.merge_threshold = 0.2;
    mean.stage_place = "after_attention";
    ModelSettings fusing_mean = mean;
    fusing_mean.reduction = "fuse";
    const at::Tensor images = at::randn({3, 3, 224, 224}, test::generator(16));
    for (const DynamicVit& model :
         {merging_student(), DynamicVit(mean, test::generator(17)), student_that("fuse", "before_block"),
          DynamicVit(fusing_mean, test::generator(17))}) {
        const auto engine = test::engine_of(model);
        // Thresholds that keep some tokens of each image, whatever the random modules say.
        const InferenceSession learnt(
            engine, {.policy = kPerImage, .tokens = {120, 70, 30}},
            {.pictures = at::randint(0, 256, {4, 3, 224, 224}, test::generator(18), at::kByte)});
        const InferenceSession session(engine, learnt.plan());
        const SessionOutput output = session.run(images);
        const std::vector<at::Tensor> sources = session.sources(images);
        for (std::int64_t b = 0; b < 3; ++b) {
            std::vector<std::int64_t> counts;
            for (const auto& stage : output.counts) counts.push_back(stage[static_cast<std::size_t>(b)]);
            const PrunedOutput alone = test::prune(model, images.slice(0, b, b + 1), counts);
            EXPECT_CLOSE(output.logits[b], alone.logits[0], 1e-4) << b;
            for (std::size_t s = 0; s < 3; ++s) {
                std::vector<std::int64_t> own;
                for (std::int64_t i = 0; i < alone.kept[s].numel(); ++i) {
                    const auto place = alone.kept[s][0][i].item<std::int64_t>();
                    if (place < 196) own.push_back(place);
                }
                EXPECT_EQ(output.kept_of(b, s, 196), own) << b << ' ' << s;
                EXPECT_EQ((sources[s][b] == at::arange(196)).sum().item<std::int64_t>(), std::ssize(own));
            }
        }
    }
}

// [CLS] looks at a token of several patches as at these patches together.
TEST(Stages, ClsAttentionCountsPatches) {
    const auto engine = test::engine_of(test::tiny_student());
    const at::Tensor x = at::randn({1, 1 + 4, 32}, test::generator(19)),
                     sizes = at::tensor({1.0f, 1.0f, 3.0f, 1.0f, 2.0f});
    const at::Tensor all = x.repeat_interleave(sizes.to(at::kLong), 1);
    const at::Tensor each = engine->cls_attention(2, all)[0];  // (7)
    const at::Tensor together = at::stack({each[0], each.slice(0, 1, 4).sum(), each[4], each.slice(0, 5).sum()});
    EXPECT_CLOSE(engine->cls_attention(2, x, {.sizes = sizes.unsqueeze(0)})[0], together, 1e-5);
}

TEST(Stages, APolicyThatDoesNotFitSaysSo) {
    const DynamicVit matching = student_that("tome", "before_block"), deleting = test::tiny_student();
    EXPECT_EQ(test::error_of([&] {
                  InferenceSession(*matching, {.tokens = {120, 70, 41}});
              }),
              "[policy] predicted: found model.reduction tome, expected the policy similarity with it");
    EXPECT_EQ(test::error_of([&] {
                  InferenceSession(*deleting, {.policy = kSimilarity, .tokens = {120, 70, 41}});
              }),
              "[policy] similarity: found model.reduction delete, expected tome with this policy");
    EXPECT_EQ(test::error_of([&] {
                  InferenceSession(*matching, {.policy = kSimilarity, .tokens = {97, 70, 41}});
              }),
              "[policy] similarity: found a count of 97 at stage 1, expected 98 to 196");
}

}  // namespace
}  // namespace dynvit
