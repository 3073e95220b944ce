#include "dynvit/infer/pruned_vit.hpp"

#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/infer/model_file.hpp"
#include "dynvit/models/keep_ratio.hpp"
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
    const auto policy = make_policy("predicted", model);
    for (const char* ratio : {"0.9", "0.8", "0.7", "0.6", "0.5"}) {
        const PrunedOutput output =
            pruned_forward(*model, images, *policy, tokens_per_stage(stage_ratios(std::stod(ratio), 3), 196));
        EXPECT_CLOSE(output.logits, golden.at(str("logits.", ratio)), 1e-5) << ratio;
        ASSERT_EQ(output.kept.size(), 3u);
        for (int s = 0; s < 3; ++s) {
            const at::Tensor expected = golden.at(str("keep.", ratio, '.', s));
            for (int b = 0; b < 4; ++b) EXPECT_EQ(as_set(output.kept[s][b]), as_set(expected[b])) << ratio << ' ' << s;
        }
    }
    EXPECT_CLOSE(pruned_forward(*test::tiny_teacher(), images.cpu(), *policy, {}).logits, golden.at("teacher_logits"),
                 1e-5);
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
        std::vector<at::Tensor> batch;
        for (const std::string& file : files) {
            const Image image =
                apply(EvalTransform{224, 224, size}, read_image(shared / "data/imagenet-val-300/val" / file));
            batch.push_back(
                at::tensor(at::ArrayRef<std::uint8_t>(image.pixels), at::kByte).view({224, 224, 3}).permute({2, 0, 1}));
        }
        const at::Tensor logits = model->forward(normalize_images(at::stack(batch), at::kCPU)).logits;
        EXPECT_LE((logits - golden.at(str("logits.resize", size))).abs().max().item<double>(), 1e-3) << size;
    }
    settings.image_size = {160};
    DynamicVit small(settings, test::generator());
    load_weights(*small, weights, Fit::kEvaluate);
    const at::Tensor logits = small->forward(golden.at("images.160")).logits;
    EXPECT_LE((logits - golden.at("logits.160")).abs().max().item<double>(), 1e-3);
}

TEST(PrunedForward, EqualsTheMaskedTrainingForwardWithTheSameDecisions) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(1));
    const auto policy = make_policy("predicted", model);
    const PrunedOutput pruned = pruned_forward(*model, images, *policy, {120, 50, 11});
    // Noise that forces each stage's decision to what the pruned pass kept.
    const torch::NoGradGuard no_grad;
    TrainingNoise noise;
    for (const at::Tensor& kept : pruned.kept) {
        at::Tensor forced = at::zeros({2, 196, 2});
        forced.select(-1, 0).fill_(-1e4).scatter_(1, kept, 1e4);
        noise.gumbel.push_back(forced);
    }
    EXPECT_CLOSE(model->forward_train(images, noise).logits, pruned.logits, 1e-4);
}

// [CLS]'s attention from the weights themselves, head by head.
TEST(SelectionPolicy, ClsAttentionIsThatOfTheBlockBefore) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(4));
    const PrunedOutput output = pruned_forward(*model, images, *make_policy("cls_attention", model), {60, 30, 10});
    const torch::NoGradGuard no_grad;
    const auto parameters = model->named_parameters();
    at::Tensor x = model->embed(images);
    for (int i = 0; i < 2; ++i) x = model->block(i)(x);  // what block 2 reads, which stands before the stage
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
    EXPECT_EQ(test::error_of([&] { pruned_forward(*early, images, *make_policy("cls_attention", early), {60}); }),
              "[policy] cls_attention was asked for at a stage before block 0, expected a block before it");
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
    const PrunedTokens pruned = model->forward_pruned(images, model->predicted_scores(), {120, 50, 11});
    const auto removed = gradients(model->classify(model->normalize(pruned.tokens.select(1, 0))));
    TrainingNoise noise;
    for (const at::Tensor& kept : pruned.kept) {
        at::Tensor forced = at::zeros({2, 196, 2});
        forced.select(-1, 0).fill_(-1e4).scatter_(1, kept, 1e4);
        noise.gumbel.push_back(forced);
    }
    const auto masked = gradients(model->forward_train(images, noise).logits);
    EXPECT_EQ(removed.count("score_predictor.0.in_conv.1.weight"), 0u) << "the selection has no gradient";
    for (const auto& [name, gradient] : removed) EXPECT_CLOSE(gradient, masked.at(name), 1e-3) << name;
}

TEST(PrunedForward, EveryTokenKeptIsDense) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({1, 3, 224, 224}, test::generator(2));
    const auto policy = make_policy("predicted", model);
    const at::Tensor dense = pruned_forward(*model, images, *policy, {}).logits;
    EXPECT_CLOSE(pruned_forward(*model, images, *policy, {196, 196, 196}).logits, dense, 1e-6);
    const torch::NoGradGuard no_grad;
    EXPECT_CLOSE(model->forward(images).logits, dense, 1e-6);
}

TEST(PrunedForward, NoTokenKeptLeavesTheClassToken) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(2));
    const PrunedOutput output = pruned_forward(*model, images, *make_policy("predicted", model), {0, 0, 0});
    EXPECT_TRUE(output.logits.isfinite().all().item<bool>());
    EXPECT_EQ(output.kept[2].sizes(), (at::IntArrayRef{2, 0}));
}

TEST(SelectionPolicy, RandomDependsOnItsSeedAndNestsStageInStage) {
    DynamicVit model = test::tiny_student();
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(3));
    const auto kept = [&](std::uint64_t seed) {
        return pruned_forward(*model, images, *make_policy("random", model, seed), {100, 50, 20}).kept;
    };
    const auto first = kept(1), same = kept(1), other = kept(2);
    EXPECT_TRUE(first[2].equal(same[2]));
    EXPECT_FALSE(first[2].equal(other[2]));
    for (int b = 0; b < 2; ++b) {
        const auto outer = as_set(first[0][b]), inner = as_set(first[1][b]);
        EXPECT_TRUE(std::includes(outer.begin(), outer.end(), inner.begin(), inner.end()));
        EXPECT_EQ(std::set<std::int64_t>(inner.begin(), inner.end()).size(), 50u);
    }
    EXPECT_EQ(test::error_of([&] { make_policy("magic", model); }),
              "[policy] unknown selection policy 'magic'; expected one of predicted, random, cls_attention");
}

}  // namespace
}  // namespace dynvit
