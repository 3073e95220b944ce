// Sessions on a GPU, where passes are recorded and replayed, against the same passes run as they are.
#include <atomic>
#include <thread>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

std::shared_ptr<const InferenceModel> gpu_engine(at::ScalarType precision) {
    DynamicVit model = test::tiny_student();
    model->to(at::kCUDA);
    return test::engine_of(model, precision);
}

at::Tensor images(std::int64_t batch, std::uint64_t seed) {
    return at::randn({batch, 3, 224, 224}, test::generator(seed));
}

TEST(RecordedForward, EqualsTheFirstPass) {  // the first pass of a batch size isn't recorded
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    for (const at::ScalarType precision : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const auto engine = gpu_engine(precision);
        for (const PruningPlan& plan : std::vector<PruningPlan>{{},
                                                                {.tokens = {120, 50, 11}},
                                                                {.policy = "cls_attention", .tokens = {120, 50, 11}},
                                                                {.policy = "structural"}}) {
            const InferenceSession session(engine, plan);
            for (const std::int64_t batch : {1, 3}) {
                const SessionOutput first = session.run(images(batch, 1));
                session.run(images(batch, 2));
                const SessionOutput again = session.run(images(batch, 1));
                EXPECT_TRUE(again.logits.equal(first.logits)) << precision << ' ' << plan.policy << ' ' << batch;
                EXPECT_EQ(again.counts, first.counts);
                ASSERT_EQ(again.kept.size(), first.kept.size());
                for (std::size_t s = 0; s < first.kept.size(); ++s) EXPECT_TRUE(again.kept[s].equal(first.kept[s]));
            }
        }
    }
}

// The root of the mean square of the difference, relative to that of what is expected.
double mean_error(const at::Tensor& found, const at::Tensor& expected) {
    return ((found - expected).norm() / expected.norm()).item<double>();
}

// A recorded pass of one image of a DeiT-S may run whole runs of blocks at once: other roundings, as many of them.
TEST(RecordedForward, IsAsExactForOneImageOfADeitSmall) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    DynamicVit model(model_settings("deit_small"), test::generator(6));
    model->to(at::kCUDA);
    const auto exact = test::engine_of(model, at::kFloat);
    std::vector<at::Tensor> scores;
    for (std::uint64_t s = 0; s < 3; ++s) scores.push_back(at::rand({196}, test::generator(s)).cuda());
    for (const at::ScalarType precision : {at::kBFloat16, at::kHalf}) {
        const auto engine = test::engine_of(model, precision);
        InferenceSession session(engine), exact_session(exact);
        for (const PruningPlan& plan : std::vector<PruningPlan>{{}, {.policy = "static", .tokens = {137, 96, 67}}}) {
            session.set_plan(plan, make_static_policy(scores));
            exact_session.set_plan(plan, make_static_policy(scores));
            const SessionOutput first = session.run(images(1, 1));
            for (int call = 0; call < 3; ++call) {
                const SessionOutput recorded = session.run(images(1, 1));
                const at::Tensor expected = exact_session.run(images(1, 1)).logits;
                EXPECT_LE(mean_error(recorded.logits, expected), 1.5 * mean_error(first.logits, expected))
                    << precision << ' ' << plan.policy << " call " << call;
                for (std::size_t s = 0; s < first.kept.size(); ++s) {
                    EXPECT_TRUE(recorded.kept[s].equal(first.kept[s]));
                }
            }
        }
        session.set_plan({.policy = "cls_attention", .tokens = {137, 96, 67}});  // looks at what goes into each block
        const SessionOutput first = session.run(images(1, 1)), recorded = session.run(images(1, 1));
        EXPECT_TRUE(recorded.logits.equal(first.logits));
    }
}

// What is predicted decides alike, but for tokens whose scores are as good as equal.
TEST(RecordedForward, KeepsTheSameTokensOfOneImage) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    DynamicVit model(model_settings("deit_small"), test::generator(6));
    model->to(at::kCUDA);
    const InferenceSession session(test::engine_of(model, at::kBFloat16), {.tokens = {137, 96, 67}});
    const SessionOutput first = session.run(images(1, 1));
    for (int call = 0; call < 2; ++call) {
        const SessionOutput recorded = session.run(images(1, 1));
        EXPECT_EQ(recorded.counts, first.counts);
        for (std::size_t s = 0; s < first.kept.size(); ++s) {
            const double kept = static_cast<double>(first.kept[s].numel());
            EXPECT_GE(at::isin(recorded.kept[s], first.kept[s]).sum().item<double>(), 0.9 * kept) << "stage " << s;
        }
    }
}

TEST(RecordedForward, FollowsAChangedPlanAndManyBatchSizes) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const auto engine = gpu_engine(at::kBFloat16);
    InferenceSession session(engine, {.tokens = {120, 50, 11}});
    for (int i = 0; i < 3; ++i) session.run(images(2, 1));
    session.set_plan({.tokens = {60, 20, 5}});
    const at::Tensor expected = InferenceSession(engine, {.tokens = {60, 20, 5}}).run(images(2, 1)).logits;
    for (int i = 0; i < 3; ++i) EXPECT_CLOSE(session.run(images(2, 1)).logits, expected, 1e-2);
    for (int round = 0; round < 2; ++round) {
        for (std::int64_t batch = 1; batch <= 20; ++batch) {
            EXPECT_EQ(session.run(images(batch, 3)).logits.size(0), batch);
        }
    }
}

TEST(RecordedForward, TakesBytesAsItTakesNormalizedNumbers) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor bytes = at::randint(0, 256, {2, 3, 224, 224}, test::generator(4), at::kByte);
    for (const at::ScalarType precision : {at::kFloat, at::kBFloat16}) {
        const InferenceSession session(gpu_engine(precision), {.tokens = {120, 50, 11}});
        const at::Tensor expected = session.run(normalize_images(bytes, at::kCUDA)).logits;
        for (int i = 0; i < 3; ++i) {
            EXPECT_CLOSE(session.run(i == 1 ? bytes : bytes.cuda()).logits, expected,
                         precision == at::kFloat ? 1e-5 : 3e-2);
        }
    }
}

TEST(RecordedForward, ThreadsTakeTurns) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const InferenceSession session(gpu_engine(at::kBFloat16), {.tokens = {120, 50, 11}});
    std::vector<at::Tensor> alone;
    for (std::uint64_t t = 0; t < 4; ++t) alone.push_back(session.run(images(2, t)).logits.cpu());
    std::atomic<int> different = 0;
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int call = 0; call < 8; ++call) {
                different += !session.run(images(2, t)).logits.cpu().allclose(alone[t], 1e-2, 1e-2);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace dynvit
