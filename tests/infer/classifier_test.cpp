#include "dynvit/infer/classifier.hpp"

#include <ATen/ATen.h>

#include <atomic>
#include <thread>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/export/bundle.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/ops/gpu_kernels.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

Image noise(std::uint64_t seed, int width, int height) {
    Image image(width, height);
    Random random(seed);
    for (std::uint8_t& value : image.pixels) value = static_cast<std::uint8_t>(random.integer(0, 255));
    return image;
}

std::vector<Image> pictures(int count) {
    std::vector<Image> made;
    for (int i = 0; i < count; ++i) made.push_back(noise(static_cast<std::uint64_t>(i), 180 + 17 * i, 300 - 11 * i));
    return made;
}

TEST(Classifier, GivesWhatTheModelGives) {
    const test::TemporaryFolder folder;
    write_model_file(folder / "model.safetensors", *test::tiny_student());
    const Classifier classifier(folder / "model.safetensors", {.keep_ratio = 0.5});
    const std::vector<Image> given = pictures(3);
    const std::vector<Classification> found = classifier.classify(given, 4);
    std::vector<Image> cropped;
    for (const Image& picture : given) cropped.push_back(apply(EvalTransform{224, 224, 0}, picture));
    const PrunedOutput expected = test::prune(test::tiny_student(), normalize_images(stack_images(cropped), at::kCPU),
                                              tokens_per_stage(stage_ratios(0.5, 3), 196));
    const at::Tensor probabilities = expected.logits.softmax(-1);
    for (int b = 0; b < 3; ++b) {
        ASSERT_EQ(found[b].classes.size(), 4u);
        EXPECT_EQ(found[b].classes[0].index, probabilities[b].argmax().item<std::int64_t>());
        EXPECT_TRUE(found[b].classes[0].name.empty());
        for (const ClassScore& score : found[b].classes) {
            EXPECT_NEAR(score.probability, probabilities[b][score.index].item<double>(), 1e-5);
        }
        EXPECT_GE(found[b].classes[0].probability, found[b].classes[3].probability);
        ASSERT_EQ(found[b].kept.size(), 3u);
        EXPECT_TRUE(at::tensor(found[b].kept[2], at::kLong).equal(expected.kept[2][b]));
    }
    EXPECT_TRUE(classifier.classify(std::vector<Image>()).empty());
    EXPECT_EQ(classifier.classify(given[0], 100).classes.size(), 10u) << "of ten classes";
}

// The same function of a picture in another scaling of its pixels, mean and std 0.5: x = (0.5 y + 0.5 - mean) / std
// goes into the weights.
DynamicVit folded(const DynamicVit& model) {
    const torch::NoGradGuard no_grad;
    DynamicVit made(model->settings(), test::generator());
    EXPECT_TRUE(load_state_dict(*made, state_dict(*model)).clean());
    at::Tensor weight = made->named_parameters()["patch_embed.proj.weight"],
               bias = made->named_parameters()["patch_embed.proj.bias"];
    const at::Tensor std = at::tensor(at::ArrayRef<double>(kImageNetStd), at::kFloat).view({1, 3, 1, 1}),
                     mean = at::tensor(at::ArrayRef<double>(kImageNetMean), at::kFloat).view({1, 3, 1, 1});
    bias.add_((weight * ((0.5 - mean) / std)).sum({1, 2, 3}));
    weight.mul_(0.5 / std);
    return made;
}

Preprocessing half() {
    Preprocessing preprocessing;
    preprocessing.mean = preprocessing.std = {0.5, 0.5, 0.5};
    return preprocessing;
}

TEST(InferenceModel, ScalesBytesAsItIsTold) {
    const DynamicVit model = test::tiny_student(), other = folded(model);
    const at::Tensor bytes = at::randint(0, 256, {2, 3, 224, 224}, test::generator(1), at::kByte);
    const PruningPlan plan{.tokens = {120, 50, 11}};
    const SessionOutput expected = InferenceSession(*model, plan).run(bytes);
    const InferenceSession session(*other, plan, at::kFloat, {}, half());
    const SessionOutput found = session.run(bytes);
    EXPECT_CLOSE(found.logits, expected.logits, 1e-4);
    for (std::size_t s = 0; s < 3; ++s) EXPECT_TRUE(found.kept[s].equal(expected.kept[s])) << s;
    EXPECT_CLOSE(session.run(normalize_images(bytes, at::kCPU, half())).logits, expected.logits, 1e-4);
    const at::Tensor wrong = InferenceSession(*other, plan).run(bytes).logits;
    EXPECT_GT((wrong - expected.logits).abs().max().item<double>(), 0.01) << "the test would not notice";

    // What a policy learns from pictures too.
    const PolicyInputs inputs{.pictures = bytes};
    const PruningPlan learns{.policy = kPerImage, .tokens = {120, 50, 11}};
    const InferenceSession thresholds(*model, learns, at::kFloat, inputs),
        others(*other, learns, at::kFloat, inputs, half());
    ASSERT_EQ(others.plan().thresholds.size(), 3u);
    for (std::size_t s = 0; s < 3; ++s) {
        EXPECT_NEAR(others.plan().thresholds[s], thresholds.plan().thresholds[s], 1e-4) << s;
    }
}

TEST(Classifier, PreparesPicturesAsTheFileSaysOrAsItIsTold) {
    const test::TemporaryFolder folder;
    write_model_file(folder / "model.safetensors", *test::tiny_student());
    const DynamicVit other = folded(test::tiny_student());
    Preprocessing squashed = half();
    squashed.crop = kSquash;
    squashed.interpolation = "bilinear";
    write_model_file(folder / "told.safetensors", *other, at::kFloat, squashed);
    write_model_file(folder / "untold.safetensors", *other);
    const PreprocessingChanges shape{.interpolation = "bilinear", .crop = kSquash};
    const Image picture = noise(1, 300, 200);
    const auto classify = [&](const char* file, const PreprocessingChanges& changes) {
        return Classifier(folder / file, {.keep_ratio = 0.5, .preprocessing = changes}).classify(picture, 10);
    };
    const Classification expected = classify("model.safetensors", shape);
    PreprocessingChanges all = shape;
    all.mean = all.std = {0.5};
    for (const Classification& found : {classify("told.safetensors", {}), classify("untold.safetensors", all)}) {
        EXPECT_EQ(found.kept, expected.kept);
        for (std::size_t i = 0; i < 10; ++i) {
            EXPECT_EQ(found.classes[i].index, expected.classes[i].index);
            EXPECT_NEAR(found.classes[i].probability, expected.classes[i].probability, 1e-5);
        }
    }
    const at::Tensor bytes = stack_images({resize(picture, 224, 224, Filter::kBilinear)});
    const PrunedOutput by_hand = test::prune(test::tiny_student(), normalize_images(bytes, at::kCPU),
                                             tokens_per_stage(stage_ratios(0.5, 3), 196));
    EXPECT_NEAR(expected.classes[0].probability, by_hand.logits.softmax(-1).max().item<double>(), 1e-5);
    EXPECT_NE(classify("model.safetensors", {}).classes[0].probability, expected.classes[0].probability);
    EXPECT_NE(test::error_of([&] { classify("model.safetensors", {.std = {0}}); }).find("std: found '0'"),
              std::string::npos);
}

TEST(Classifier, TakesWhatABundleSays) {
    const test::TemporaryFolder folder;
    ExportOptions options;
    options.plan.tokens = {90, 40, 10};
    options.preprocessing.resize = 230;
    for (int i = 0; i < 10; ++i) options.class_names.push_back(str("name ", i));
    export_bundle(folder / "bundle.safetensors", test::tiny_student(), options);
    const Classifier classifier(folder / "bundle.safetensors");
    EXPECT_EQ(classifier.session().plan(), options.plan);
    const Classification found = classifier.classify(noise(1, 300, 200));
    EXPECT_EQ(found.classes[0].name, str("name ", found.classes[0].index));
    EXPECT_EQ(found.kept[1].size(), 40u);
    EXPECT_TRUE(Classifier(folder / "bundle.safetensors", {.keep_ratio = 1}).session().plan().tokens.empty());
}

TEST(Classifier, FilesAndOptionsThatDoNotFit) {
    const std::filesystem::path bare = test::golden("model/tiny_teacher.safetensors");  // no settings in it
    EXPECT_EQ(test::error_of([&] { Classifier classifier(bare); }),
              str("[weights] ", bare.string(),
                  ": the number of heads is in no tensor's shape, and 32 channels are no multiple of 64, expected "
                  "config.json beside the weights, or --num-heads"));
    const test::TemporaryFolder folder;
    write_model_file(folder / "dense.safetensors", *test::tiny_teacher());
    const std::string dense = (folder / "dense.safetensors").string();
    EXPECT_TRUE(Classifier(dense).session().plan().tokens.empty());
    EXPECT_EQ(test::error_of([&] { Classifier classifier(dense, {.keep_ratio = 0.7}); }),
              str("[keep-ratio] ", dense, ": has no prediction modules: expected 1, found 0.7"));
    EXPECT_EQ(test::error_of([&] { Classifier classifier(dense, {.policy = "static"}); }),
              "[policy] not served here: selection policy 'static'; expected one of predicted, per_image, random, "
              "cls_attention, similarity, structural");
    EXPECT_EQ(test::error_of([&] { Classifier classifier(dense, {.keep_ratio = -1}); }),
              "[keep-ratio] found -1, expected 0 (what the file says) to 1");
}

// Many threads, one session: each gets what it would get alone.
TEST(InferenceSession, AnswersSeveralThreadsAtOnce) {
    const auto engine = test::engine_of(test::tiny_student());
    const std::vector<PruningPlan> plans = {
        {.tokens = {120, 50, 11}}, {.policy = "per_image", .thresholds = {0.4, 0.4, 0.4}}, {.policy = "structural"}};
    for (const PruningPlan& plan : plans) {
        const InferenceSession session(engine, plan);
        constexpr int kThreads = 4, kCalls = 6;
        std::vector<at::Tensor> images, alone;
        for (int t = 0; t < kThreads; ++t) {
            images.push_back(at::randn({1 + t % 3, 3, 224, 224}, test::generator(static_cast<std::uint64_t>(t))));
            alone.push_back(session.run(images.back()).logits);
        }
        std::atomic<int> different = 0;
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                for (int call = 0; call < kCalls; ++call) {
                    const at::Tensor logits = session.run(images[static_cast<std::size_t>(t)]).logits;
                    different += !logits.allclose(alone[static_cast<std::size_t>(t)], 1e-5, 1e-5);
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        EXPECT_EQ(different, 0) << plan.policy;
    }
}

// What training does to the model later doesn't reach the copy.
TEST(InferenceModel, KeepsItsWeights) {
    const torch::NoGradGuard no_grad;
    for (const at::ScalarType precision : {at::kFloat, at::kBFloat16, at::kQInt8}) {
        if (precision == at::kQInt8 && !fast_on_cpu(precision)) continue;
        DynamicVit model = test::tiny_student();
        const at::Tensor images = at::randn({1, 3, 224, 224}, test::generator(1));
        const InferenceSession session(*model, {.tokens = {100, 50, 20}}, precision);
        const at::Tensor before = session.run(images).logits;
        for (at::Tensor& parameter : model->parameters()) parameter.mul_(1.5).add_(0.1);
        EXPECT_TRUE(session.run(images).logits.equal(before)) << precision;
    }
}

// [CLS]'s attention, or where the head does not read it that of all tokens, times the values' norms, written out from
// the blocks' weights.
class Saliency : public testing::TestWithParam<const char*> {};

TEST_P(Saliency, IsWhatTheBlocksTakeIn) {
    ModelSettings settings = test::tiny_settings({1, 3});
    settings.pooling = GetParam();
    const std::int64_t looking = settings.pooling == "token" ? 1 : 1 + settings.patches();
    DynamicVit model(settings, test::generator(1));
    const torch::NoGradGuard no_grad;
    const at::Tensor images = at::randn({2, 3, settings.image_height(), settings.image_width()}, test::generator(2));
    const std::int64_t last = settings.depth - 1, heads = settings.num_heads, dim = settings.embed_dim / heads;
    std::vector<at::Tensor> taken;  // a block: (B, N)
    at::Tensor x = model->backbone().embed(images);
    for (std::int64_t i = 0; i <= last; ++i) {
        const auto parameter = [&](const std::string& name) {
            return model->named_parameters()[str("blocks.", i, '.', name)];
        };
        const at::Tensor normed =
            at::layer_norm(x, {settings.embed_dim}, parameter("norm1.weight"), parameter("norm1.bias"), 1e-6);
        const at::Tensor qkv = at::linear(normed, parameter("attn.qkv.weight"), parameter("attn.qkv.bias"));
        at::Tensor sum = at::zeros({2, settings.patches()});
        for (std::int64_t h = 0; h < heads; ++h) {
            const auto part = [&](std::int64_t which) {  // of q, k, v: (B, N + 1, d)
                return qkv.slice(2, which * settings.embed_dim + h * dim, which * settings.embed_dim + (h + 1) * dim);
            };
            const at::Tensor logits =
                at::bmm(part(0).slice(1, 0, looking), part(1).transpose(1, 2)) / std::sqrt(1.0 * dim);
            const at::Tensor attention = logits.softmax(-1).mean(1);  // (B, N + 1)
            sum += (attention * part(2).norm(2, -1)).slice(1, 1) / static_cast<double>(heads);
        }
        taken.push_back(sum);
        x = model->backbone().run_block(i, x);
    }
    const auto engine = test::engine_of(model);
    const InferenceModel::DenseOutput plain = engine->forward(images), output = engine->forward(images, {1, last});
    EXPECT_TRUE(plain.saliency.empty());
    EXPECT_TRUE(at::equal(plain.logits, output.logits));
    ASSERT_EQ(output.saliency.size(), 2u);
    EXPECT_CLOSE(output.saliency[1], taken[last], 1e-5);
    EXPECT_CLOSE(output.saliency[0], at::stack(taken).slice(0, 1).mean(0), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Poolings, Saliency, testing::Values("token", "mean"));

TEST(InferenceModel, Float8NeedsItsGpu) {
    EXPECT_EQ(test::error_of([] { test::engine_of(test::tiny_student(), at::kFloat8_e4m3fn); }),
              "[precision] float8 runs on GPUs of compute capability 9.0 only: this is a processor; take bfloat16 or "
              "float32 here");
}

// By twelve blocks' roundings; and an image's answer is not of the others' making: a scale for each row.
TEST(InferenceModel, Float8ComesCloseToBFloat16) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    if (const std::string reason = why_no_float8(at::kCUDA); !reason.empty()) GTEST_SKIP() << "float8: " << reason;
    const torch::NoGradGuard no_grad;
    DynamicVit model = test::tiny_student();
    model->to(at::kCUDA);
    const at::Tensor images = at::randn({4, 3, 224, 224}, test::generator(1));
    const auto half = test::engine_of(model, at::kBFloat16), engine = test::engine_of(model, at::kFloat8_e4m3fn);
    const at::Tensor logits = engine->forward(images).logits;
    EXPECT_EQ(logits.scalar_type(), at::kFloat);
    EXPECT_CLOSE(logits, half->forward(images).logits, 0.15);
    at::Tensor beside = images.clone();
    beside.slice(0, 1).mul_(100);
    EXPECT_CLOSE(engine->forward(beside).logits[0], logits[0], 1e-6);
    const std::vector<std::int64_t> tokens = {120, 60, 30};
    const PrunedOutput exact = pruned_forward(*half, images, make_policy("predicted", half).get(), tokens),
                       pruned = pruned_forward(*engine, images, make_policy("predicted", engine).get(), tokens);
    EXPECT_CLOSE(pruned.logits, exact.logits, 0.2);
    EXPECT_GT(at::isin(pruned.kept[0][0], exact.kept[0][0]).sum().item<int>(), 105);
    const PruningPlan plan{.policy = "per_image", .thresholds = {0.4, 0.4, 0.4}};  // packed rows
    const at::Tensor packed = InferenceSession(engine, plan).run(images).logits;
    EXPECT_TRUE(packed.isfinite().all().item<bool>());
}

// Lower precision changes logits a little, and the selection hardly.
TEST(InferenceModel, OtherPrecisionsComeClose) {
    const at::Tensor images = at::randn({2, 3, 224, 224}, test::generator(1));
    const PrunedOutput exact = test::prune(test::tiny_student(), images, {120, 60, 30});
    for (const auto& [precision, tolerance] :
         std::map<at::ScalarType, double>{{at::kBFloat16, 0.1}, {at::kHalf, 0.02}, {at::kQInt8, 0.15}}) {
        if (precision == at::kQInt8 && !fast_on_cpu(precision)) continue;
        const auto engine = test::engine_of(test::tiny_student(), precision);
        const PrunedOutput output =
            pruned_forward(*engine, images, make_policy("predicted", engine).get(), {120, 60, 30});
        EXPECT_EQ(output.logits.scalar_type(), at::kFloat);
        EXPECT_CLOSE(output.logits, exact.logits, tolerance) << precision;
        EXPECT_GT(at::isin(output.kept[0][0], exact.kept[0][0]).sum().item<int>(), 110) << precision;
    }
}

}  // namespace
}  // namespace dynvit
