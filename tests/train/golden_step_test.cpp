// One training step against the reference implementation: every tensor of it, every gradient.
#include "dynvit/train/losses.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr double kForward = 1e-5;   // float32 against float64, relative to the largest value
constexpr double kGradient = 5e-5;  // sums over 196 tokens and 4 images of such values

class GoldenStep : public testing::TestWithParam<at::DeviceType> {};

TEST_P(GoldenStep, EveryTensor) {
    if (GetParam() == at::kCUDA && !at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Device device(GetParam());
    const TensorMap golden = read_safetensors(test::golden("model/train_step.safetensors")).tensors;
    const at::Tensor images = golden.at("images").to(device, at::kFloat);
    DynamicVit student = test::tiny_student(), teacher = test::tiny_teacher();
    student->to(device);
    teacher->to(device);

    TrainingNoise noise;
    for (int s = 0; s < 3; ++s) noise.gumbel.push_back(golden.at(str("gumbel.", s)).to(device));
    const TrainingOutput out = student->forward_train(images, noise);
    const InferenceModel::DenseOutput dense = InferenceModel(*teacher).forward(images);
    for (int s = 0; s < 3; ++s) {
        EXPECT_CLOSE(out.log_probs[s], golden.at(str("log_prob.", s)), kForward);
        EXPECT_TRUE(out.decisions[s].detach().cpu().equal(golden.at(str("decision.", s)))) << "decisions are exact";
    }
    EXPECT_TRUE(out.decisions.back().detach().cpu().equal(golden.at("final_decision")));
    EXPECT_CLOSE(out.logits, golden.at("logits"), kForward);
    EXPECT_CLOSE(out.features, golden.at("features"), kForward);
    EXPECT_CLOSE(dense.logits, golden.at("teacher_logits"), kForward);
    EXPECT_CLOSE(dense.features, golden.at("teacher_features"), kForward);

    const Losses losses =
        compute_losses(LossSettings(), out, dense, golden.at("target").to(device), {0.7, 0.49, 0.343});
    EXPECT_CLOSE(losses.each.at("classification"), golden.at("loss_cls"), kForward);
    EXPECT_CLOSE(losses.each.at("ratio"), golden.at("loss_ratio"), kForward);
    EXPECT_CLOSE(losses.each.at("kl"), golden.at("loss_kl"), kForward);
    EXPECT_CLOSE(losses.each.at("distill"), golden.at("loss_token"), kForward);
    EXPECT_CLOSE(losses.total, golden.at("loss_total"), kForward);

    losses.total.backward();
    int gradients = 0;
    for (const auto& item : student->named_parameters()) {
        const auto expected = golden.find("grad." + item.key());
        if (expected == golden.end()) continue;
        ++gradients;
        EXPECT_CLOSE(item.value().grad(), expected->second, kGradient) << item.key();
    }
    EXPECT_EQ(gradients, std::count_if(golden.begin(), golden.end(),
                                       [](const auto& entry) { return entry.first.starts_with("grad."); }));
    EXPECT_GE(gradients, 180);
}

INSTANTIATE_TEST_SUITE_P(Devices, GoldenStep, testing::Values(at::kCPU, at::kCUDA),
                         [](const auto& info) { return at::DeviceTypeName(info.param, true); });

}  // namespace
}  // namespace dynvit
