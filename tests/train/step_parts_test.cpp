// The parts of a step against their closed forms: running average, loss scaling, skipped steps, selection over time.
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/core/error.hpp"
#include "dynvit/train/adamw.hpp"
#include "dynvit/train/blend.hpp"
#include "dynvit/train/ema.hpp"
#include "dynvit/train/loss_scaler.hpp"
#include "dynvit/train/metrics.hpp"
#include "dynvit/train/selection_schedule.hpp"
#include "dynvit/weights/state_dict.hpp"
#include "tensor_support.hpp"

namespace dynvit {
namespace {

DynamicVit small_model() {
    ModelSettings s;
    s.name = "custom";
    s.image_size = {16};
    s.patch_size = 8;
    s.num_classes = 3;
    s.embed_dim = 8;
    s.depth = 2;
    s.num_heads = 2;
    s.pruning_loc = {1};
    return DynamicVit(s, at::make_generator<at::CPUGeneratorImpl>(7));
}

TEST(Ema, FollowsTheRecursion) {
    for (const bool warmup : {false, true}) {
        DynamicVit model = small_model();
        Ema ema(*model, {.decay = 0.9, .warmup = warmup});
        const at::Tensor weight = model->named_parameters()["head.weight"];
        at::Tensor expected = weight.detach().clone();
        for (int step = 0; step < 5; ++step) {
            {
                const torch::NoGradGuard no_grad;
                weight.add_(1.0 + step);
            }
            ema.update(*model, step);
            const double decay = warmup ? std::min(0.9, (1.0 + step) / (10.0 + step)) : 0.9;
            expected = decay * expected + (1 - decay) * weight.detach();
        }
        EXPECT_CLOSE(ema.average()->named_parameters()["head.weight"], expected, 1e-6);
        EXPECT_FALSE(ema.average()->named_parameters()["head.weight"].requires_grad());
    }
}

// A model with buffers, which none of dynvit's has.
void add_buffers(DynamicVit& model, double level, std::int64_t count) {
    model->register_buffer("level", at::full({3}, level));
    model->register_buffer("count", at::full({}, count, at::kLong));
}

TEST(StateDict, HasBuffersToo) {
    DynamicVit from = small_model(), to = small_model();
    add_buffers(from, 2.5, 7);
    add_buffers(to, 0, 0);
    const TensorMap state = state_dict(*from);
    EXPECT_CLOSE(state.at("level"), at::full({3}, 2.5), 0);
    EXPECT_TRUE(load_state_dict(*to, state).clean());
    EXPECT_EQ(to->named_buffers()["level"][2].item<double>(), 2.5);
    EXPECT_EQ(to->named_buffers()["count"].item<std::int64_t>(), 7);
    DynamicVit without = small_model();
    EXPECT_EQ(load_state_dict(*without, state).unexpected, (std::vector<std::string>{"count", "level"}));
    EXPECT_EQ(load_state_dict(*to, state_dict(*without)).missing, (std::vector<std::string>{"level", "count"}));
}

TEST(Ema, AveragesFloatingBuffersAndCopiesOthers) {
    DynamicVit model = small_model();
    Ema ema(*model, {.decay = 0.75, .warmup = false});
    DynamicVit average = ema.average();
    add_buffers(model, 8, 5);
    add_buffers(average, 4, 1);
    ema.update(*model, 0);
    EXPECT_CLOSE(average->named_buffers()["level"], at::full({3}, 0.75 * 4 + 0.25 * 8), 1e-7);
    EXPECT_EQ(average->named_buffers()["count"].item<std::int64_t>(), 5);
}

TEST(Blend, BlendsFloatingBuffersAndTakesOthersAsTheyAre) {
    DynamicVit model = small_model();
    add_buffers(model, 4, 1);
    Blend blend(*model, 0.25);
    DynamicVit blended = blend.with(*small_model());  // the parameters alone
    add_buffers(blended, 0, 0);
    DynamicVit trained = small_model();
    add_buffers(trained, 8, 5);
    blend.with(*trained);
    EXPECT_CLOSE(blended->named_buffers()["level"], at::full({3}, 0.75 * 4 + 0.25 * 8), 1e-7);
    EXPECT_EQ(blended->named_buffers()["count"].item<std::int64_t>(), 5);
}

TEST(LossScaler, UnscalesAndFindsWhatIsNotFinite) {
    const LossScaler scaler(at::kCPU, true);
    at::Tensor gradient = scaler.scale(at::ones({4}));
    const double factor = gradient[0].item<float>();
    EXPECT_EQ(factor, 65536);
    EXPECT_EQ(scaler.unscale({gradient}).item<float>(), 0);
    EXPECT_CLOSE(gradient, at::ones({4}), 1e-7);
    for (const double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
        EXPECT_EQ(scaler.unscale({at::ones({2}), at::full({1}, bad)}).item<float>(), 1);
    }
}

TEST(LossScaler, BacksOffAndGrowsAgain) {
    LossScaler scaler(at::kCPU, true);
    scaler.update(at::ones({1}));
    EXPECT_EQ(scaler.scale(at::ones({})).item<float>(), 32768);
    for (int i = 0; i < 2000; ++i) scaler.update(at::zeros({1}));
    EXPECT_EQ(scaler.scale(at::ones({})).item<float>(), 65536);
    LossScaler restored(at::kCPU, true);
    scaler.update(at::ones({1}));
    restored.load_state(scaler.state(), "state");
    EXPECT_EQ(restored.scale(at::ones({})).item<float>(), 32768);
    EXPECT_TRUE(LossScaler(at::kCPU, false).state().empty());
}

TEST(AdamW, SkippedStepChangesNothing) {
    const auto run = [](const std::vector<int>& skips) {
        DynamicVit model = small_model();
        AdamW optimizer(*model, {});
        for (const int skip : skips) {
            for (at::Tensor& parameter : model->parameters())
                parameter.mutable_grad() = at::full_like(parameter, skip ? NAN : 0.5);
            optimizer.set_learning_rates(1e-2, 1e-2);
            optimizer.step(at::full({1}, skip, at::kFloat));
        }
        TensorMap state = optimizer.state();
        state.emplace("weight", model->named_parameters()["head.weight"].detach().clone());
        return state;
    };
    const TensorMap with = run({0, 1, 1, 0}), without = run({0, 0});
    for (const auto& [name, tensor] : without) EXPECT_TRUE(tensor.equal(with.at(name))) << name;
}

TEST(Meters, MeansOfStepsThatWereNotSkipped) {
    Meters meters;
    const std::vector<std::pair<double, double>> given = {{1.0, 0.0}, {NAN, 1.0}, {4.0, 0.0}};
    for (const auto& [loss, skipped] : given) {
        StepOutput output;
        output.losses.total = at::full({}, loss);
        output.keep_ratios.push_back(at::full({}, loss / 8));
        output.skipped = at::full({1}, skipped, at::kFloat);
        meters.add(output);
    }
    nlohmann::json line = meters.take();
    EXPECT_EQ(line["loss"], 2.5);
    EXPECT_EQ(line["keep_ratio"], nlohmann::json({2.5 / 8}));
    EXPECT_FALSE(line.contains("kl"));
    StepOutput output;
    output.losses.total = at::full({}, NAN);
    output.skipped = at::ones({1});
    meters.add(output);
    EXPECT_TRUE(meters.take()["loss"].is_null()) << "no step counts";
}

TEST(SkippedSteps, CountsThoseInARow) {
    SkippedSteps steps;
    const auto add = [&](std::int64_t step, double skipped, double bad_loss = 0) {
        StepOutput output;
        output.skipped = at::full({1}, skipped, at::kFloat);
        output.bad_loss = at::full({1}, bad_loss, at::kFloat);
        steps.add(step, output, {str("picture ", step)});
    };
    add(1, 1);
    add(2, 0);
    add(3, 1, 1);
    auto found = steps.take();
    ASSERT_EQ(found.size(), 2u);
    EXPECT_EQ(found[1].step, 3);
    EXPECT_EQ(found[1].names, std::vector<std::string>{"picture 3"});
    EXPECT_FALSE(found[0].bad_loss);
    EXPECT_TRUE(found[1].bad_loss);
    EXPECT_EQ(steps.in_a_row(), 1);
    add(4, 1);
    EXPECT_EQ(steps.take().size(), 1u);
    EXPECT_EQ(steps.in_a_row(), 2);
    add(5, 1);
    add(6, 0);
    EXPECT_EQ(steps.take().size(), 1u);
    EXPECT_EQ(steps.in_a_row(), 3) << "though the last step was good";
    add(7, 0);
    EXPECT_TRUE(steps.take().empty());
    EXPECT_EQ(steps.in_a_row(), 0);

    add(8, 1);
    EXPECT_TRUE(steps.take_earlier().empty()) << "the device may not know yet";
    add(9, 1);
    found = steps.take_earlier();
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].step, 8);
    EXPECT_EQ(steps.in_a_row(), 1);
    add(10, 0);
    found = steps.take();
    ASSERT_EQ(found.size(), 1u) << "all that was not told yet, the tenth step too";
    EXPECT_EQ(found[0].step, 9);
    EXPECT_EQ(steps.in_a_row(), 2);
    EXPECT_TRUE(steps.take_earlier().empty());
    EXPECT_EQ(steps.in_a_row(), 0);
}

TEST(SelectionSchedule, DrawsRatiosInItsLastPartOnly) {
    SelectionSettings settings;
    const std::vector<double> targets = {0.7, 0.49, 0.343};
    EXPECT_FALSE(step_selection(settings, targets, 99, 100, Random(0)).deterministic) << "never by default";
    settings.deterministic_from = 0.5;
    EXPECT_FALSE(step_selection(settings, targets, 49, 100, Random(0)).deterministic);
    const StepSelection fixed = step_selection(settings, targets, 50, 100, Random(0));
    EXPECT_TRUE(fixed.deterministic);
    EXPECT_EQ(fixed.targets, targets);
    settings.keep_ratio_range = {0.5, 0.9};
    EXPECT_EQ(step_selection(settings, targets, 0, 100, Random(0)).targets, targets);
    const std::vector<double> ratios = drawn_ratios(settings);
    EXPECT_EQ(ratios.size(), 10u);
    std::set<double> drawn_ones;
    double least = 1, most = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const StepSelection drawn = step_selection(settings, targets, 60, 100, Random(seed));
        ASSERT_EQ(drawn.targets.size(), 3u);
        EXPECT_DOUBLE_EQ(drawn.targets[2], std::pow(drawn.targets[0], 3));
        drawn_ones.insert(drawn.targets[0]);
        least = std::min(least, drawn.targets[0]);
        most = std::max(most, drawn.targets[0]);
    }
    EXPECT_GE(least, 0.5);
    EXPECT_LT(least, 0.52);
    EXPECT_LE(most, 0.9);
    EXPECT_GT(most, 0.88);
    EXPECT_EQ(drawn_ones, std::set<double>(ratios.begin(), ratios.end())) << "so few that each can be recorded";
    EXPECT_FALSE(step_selection(settings, {}, 99, 100, Random(0)).deterministic) << "a dense model selects nothing";
}

}  // namespace
}  // namespace dynvit
