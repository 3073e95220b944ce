// Training by several processes, as a launcher starts them: they make the steps of one, and end together.
#include <nlohmann/json.hpp>
#include <sstream>

#include "dynvit/io/safetensors.hpp"
#include "free_port.hpp"
#include "small_model.hpp"

namespace dynvit {
namespace {

using nlohmann::json;
using test::text_of;

// Every loss, what mixes pictures, and what draws.
constexpr const char* kConfig = R"(
model: {name: custom, image_size: 32, patch_size: 8, num_classes: 10, embed_dim: 16, depth: 3, num_heads: 2,
        pruning_loc: [1, 2], drop_path: 0.1}
data: {kind: cluttered_shapes, train_images: 100, val_images: 21, workers: 1, repeats: 1}
train:
  weights: w.safetensors
  epochs: 2
  batch_size: 10
  device: cpu
  log_every: 1
  loss: {saliency: 0.1}
  mixup: {mixup: 0.8, cutmix: 1.0, mode: elem}
)";

// `launch N ARGUMENTS` starts N processes of a run, whose numbers are in ${runs[@]}; `finish` waits for them and prints
// their exit codes. `until_step N` returns once the run in the folder run has logged that step, or its first process
// has ended.
constexpr const char* kFunctions = R"(
launch() {
    local count=$1; shift; runs=()
    for ((rank = 0; rank < count; ++rank)); do
        RANK=$rank WORLD_SIZE=$count MASTER_ADDR=127.0.0.1 MASTER_PORT=$PORT \
            "$PROGRAM" train -c c.yaml "$@" --threads 1 --log-level warn > out$rank 2> log$rank & runs+=($!)
    done
}
finish() { for run in "${runs[@]}"; do wait $run 2> /dev/null; echo $?; done; }
until_step() {
    until grep -q "\"step\":$1[,}]" run/metrics.jsonl 2> /dev/null; do kill -0 ${runs[0]} 2> /dev/null || break; done
}
)";

class Processes : public test::SmallModel {
  protected:
    void SetUp() override {
        SmallModel::SetUp();
        write("c.yaml", kConfig);
    }

    std::string run(const std::string& commands) const {
        return bash(str("PROGRAM='", DYNVIT_PROGRAM, "' PORT=", test::free_port(), '\n', kFunctions, commands)).out;
    }

    std::string log(int rank) const { return text_of(folder_ / str("log", rank)); }

    // Lines of metrics.jsonl of one kind.
    std::vector<json> metrics(const std::string& name, const std::string& kind) const {
        std::istringstream text(text_of(folder_ / name / "metrics.jsonl"));
        std::vector<json> lines;
        for (std::string line; std::getline(text, line);) {
            if (json parsed = json::parse(line); parsed["kind"] == kind) lines.push_back(std::move(parsed));
        }
        return lines;
    }

    TensorMap state(const std::string& name) const {
        return read_safetensors(folder_ / name / "checkpoints/state.safetensors").tensors;
    }

    // The largest difference of the tensors whose names begin so.
    double difference(const TensorMap& a, const TensorMap& b, const std::string& prefix) const {
        double largest = 0;
        int compared = 0;
        for (const auto& [key, tensor] : a) {
            if (!key.starts_with(prefix)) continue;
            ++compared;
            largest = std::max(largest, (tensor - b.at(key)).abs().max().item<double>());
        }
        EXPECT_GT(compared, 10);
        return largest;
    }
};

TEST_F(Processes, GradientsAreThoseOfOneProcess) {
    ASSERT_EQ(run("launch 1 -o one --set train.max_steps=1; finish"), "0\n") << log(0);
    const TensorMap one = state("one");
    for (const int count : {2, 3}) {
        const std::string name = str("run", count);
        std::string codes;
        for (int i = 0; i < count; ++i) codes += "0\n";
        ASSERT_EQ(run(str("launch ", count, " -o ", name, " --set train.max_steps=1; finish")), codes) << log(0);
        const TensorMap several = state(name);
        // After one step the mean of the gradients is a tenth of the gradient.
        EXPECT_LT(difference(one, several, "exp_avg."), 1e-7) << count;
        EXPECT_EQ(log(1), "") << "only rank 0 speaks";
    }
    // With the mean over each process's own tokens, as the reference has it, they are others.
    ASSERT_EQ(run("launch 2 -o own --set train.max_steps=1 --set train.loss.distill_mean=process; finish"), "0\n0\n");
    EXPECT_GT(difference(one, state("own"), "exp_avg."), 1e-6);
}

TEST_F(Processes, ARunGoesOnWithAnotherNumberOfThem) {
    ASSERT_EQ(run("launch 1 -o one; finish"), "0\n") << log(0);
    EXPECT_EQ(run("launch 2 -o run --resume auto --set train.max_steps=6; finish"), "0\n0\n") << log(0);
    EXPECT_EQ(run("launch 3 -o run --resume auto --set train.max_steps=13; finish"), "0\n0\n0\n") << log(0);
    EXPECT_EQ(run("launch 1 -o run --resume auto; finish"), "0\n") << log(0);
    const std::vector<json> one = metrics("one", "train"), several = metrics("run", "train");
    ASSERT_EQ(one.size(), 20u);
    ASSERT_EQ(several.size(), 20u);
    for (std::size_t i = 0; i < one.size(); ++i) {
        EXPECT_NEAR(one[i]["loss"].get<double>(), several[i]["loss"].get<double>(), 1e-4) << i;
    }
}

TEST_F(Processes, EveryPictureIsEvaluatedOnce) {
    ASSERT_EQ(run("launch 1 -o one --set train.max_steps=1; finish"), "0\n") << log(0);
    ASSERT_EQ(run("launch 2 -o run --set train.max_steps=1; finish"), "0\n0\n") << log(0);
    const std::vector<json> one = metrics("one", "eval"), several = metrics("run", "eval");
    ASSERT_EQ(one.size(), 2u);
    ASSERT_EQ(several.size(), 2u);
    for (std::size_t i = 0; i < one.size(); ++i) {
        EXPECT_EQ(several[i]["images"], 21);
        EXPECT_EQ(one[i]["top5_count"], several[i]["top5_count"]);
        EXPECT_NEAR(one[i]["loss"].get<double>(), several[i]["loss"].get<double>(), 1e-5);
        EXPECT_EQ(one[i].contains("object_kept_per_stage"), i == 1) << "the pruned row";
        if (i == 0) continue;
        const auto kept = [](const json& line) { return line["object_kept_per_stage"].back().get<double>(); };
        EXPECT_NEAR(kept(one[i]), kept(several[i]), 1e-9);
    }
}

TEST_F(Processes, WhatDiffersIsAnError) {
    const std::string codes = run(
        "start() { RANK=$1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$PORT \"$PROGRAM\" train -c c.yaml -o two "
        "--threads 1 --set train.seed=$1 --log-level off 2> log$1 & runs+=($!); }\n"
        "runs=(); start 0; start 1; finish");
    EXPECT_EQ(codes, "1\n1\n");
    const std::string error = "error: [dist] rank 1: found other settings than rank 0, expected the same\n";
    EXPECT_EQ(log(0), error);
    EXPECT_EQ(log(1), error);
}

TEST_F(Processes, OneThatIsKilledEndsTheOthersAndTheRunGoesOn) {
    const std::string codes =
        run("launch 2 -o run --set train.epochs=400 --set train.eval_every=0; until_step 12; kill -KILL ${runs[1]}; "
            "finish");
    EXPECT_EQ(codes, "1\n137\n");
    EXPECT_EQ(log(0).rfind("error: [dist] rank 0 of 2: adding up: another process has failed", 0), 0u) << log(0);
    EXPECT_EQ(run("launch 1 -o run --resume --set train.epochs=400 --set train.max_steps=12; finish"), "0\n") << log(0);
}

TEST_F(Processes, OneThatStandsStillIsNoticedAfterTheTimeout) {
    const std::string codes =
        run("launch 2 -o run --set train.epochs=400 --set train.eval_every=0 --set train.timeout=1.5; until_step 2; "
            "kill -STOP ${runs[1]}; wait ${runs[0]}; echo $?; kill -KILL ${runs[1]}");
    EXPECT_EQ(codes, "1\n");
    EXPECT_EQ(log(0).rfind("error: [dist] rank 0 of 2: adding up: another process has failed", 0), 0u) << log(0);
}

TEST_F(Processes, ASignalToOneEndsAllWithACheckpoint) {
    const std::string codes = run(
        "launch 2 -o run --set train.epochs=400 --set train.eval_every=0; until_step 3; kill -USR1 ${runs[1]}; finish");
    EXPECT_EQ(codes, "138\n138\n");
    EXPECT_TRUE(std::filesystem::exists(folder_ / "run/checkpoints/state.safetensors"));
}

}  // namespace
}  // namespace dynvit
