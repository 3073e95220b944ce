// A training run as a queue runs it: stopped by signals, started again by the same command, one run a folder.
#include "small_model.hpp"

namespace dynvit {
namespace {

using test::Outcome;
using test::text_of;

constexpr const char* kConfig = R"(
model: {name: custom, image_size: 32, patch_size: 8, num_classes: 10, embed_dim: 16, depth: 3, num_heads: 2, pruning_loc: [1, 2]}
data: {kind: cluttered_shapes, train_images: 400, val_images: 20, workers: 1}
train:
  epochs: 4
  batch_size: 8
  device: cpu
  log_every: 1
  loss: {kl: 0, distill: 0}
)";

// Starts a run in the background, where signals are not ignored; $run is its process. `until_step N` returns once the
// run has logged that step, or has ended; `stop SIGNAL` sends the signal and says what the run exits with.
constexpr const char* kFunctions = R"(
set -m
start() { "$PROGRAM" train -c c.yaml -o "$@" --threads 1 --log-level warn > out 2> log & run=$!; }
until_step() {
    until grep -q "\"step\":$1[,}]" run/metrics.jsonl 2> /dev/null; do kill -0 $run 2> /dev/null || break; done
}
stop() { kill -"$1" $run; wait $run; echo $?; }
)";

class Queue : public test::SmallModel {
  protected:
    void SetUp() override { write("c.yaml", kConfig); }

    Outcome in_background(const std::string& commands) const {
        return bash(str("PROGRAM='", DYNVIT_PROGRAM, "'\n", kFunctions, commands));
    }

    std::string log() const { return text_of(folder_ / "log"); }
};

TEST_F(Queue, SignalsEndARunWithACheckpointAndTheSameCommandGoesOn) {
    ASSERT_EQ(in_background("start whole; wait $run; echo $?").out, "0\n") << log();
    int step = 5;
    for (const auto& [signal, code] : {std::pair("USR1", 138), std::pair("TERM", 143), std::pair("INT", 130)}) {
        const Outcome outcome = in_background(str("start run --resume auto; until_step ", step, "; stop ", signal));
        EXPECT_EQ(outcome.out, str(code, '\n')) << outcome.err << log();
        EXPECT_NE(log().find(str("SIG", signal, ": stopped at step ")), std::string::npos) << log();
        step += 40;
    }
    EXPECT_EQ(in_background("start run --resume auto; wait $run; echo $?").out, "0\n") << log();
    for (const char* name : {"last", "best", "state"}) {
        const std::string file = str("checkpoints/", name, ".safetensors");
        EXPECT_EQ(text_of(folder_ / "run" / file), text_of(folder_ / "whole" / file)) << name;
    }
    EXPECT_EQ(in_background("start run --resume auto; wait $run; echo $?").out, "0\n") << "nothing is left to do";
    EXPECT_NE(text_of(folder_ / "out").find("trained to step 200 "), std::string::npos);
}

TEST_F(Queue, ASecondSignalEndsTheRunAtOnce) {
    // While the first one waits for a step's end, which a stopped process does not come to.
    const Outcome outcome = in_background(
        "start run; until_step 2; kill -STOP $run; kill -TERM $run; kill -USR1 $run; kill -CONT $run; wait $run; "
        "echo $?");
    EXPECT_TRUE(outcome.out == "138\n" || outcome.out == "143\n") << outcome.out;
    EXPECT_EQ(log().find("stopped at step"), std::string::npos) << log();
}

TEST_F(Queue, AFolderInUseIsRefusedAndAKilledRunLeavesItFree) {
    const Outcome outcome = in_background(
        "start run; until_step 2; first=$run; start run --resume auto; wait $run; echo $?; kill -KILL $first; "
        "wait $first 2> /dev/null; echo $first");
    const std::string killed = outcome.out.substr(2, outcome.out.size() - 3);
    EXPECT_EQ(outcome.out.substr(0, 2), "1\n");
    EXPECT_EQ(log().rfind("error: [run] run: found a run at work in this folder (process " + killed, 0), 0u) << log();
    EXPECT_NE(log().find("), expected none"), std::string::npos) << log();
    EXPECT_EQ(in_background("start run --resume auto; wait $run; echo $?").out, "0\n") << log();
}

TEST_F(Queue, WhatResumeTakes) {
    const std::string error = "error: [train] ";
    EXPECT_EQ(bash("dynvit train -o run --resume auto").err,
              error + "--config is missing; `dynvit config` prints a file to start from\n");
    EXPECT_EQ(bash("dynvit train -c c.yaml -o run --resume always").err,
              error + "--resume: found 'always', expected nothing behind it, or auto\n");
    EXPECT_EQ(bash("dynvit train -c c.yaml -o run --resume").err,
              "error: [run] run: nothing to resume: run/checkpoints/state.safetensors is not there\n");
}

}  // namespace
}  // namespace dynvit
