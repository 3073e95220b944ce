#include "dynvit/train/losses.hpp"

#include "dynvit/core/config.hpp"
#include "models/golden_model.hpp"
#include "train_support.hpp"

namespace dynvit {
namespace {

TEST(Losses, SoftTargets) {
    const at::Tensor targets = soft_targets(at::tensor({2, 0}, at::kLong), 4, 0.1);
    EXPECT_CLOSE(targets, at::tensor({0.025, 0.025, 0.925, 0.025, 0.925, 0.025, 0.025, 0.025}).view({2, 4}), 1e-6);
}

TEST(Losses, SoftTargetsOfRows) {  // of one class the same as of its index; of two, or none, by the same formula
    const at::Tensor rows = at::tensor({0, 0, 1, 1, 0, 1, 0, 0, 0}, at::kByte).view({3, 3});
    const at::Tensor targets = soft_targets(rows, 4, 0.1);
    EXPECT_TRUE(at::allclose(targets[0], soft_targets(at::tensor({2}, at::kLong), 4, 0.1)[0], 0, 1e-7));
    EXPECT_CLOSE(targets[1], at::tensor({0.925, 0.025, 0.925, 0.025}), 1e-6);
    EXPECT_CLOSE(targets[2], at::full({4}, 0.025), 1e-6);
}

TEST(Losses, BinaryCrossEntropyIsTheMeanOverClasses) {  // against the sums written out
    const double p = 0.2, q = 0.9;
    const at::Tensor logits = at::tensor({std::log(p / (1 - p)), std::log(q / (1 - q))}).view({1, 2});
    const at::Tensor target = at::tensor({0.3, 0.0}).view({1, 2});
    const double first = -(0.3 * std::log(p) + 0.7 * std::log(1 - p));
    EXPECT_NEAR(binary_classification_loss(logits, target).item<double>(), (first - std::log(1 - q)) / 2, 1e-6);
    EXPECT_NEAR(binary_classification_loss(logits, target, 0).item<double>(), (-std::log(p) - std::log(1 - q)) / 2,
                1e-6)
        << "what is there at all counts whole";
    EXPECT_NEAR(binary_classification_loss(logits, target, 0.5).item<double>(),
                (-std::log(1 - p) - std::log(1 - q)) / 2, 1e-6);
    // As timm's BinaryCrossEntropy(smoothing=0.1) defines it, of the logits (0.5, -1, 2) and the class 2.
    const at::Tensor three = at::tensor({0.5, -1.0, 2.0}).view({1, 3});
    EXPECT_NEAR(binary_classification_loss(three, soft_targets(at::tensor({2}, at::kLong), 3, 0.1)).item<double>(),
                0.521422227580434, 1e-6);
}

TEST(Losses, BinaryKindIsOfTheTeacherToo) {
    LossSettings settings = test::losses_of({{"classification", 1}, {"kl", 2}});
    settings.choices.at("classification_kind") = "binary";
    EXPECT_TRUE(settings.binary() && !LossSettings().binary());
    const at::Tensor own = at::randn({3, 4}, test::generator(1)), others = at::randn({3, 4}, test::generator(2));
    const at::Tensor target = at::rand({3, 4}, test::generator(3));
    const InferenceModel::DenseOutput teacher{others, {}, {}};
    const TrainingOutput student{own, {}, {}, {}, {}};
    const auto divergence = [](const at::Tensor& from, const at::Tensor& to) {  // of each class, written out
        const at::Tensor p = from.to(at::kDouble).sigmoid(), q = to.to(at::kDouble).sigmoid();
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean().item<double>();
    };
    for (const bool reverse : {false, true}) {
        settings.choices.at("kl_direction") = reverse ? "student_teacher" : "teacher_student";
        const Losses losses = compute_losses(settings, student, teacher, target, {});
        const double expected = reverse ? divergence(own, others) : divergence(others, own);
        EXPECT_NEAR(losses.each.at("kl").item<double>(), expected, 1e-5);
        EXPECT_NEAR(losses.each.at("classification").item<double>(),
                    binary_classification_loss(own, target).item<double>(), 1e-7);
    }
    EXPECT_EQ(test::error_of([] {
                  read_config<LossSettings>({"target_threshold: 0", "a.yaml", {}});
              }),
              "[config] a.yaml:1: target_threshold: found 0, expected 1 without classification_kind binary");
}

TEST(Losses, KlInBothDirections) {  // against the sums written out
    const at::Tensor s = at::tensor({0.2, 0.8}).log().view({1, 2}), t = at::tensor({0.5, 0.5}).log().view({1, 2});
    const double forward = 0.5 * std::log(0.5 / 0.2) + 0.5 * std::log(0.5 / 0.8);
    const double reverse = 0.2 * std::log(0.2 / 0.5) + 0.8 * std::log(0.8 / 0.5);
    EXPECT_NEAR(kl_loss(s, t).item<double>(), forward, 1e-6);
    EXPECT_NEAR(kl_loss(s, t, true).item<double>(), reverse, 1e-6);
}

TEST(Losses, EmbeddingsByTheirDirection) {
    const at::Tensor a = at::tensor({1.0, 0.0, 3.0, 4.0}).view({2, 2}),
                     b = at::tensor({0.0, 2.0, 6.0, 8.0}).view({2, 2});
    EXPECT_NEAR(embedding_loss(a, b).item<double>(), (1 + 0) / 2.0, 1e-6);
}

TEST(Losses, TokenDistillationCountsKeptTokensOnly) {
    const at::Tensor student = at::zeros({1, 3, 2}),
                     teacher = at::tensor({1.0, 1.0, 5.0, 5.0, 2.0, 0.0}).view({1, 3, 2});
    EXPECT_NEAR(token_distillation_loss(student, teacher, at::tensor({1.0, 0.0, 1.0}).view({1, 3})).item<double>(), 1.5,
                1e-6);
    EXPECT_EQ(token_distillation_loss(student, teacher, at::zeros({1, 3})).item<double>(), 0.0);
}

TEST(Losses, KeepRatio) {
    const at::Tensor all = at::ones({2, 4}), half = at::tensor({1.0, 1.0, 0.0, 0.0}).expand({2, 4});
    EXPECT_NEAR(keep_ratio_loss({all, half}, {0.7, 0.4}).item<double>(), (0.09 + 0.01) / 2, 1e-7);
}

TEST(Losses, SaliencyComparesTheScoresWithTheUse) {
    const at::Tensor use = at::tensor({0.5, 0.25, 0.25}).view({1, 3});
    const auto stage = [](const at::Tensor& score) {  // log-probabilities to keep and to drop with that difference
        return at::stack({at::log_sigmoid(score), at::log_sigmoid(-score)}, -1);
    };
    EXPECT_NEAR(saliency_loss(stage((use * 3).log()), use * 7).item<double>(), 0, 1e-6) << "in any unit";
    EXPECT_NEAR(saliency_loss(stage((use * 3).log() + 2), use).item<double>(), std::exp(2) - 1 - 2, 1e-5);
    const double flat = 0.5 * std::log(0.5 * 3) + 0.5 * std::log(0.25 * 3);
    EXPECT_NEAR(saliency_loss(stage(at::zeros({1, 3})), use).item<double>(), flat, 1e-6);

    const at::Tensor gone = at::tensor({0.5, 0.0, 0.5}).view({1, 3});  // the second token is no longer there
    at::Tensor scores = at::tensor({0.0, 50.0, 0.0}).view({1, 3}).requires_grad_();
    const at::Tensor loss = saliency_loss(stage(scores), gone);
    EXPECT_NEAR(loss.item<double>(), 0, 1e-6) << "its score does not count";
    loss.backward();
    EXPECT_TRUE(scores.grad().isfinite().all().item<bool>());
    EXPECT_EQ(scores.grad()[0][1].item<double>(), 0);
    EXPECT_EQ(saliency_loss(stage(at::ones({1, 3})), at::zeros({1, 3})).item<double>(), 0) << "an image without tokens";
}

TEST(Losses, SaliencyOfMaskedAndOfRemovedTokens) {
    const std::vector<at::Tensor> use = {at::tensor({4.0, 3.0, 2.0, 1.0}).view({1, 4}),
                                         at::tensor({1.0, 2.0, 3.0, 4.0}).view({1, 4})};
    const InferenceModel::DenseOutput teacher{at::zeros({1, 2}), {}, use};
    const LossSettings settings = test::losses_of({{"saliency", 2}});
    const at::Tensor scores = at::randn({1, 4, 2}, test::generator(1)).log_softmax(-1);
    TrainingOutput masked{at::zeros({1, 2}), {}, {scores, scores}, {}, {}};
    masked.decisions = {at::tensor({1.0, 0.0, 1.0, 0.0}).view({1, 4}), at::ones({1, 4})};
    const at::Tensor places = at::tensor({0, 2}).view({1, 2});
    TrainingOutput removed{
        at::zeros({1, 2}), {}, {scores, scores.index_select(1, places[0])}, {}, {at::arange(4).view({1, 4}), places}};
    removed.owners.resize(2);
    const double expected =
        (saliency_loss(scores, use[0]) + saliency_loss(removed.log_probs[1], use[1].gather(1, places))).item<double>();
    for (const TrainingOutput& output : {masked, removed}) {
        const Losses losses = compute_losses(settings, output, teacher, {}, {0.5, 0.25});
        EXPECT_NEAR(losses.each.at("saliency").item<double>(), expected / 2, 1e-6) << "the mean over the stages";
        EXPECT_NEAR(losses.total.item<double>(), expected, 1e-6);
    }
    // Merged tokens have the use of all patches in them: here of 0 and 3, and of 2; 1 was deleted.
    removed.owners[1] = at::tensor({0, -1, 1, 0}, at::kLong).view({1, 4});
    const at::Tensor of_groups = at::tensor({5.0, 3.0}).view({1, 2});
    EXPECT_NEAR(compute_losses(settings, removed, teacher, {}, {0.5, 0.25}).each.at("saliency").item<double>(),
                (saliency_loss(scores, use[0]) + saliency_loss(removed.log_probs[1], of_groups)).item<double>() / 2,
                1e-6);
}

// The teacher's features stay those of all tokens: each output says which of them it has.
TEST(Losses, RemovedTokensAreComparedWithTheTeachersOfTheSamePlaces) {
    const at::Tensor kept = at::tensor({0, 3, 1, 2}).view({2, 2});
    const at::Tensor all = at::randn({2, 4, 3}, test::generator(1)),
                     features = at::randn({2, 2, 3}, test::generator(2));
    const InferenceModel::DenseOutput teacher{at::zeros({2, 2}), all, {}};
    const TrainingOutput removed{at::zeros({2, 2}), features, {}, {}, {}, kept};
    const Losses losses = compute_losses(test::losses_of({{"distill", 1}}), removed, teacher, {}, {0.5});
    const at::Tensor same_places =
        at::stack({all[0].index_select(0, kept[0]), all[1].index_select(0, kept[1])});  // (2, 2, 3)
    EXPECT_NEAR(losses.each.at("distill").item<double>(), (features - same_places).square().mean().item<double>(),
                1e-6);
    EXPECT_EQ(losses.each.size(), 1u);
}

TEST(Losses, SettingsAreTheList) {
    const std::string text = write_config(LossSettings());
    EXPECT_EQ(text.find("classification: 1 "), 0u) << text;
    std::vector<std::string> keys;
    for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
        keys.push_back(text.substr(at, text.find(':', at) - at));
    }
    EXPECT_EQ(keys, (std::vector<std::string>{"classification", "kl", "embedding", "distill", "ratio", "saliency",
                                              "classification_kind", "kl_direction", "distill_kind", "label_smoothing",
                                              "target_threshold", "distill_mean"}));
    const auto read = [](const std::string& yaml) { return read_config<LossSettings>({yaml, "a.yaml", {}}); };
    const LossSettings settings = read("{kl: 3, kl_direction: student_teacher}");
    EXPECT_EQ(settings.weights.at("kl"), 3);
    EXPECT_EQ(settings.weights.at("ratio"), 2);
    EXPECT_EQ(settings.choices.at("kl_direction"), "student_teacher");
    EXPECT_EQ(settings.choices.at("distill_kind"), "mse");
    EXPECT_EQ(test::error_of([&] { read("{distill_kind: kl_}"); }),
              "[config] a.yaml:1: distill_kind: found 'kl_', expected one of mse, kl");
    EXPECT_EQ(test::error_of([&] { read("{ratio: -1}"); }),
              "[config] a.yaml:1: ratio: found '-1', expected a number of at least 0");
}

TEST(Losses, NeedsAreThoseOfTheLossesWithAWeight) {
    EXPECT_EQ(loss_names(&Loss::needs_teacher), (std::vector<std::string>{"kl", "embedding", "distill", "saliency"}));
    const auto needs = [](const LossSettings& s) {
        return std::vector{s.need_labels(), s.need_teacher(), s.need_saliency(), s.teach(true), s.teach(false)};
    };
    EXPECT_EQ(needs(test::losses_of({})), (std::vector{false, false, false, false, false}));
    EXPECT_EQ(needs(test::losses_of({{"classification", 1}})), (std::vector{true, false, false, true, true}));
    EXPECT_EQ(needs(test::losses_of({{"ratio", 1}})), (std::vector{false, false, false, true, false}));
    EXPECT_EQ(needs(test::losses_of({{"saliency", 1}})), (std::vector{false, true, true, true, true}));
}

// Pictures of 96 x 160, patch 8, two stages, seven classes, one image; and an image whose first stage keeps nothing.
TEST(Losses, OtherShapesAndAnEmptyImageStayFinite) {
    ModelSettings settings = test::tiny_settings({1, 2});
    settings.image_size = {96, 160};
    settings.patch_size = 8;
    settings.num_classes = 7;
    settings.depth = 4;
    for (const bool empty : {false, true}) {
        DynamicVit model(settings, test::generator(1));
        const at::Tensor images = at::randn({1, 3, 96, 160}, test::generator(2));
        TrainingNoise noise = model->draw_noise(1, test::generator(3), at::kCPU);
        if (empty) noise.gumbel[0].select(-1, 1).fill_(100.0);
        const TrainingOutput out = model->forward_train(images, noise);
        EXPECT_EQ(out.logits.sizes(), (at::IntArrayRef{1, 7}));
        EXPECT_EQ(out.features.sizes(), (at::IntArrayRef{1, 240, 32}));
        EXPECT_EQ(out.decisions[1].sum().item<double>() == 0, empty);
        const InferenceModel::DenseOutput dense = InferenceModel(*model).forward(images);
        const Losses losses =
            compute_losses(LossSettings(), out, dense, soft_targets(at::tensor({3}, at::kLong), 7, 0.1), {0.7, 0.49});
        EXPECT_TRUE(losses.total.isfinite().item<bool>());
        losses.total.backward();
        for (const auto& item : model->named_parameters()) {
            ASSERT_TRUE(item.value().grad().defined()) << item.key();
            EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
        }
    }
}

}  // namespace
}  // namespace dynvit
