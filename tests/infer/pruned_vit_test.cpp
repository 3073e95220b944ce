#include "dynvit/infer/pruned_vit.hpp"

#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/infer/calibration.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/weights/model_file.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

std::multiset<std::int64_t> as_set(const at::Tensor& row) {
    const at::Tensor values = row.to(at::kCPU, at::kLong).contiguous();
    return {values.data_ptr<std::int64_t>(), values.data_ptr<std::int64_t>() + values.numel()};
}

class GoldenEval : public testing::TestWithParam<at::DeviceType> {};

TEST_P(GoldenEval, KeptPositionsAndLogitsAtFiveRatios) {  // positions exactly, as sets; logits in float32
    if (GetParam() == at::kCUDA && !at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Device device(GetParam());
    const TensorMap golden = read_safetensors(test::golden("model/eval.safetensors")).tensors;
    const at::Tensor images =
        read_safetensors(test::golden("model/train_step.safetensors")).tensors.at("images").to(device, at::kFloat);
    DynamicVit model = test::tiny_student();
    model->to(device);
    const auto engine = test::engine_of(model);
    const auto policy = make_policy("predicted", engine);
    for (const char* ratio : {"0.9", "0.8", "0.7", "0.6", "0.5"}) {
        const PrunedOutput output =
            pruned_forward(*engine, images, policy.get(), tokens_per_stage(stage_ratios(std::stod(ratio), 3), 196));
        EXPECT_CLOSE(output.logits, golden.at(str("logits.", ratio)), 1e-5) << ratio;
        ASSERT_EQ(output.kept.size(), 3u);
        for (int s = 0; s < 3; ++s) {
            const at::Tensor expected = golden.at(str("keep.", ratio, '.', s));
            for (int b = 0; b < 4; ++b) EXPECT_EQ(as_set(output.kept[s][b]), as_set(expected[b])) << ratio << ' ' << s;
        }
    }
    EXPECT_CLOSE(test::prune(test::tiny_teacher(), images.cpu(), {}).logits, golden.at("teacher_logits"), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Devices, GoldenEval, testing::Values(at::kCPU, at::kCUDA),
                         [](const auto& info) { return at::DeviceTypeName(info.param, true); });

// timm's logits of six photographs, from the files on: decoding, resizing, normalizing, the network; and at 160 pixels
// with a resized position embedding.
TEST(DeitTiny, LogitsOfPhotographs) {
    DYNVIT_NEEDS_SHARED(shared);
    const Safetensors preprocess = read_safetensors(shared / "golden/photographs/preprocess.safetensors");
    const TensorMap golden = read_safetensors(shared / "golden/photographs/deit_tiny.safetensors").tensors;
    const ModelFile weights = read_model_file(shared / "weights/deit_tiny_patch16_224.safetensors");
    const auto files = nlohmann::json::parse(preprocess.metadata.at("files")).get<std::vector<std::string>>();
    ModelSettings settings = model_settings("deit_tiny");
    settings.pruning_loc = {};
    const torch::NoGradGuard no_grad;
    DynamicVit model(settings, test::generator());
    load_weights(*model, weights, Fit::kEvaluate);
    for (const int size : {256, 248}) {
        std::vector<Image> batch;
        for (const std::string& file : files) {
            batch.push_back(
                apply(EvalTransform{224, 224, size}, read_image(shared / "data/imagenet-val-300/val" / file)));
        }
        const at::Tensor logits = test::dense_forward(model, normalize_images(stack_images(batch), at::kCPU)).logits;
        EXPECT_LE((logits - golden.at(str("logits.resize", size))).abs().max().item<double>(), 1e-3) << size;
    }
    settings.image_size = {160};
    DynamicVit small(settings, test::generator());
    load_weights(*small, weights, Fit::kEvaluate);
    const at::Tensor logits = test::dense_forward(small, golden.at("images.160")).logits;
    EXPECT_LE((logits - golden.at("logits.160")).abs().max().item<double>(), 1e-3);
}

// Untrained modules say 0.5 of every token; these say all sorts of things.
DynamicVit decided_model(const ModelSettings& settings, std::uint64_t seed) {
    DynamicVit model(settings, test::generator(seed));
    const torch::NoGradGuard no_grad;
    for (const auto& item : model->named_parameters()) {
        if (is_of_prediction_module(item.key()) && item.value().dim() == 2) item.value().mul_(12);
        if (item.key().ends_with(".gamma")) item.value().uniform_(0.5, 2, test::generator(seed));
    }
    return model;
}

// Any size: patches of 8, four blocks, two or three stages (the first of them before block 0), 7 classes or no head.
// Any prefix tokens or none, with their places in the position embedding or without, and any of the parts that blocks
// and heads may have.
ModelSettings random_settings(Random& random, bool three_stages) {
    ModelSettings settings = test::tiny_settings({1, 2});
    settings.depth = 4;
    settings.patch_size = 8;
    settings.num_classes = 7;
    settings.image_size = {8 * random.integer(4, 12), 8 * random.integer(4, 12)};
    if (three_stages) settings.pruning_loc = {0, 2, 3};
    settings.registers = std::max<std::int64_t>(0, random.integer(-2, 4));
    settings.class_token = random.integer(0, 3) > 0;
    settings.prefix_positions = random.integer(0, 2) > 0;
    const std::vector<std::string> poolings = {"mean", "map", "token", "token_mean"};
    settings.pooling = poolings[static_cast<std::size_t>(random.integer(0, settings.class_token ? 4 : 2))];
    settings.norm_after_pooling = settings.pooling == "mean" && random.integer(0, 2) > 0;
    settings.distillation_token = settings.reads_class_token_alone() && random.integer(0, 2) > 0;
    if (!settings.distillation_token && random.integer(0, 4) == 0) settings.num_classes = 0;
    const std::vector<std::string> mlps = {"gelu", "gelu_tanh", "quick_gelu", "swiglu"};
    settings.mlp = mlps[static_cast<std::size_t>(random.integer(0, 4))];
    for (bool* part : {&settings.layer_scale, &settings.qk_norm, &settings.norm_before_blocks, &settings.patch_bias,
                       &settings.head_bias, &settings.qkv_bias, &settings.attention_norm, &settings.mlp_norm}) {
        *part = random.integer(0, 2) > 0;
    }
    const std::vector<std::string> ropes = {"none", "dinov3", "eva02"};
    settings.rope = ropes[static_cast<std::size_t>(random.integer(0, 3))];
    settings.absolute_positions = settings.rope == "none" || random.integer(0, 2) > 0;
    settings.final_norm = settings.norm_after_pooling || random.integer(0, 4) > 0;
    return settings;
}

at::Tensor random_images(const ModelSettings& settings, std::int64_t batch, int seed) {
    return at::randn({batch, 3, settings.image_height(), settings.image_width()},
                     test::generator(static_cast<std::uint64_t>(seed) + 100));
}

// Noise that forces each stage's decision: 1 at the places that are given, 0 elsewhere.
// @param kept a stage: places in the flattened grids (B, N)
TrainingNoise forced_noise(const std::vector<at::Tensor>& kept, std::int64_t batch, std::int64_t patches) {
    TrainingNoise noise;
    for (const at::Tensor& places : kept) {
        at::Tensor forced = at::zeros({batch * patches, 2});
        forced.select(1, 0).fill_(-1e4).index_fill_(0, places, 1e4);
        noise.gumbel.push_back(forced.view({batch, patches, 2}));
    }
    return noise;
}

// Random sizes, batches and counts, of every share of the patches down to none.
TEST(PrunedForward, EqualsTheMaskedTrainingForwardWithTheSameDecisions) {
    const torch::NoGradGuard no_grad;
    for (int seed = 0; seed < 24; ++seed) {
        Random random(static_cast<std::uint64_t>(seed));
        const ModelSettings settings = random_settings(random, seed % 2 == 0);
        DynamicVit model = decided_model(settings, static_cast<std::uint64_t>(seed));
        const std::int64_t batch = random.integer(1, 5);
        const at::Tensor images = random_images(settings, batch, seed);
        PruningPlan plan;
        for (std::int64_t s = 0, left = settings.patches(); s < settings.stages(); ++s) {
            plan.tokens.push_back(left = seed == 0 ? 0 : random.integer(left / 4, left));
        }
        const SessionOutput pruned = InferenceSession(*model, plan).run(images);
        const TrainingNoise noise = forced_noise(pruned.kept, batch, settings.patches());
        EXPECT_CLOSE(model->forward_train(images, noise).logits, pruned.logits, 1e-4)
            << "seed " << seed << ", kept " << join(plan.tokens, "/") << " of " << settings.patches();
    }
}

// A plain loop: one image after another, each token alone against the threshold.
std::pair<at::Tensor, std::vector<at::Tensor>> one_by_one(DynamicVitImpl& model, const at::Tensor& image,
                                                          const std::vector<double>& thresholds) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model.settings();
    at::Tensor x = model.backbone().embed(image);
    at::Tensor positions = at::arange(settings.patches(), image.device());
    const std::int64_t prefix = settings.prefix_tokens();
    std::vector<at::Tensor> kept;
    for (std::int64_t i = 0; i < settings.depth; ++i) {
        if (kept.size() < thresholds.size() && settings.pruning_loc[kept.size()] == i) {
            const at::Tensor pi = model.score_predictor(std::ssize(kept))(x.slice(1, prefix)).exp()[0].select(1, 0);
            std::vector<std::int64_t> rows(static_cast<std::size_t>(prefix)), places;
            std::iota(rows.begin(), rows.end(), 0);
            for (std::int64_t t = 0; t < pi.size(0); ++t) {
                if (pi[t].item<float>() <= thresholds[kept.size()]) continue;
                rows.push_back(prefix + t);
                places.push_back(t);
            }
            x = x.index_select(1, at::tensor(rows, at::kLong).to(image.device()));
            positions = positions.index_select(0, at::tensor(places, at::kLong).to(image.device()));
            kept.push_back(positions);
        }
        x = model.backbone().run_block(i, x, positions.unsqueeze(0));
    }
    return {model.backbone().read_out({x}).logits, kept};
}

class PerImage : public testing::TestWithParam<at::DeviceType> {};

// Random sizes, stages and thresholds; the last case drops every token of every image.
TEST_P(PerImage, EqualsOneImageAtATime) {
    if (GetParam() == at::kCUDA && !at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Device device(GetParam());
    const double tolerance = device.is_cuda() ? 1e-3 : 1e-4;
    std::int64_t images_that_differ = 0;
    for (int seed = 0; seed < 6; ++seed) {
        Random random(static_cast<std::uint64_t>(seed));
        const ModelSettings settings = random_settings(random, seed % 2 == 0);
        DynamicVit model = decided_model(settings, static_cast<std::uint64_t>(seed));
        model->to(device);
        const std::int64_t batch = random.integer(1, 5);
        const at::Tensor images = random_images(settings, batch, seed).to(device);
        std::vector<double> thresholds;
        for (std::int64_t s = 0; s < settings.stages(); ++s) {
            thresholds.push_back(seed == 5 ? 1.0 : random.uniform(0.2, 0.6));
        }
        const PerImageOutput output = per_image_forward(*test::engine_of(model), images, thresholds);
        ASSERT_EQ(output.logits.sizes(), (at::IntArrayRef{batch, settings.outputs()}));
        std::vector<std::int64_t> first(static_cast<std::size_t>(settings.stages()), 0);
        for (std::int64_t b = 0; b < batch; ++b) {
            const auto [logits, kept] = one_by_one(*model, images.slice(0, b, b + 1), thresholds);
            EXPECT_CLOSE(output.logits.slice(0, b, b + 1), logits, tolerance) << "seed " << seed << ", image " << b;
            for (std::size_t s = 0; s < kept.size(); ++s) {
                ASSERT_EQ(output.counts[s][b], kept[s].size(0)) << "seed " << seed << ", stage " << s;
                const at::Tensor places = kept[s] + b * settings.patches();
                EXPECT_TRUE(output.kept[s].narrow(0, first[s], kept[s].size(0)).equal(places));
                first[s] += kept[s].size(0);
                if (b > 0) images_that_differ += output.counts[s][b] != output.counts[s][0];
            }
        }
        if (seed == 5) {
            EXPECT_EQ(output.kept.front().numel(), 0);
        }
    }
    EXPECT_GT(images_that_differ, 5) << "or nothing here was dynamic";
}

INSTANTIATE_TEST_SUITE_P(Devices, PerImage, testing::Values(at::kCPU, at::kCUDA),
                         [](const auto& info) { return at::DeviceTypeName(info.param, true); });

// Training's masked pass with the same decisions gives the same logits.
TEST(PerImageForward, EqualsTheMaskedForward) {
    DynamicVit model = decided_model(test::tiny_settings(), 1);
    const torch::NoGradGuard no_grad;
    const at::Tensor pictures = at::randint(0, 256, {3, 3, 224, 224}, test::generator(2), at::kByte);
    const at::Tensor images = normalize_images(pictures, at::kCPU);
    const std::vector<double> thresholds = find_thresholds(*test::engine_of(model), pictures, {120, 70, 30});
    const PerImageOutput output = per_image_forward(*test::engine_of(model), images, thresholds);
    const std::vector<std::int64_t> together = {3 * 120, 3 * 70, 3 * 30};  // they were found for these pictures
    for (std::size_t s = 0; s < 3; ++s) {
        EXPECT_EQ(std::accumulate(output.counts[s].begin(), output.counts[s].end(), std::int64_t{0}), together[s]);
    }
    const SessionOutput session =
        InferenceSession(*model, {.policy = "per_image", .thresholds = thresholds}).run(images);
    EXPECT_CLOSE(session.logits, output.logits, 1e-6);
    const TrainingNoise noise = forced_noise(session.kept, images.size(0), 196);
    EXPECT_CLOSE(model->forward_train(images, noise).logits, output.logits, 1e-4);
}

TEST(SelectionPolicy, StaticKeepsTheSamePlacesOfEveryImage) {
    DynamicVit model = decided_model(test::tiny_settings(), 3);
    const at::Tensor pictures = at::randint(0, 256, {40, 3, 224, 224}, test::generator(2), at::kByte);
    const std::vector<at::Tensor> scores = find_static_scores(*test::engine_of(model), pictures);
    const torch::NoGradGuard no_grad;
    at::Tensor x = model->backbone().embed(normalize_images(pictures, at::kCPU));
    for (std::int64_t i = 0; i < 3; ++i) x = model->backbone().run_block(i, x);
    EXPECT_CLOSE(scores[0], model->score_predictor(0)(x.slice(1, 1)).select(2, 0).mean(0), 1e-5);

    const at::Tensor images = normalize_images(pictures.slice(0, 0, 2), at::kCPU);
    const PrunedOutput output =
        pruned_forward(*test::engine_of(model), images, make_static_policy(scores).get(), {100, 50, 20});
    const at::Tensor best = std::get<0>(std::get<1>(scores[0].topk(100)).sort());
    EXPECT_TRUE(output.kept[0][0].equal(best));
    EXPECT_TRUE(output.kept[0][1].equal(best));
}

TEST(Structural, PoolsTwoByTwoOnTheGrid) {
    ModelSettings settings = test::tiny_settings({1, 2});
    settings.image_size = {40, 24};  // 5 x 3 patches: the last row and column have no partner
    settings.patch_size = 8;
    settings.depth = 3;
    DynamicVit model(settings, test::generator(1));
    EXPECT_EQ(structural_stage(settings), 1);
    EXPECT_EQ(structural_tokens(settings), 6);
    const torch::NoGradGuard no_grad;
    const at::Tensor images = at::randn({2, 3, 40, 24}, test::generator(2));
    at::Tensor x = model->backbone().embed(images);
    for (std::int64_t i = 0; i < 2; ++i) x = model->backbone().run_block(i, x);
    std::vector<at::Tensor> rows = {x.select(1, 0)};
    for (std::int64_t top = 0; top < 5; top += 2) {
        for (std::int64_t left = 0; left < 3; left += 2) {
            std::vector<at::Tensor> square;
            for (std::int64_t r = top; r < std::min<std::int64_t>(top + 2, 5); ++r) {
                for (std::int64_t c = left; c < std::min<std::int64_t>(left + 2, 3); ++c) {
                    square.push_back(x.select(1, 1 + 3 * r + c));
                }
            }
            rows.push_back(at::stack(square).mean(0));
        }
    }
    x = model->backbone().run_block(2, at::stack(rows, 1));
    const auto engine = test::engine_of(model);
    const PrunedOutput output =
        staged_forward_embedded(*engine, engine->embed(images), average_two_by_two(settings, 1));
    EXPECT_CLOSE(output.logits, model->backbone().read_out({x}).logits, 1e-5);
    EXPECT_TRUE(output.kept[1][1].equal(at::tensor({0, 2, 6, 8, 12, 14}, at::kLong)))
        << "the upper left of each square";
}

// Whatever the counts of the plan, and without any.
TEST(Structural, ASessionKeepsTheNumberThatAveragingLeaves) {
    DynamicVit model = test::tiny_student();
    const auto engine = test::engine_of(model);
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(2));
    const InferenceSession session(engine, {.policy = "structural"}),
        counted(engine, {.policy = "structural", .tokens = {120, 50, 11}});
    EXPECT_EQ(session.plan().tokens, (std::vector<std::int64_t>{49}));
    EXPECT_EQ(counted.plan(), session.plan());
    EXPECT_FALSE(session.plan().dense());
    const at::Tensor logits = session.run(images).logits;
    EXPECT_TRUE(counted.run(images).logits.equal(logits));
    const at::Tensor x = engine->embed(images);
    EXPECT_CLOSE(staged_forward_embedded(*engine, x, average_two_by_two(model->settings(), 1)).logits, logits, 1e-6);
    EXPECT_EQ(session.gmacs_per_stage().size(), 2u) << "one stage";
}

TEST(SelectionPolicy, EveryNameMakesASessionThatRuns) {
    DynamicVit model = decided_model(test::tiny_settings(), 1);
    ModelSettings matching = test::tiny_settings();
    matching.reduction = "tome";
    const auto choosing_engine = test::engine_of(model),
               matching_engine = test::engine_of(DynamicVit(matching, test::generator()));
    const at::Tensor pictures = at::randint(0, 256, {3, 3, 224, 224}, test::generator(2), at::kByte);
    for (const std::string& name : policy_names()) {
        const PruningPlan plan{.policy = name, .tokens = {120, 70, 40}};
        const auto& engine = name == kSimilarity ? matching_engine : choosing_engine;
        const InferenceSession session(engine, plan, {.pictures = pictures});
        const SessionOutput output = session.run(normalize_images(pictures, at::kCPU));
        EXPECT_TRUE(output.logits.isfinite().all().item<bool>()) << name;
        if (find_policy(name, any_policy).selects == Selects::kAveraged) continue;
        for (std::size_t s = 0; s < 3; ++s) {
            EXPECT_EQ(std::accumulate(output.counts[s].begin(), output.counts[s].end(), std::int64_t{0}),
                      3 * plan.tokens[s])
                << name << ": as many of the pictures together, which per_image learnt from";
        }
        EXPECT_TRUE(InferenceSession(engine, {.policy = name == kPerImage ? kPredicted : name}).plan().dense());
    }
}

TEST(SelectionPolicy, WhatAPolicyLacks) {
    const auto engine = test::engine_of(test::tiny_student());
    const auto fault = [&](const PruningPlan& plan) {
        return test::error_of([&] { InferenceSession session(engine, plan); });
    };
    EXPECT_EQ(fault({.policy = "static", .tokens = {9, 5, 2}}),
              "[policy] static learns from pictures: found none, expected some");
    EXPECT_EQ(fault({.policy = "per_image", .tokens = {9, 5, 2}}),
              "[policy] per_image learns from pictures: found none, expected some, or thresholds");
    EXPECT_EQ(fault({.policy = "per_image"}), "[policy] per_image: found no thresholds, expected one a stage");
    EXPECT_EQ(fault({.thresholds = {0.1, 0.1, 0.1}}),
              "[policy] predicted: found thresholds, expected a count of tokens a stage");
    EXPECT_EQ(fault({.policy = "magic"}),
              "[policy] unknown selection policy 'magic'; expected one of predicted, per_image, random, static, "
              "cls_attention, similarity, structural");
    const auto dense = test::engine_of(test::tiny_teacher());
    EXPECT_EQ(test::error_of([&] { InferenceSession session(dense, {.policy = "structural"}); }),
              "[policy] structural: the model has no stage, expected one to pool at");
    EXPECT_TRUE(needs_pictures({.policy = "static", .tokens = {9, 5, 2}}));
    EXPECT_TRUE(needs_pictures({.policy = "per_image", .tokens = {9, 5, 2}}));
    EXPECT_FALSE(needs_pictures({.policy = "per_image", .thresholds = {0.1, 0.1, 0.1}}));
    EXPECT_FALSE(needs_pictures({.policy = "static"}));
    EXPECT_FALSE(needs_pictures({.tokens = {9, 5, 2}}));
}

// [CLS]'s attention from the weights themselves, head by head.
TEST(SelectionPolicy, ClsAttentionIsThatOfTheBlockBefore) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(4));
    const PrunedOutput output = test::prune(model, images, {60, 30, 10}, "cls_attention");
    const torch::NoGradGuard no_grad;
    const auto parameters = model->named_parameters();
    at::Tensor x = model->backbone().embed(images);
    for (int i = 0; i < 2; ++i)
        x = model->backbone().run_block(i, x);  // what block 2 reads, which stands before the stage
    const at::Tensor normed =
        at::layer_norm(x, {32}, parameters["blocks.2.norm1.weight"], parameters["blocks.2.norm1.bias"], 1e-6);
    const at::Tensor qkv =
        at::linear(normed, parameters["blocks.2.attn.qkv.weight"], parameters["blocks.2.attn.qkv.bias"]);
    at::Tensor attention = at::zeros({2, 196});
    for (int head = 0; head < 2; ++head) {
        const at::Tensor q = qkv.slice(2, 16 * head, 16 * head + 16), k = qkv.slice(2, 32 + 16 * head, 48 + 16 * head);
        attention += at::softmax(at::matmul(q, k.transpose(1, 2)) / 4.0, -1).select(1, 0).slice(1, 1) / 2;
    }
    for (int b = 0; b < 2; ++b) EXPECT_EQ(as_set(output.kept[0][b]), as_set(std::get<1>(attention[b].topk(60)))) << b;
    DynamicVit early(test::tiny_settings({0}), test::generator());
    EXPECT_EQ(test::error_of([&] { test::prune(early, images, {60}, "cls_attention"); }),
              "[policy] cls_attention was asked for at a stage before block 0, expected a block before it");
}

TEST(SelectionPolicy, WhatAModelMissesIsKnownBefore) {
    const auto fault = [](const std::string& policy, const ModelSettings& settings) {
        return find_policy_fault(find_policy(policy), settings);
    };
    ModelSettings settings = test::tiny_settings({0, 6});
    EXPECT_EQ(fault("cls_attention", settings),
              "cls_attention was asked for at a stage before block 0, expected a block before it");
    EXPECT_EQ(fault("random", settings), "");
    EXPECT_EQ(fault("predicted", settings), "");
    settings.stage_place = "after_attention";
    EXPECT_EQ(fault("cls_attention", settings), "");
    settings.class_token = false;
    EXPECT_EQ(fault("cls_attention", settings),
              "cls_attention was asked for of a model without [CLS], expected one with class_token");
    EXPECT_EQ(fault("similarity", settings),
              "similarity: found model.reduction delete, expected tome with this policy");
    settings.reduction = "tome";
    EXPECT_EQ(fault("similarity", settings), "");
    EXPECT_EQ(fault("random", settings), "random: found model.reduction tome, expected the policy similarity with it");
    EXPECT_EQ(fault("structural", settings), "");
}

// Removing tokens and masking them are one function of the weights: their gradients are equal too.
TEST(PrunedForward, GradientsEqualThoseOfTheMaskedForward) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(5));
    const auto gradients = [&](const at::Tensor& logits) {
        model->zero_grad();
        logits.square().sum().backward();
        std::map<std::string, at::Tensor> result;
        for (const auto& item : model->named_parameters()) {
            if (item.value().grad().defined()) result[item.key()] = item.value().grad().clone();
        }
        return result;
    };
    const auto scores = [&](const StageInput& input) {
        return model->score_predictor(input.stage)(input.tokens).select(2, 0);
    };
    const PrunedTokens pruned = model->forward_pruned(images, select_tokens(1, scores, {120, 50, 11}));
    const auto removed = gradients(model->backbone().read_out({pruned.tokens}).logits);
    std::vector<at::Tensor> places;
    for (const at::Tensor& kept : pruned.kept) places.push_back((kept + at::tensor({0, 196}).unsqueeze(1)).flatten());
    const TrainingNoise noise = forced_noise(places, 2, 196);
    const auto masked = gradients(model->forward_train(images, noise).logits);
    EXPECT_EQ(removed.count("score_predictor.0.in_conv.1.weight"), 0u) << "the selection has no gradient";
    for (const auto& [name, gradient] : removed) EXPECT_CLOSE(gradient, masked.at(name), 1e-3) << name;
}

TEST(PrunedForward, EveryTokenKeptIsDense) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({1, 3, 224, 224}, test::generator(2));
    const at::Tensor dense = test::prune(model, images, {}).logits;
    EXPECT_CLOSE(test::prune(model, images, {196, 196, 196}).logits, dense, 1e-6);
    const torch::NoGradGuard no_grad;
    EXPECT_CLOSE(test::dense_forward(model, images).logits, dense, 1e-6);
}

TEST(PrunedForward, NoTokenKeptLeavesTheClassToken) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(2));
    const PrunedOutput output = test::prune(model, images, {0, 0, 0});
    EXPECT_TRUE(output.logits.isfinite().all().item<bool>());
    EXPECT_EQ(output.kept[2].sizes(), (at::IntArrayRef{2, 0}));
}

TEST(SelectionPolicy, RandomDependsOnItsSeedAndNestsStageInStage) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(3));
    const auto kept = [&](std::uint64_t seed) {
        return test::prune(model, images, {100, 50, 20}, "random", seed).kept;
    };
    const auto first = kept(1), same = kept(1), other = kept(2);
    EXPECT_TRUE(first[2].equal(same[2]));
    EXPECT_FALSE(first[2].equal(other[2]));
    for (int b = 0; b < 2; ++b) {
        const auto outer = as_set(first[0][b]), inner = as_set(first[1][b]);
        EXPECT_TRUE(std::includes(outer.begin(), outer.end(), inner.begin(), inner.end()));
        EXPECT_EQ(std::set<std::int64_t>(inner.begin(), inner.end()).size(), 50u);
    }
    EXPECT_EQ(test::error_of([&] { make_policy("magic", test::engine_of(model)); }),
              "[policy] unknown selection policy 'magic'; expected one of predicted, random, static, cls_attention");
}

}  // namespace
}  // namespace dynvit
