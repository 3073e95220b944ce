// dynvit prune, run as a user runs it, with a small model and drawn pictures.
#include <ATen/CPUGeneratorImpl.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/data/cluttered_shapes.hpp"
#include "dynvit/weights/model_file.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::Outcome;

class Prune : public testing::Test {
  protected:
    void SetUp() override {
        const ClutteredShapes pictures({.image_size = 32, .count = 40, .seed = 1});
        for (std::size_t i = 0; i < pictures.size(); ++i) {
            fs::create_directories(folder_ / "pictures/some");
            write_png(folder_ / "pictures/some" / str(i, ".png"), pictures.get(i).image);
        }
    }

    // A dense model of four blocks.
    void write_dense(const std::string& name, std::int64_t classes) const {
        ModelSettings settings;
        settings.name = "custom";
        settings.image_size = {32};
        settings.patch_size = 8;
        settings.num_classes = classes;
        settings.embed_dim = 16;
        settings.depth = 4;
        settings.num_heads = 2;
        settings.pruning_loc = {};
        write_model_file(folder_ / name, *DynamicVit(settings, at::make_generator<at::CPUGeneratorImpl>(0)));
    }

    // Two folders, of red pictures and of cyan ones: whatever a model makes of them, those of a folder lie together.
    void write_colours(const std::string& name, int count) const {
        for (const bool red : {true, false}) {
            const fs::path folder = folder_ / name / (red ? "red" : "cyan");
            fs::create_directories(folder);
            for (int i = 0; i < count; ++i) {
                Image picture(32, 32);
                for (std::size_t p = 0; p < picture.pixels.size(); ++p)
                    picture.pixels[p] = static_cast<std::uint8_t>((p % 3 == 0) == red ? 200 + i : i);
                write_png(folder / str(i, ".png"), picture);
            }
        }
    }

    Outcome prune(const std::string& arguments, const std::string& before = "") const {
        return test::run_in(
            folder_.path(),
            str(before, "'", DYNVIT_PROGRAM, "' prune --log-level off --threads 1 --seconds 0.01 -d cpu ", arguments));
    }

    ModelFile read(const std::string& name) const { return read_model_file(folder_ / name); }
    json report(const std::string& name) const { return json::parse(test::text_of(folder_ / name)); }

    test::TemporaryFolder folder_;
};

TEST_F(Prune, WritesABundleAndATable) {
    write_dense("dense.safetensors", 10);
    const Outcome outcome = prune("-w dense.safetensors --images pictures --steps 3 --json r.json --agreement 0");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    for (const char* part : {"4 pictures held back", "dense ", "predicted", "cls_attention", "random", "<- written",
                             "pruned.safetensors: keeps "}) {
        EXPECT_NE(outcome.out.find(part), std::string::npos) << "no " << part << " in:\n" << outcome.out;
    }
    const json found = report("r.json");
    ASSERT_EQ(found.at("rows").size(), 15u);  // three policies at five ratios
    EXPECT_EQ(found.at("steps"), 3);
    const json& first = found.at("rows").front();
    EXPECT_EQ(first.at("images"), 4);
    EXPECT_GT(first.at("speedup_batch_1").get<double>(), 0);
    EXPECT_GT(first.at("speedup_batch_32").get<double>(), 0);
    const ModelFile bundle = read("pruned.safetensors");
    ASSERT_TRUE(bundle.settings && bundle.bundle);
    EXPECT_EQ(bundle.settings->pruning_loc, (std::vector<std::int64_t>{1, 2, 3}));
    EXPECT_EQ(bundle.settings->reduction, "merge");
    EXPECT_EQ(json(bundle.bundle->plan.tokens), found.at("tokens_per_stage"));
    EXPECT_TRUE(fs::exists(folder_ / "pruned.run/checkpoints/last.safetensors"));
}

// As it was downloaded: the weights under another library's names, and what their shapes do not tell beside them.
TEST_F(Prune, TakesAFolderOfAnotherLibrary) {
    const fs::path given = test::golden("backbones/hf_dinov2_backbone");
    const Outcome outcome = prune(str("-w '", given.string(), "' --images pictures --steps 2 --image-size 32"));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const ModelFile bundle = read("pruned.safetensors");
    EXPECT_TRUE(bundle.settings->layer_scale);
    EXPECT_EQ(bundle.settings->num_classes, 0);
    EXPECT_EQ(bundle.settings->pruning_loc, std::vector<std::int64_t>{1});  // of two blocks
    ASSERT_TRUE(bundle.preprocessing);
    EXPECT_NEAR(bundle.preprocessing->mean[0], 0.485, 1e-6);
}

TEST_F(Prune, TheRatioAskedForIsWritten) {
    write_dense("dense.safetensors", 10);
    const Outcome outcome =
        prune("-w dense.safetensors --images pictures --steps 2 -k 0.75 --reduction delete -o p.safetensors");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const ModelFile bundle = read("p.safetensors");
    EXPECT_EQ(bundle.bundle->plan.tokens, (std::vector<std::int64_t>{12, 9, 6}));
    EXPECT_EQ(bundle.settings->reduction, "delete");
    EXPECT_NE(outcome.out.find("p.safetensors: keeps 12/9/6 of 16 patches"), std::string::npos) << outcome.out;
}

TEST_F(Prune, MatchesTokensWhereNobodyChooses) {
    write_dense("dense.safetensors", 10);
    const Outcome outcome = prune("-w dense.safetensors --images pictures --steps 2 --reduction tome --json r.json");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(read("pruned.safetensors").settings->reduction, "tome");
    for (const json& row : report("r.json").at("rows")) EXPECT_EQ(row.at("policy"), "similarity");
}

// Another set of weights than the first that the file has is what training starts from, too.
TEST_F(Prune, LearnsFromTheWeightsThatWereMeant) {
    const fs::path golden = test::golden("model");
    const Outcome outcome = prune(str("-w '", (golden / "tiny_student_zip.pth").string(),
                                      "' --weights-part model --num-heads 2 --images pictures --steps 1"));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(fs::exists(folder_ / "pruned.dense.safetensors"));
    EXPECT_EQ(read("pruned.safetensors").settings->num_heads, 2);
}

TEST_F(Prune, AnEarlierRunIsLeftAlone) {
    write_dense("dense.safetensors", 10);
    fs::create_directories(folder_ / "pruned.run");
    const Outcome outcome = prune("-w dense.safetensors --images pictures");
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.err,
              "error: [prune] pruned.run: is there already, expected no folder: another --output or --run, "
              "or remove it\n");
}

TEST_F(Prune, WithoutAHeadTheCosineIsTold) {
    write_dense("dense.safetensors", 0);
    const Outcome outcome = prune("-w dense.safetensors --images pictures --steps 3 --json r.json");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("cosine"), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.out.find("agree %"), std::string::npos) << outcome.out;
    EXPECT_EQ(outcome.out.find("k-NN"), std::string::npos) << "one folder is no class:\n" << outcome.out;
    const json row = report("r.json").at("rows").front();
    EXPECT_GT(row.at("cosine").get<double>(), 0.5);
    EXPECT_FALSE(row.contains("kl"));
    EXPECT_EQ(read("pruned.safetensors").settings->num_classes, 0);
}

TEST_F(Prune, WithoutAHeadNeighboursTellClassFolders) {
    write_dense("dense.safetensors", 0);
    write_colours("colours", 30);
    const Outcome outcome = prune("-w dense.safetensors --images colours --steps 2 --json r.json");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("cosine     k-NN %"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("k-NN %: how often the 20 nearest of 54 training pictures, by their dense embeddings, "
                               "tell the class, of 2; a neighbour counts exp(cosine / 0.07)\n"),
              std::string::npos)
        << outcome.out;
    const json found = report("r.json");
    EXPECT_EQ(found.at("neighbours"), json::parse(R"({"k": 20, "pictures": 54, "classes": 2})"));
    EXPECT_EQ(found.at("dense").at("knn_top1"), 100);
    ASSERT_EQ(found.at("rows").size(), 15u);
    for (const json& row : found.at("rows")) {
        EXPECT_EQ(row.at("images"), 6);
        EXPECT_EQ(row.at("knn_count"), 6) << row;
    }
}

// What the same figures are for a data set with labels.
TEST_F(Prune, EvalOfAModelWithoutAHeadTellsNeighbours) {
    write_dense("dense.safetensors", 0);
    write_colours("data/train", 6);
    write_colours("data/val", 4);
    const auto eval = [&](const std::string& arguments) {
        return test::run_in(folder_.path(), str("'", DYNVIT_PROGRAM, "' eval --log-level off --threads 1 -d cpu ",
                                                "-w dense.safetensors --data data ", arguments));
    };
    const Outcome outcome = eval("-k 1.0,0.5 --pruning-loc 1,2 --policy random --json r.json");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const json found = report("r.json");
    EXPECT_EQ(found.at("neighbours"), json::parse(R"({"k": 6, "pictures": 12, "classes": 2})"));
    ASSERT_EQ(found.at("results").size(), 2u);
    for (const json& row : found.at("results")) EXPECT_EQ(row.at("knn_count"), 8) << row;
    EXPECT_NE(outcome.out.find("k-NN %"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("100.00"), std::string::npos) << outcome.out;

    fs::rename(folder_ / "data/train/red", folder_ / "data/train/crimson");
    EXPECT_NE(eval("").err.find("the classes of val/ are not those of train/"), std::string::npos);
    fs::remove_all(folder_ / "data/train");
    EXPECT_EQ(eval("").err,
              "error: [eval] a model without a head finds classes by neighbours among the training pictures: "
              "[image_folder] data/train: no such folder, a folder with a folder of pictures a class is expected; or "
              "--pictures, which need no labels\n");
}

TEST_F(Prune, WithAHeadFoldersAreNoClasses) {
    write_dense("dense.safetensors", 10);
    fs::create_directories(folder_ / "pictures/other");
    for (int i = 0; i < 10; ++i)
        fs::copy(folder_ / "pictures/some" / str(i, ".png"), folder_ / "pictures/other" / str(i, ".png"));
    const Outcome outcome = prune("-w dense.safetensors --images pictures --steps 1 --json r.json");
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.out.find("k-NN"), std::string::npos) << outcome.out;
    EXPECT_FALSE(report("r.json").at("rows").front().contains("top1"));
}

TEST_F(Prune, PrintsTheRecipeThatTrainTakes) {
    write_dense("dense.safetensors", 10);
    const Outcome printed = prune("-w dense.safetensors --images pictures --steps 2 --print-config");
    ASSERT_EQ(printed.code, 0) << printed.err;
    std::ofstream(folder_ / "recipe.yaml") << printed.out;
    EXPECT_FALSE(fs::exists(folder_ / "pruned.run"));
    const Outcome trained = test::run_in(
        folder_.path(), str("'", DYNVIT_PROGRAM, "' train --log-level off --threads 1 -c recipe.yaml -o run"));
    ASSERT_EQ(trained.code, 0) << trained.err;
    EXPECT_NE(trained.out.find("trained to step 2"), std::string::npos) << trained.out;
}

TEST_F(Prune, ASignalKeepsWhatWasLearnt) {
    write_dense("dense.safetensors", 10);
    // The run's folder appears when training begins; the signal comes within the 4,000 steps.
    const Outcome outcome = test::run_in(
        folder_.path(),
        str("('", DYNVIT_PROGRAM,
            "' prune --log-level off --threads 1 --seconds 0.01 -d cpu -w dense.safetensors --images pictures "
            "--steps 4000 --json r.json & p=$!; while ! [ -s pruned.run/metrics.jsonl ]; do kill -0 $p || exit 9; "
            "done; kill -TERM $p; wait $p)"));
    EXPECT_EQ(outcome.code, 143) << outcome.err;
    const json found = report("r.json");
    EXPECT_LT(found.at("steps"), 4000);
    EXPECT_TRUE(read("pruned.safetensors").bundle);
}

TEST_F(Prune, BadInputIsOneLine) {
    write_dense("dense.safetensors", 10);
    const auto error_of = [&](const std::string& arguments) {
        const Outcome outcome = prune(arguments);
        EXPECT_EQ(outcome.code, 1);
        EXPECT_EQ(outcome.out, "");
        return outcome.err;
    };
    EXPECT_NE(error_of("-w dense.safetensors --images nowhere").find("nowhere"), std::string::npos);
    EXPECT_NE(error_of("-w nothing.safetensors --images pictures").find("nothing.safetensors"), std::string::npos);
    EXPECT_NE(error_of("-w dense.safetensors --images pictures -k 1.5").find("[keep-ratio] found 1.5"),
              std::string::npos);
    EXPECT_NE(
        error_of("-w dense.safetensors --images pictures -k 1").find("found what the dense model has, expected less"),
        std::string::npos);
    fs::create_directories(folder_ / "one");
    fs::copy(folder_ / "pictures/some/0.png", folder_ / "one/0.png");
    EXPECT_NE(error_of("-w dense.safetensors --images one").find("found no picture to train on"), std::string::npos)
        << "a tenth is held back";
    EXPECT_FALSE(fs::exists(folder_ / "pruned.safetensors"));
}

}  // namespace
}  // namespace dynvit
