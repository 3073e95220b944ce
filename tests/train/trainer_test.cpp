// Whole runs of a tiny model: what they leave on disk, and that stopping, resuming and repeating change nothing of it.
#include "dynvit/train/trainer.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/core/config.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/sha256.hpp"
#include "dynvit/io/image.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/weights/model_file.hpp"
#include "support.hpp"
#include "train_support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::error_of;

constexpr std::int64_t kSteps = 8;  // of experiment(): two epochs of four

// 16 patches, two stages, no teacher, no evaluation.
Experiment experiment() {
    Experiment e;
    e.model.name = "custom";
    e.model.image_size = {32};
    e.model.patch_size = 8;
    e.model.num_classes = 10;
    e.model.embed_dim = 16;
    e.model.depth = 3;
    e.model.num_heads = 2;
    e.model.pruning_loc = {1, 2};
    e.model.drop_path = 0.1;
    e.data.kind = "cluttered_shapes";
    e.data.train_images = 34;  // two of them left over each epoch
    e.data.val_images = 20;
    e.data.workers = 2;
    e.train.epochs = 2;
    e.train.batch_size = 8;
    e.train.device = "cpu";
    e.train.log_every = 1;
    e.train.eval_every = 0;
    e.train.schedule.warmup_epochs = 0.5;
    e.train.schedule.backbone_lr_scale = 0.5;
    e.train.schedule.backbone_freeze_epochs = 0.25;
    e.train.loss.weights["kl"] = e.train.loss.weights["distill"] = 0;
    return e;
}

std::vector<std::uint8_t> bytes(const fs::path& path) {
    return read_file(path, "test");
}

class Trainer : public testing::Test {
  protected:
    void SetUp() override {
        log::set_level("off");
        at::set_num_threads(1);  // tensors this small only wait for more
    }
    void TearDown() override {
        at::set_num_threads(threads_);
        log::set_level("info");
    }

    fs::path checkpoint(const std::string& run, const std::string& name) const {
        return folder_ / run / "checkpoints" / (name + ".safetensors");
    }

    // Trains to `step` (0: to the end); resumes if the run is there.
    TrainResult train_to(std::int64_t step, Experiment e, const std::string& run) const {
        e.train.max_steps = step;
        return train(e, folder_ / run, {.resume = Resume::kAuto});
    }

    void expect_equal_checkpoints(const std::string& run, const std::string& other) const {
        for (const char* name : {"last", "state"}) {
            EXPECT_TRUE(bytes(checkpoint(run, name)) == bytes(checkpoint(other, name))) << run << ' ' << name;
        }
    }

    std::vector<json> metrics(const std::string& run, const std::string& kind) const {
        std::vector<json> lines;
        std::ifstream in(folder_ / run / "metrics.jsonl");
        for (std::string line; std::getline(in, line);) {
            json parsed = json::parse(line);
            if (parsed.at("kind") == kind) lines.push_back(std::move(parsed));
        }
        return lines;
    }

    std::vector<std::int64_t> logged_steps(const std::string& run) const {
        std::vector<std::int64_t> steps;
        for (const json& line : metrics(run, "train")) steps.push_back(line.at("step"));
        return steps;
    }

    test::TemporaryFolder folder_;
    const int threads_ = at::get_num_threads();
};

TEST_F(Trainer, OneSeedGivesOneResult) {
    Experiment e = experiment();
    EXPECT_EQ(train_to(0, e, "a").steps, kSteps);
    train_to(0, e, "b");
    expect_equal_checkpoints("a", "b");
    e.train.seed = 1;
    train_to(0, e, "c");
    EXPECT_FALSE(bytes(checkpoint("a", "last")) == bytes(checkpoint("c", "last")));
}

TEST_F(Trainer, SeedMattersWithEqualStartingWeightsToo) {  // order of pictures, decisions, dropped paths
    Experiment e = experiment();
    train_to(1, e, "start");
    e.train.weights = checkpoint("start", "last").string();
    train_to(0, e, "a");
    e.train.seed = 1;
    train_to(0, e, "b");
    EXPECT_FALSE(bytes(checkpoint("a", "last")) == bytes(checkpoint("b", "last")));
}

TEST_F(Trainer, StoppedRunsEndWhereUninterruptedOnesDo) {
    const Experiment e = experiment();
    train_to(0, e, "whole");
    for (const std::int64_t stop : {1, 3, 4, 6}) {  // in the first epoch, between the two, in the second
        const std::string run = str("stopped at ", stop);
        EXPECT_EQ(train_to(stop, e, run).steps, stop);
        EXPECT_FALSE(bytes(checkpoint(run, "last")) == bytes(checkpoint("whole", "last"))) << "there was more to do";
        EXPECT_EQ(train_to(0, e, run).steps, kSteps);
        expect_equal_checkpoints(run, "whole");
    }
}

TEST_F(Trainer, StoppedTwiceWithOtherWorkers) {
    Experiment e = experiment();
    train_to(0, e, "whole");
    e.data.workers = 3;
    train_to(2, e, "run");
    e.data.workers = 1;
    train_to(5, e, "run");
    e.data.workers = 4;
    train_to(0, e, "run");
    expect_equal_checkpoints("run", "whole");
}

TEST_F(Trainer, ResumedRunLogsEachStepOnce) {
    const Experiment e = experiment();
    train_to(3, e, "run");
    fs::copy(folder_ / "run/checkpoints", folder_ / "saved");
    train_to(0, e, "run");
    // As if the run had been killed before its next checkpoint, while it wrote a line.
    fs::remove_all(folder_ / "run/checkpoints");
    fs::rename(folder_ / "saved", folder_ / "run/checkpoints");
    std::ofstream(folder_ / "run/metrics.jsonl", std::ios::app) << R"({"kind":"train","st)";
    EXPECT_EQ(train_to(4, e, "run").steps, 4);
    EXPECT_EQ(logged_steps("run"), (std::vector<std::int64_t>{1, 2, 3, 4}));
    train_to(0, e, "run");
    EXPECT_EQ(logged_steps("run"), (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
    train_to(0, e, "whole");
    expect_equal_checkpoints("run", "whole");
}

TEST_F(Trainer, NewRunDoesNotKeepTheLinesOfOneWithoutCheckpoint) {
    fs::create_directories(folder_ / "run");
    std::ofstream(folder_ / "run/metrics.jsonl") << R"({"kind":"train","step":1})" << '\n';
    Experiment e = experiment();
    e.train.max_steps = 2;
    train(e, folder_ / "run");
    EXPECT_EQ(logged_steps("run"), (std::vector<std::int64_t>{1, 2}));
}

TEST_F(Trainer, MetricsAreMeansSinceTheLastLine) {
    Experiment e = experiment();
    train_to(0, e, "each");
    e.train.log_every = 3;
    train_to(0, e, "thirds");
    EXPECT_EQ(logged_steps("thirds"), (std::vector<std::int64_t>{3, 6, 8})) << "the last step always";
    const std::vector<json> each = metrics("each", "train"), thirds = metrics("thirds", "train");
    for (const char* key : {"loss", "classification", "ratio"}) {
        const double mean =
            (each[3].at(key).get<double>() + each[4].at(key).get<double>() + each[5].at(key).get<double>()) / 3;
        EXPECT_NEAR(thirds[1].at(key).get<double>(), mean, 1e-6 * mean) << key;
    }
    EXPECT_FALSE(each[0].contains("kl")) << "its weight is 0";
    EXPECT_EQ(each[0].at("keep_ratio").size(), 2u);
    EXPECT_EQ(each[0].at("lr"), 0.0) << "the warm-up starts from 0";
    EXPECT_EQ(each[5].at("epoch"), 1.5);
    for (const json& line : each) {
        EXPECT_NEAR(line.at("loss").get<double>(),
                    line.at("classification").get<double>() + 2 * line.at("ratio").get<double>(), 1e-5);
    }
}

TEST_F(Trainer, LossFallsOnEightPictures) {
    Experiment e = experiment();
    e.model.pruning_loc = {};
    e.model.drop_path = 0;
    e.data.train_images = 8;
    e.train.epochs = 40;
    e.train.schedule = {
        .lr = 1e-2, .min_lr = 1e-3, .warmup_epochs = 2, .backbone_lr_scale = 1, .backbone_freeze_epochs = 0};
    e.train.loss.label_smoothing = 0;
    train_to(0, e, "run");
    const std::vector<json> lines = metrics("run", "train");
    ASSERT_EQ(lines.size(), 40u);
    double first = 0, last = 0;
    for (int i = 0; i < 5; ++i) {
        first += lines[i].at("loss").get<double>() / 5;
        last += lines[35 + i].at("loss").get<double>() / 5;
    }
    EXPECT_GT(first, 1.5) << "about log 10, nothing is known";
    EXPECT_LT(last, 0.5 * first) << "learnt by heart";
}

TEST_F(Trainer, StagesComeToTheirTargets) {  // the ratio loss alone, far from the half that untrained modules keep
    Experiment e = experiment();
    e.data.train_images = 8;
    e.train.epochs = 120;
    e.train.keep_ratio = {0.9, 0.2};
    e.train.log_every = 10;
    e.train.schedule = {
        .lr = 1e-2, .min_lr = 1e-3, .warmup_epochs = 0, .backbone_lr_scale = 0, .backbone_freeze_epochs = 0};
    e.train.loss = test::losses_of({{"ratio", 2}});
    train_to(0, e, "run");
    const std::vector<json> lines = metrics("run", "train");
    const std::vector<double> kept = lines.back().at("keep_ratio");
    EXPECT_NEAR(kept[0], 0.9, 0.1) << "sampled: 80 x 16 patches, a standard error of 0.01";
    EXPECT_NEAR(kept[1], 0.2, 0.1);
    EXPECT_LT(lines.back().at("ratio"), lines.front().at("ratio"));
}

TEST(TrainSettings, StageTargets) {
    TrainSettings settings;
    settings.keep_ratio = {0.5};
    EXPECT_EQ(settings.stage_targets(3), (std::vector<double>{0.5, 0.25, 0.125}));
    EXPECT_EQ(settings.stage_targets(1), std::vector<double>{0.5});
    EXPECT_EQ(settings.stage_targets(0), std::vector<double>{});
    settings.keep_ratio = {0.9, 0.5, 0.3};
    EXPECT_EQ(settings.stage_targets(3), (std::vector<double>{0.9, 0.5, 0.3}));
}

TEST(TrainSettings, KeepRatiosThatDoNotFitTheStages) {
    const auto read = [](const std::string& ratios) {
        const std::string text =
            "model: {pruning_loc: [3, 6]}\ndata: {kind: cluttered_shapes}\n"
            "train: {weights: w, keep_ratio: " +
            ratios + "}\n";
        return read_config<Experiment>({text, "a.yaml", {}});
    };
    EXPECT_EQ(read("[0.8, 0.8]").train.keep_ratio, (std::vector<double>{0.8, 0.8}));
    EXPECT_EQ(error_of([&] { read("[0.5, 0.7]"); }),
              "[config] a.yaml:3: train.keep_ratio: found 0.7 after 0.5, expected shares that do not grow: a dropped "
              "patch does "
              "not come back");
    EXPECT_EQ(error_of([&] { read("[0.9, 0.8, 0.7]"); }),
              "[config] a.yaml:3: train.keep_ratio: found 3 numbers, expected one or as many as model.pruning_loc, 2");
    EXPECT_EQ(error_of([&] { read("[]"); }),
              "[config] a.yaml:3: train.keep_ratio: found 0 numbers, expected one or as many as model.pruning_loc, 2");
}

TEST_F(Trainer, TargetsOfEachStageAreEvaluated) {  // 12 and 4 of 16 patches, no powers of 0.75
    Experiment e = experiment();
    e.train.keep_ratio = {0.75, 0.25};
    e.train.eval_every = 1;
    const TrainResult result = train_to(1, e, "run");
    ASSERT_EQ(result.last_eval.size(), 2u);
    EXPECT_EQ(result.last_eval[0].policy, "dense");
    EXPECT_EQ(result.last_eval[1].tokens_per_stage, (std::vector<std::int64_t>{12, 4}));
    EXPECT_EQ(metrics("run", "eval").at(1).at("tokens_per_stage"), (json{12, 4}));
    const double ratio = metrics("run", "train").at(0).at("ratio");
    const std::vector<double> kept = metrics("run", "train").at(0).at("keep_ratio");
    const double least = (std::pow(kept[0] - 0.75, 2) + std::pow(kept[1] - 0.25, 2)) / 2;  // were all pictures alike
    EXPECT_GE(ratio, least - 1e-6);
    EXPECT_LE(ratio, least + 0.1) << "no share of 16 patches drawn by chance strays as far from the mean";
}

TEST_F(Trainer, LearnsFromATeacherWithoutLabels) {
    Experiment e = experiment();
    e.model.pruning_loc = {};
    train_to(2, e, "dense");
    e = experiment();
    e.train.weights = checkpoint("dense", "last").string();
    e.train.loss = test::losses_of({{"kl", 0.5}, {"distill", 0.5}, {"ratio", 2}});
    train_to(0, e, "a");
    const json line = metrics("a", "train").at(0);
    EXPECT_FALSE(line.contains("classification"));
    EXPECT_NEAR(
        line.at("loss").get<double>(),
        0.5 * line.at("kl").get<double>() + 0.5 * line.at("distill").get<double>() + 2 * line.at("ratio").get<double>(),
        1e-5);

    // What is done to the labels changes nothing, and they need not fit the model.
    e.train.loss.label_smoothing = 0.3;
    train_to(0, e, "b");
    expect_equal_checkpoints("a", "b");
    e.model.num_classes = 4;
    e.train.loss.weights["kl"] = 0;
    e.train.weights.clear();
    e.train.loss.weights["distill"] = 0;
    EXPECT_EQ(train_to(0, e, "few classes").steps, kSteps);
    e.train.loss.weights["classification"] = 1;
    EXPECT_EQ(error_of([&] { train_to(0, e, "too few classes"); }),
              "[train] found 10 classes in the data, expected at most model.num_classes, 4");

    e.model.num_classes = 12;
    e.train.weights = checkpoint("dense", "last").string();
    e.train.loss.weights["kl"] = 0.5;
    EXPECT_EQ(error_of([&] { train_to(0, e, "other classes"); }).rfind("[train] the teacher, train.weights: ", 0), 0u);
    e.train.teacher = "nowhere.safetensors";
    const std::string missing = error_of([&] { train_to(0, e, "no teacher"); });
    EXPECT_NE(missing.find("nowhere.safetensors"), std::string::npos);
    EXPECT_EQ(missing.find("expected a dense model of this shape"), std::string::npos) << missing;
}

TEST_F(Trainer, TeacherStaysAsItIs) {  // the student's tokens at step 0 are the teacher's where nothing is dropped
    Experiment e = experiment();
    e.model.pruning_loc = {};
    e.model.drop_path = 0;
    train_to(3, e, "dense");
    e.train.weights = checkpoint("dense", "last").string();
    e.train.loss.weights["kl"] = e.train.loss.weights["distill"] = 0.5;
    e.train.schedule.warmup_epochs = 0;
    e.train.schedule.backbone_freeze_epochs = 0;
    const std::vector<std::uint8_t> before = bytes(checkpoint("dense", "last"));
    train_to(4, e, "run");
    const std::vector<json> lines = metrics("run", "train");
    EXPECT_NEAR(lines[0].at("kl").get<double>(), 0, 1e-6) << "equal models";
    EXPECT_NEAR(lines[0].at("distill").get<double>(), 0, 1e-9);
    EXPECT_GT(lines[3].at("distill").get<double>(), 1e-9) << "the student moved, the teacher did not";
    EXPECT_TRUE(bytes(checkpoint("dense", "last")) == before);
}

// Tokens removed from the first step on: the modules learn from the teacher's use of the tokens, the backbone from its
// answers, and the first block, before the first stage, is left alone.
TEST_F(Trainer, LearnsTheTeachersSaliency) {
    Experiment e = experiment();
    e.model.pruning_loc = {};
    e.train.epochs = 4;
    train_to(0, e, "dense");
    e = experiment();
    e.train.weights = checkpoint("dense", "last").string();
    e.train.epochs = 20;
    e.train.schedule = {
        .lr = 1e-2, .min_lr = 1e-3, .warmup_epochs = 0, .backbone_lr_scale = 0.1, .backbone_freeze_epochs = 0};
    e.train.selection.deterministic_from = 0;
    e.train.loss = test::losses_of({{"kl", 1}, {"saliency", 1}});
    e.train.optimizer.frozen_blocks = 1;
    e.train.optimizer.train_embeddings = true;
    train_to(0, e, "run");
    const std::vector<json> lines = metrics("run", "train");
    EXPECT_LT(lines.back().at("saliency").get<double>(), 0.8 * lines.front().at("saliency").get<double>());

    const TensorMap before = read_safetensors(checkpoint("dense", "last")).tensors;
    const TensorMap after = read_safetensors(checkpoint("run", "last")).tensors;
    for (const auto& [name, tensor] : before) {
        const bool frozen = name == "cls_token" || name == "pos_embed" || name.starts_with("patch_embed.") ||
                            name.starts_with("blocks.0.");
        EXPECT_EQ(at::equal(tensor, after.at(name)), frozen) << name;
    }

    const std::string text =
        "model: {pruning_loc: [1]}\ndata: {kind: cluttered_shapes}\ntrain: {weights: w, optimizer: "
        "{frozen_blocks: 99}}\n";
    EXPECT_EQ(error_of([&] {
                  read_config<Experiment>({text, "a.yaml", {}});
              }),
              "[config] a.yaml:3: train.optimizer.frozen_blocks: found 99, expected at most model.depth, 12");
}

TEST_F(Trainer, BlendsWithTheStartingWeights) {  // the training is the same, what it leaves is half way
    Experiment e = experiment();
    train_to(1, e, "start");
    e.train.weights = checkpoint("start", "last").string();
    train_to(0, e, "trained");
    e.train.blend = 0.5;
    train_to(3, e, "half");
    train_to(0, e, "half");
    EXPECT_TRUE(bytes(checkpoint("trained", "state")) == bytes(checkpoint("half", "state")));
    const TensorMap start = read_safetensors(checkpoint("start", "last")).tensors,
                    trained = read_safetensors(checkpoint("trained", "last")).tensors,
                    half = read_safetensors(checkpoint("half", "last")).tensors;
    bool moved = false;
    for (const auto& [name, tensor] : half) {
        const at::Tensor& whole = trained.at(name);
        const bool learnt = name.starts_with("score_predictor.");
        EXPECT_TRUE(at::allclose(tensor, learnt ? whole : (start.at(name) + whole) / 2, 0, 1e-6)) << name;
        moved = moved || (!learnt && !at::equal(tensor, whole));
    }
    EXPECT_TRUE(moved);
}

TEST_F(Trainer, WhateverItsStagesDoItResumesWhereItStopped) {
    Experiment e = experiment();
    e.train.selection.deterministic_from = 0;
    train_to(0, e, "deletes");
    e.model.merge_threshold = -1;
    for (const char* reduction : {"merge", "fuse", "tome"}) {
        e.model.reduction = reduction;
        e.model.stage_place = e.model.fuses() ? "after_attention" : "before_block";
        const std::string whole = str("whole_", reduction), parts = str("parts_", reduction);
        train_to(0, e, whole);
        EXPECT_FALSE(bytes(checkpoint(whole, "last")) == bytes(checkpoint("deletes", "last"))) << reduction;
        train_to(3, e, parts);
        train_to(0, e, parts);
        expect_equal_checkpoints(parts, whole);
        const ModelSettings written = *read_model_file(checkpoint(parts, "last")).settings;
        EXPECT_EQ(written.reduction, reduction) << "weights carry it";
        EXPECT_EQ(written.stage_place, e.model.stage_place);
    }
}

TEST_F(Trainer, AStopLeavesACheckpointFromWhichItGoesOn) {
    train_to(0, experiment(), "whole");
    int asked = 0;
    const TrainResult stopped =
        train(experiment(), folder_ / "parts", {.stop = [&] { return ++asked == 3; }});  // within the first epoch
    EXPECT_TRUE(stopped.interrupted);
    EXPECT_EQ(stopped.steps, 3);
    EXPECT_FALSE(train_to(0, experiment(), "parts").interrupted);
    expect_equal_checkpoints("parts", "whole");
}

TEST_F(Trainer, ResumeVerifiesTheFilesThatItReadsAgain) {
    Experiment e = experiment();
    train_to(1, e, "start");
    train_to(2, e, "other");
    const fs::path weights = folder_ / "weights.safetensors";
    const auto put = [&](const char* run) {
        fs::copy_file(checkpoint(run, "last"), weights, fs::copy_options::overwrite_existing);
        return sha256_of_file(weights, "test");
    };
    const std::string expected = put("start");
    e.train.weights = weights.string();
    train_to(3, e, "plain");
    e.train.blend = 0.5;
    train_to(3, e, "blend");
    e.train.blend = 1;
    e.train.teacher = e.train.weights;
    e.train.loss.weights.at("kl") = 1;
    train_to(3, e, "taught");
    const std::string found = put("other");
    const auto refusal = [&](const std::string& setting) {
        return "[run] " + weights.string() + " (train." + setting + "): found a file with SHA-256 " + found +
               ", expected the one that the run started from, " + expected;
    };
    EXPECT_EQ(error_of([&] { train_to(0, e, "taught"); }), refusal("teacher"));
    e.train.teacher.clear();
    EXPECT_EQ(error_of([&] { train_to(0, e, "taught"); }), refusal("weights")) << "they are the teacher now";
    e.train.loss.weights.at("kl") = 0;
    EXPECT_EQ(train_to(0, e, "plain").steps, kSteps) << "what it started from is in the checkpoint";
    e.train.blend = 0.5;
    EXPECT_EQ(error_of([&] { train_to(0, e, "blend"); }), refusal("weights"));

    // A checkpoint of an earlier dynvit, which has no hashes.
    write_safetensors(checkpoint("blend", "state"), read_safetensors(checkpoint("blend", "state")).tensors);
    EXPECT_EQ(train_to(0, e, "blend").steps, kSteps);
    EXPECT_EQ(read_safetensors(checkpoint("blend", "state")).metadata,
              (std::map<std::string, std::string>{{"dynvit.sha256.weights", found}}));
}

TEST_F(Trainer, BestCheckpointIsTheBestEvaluation) {
    Experiment e = experiment();
    e.train.epochs = 4;
    e.train.eval_every = 1;
    train_to(0, e, "run");
    const std::vector<json> evaluated = metrics("run", "eval");
    ASSERT_EQ(evaluated.size(), 8u) << "dense and at the target, after each of four epochs";
    double best = -1;
    std::int64_t best_step = 0;
    for (std::size_t i = 1; i < evaluated.size(); i += 2) {
        EXPECT_EQ(evaluated[i].at("policy"), "predicted");
        if (evaluated[i].at("top1") > best) {
            best = evaluated[i].at("top1");
            best_step = evaluated[i].at("step");
        }
    }
    const TensorMap state = read_safetensors(checkpoint("run", "state")).tensors;
    EXPECT_EQ(state.at("progress.best_top1").item<double>(), best);
    EXPECT_EQ(state.at("progress.step").item<std::int64_t>(), 16);
    // The same run, stopped there, has the best weights for its last.
    e.train.eval_every = 0;
    train_to(best_step, e, "there");
    EXPECT_TRUE(bytes(checkpoint("run", "best")) == bytes(checkpoint("there", "last"))) << "of step " << best_step;
    EXPECT_FALSE(fs::exists(checkpoint("there", "best"))) << "nothing was evaluated";
}

TEST_F(Trainer, WeightsCarryTheirSettings) {
    const Experiment e = experiment();
    train_to(2, e, "run");
    const ModelFile file = read_model_file(checkpoint("run", "last"));
    ASSERT_TRUE(file.settings.has_value());
    EXPECT_EQ(write_config(*file.settings), write_config(e.model));
    EXPECT_EQ(write_config(read_config<Experiment>(config_from_file(folder_ / "run/config.yaml")).model),
              write_config(e.model));
}

// Weights that are used to another scaling of pixels, with that scaling: the model and its teacher are the same.
TEST_F(Trainer, PixelsAreScaledAsTheDataSays) {
    Experiment e = experiment();
    e.model.drop_path = 0;
    e.model.pruning_loc = {};
    train_to(1, e, "fresh");
    ModelFile start = read_model_file(checkpoint("fresh", "last"));
    at::Tensor &weight = start.weights.at("patch_embed.proj.weight"), &bias = start.weights.at("patch_embed.proj.bias");
    weight = weight * 20;  // fresh ones hardly look at the picture, and hardly prefer a class
    start.weights.at("head.weight").mul_(50);
    e.train.loss.weights["kl"] = e.train.loss.weights["distill"] = 0.5;
    const auto train_from = [&](const std::string& file, const std::string& run) {
        write_model_file(folder_ / file, start.weights, start.settings);
        e.train.weights = (folder_ / file).string();
        train_to(1, e, run);
        return metrics(run, "train").front();
    };
    const json plain = train_from("start.safetensors", "plain");
    EXPECT_EQ(read_model_file(checkpoint("plain", "last")).preprocessing, Preprocessing());

    const at::Tensor deviation = at::tensor(at::ArrayRef<double>(kImageNetStd), at::kFloat).view({1, 3, 1, 1}),
                     mean = at::tensor(at::ArrayRef<double>(kImageNetMean), at::kFloat).view({1, 3, 1, 1});
    bias = bias + (weight * ((0.5 - mean) / deviation)).sum({1, 2, 3});
    weight = weight * (0.5 / deviation);
    e.data.preprocessing.mean = e.data.preprocessing.std = {0.5, 0.5, 0.5};
    const json half = train_from("folded.safetensors", "half");
    for (const char* loss : {"classification", "kl", "distill"}) {
        EXPECT_NEAR(half.at(loss).get<double>(), plain.at(loss).get<double>(), 1e-5) << loss;
    }
    EXPECT_EQ(read_model_file(checkpoint("half", "last")).preprocessing, e.data.preprocessing);
    e.data.preprocessing = {};
    const json wrong = train_from("folded.safetensors", "wrong");
    EXPECT_GT(std::abs(wrong.at("classification").get<double>() - plain.at("classification").get<double>()), 1e-3)
        << "the test would not notice";
}

TEST_F(Trainer, FrozenBackboneStays) {  // against the starting weights: only the prediction modules move
    Experiment e = experiment();
    e.train.schedule.warmup_epochs = 0;
    e.train.schedule.backbone_freeze_epochs = 1;
    train_to(1, e, "one");
    train_to(4, e, "epoch");
    train_to(5, e, "thawed");
    const TensorMap one = read_safetensors(checkpoint("one", "last")).tensors;
    const TensorMap epoch = read_safetensors(checkpoint("epoch", "last")).tensors;
    const TensorMap thawed = read_safetensors(checkpoint("thawed", "last")).tensors;
    for (const auto& [name, tensor] : one) {
        const bool predicts = name.starts_with("score_predictor.");
        EXPECT_EQ(tensor.equal(epoch.at(name)), !predicts) << name;
    }
    EXPECT_FALSE(thawed.at("blocks.0.mlp.fc1.weight").equal(epoch.at("blocks.0.mlp.fc1.weight")));
    EXPECT_TRUE(thawed.at("pos_embed").equal(epoch.at("pos_embed"))) << "train_embeddings is off";
}

TEST_F(Trainer, RefusesToResumeWithOtherEpochs) {
    Experiment e = experiment();
    train_to(2, e, "run");
    e.train.batch_size = 4;
    EXPECT_EQ(error_of([&] { train_to(0, e, "run"); }),
              "[run] " + checkpoint("run", "state").string() +
                  ": the run has 4 steps an epoch, found 8, expected unchanged pictures, train.batch_size and "
                  "train.accumulate");
}

TEST_F(Trainer, RefusesAnotherSplitsClasses) {
    for (const char* name : {"train/a", "train/b", "val/b"}) {
        fs::create_directories(folder_ / "pictures" / name);
        write_png(folder_ / "pictures" / name / "x.png", Image(32, 32));
    }
    Experiment e = experiment();
    e.data.kind = "image_folder";
    e.data.root = (folder_ / "pictures").string();
    e.train.batch_size = 2;
    e.train.eval_every = 1;
    EXPECT_EQ(error_of([&] { train_to(0, e, "run"); }),
              str("[data] the classes of val/ (1, the class folders of ", e.data.root,
                  "/val) are not those of train/ (2, the ", "class folders of ", e.data.root,
                  "/train), expected the same, or a class list that numbers both: data.classes"));
    std::ofstream(folder_ / "classes.txt") << "a\nb\n";
    e.data.classes = (folder_ / "classes.txt").string();
    EXPECT_EQ(train_to(0, e, "run").last_eval.size(), 2u);
}

TEST_F(Trainer, RefusesTheStateOfAnotherModel) {
    Experiment e = experiment();
    train_to(2, e, "run");
    e.model.depth = 4;
    const std::string text = error_of([&] { train_to(0, e, "run"); });
    EXPECT_EQ(text.rfind("[run] " + checkpoint("run", "state").string() + ": is of another model: ", 0), 0u) << text;
    EXPECT_NE(text.find("blocks.3."), std::string::npos) << text;
}

TEST_F(Trainer, TooManySkippedStepsEndTheRun) {
    Experiment e = experiment();
    train_to(2, e, "run");
    e.train.schedule = {
        .lr = 1e30, .min_lr = 0, .warmup_epochs = 0, .backbone_lr_scale = 1, .backbone_freeze_epochs = 0};
    e.train.max_skipped_steps = 2;
    const std::string text = error_of([&] { train_to(0, e, "run"); });
    EXPECT_EQ(text.rfind("[train] the loss or a gradient was not finite in the 2 steps up to ", 0), 0u) << text;
    EXPECT_NE(text.find("; the last good checkpoint is " + checkpoint("run", "last").string()), std::string::npos)
        << text;
    const TensorMap weights = read_safetensors(checkpoint("run", "last")).tensors;
    for (const auto& [name, tensor] : weights) EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
    EXPECT_NE(error_of([&] { train_to(0, e, "new"); }).find("; no checkpoint was written"), std::string::npos);
}

// The whole recipe at once: what a step draws depends on (seed, step) alone, and all that moves is in the checkpoint.
Experiment whole_recipe(const std::string& weights) {
    Experiment e = experiment();
    e.data.train_images = 50;  // three steps an epoch, two pictures left over
    e.data.repeats = 2;
    e.train.accumulate = 2;
    e.train.weights = weights;
    e.train.loss.weights["kl"] = e.train.loss.weights["distill"] = 0.5;
    e.train.mixup = {.mixup = 0.8, .cutmix = 1, .mode = "elem"};
    e.train.ema.decay = 0.99;
    e.train.optimizer.clip_grad = 1;
    e.train.selection = {.temperature = 0.9, .deterministic_from = 0.5, .keep_ratio_range = {0.4, 0.9}};
    return e;
}

TEST_F(Trainer, WholeRecipeResumesWhereItStopped) {
    Experiment e = experiment();
    e.model.pruning_loc = {};
    train_to(1, e, "dense");
    e = whole_recipe(checkpoint("dense", "last").string());
    EXPECT_EQ(train_to(0, e, "whole").steps, 6);
    for (const std::int64_t stop : {1, 3, 4}) {
        const std::string run = str("stopped at ", stop);
        train_to(stop, e, run);
        e.data.workers = stop;
        train_to(0, e, run);
        expect_equal_checkpoints(run, "whole");
        EXPECT_TRUE(bytes(checkpoint(run, "ema")) == bytes(checkpoint("whole", "ema"))) << run;
    }
    EXPECT_FALSE(bytes(checkpoint("whole", "ema")) == bytes(checkpoint("whole", "last")));
}

// Recorded steps against the same steps made one by one, to the last bit: decisions drawn first, tokens removed later,
// a rate and a scale that change.
TEST_F(Trainer, RecordedStepsMoveTheSame) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    Experiment e = experiment();
    e.model.embed_dim = 64;
    e.model.pruning_loc = {};
    train_to(1, e, "dense");
    e = whole_recipe(checkpoint("dense", "last").string());
    e.model.embed_dim = 64;
    e.train.device = "cuda";
    e.train.epochs = 6;
    e.train.selection.keep_ratio_range.clear();
    for (const char* precision : {"float32", "bfloat16", "float16", "drawn ratios"}) {
        const bool draws_ratios = std::string(precision) == "drawn ratios";
        if (draws_ratios) {  // so many steps that each ratio comes several times after it was recorded
            e.train.epochs = 40;
            e.train.selection.deterministic_from = 0.1;
            e.train.selection.keep_ratio_range = {0.4, 0.9};
        }
        e.train.precision = draws_ratios ? "bfloat16" : precision;
        e.train.record_steps = false;
        train_to(0, e, str("made ", precision));
        e.train.record_steps = true;
        train_to(0, e, str("recorded ", precision));
        expect_equal_checkpoints(str("made ", precision), str("recorded ", precision));
        EXPECT_EQ(metrics(str("made ", precision), "train").back().at("loss"),
                  metrics(str("recorded ", precision), "train").back().at("loss"));
    }
}

TEST_F(Trainer, AccumulatedBatchesAreOneLargeBatch) {  // but for the noise, which the loss of a dense model has none of
    Experiment e = experiment();
    e.model.pruning_loc = {};
    e.model.drop_path = 0;
    e.data.train_images = 32;
    e.train.epochs = 1;
    e.train.batch_size = 16;
    train_to(0, e, "large");
    e.train.batch_size = 4;
    e.train.accumulate = 4;
    EXPECT_EQ(train_to(0, e, "added up").steps, 2);
    const TensorMap large = read_safetensors(checkpoint("large", "last")).tensors;
    for (const auto& [name, tensor] : read_safetensors(checkpoint("added up", "last")).tensors) {
        EXPECT_LE((tensor - large.at(name)).abs().max().item<double>(), 1e-5) << name;
    }
}

TEST_F(Trainer, ModulesRestInTheDeterministicPart) {
    Experiment e = whole_recipe("");
    e.train.loss.weights["kl"] = e.train.loss.weights["distill"] = 0;
    e.train.optimizer.clip_grad = 0;
    train_to(3, e, "half");
    train_to(0, e, "whole");
    const TensorMap half = read_safetensors(checkpoint("half", "last")).tensors;
    for (const auto& [name, tensor] : read_safetensors(checkpoint("whole", "last")).tensors) {
        const bool rests = name.starts_with("score_predictor.") || name == "cls_token" || name == "pos_embed";
        EXPECT_EQ(tensor.equal(half.at(name)), rests) << name;
    }
    const std::vector<json> lines = metrics("whole", "train");
    EXPECT_TRUE(lines[2].contains("ratio"));
    EXPECT_FALSE(lines[3].contains("ratio")) << "the ratio is given";
    EXPECT_GE(lines[3].at("keep_ratio")[0], 0.4);
    EXPECT_LE(lines[3].at("keep_ratio")[0], 0.9);
}

TEST_F(Trainer, StopsAtItsTarget) {
    Experiment e = experiment();
    e.train.eval_every = 1;
    e.train.stop_at = 0.001;  // any picture right will do
    e.train.best_by = "dense";
    e.train.epochs = 50;
    const TrainResult result = train_to(0, e, "run");
    EXPECT_TRUE(result.reached_target);
    EXPECT_LT(result.steps, 200);
    EXPECT_EQ(result.last_eval.front().top1(), result.best_top1);
    EXPECT_EQ(read_safetensors(checkpoint("run", "state")).tensors.at("progress.step").item<std::int64_t>(),
              result.steps);
    EXPECT_TRUE(bytes(checkpoint("run", "best")) == bytes(checkpoint("run", "last")));
}

TEST_F(Trainer, AveragedWeightsAreEvaluatedAndMayBeTheBest) {
    Experiment e = experiment();
    e.train.eval_every = 1;
    e.train.ema.decay = 0.9;
    e.train.best_by = "pruned_ema";
    const TrainResult result = train_to(4, e, "run");
    ASSERT_EQ(result.last_ema_eval.size(), 2u);
    EXPECT_EQ(result.best_top1, result.last_ema_eval.back().top1());
    EXPECT_TRUE(bytes(checkpoint("run", "best")) == bytes(checkpoint("run", "ema")));
    EXPECT_EQ(metrics("run", "eval").at(2).at("weights"), "ema");
}

TEST_F(Trainer, LeavesWhatTensorBoardReads) {
    Experiment e = experiment();
    e.train.eval_every = 1;
    e.train.max_steps = 4;
    std::vector<std::int64_t> drawn;  // stages of the models
    const DrawKept draw_kept = [&](const DynamicVitImpl& model) {
        drawn.push_back(model.settings().stages());
        return std::vector<std::pair<std::string, Image>>{{"a picture", Image(8, 8)}};
    };
    train(e, folder_ / "run", {.draw_kept = draw_kept});
    EXPECT_EQ(drawn, std::vector<std::int64_t>{2}) << "one evaluation";
    std::int64_t files = 0;
    for (const auto& entry : fs::directory_iterator(folder_ / "run/tensorboard")) {
        ++files;
        const std::vector<std::uint8_t> content = bytes(entry.path());
        const std::string text(content.begin(), content.end());
        for (const char* tag : {"train/loss", "keep_ratio/stage 2", "top1/pruned", "kept tokens/a picture"}) {
            EXPECT_NE(text.find(tag), std::string::npos) << tag;
        }
    }
    EXPECT_EQ(files, 1);
    e.train.tensorboard = false;
    train(e, folder_ / "without", {.draw_kept = draw_kept});
    EXPECT_FALSE(fs::exists(folder_ / "without/tensorboard"));
    EXPECT_EQ(drawn.size(), 1u) << "nobody would see it";
}

TEST(TrainSettings, GmacsGiveTheRatio) {
    const auto read = [](const std::string& gmacs) {
        return read_config<Experiment>(
            {"data: {kind: cluttered_shapes}\ntrain: {weights: w, target_gmacs: " + gmacs + "}\n", "a.yaml", {}});
    };
    const Experiment e = read("2.98");  // DeiT-S at rho 0.7
    ASSERT_EQ(e.train.keep_ratio.size(), 1u);
    const auto gmacs = [&](double rho) {
        return 1e-9 * static_cast<double>(count_macs(e.model, tokens_per_stage(stage_ratios(rho, 3), 196)));
    };
    EXPECT_NEAR(e.train.keep_ratio[0], 0.7, 0.01);
    EXPECT_LE(gmacs(e.train.keep_ratio[0]), 2.98);
    EXPECT_GT(gmacs(e.train.keep_ratio[0] + 1e-4), 2.98) << "the largest";
    EXPECT_EQ(read("100").train.keep_ratio, std::vector<double>{1.0});
    EXPECT_NE(error_of([&] {
                  read("0.5");
              }).find("[config] a.yaml:2: train.target_gmacs: found 0.5, expected at least the 1."),
              std::string::npos);
}

TEST(TrainSettings, LossesThatMoveNothing) {
    const auto read = [](const std::string& train, const std::string& model = "") {
        const std::string none = "loss: {classification: 0, kl: 0, distill: 0, ratio: ";
        return error_of([&] {
            read_config<Experiment>(
                {"model: {" + model + "}\ndata: {kind: cluttered_shapes}\ntrain: {" + none + train + "}\n",
                 "a.yaml",
                 {}});
        });
    };
    const std::string expected = "[config] a.yaml:3: train.loss: found no weight above 0 that moves the backbone";
    EXPECT_EQ(read("0}").rfind(expected, 0), 0u);
    EXPECT_EQ(read("2}", "pruning_loc: []").rfind(expected, 0), 0u);
    EXPECT_EQ(read("2}, selection: {deterministic_from: 0.5}").rfind(expected, 0), 0u);
}

// What an Error says of settings that do not go together: the key, and where it or the other one was given.
std::string fault_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return error_of([&] { read_config<Experiment>({text, "a.yaml", overrides}); });
}

TEST(TrainSettings, LossesWhoseNeedsAreNotGiven) {
    const std::string folder = "data:\n  root: r\n", unlabelled = folder + "  labelled: false\n";
    const std::string shapes = "data: {kind: cluttered_shapes}\n", weights = "train: {weights: w}\n";
    const std::string no_labels = "train.loss.classification: found 1, expected 0 where data.labelled is false";
    EXPECT_EQ(fault_of(unlabelled + weights), "[config] a.yaml:3: " + no_labels) << "the weight is a default";
    EXPECT_EQ(fault_of(folder + weights, {"data.labelled=false"}), "[config] --set data.labelled=false: " + no_labels);
    EXPECT_EQ(fault_of(unlabelled + "train:\n  weights: w\n  loss:\n    classification: 1\n"),
              "[config] a.yaml:7: " + no_labels);
    EXPECT_NO_THROW(read_config<Experiment>({unlabelled + weights, "a.yaml", {"train.loss.classification=0"}}));

    EXPECT_EQ(fault_of(shapes + "train:\n  loss:\n    kl: 0\n    distill: 0.5\n"),
              "[config] a.yaml:5: train.loss.distill: found 0.5, expected 0, or a teacher: give train.weights or "
              "train.teacher");
    EXPECT_EQ(fault_of("model: {num_classes: 0}\n" + shapes + "train: {weights: w, loss: {classification: 0}}\n"),
              "[config] a.yaml: train.loss.kl: found 0.5, expected 0 where model.num_classes is 0: the outputs are an "
              "embedding");
    EXPECT_EQ(fault_of(shapes + weights, {"train.loss.embedding=2"}),
              "[config] --set train.loss.embedding=2: train.loss.embedding: found 2, expected 0 where "
              "model.num_classes is 1000: the outputs are classes");
}

TEST(TrainSettings, SettingsThatDoNotGoTogether) {
    const std::string shapes = "data: {kind: cluttered_shapes}\n";
    const auto fault = [&](const std::string& set) {
        const std::string text = fault_of(shapes + "train:\n  weights: w\n", {set});
        const std::string place = "[config] --set " + set + ": ";
        EXPECT_EQ(text.substr(0, place.size()), place);
        return text.size() > place.size() ? text.substr(place.size()) : "";
    };
    EXPECT_EQ(fault("train.best_by=pruned_ema"), "train.best_by: found pruned_ema, expected ema.decay above 0 with it");
    EXPECT_EQ(fault("train.selection.keep_ratio_range=[0.5, 0.9]"),
              "train.selection.keep_ratio_range: found [0.5, 0.9], expected deterministic_from below 1 with it");
    EXPECT_EQ(fault("train.selection.keep_ratio_range=[0.9, 0.5]"),
              "train.selection.keep_ratio_range: found [0.9, 0.5], expected [least, most]");
    EXPECT_EQ(fault_of(shapes, {"train.blend=0.5", "train.loss.kl=0", "train.loss.distill=0"}),
              "[config] --set train.blend=0.5: train.blend: found 0.5, expected train.weights with it");
    EXPECT_EQ(fault_of(shapes + "train: {weights: w}\n", {"train.ema.decay=0.9", "train.blend=0.5"}),
              "[config] --set train.blend=0.5: train.blend: found 0.5, expected 1 with an ema.decay above 0");
    EXPECT_EQ(fault_of(shapes + "train: {weights: w}\n", {"train.eval_every=0", "train.stop_at=50"}),
              "[config] --set train.stop_at=50: train.stop_at: found 50, expected eval_every above 0 with it");
    EXPECT_EQ(
        fault("model.reduction=merge"),
        "model.reduction: found merge, expected train.selection.deterministic_from 0 with it: it does something to "
        "tokens that are removed, and masked ones stay");
    EXPECT_EQ(fault_of(shapes + "model: {reduction: tome}\ntrain: {weights: w, selection: {deterministic_from: 0}}\n",
                       {"train.loss.saliency=1"}),
              "[config] a.yaml:2: model.reduction: found tome, expected train.loss.saliency 0 with it: there is no "
              "prediction module to teach");
    const std::string tome = "model: {reduction: tome}\ntrain: {weights: w, selection: {deterministic_from: 0}}\n";
    EXPECT_EQ(
        fault_of(shapes + tome, {"train.keep_ratio=0.4"}),
        "[config] --set train.keep_ratio=0.4: train.keep_ratio: with model.reduction tome: found a count of 78 at "
        "stage 1, expected 98 to 196");
    EXPECT_EQ(fault_of(shapes + tome, {"train.selection.keep_ratio_range=[0.5, 0.9]"}),
              "[config] --set train.selection.keep_ratio_range=[0.5, 0.9]: train.selection.keep_ratio_range: with "
              "model.reduction tome: found a count of 24 at stage 3, expected 25 to 49");
    EXPECT_EQ(fault_of("model: {pruning_loc: []}\n" + shapes + "train: {weights: w, target_gmacs: 2}\n"),
              "[config] a.yaml:3: train.target_gmacs: found 2, expected model.pruning_loc to name stages that can save "
              "them");
}

}  // namespace
}  // namespace dynvit
