#include "dynvit/train/adamw.hpp"

#include "dynvit/train/schedule.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

TEST(AdamW, FiveStepsOfTheReference) {  // golden: parameters after steps with a frozen, then a slow backbone
    const TensorMap golden = read_safetensors(test::golden("model/adamw.safetensors")).tensors;
    const TensorMap step = read_safetensors(test::golden("model/train_step.safetensors")).tensors;
    DynamicVit model = test::tiny_student();
    AdamW optimizer(*model, OptimizerSettings());
    const double rates[] = {0.0, 0.0002, 0.0004, 0.0008, 0.001};
    const bool frozen[] = {true, true, false, false, false};
    for (int i = 0; i < 5; ++i) {
        for (const auto& item : model->named_parameters()) {
            item.value().mutable_grad() = step.at("grad." + item.key()) * (1 + 100 * rates[i]);
        }
        optimizer.set_learning_rates(rates[i], frozen[i] ? 0.0 : 0.01 * rates[i]);
        optimizer.step();
    }
    for (const auto& item : model->named_parameters()) {
        EXPECT_CLOSE(item.value(), golden.at("param." + item.key()), 1e-6) << item.key();
    }
}

TEST(AdamW, StateRoundTripContinuesTheSame) {
    const auto train = [](DynamicVit& model, AdamW& optimizer, int steps) {
        for (int i = 0; i < steps; ++i) {
            for (const auto& item : model->named_parameters())
                item.value().mutable_grad() = item.value().detach() * 0.5 + 0.1;
            optimizer.set_learning_rates(1e-2, 1e-3);
            optimizer.step();
        }
    };
    DynamicVit whole = test::tiny_student(), part = test::tiny_student(), rest = test::tiny_student();
    AdamW a(*whole, OptimizerSettings()), b(*part, OptimizerSettings()), c(*rest, OptimizerSettings());
    train(whole, a, 4);
    train(part, b, 2);
    load_state_dict(*rest, state_dict(*part));
    c.load_state(b.state(), "state");
    train(rest, c, 2);
    const TensorMap expected = state_dict(*whole);
    for (const auto& [name, tensor] : state_dict(*rest)) EXPECT_TRUE(tensor.equal(expected.at(name))) << name;

    TensorMap broken = b.state();
    broken.erase("exp_avg.norm.weight");
    EXPECT_EQ(test::error_of([&] { c.load_state(broken, "run/last"); }),
              "[run] run/last: found no exp_avg.norm.weight, expected the state of this experiment's run");
    broken["exp_avg.norm.weight"] = at::zeros({3});
    EXPECT_NE(test::error_of([&] {
                  c.load_state(broken, "run/last");
              }).find("exp_avg.norm.weight: found the shape (3), expected ("),
              std::string::npos);
}

TEST(AdamW, ClipsTheCommonNorm) {
    std::vector<at::Tensor> gradients = {at::full({2, 2}, 3.0), at::full({5}, 4.0)};
    const double norm = std::sqrt(4 * 9.0 + 5 * 16.0);
    EXPECT_NEAR(clip_grad_norm(gradients, 1.0).item<double>(), norm, 1e-5);
    EXPECT_NEAR(gradients[0][0][0].item<double>(), 3.0 / norm, 1e-6);
    clip_grad_norm(gradients, 10.0);
    EXPECT_NEAR(gradients[1][0].item<double>(), 4.0 / norm, 1e-6) << "a norm below the limit stays";
}

TEST(Schedule, FollowsTheReferenceStepByStep) {
    const at::Tensor golden = read_safetensors(test::golden("model/schedule.safetensors")).tensors.at("head");
    const ScheduleSettings settings;
    for (std::int64_t step = 0; step < 1200; ++step) {
        EXPECT_NEAR(learning_rate(settings, step, 40, 30), golden[step].item<double>(), 1e-10) << step;
    }
}

TEST(Schedule, BackboneThawsAfterItsEpochs) {
    ScheduleSettings settings;
    settings.backbone_freeze_epochs = 2;
    const auto rate = [&](std::int64_t step) { return backbone_learning_rate(settings, step, 10, 30); };
    EXPECT_EQ(rate(19), 0.0);
    EXPECT_EQ(rate(20), 0.01 * learning_rate(settings, 20, 10, 30));
    settings.backbone_freeze_epochs = 0;
    EXPECT_EQ(rate(10), 0.01 * learning_rate(settings, 10, 10, 30));
    settings.backbone_schedule = "capped";
    EXPECT_EQ(rate(60), 0.01 * settings.lr) << "not the cosine's share";
    EXPECT_EQ(rate(299), learning_rate(settings, 299, 10, 30)) << "which is lower at the end";
}

TEST(Schedule, NoWarmupAndOneStepWarmup) {
    ScheduleSettings settings;
    settings.warmup_epochs = 0;
    EXPECT_EQ(learning_rate(settings, 0, 10, 3), settings.lr);
    settings.warmup_epochs = 0.1;
    EXPECT_EQ(learning_rate(settings, 0, 10, 3), settings.lr);
    EXPECT_NEAR(learning_rate(settings, 29, 10, 3), settings.min_lr, 1e-5);
}

}  // namespace
}  // namespace dynvit
