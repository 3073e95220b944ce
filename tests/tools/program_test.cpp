// The built program, run as a user runs it: command line in, files, standard output, standard error and exit code out.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "dynvit/core/config.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/data/data_settings.hpp"
#include "dynvit/io/image.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"
#include "dynvit/train/experiment.hpp"
#include "dynvit/weights/model_file.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

constexpr int kImageSize = 32;
constexpr int kValImages = 20;
constexpr int kPanel = 192;  // a picture of 32 pixels as visualize enlarges it
constexpr int kGap = 4;      // between panels, pixels

const std::string kModel = R"(model:
  name: custom
  image_size: 32
  patch_size: 8
  num_classes: 10
  embed_dim: 16
  depth: 3
  num_heads: 2
)";

const std::string kData = R"(data:
  kind: cluttered_shapes
  train_images: 32
  val_images: 20
  workers: 1
)";

// So fast that the prediction modules tell patches apart by more than the last digits of their probabilities.
const std::string kTrain = R"(train:
  epochs: 1
  batch_size: 8
  device: cpu
  log_every: 1
  schedule: {lr: 1e-2, warmup_epochs: 0, backbone_lr_scale: 1, backbone_freeze_epochs: 0}
)";

const std::string kNoTeacher = "  loss: {kl: 0, distill: 0, ratio: 0}\n";

const std::string kDense = kModel + "  pruning_loc: []\n" + kData + kTrain + kNoTeacher;
const std::string kPruned =
    kModel + "  pruning_loc: [1, 2]\n" + kData + kTrain + "  weights: dense/checkpoints/last.safetensors\n";
// Stages too, and needs no file to start from.
const std::string kAlone = kModel + "  pruning_loc: [1, 2]\n" + kData + kTrain + "  loss: {kl: 0, distill: 0}\n";

using test::Outcome;
using test::text_of;

std::string quoted(const std::string& word) {
    std::string text = "'";
    for (const char letter : word) {
        if (letter == '\'') text += "'\\'";
        text += letter;
    }
    text += '\'';
    return text;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos) throw std::runtime_error("'" + from + "' is not in the text");
    return text.replace(at, from.size(), to);
}

// Every file below a folder with its bytes.
std::map<std::string, std::string> contents(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (entry.is_regular_file()) files[entry.path().lexically_relative(folder)] = text_of(entry.path());
    }
    return files;
}

Words names(const std::map<std::string, std::string>& files) {
    Words found;
    for (const auto& [name, bytes] : files) found.push_back(name);
    return found;
}

std::vector<json> lines_of(const fs::path& path) {
    std::vector<json> lines;
    std::istringstream text(text_of(path));
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
}

// The files that only one of two folders has, or that differ between them.
Words differences(const std::map<std::string, std::string>& a, const std::map<std::string, std::string>& b) {
    std::set<std::string> found;
    for (const auto* folder : {&a, &b}) {
        for (const auto& [name, bytes] : *folder) {
            if (!a.contains(name) || !b.contains(name) || a.at(name) != b.at(name)) found.insert(name);
        }
    }
    return {found.begin(), found.end()};
}

class Program : public testing::Test {
  protected:
    // Runs the program in the test's folder, so that its messages name files as they were given.
    Outcome run(const Words& arguments) const { return run_under("", arguments); }

    // The same, started by `shell`: bash commands that end in `"$@"`.
    Outcome run_under(const std::string& shell, const Words& arguments) const {
        std::string command;
        if (!shell.empty()) command += str("bash -c ", quoted(shell), " bash ");
        command += quoted(DYNVIT_PROGRAM);
        for (const std::string& argument : arguments) command += str(' ', quoted(argument));
        return test::run_in(folder_.path(), command);
    }

    // A run that has to succeed and, with its log off, leave standard error empty.
    std::string succeed(Words arguments) const {
        arguments.insert(arguments.end(), {"--log-level", "off", "--threads", "1"});
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        EXPECT_EQ(outcome.err, "");
        return outcome.out;
    }

    // A run that has to fail with exit code 1, one line on standard error that holds every one of `parts`, and nothing
    // on standard output.
    void fail(Words arguments, const Words& parts, const std::string& shell = "") const {
        arguments.insert(arguments.end(), {"--log-level", "off", "--threads", "1"});
        const Outcome outcome = run_under(shell, arguments);
        EXPECT_EQ(outcome.code, 1);
        EXPECT_EQ(outcome.out, "");
        EXPECT_EQ(outcome.err.rfind("error: [", 0), 0u) << outcome.err;
        EXPECT_EQ(outcome.err.find("[bug]"), std::string::npos) << outcome.err;
        EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << "one line: " << outcome.err;
        for (const std::string& part : parts) {
            EXPECT_NE(outcome.err.find(part), std::string::npos) << "no '" << part << "' in: " << outcome.err;
        }
    }

    fs::path write(const std::string& name, const std::string& text) const {
        const fs::path path = folder_ / name;
        fs::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << text;
        return path;
    }

    // Untrained weights of kAlone's model.
    void write_weights(const std::string& name) const {
        const ModelSettings settings = read_config<Experiment>({kAlone, "a.yaml", {}}).model;
        write_model_file(folder_ / name, *DynamicVit(settings, at::make_generator<at::CPUGeneratorImpl>(0)));
    }

    // The validation pictures as files: VAL/<letter>/<number>.png, the letters falling where the classes rise, so that
    // sorted folders would give wrong labels.
    void write_pictures(const std::string& val) const {
        const DataSettings data = read_config<Experiment>({kAlone, "a.yaml", {}}).data;
        const auto pictures = make_dataset(data, Split::kVal, kImageSize, kImageSize);
        for (std::size_t i = 0; i < pictures->size(); ++i) {
            const Sample sample = pictures->get(i);
            const fs::path folder = folder_ / val / class_folder(sample.label);
            fs::create_directories(folder);
            write_png(folder / str(i, ".png"), sample.image);
        }
    }

    static std::string class_folder(std::int64_t label) { return {static_cast<char>('z' - label)}; }

    test::TemporaryFolder folder_;
};

// What a row of eval's JSON has to be, whatever was learnt.
void expect_row(const json& row, const std::string& policy, double keep_ratio,
                const std::vector<std::int64_t>& tokens) {
    EXPECT_EQ(row.at("policy"), policy);
    EXPECT_EQ(row.at("keep_ratio"), keep_ratio);
    EXPECT_EQ(row.at("images"), kValImages);
    EXPECT_EQ(row.at("tokens_per_stage"), json(tokens));
    const int top1 = row.at("top1_count"), top5 = row.at("top5_count");
    EXPECT_LE(0, top1);
    EXPECT_LE(top1, top5);
    EXPECT_LE(top5, kValImages);
    EXPECT_DOUBLE_EQ(row.at("top1").get<double>(), 100.0 * top1 / kValImages);
    EXPECT_DOUBLE_EQ(row.at("top5").get<double>(), 100.0 * top5 / kValImages);
    EXPECT_GT(row.at("loss").get<double>(), 0.0);
    const ModelSettings settings = read_config<Experiment>({kAlone, "a.yaml", {}}).model;
    EXPECT_DOUBLE_EQ(row.at("gmacs").get<double>(),
                     1e-9 * static_cast<double>(count_macs(settings, tokens, policy == "predicted")));
}

// The patches of panel `panel` (from 0) of visualize's picture that look as in panel 0.
int kept_patches(const Image& row, int panel) {
    const int left = panel * (kPanel + kGap), patch = kPanel * 8 / kImageSize, across = kPanel / patch;
    int kept = 0;
    for (int place = 0; place < across * across; ++place) {
        bool same = true;
        for (int y = place / across * patch; y < (place / across + 1) * patch; ++y) {
            const int x = place % across * patch;
            same = same && std::equal(row.at(x, y), row.at(x, y) + 3 * patch, row.at(left + x, y));
        }
        kept += same;
    }
    return kept;
}

TEST_F(Program, WholePath) {
    write("dense.yaml", kDense);
    write("pruned.yaml", kPruned);
    EXPECT_NE(succeed({"train", "-c", "dense.yaml", "-o", "dense"}).find("trained to step 4"), std::string::npos);
    EXPECT_NE(succeed({"train", "-c", "pruned.yaml", "-o", "run"}).find("run/checkpoints/last.safetensors"),
              std::string::npos);

    // eval of the run's own pictures finds what the training's last evaluation found.
    const std::string weights = "run/checkpoints/last.safetensors";
    const std::string table = succeed({"eval", "-c", "pruned.yaml", "-w", weights, "-d", "cpu", "--policy",
                                       "predicted,random", "-b", "8", "--json", "shapes.json"});
    EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 4) << "a heading and three rows: " << table;
    const json shapes = json::parse(text_of(folder_ / "shapes.json"));
    EXPECT_EQ(shapes.at("model"), "custom");
    EXPECT_EQ(shapes.at("weights"), weights);
    EXPECT_EQ(shapes.at("device"), "cpu");
    EXPECT_EQ(shapes.at("precision"), "float32");
    const json& rows = shapes.at("results");
    ASSERT_EQ(rows.size(), 3u);
    expect_row(rows[0], "dense", 1.0, {});
    expect_row(rows[1], "predicted", 0.7, {11, 7});  // of 16 patches
    expect_row(rows[2], "random", 0.7, {11, 7});
    EXPECT_LT(rows[1].at("gmacs"), rows[0].at("gmacs"));
    EXPECT_EQ(rows[1].at("object_kept_per_stage").size(), 2u);
    std::vector<json> trained = lines_of(folder_ / "run/metrics.jsonl");
    std::erase_if(trained, [](const json& line) { return line.at("kind") != "eval"; });
    ASSERT_EQ(trained.size(), 2u);
    for (const std::size_t i : {0, 1}) {
        for (const char* key : {"policy", "top1_count", "top5_count", "tokens_per_stage"}) {
            EXPECT_EQ(rows[i].at(key), trained[i].at(key)) << key;
        }
        EXPECT_NEAR(rows[i].at("loss"), trained[i].at("loss"), 1e-6);
    }

    // Every policy, a threshold for all stages, and a ratio from a budget: 0.7 costs what 0.7 cost above.
    const std::string budget = str(rows[1].at("gmacs").get<double>() * 1.0000001);
    succeed({"eval", "-c", "pruned.yaml", "-w", weights, "-d", "cpu", "--gmacs", budget, "--policy",
             "predicted,per_image,random,static,cls_attention,structural", "--threshold", "0.25", "--json",
             "policies.json"});
    const json policies = json::parse(text_of(folder_ / "policies.json")).at("results");
    ASSERT_EQ(policies.size(), 7u);
    EXPECT_EQ(policies[0].at("top1_count"), rows[1].at("top1_count"));
    EXPECT_EQ(policies[0].at("tokens_per_stage"), (json{11, 7}));
    EXPECT_EQ(policies[1].at("policy"), "per_image");
    EXPECT_EQ(policies[1].at("thresholds").size(), 2u);
    EXPECT_EQ(policies[1].at("tokens_per_stage"), (json{11, 7})) << "found on these very pictures";
    for (const json& spread : policies[1].at("tokens_spread_per_stage")) {
        ASSERT_EQ(spread.size(), 5u);
        EXPECT_TRUE(std::is_sorted(spread.begin(), spread.end()));
    }
    EXPECT_EQ(policies[5].at("policy"), "structural");
    EXPECT_EQ(policies[5].at("tokens_per_stage"), json{4}) << "16 patches, two by two";
    EXPECT_EQ(policies[6].at("policy"), "per_image");
    EXPECT_EQ(policies[6].at("thresholds"), (json{0.25, 0.25}));

    // What its stages do, and where, in place of the model's own.
    succeed({"eval", "-c", "pruned.yaml", "-w", weights, "-d", "cpu", "--reduction", "tome", "--stage-place",
             "after_attention", "--tokens", "12,8", "--json", "tome.json"});
    const json matched = json::parse(text_of(folder_ / "tome.json")).at("results").back();
    EXPECT_EQ(matched.at("policy"), "similarity");
    EXPECT_EQ(matched.at("tokens_per_stage"), (json{12, 8}));
    fail({"eval", "-c", "pruned.yaml", "-w", weights, "-d", "cpu", "--reduction", "tome", "--tokens", "7,5"},
         {"[policy] --tokens: found a count of 7 at stage 1, expected 8 to 16"});
    fail({"eval", "-c", "pruned.yaml", "-w", weights, "-d", "cpu", "--tokens", "12,8", "-k", "0.5"},
         {"[tokens] found --keep-ratio or --gmacs beside it, expected one of them"});

    // The same pictures as files, with no more than the weights and a class list.
    write_pictures("pictures/val");
    std::string classes;
    for (int label = 0; label < 10; ++label) classes += class_folder(label) + " the " + str(label) + "th\n";
    write("classes.txt", classes);
    succeed({"eval", "--weights", weights, "--data", "pictures", "--classes", "classes.txt", "--resize", "32",
             "--keep-ratio", "1.0,0.7,0.5", "--device", "cpu", "--workers", "1", "--batch-size", "8", "--json",
             "folder.json"});
    const json folder = json::parse(text_of(folder_ / "folder.json")).at("results");
    ASSERT_EQ(folder.size(), 3u);
    for (const std::size_t i : {0, 1}) {
        for (const char* key : {"policy", "images", "top1_count", "top5_count", "tokens_per_stage", "gmacs"}) {
            EXPECT_EQ(folder[i].at(key), rows[i].at(key)) << key;
        }
        EXPECT_NEAR(folder[i].at("loss"), rows[i].at("loss"), 1e-5) << "float32 sums in another order";
        EXPECT_FALSE(folder[i].contains("object_kept_per_stage")) << "files have no object masks";
    }
    expect_row(folder[2], "predicted", 0.5, {8, 4});

    // And without their labels: how far each row agrees with the dense model, and no accuracy.
    const Words bare = {"eval", "-w", weights, "--pictures", "pictures", "--resize", "32", "-d", "cpu", "-b", "8"};
    const auto with = [&](const Words& more) {
        Words words = bare;
        words.insert(words.end(), more.begin(), more.end());
        return words;
    };
    const std::string agreeing = succeed(with({"-k", "1.0,0.7,0.5", "--json", "bare.json"}));
    EXPECT_NE(agreeing.find("agree %"), std::string::npos) << agreeing;
    EXPECT_EQ(agreeing.find("top-1"), std::string::npos) << agreeing;
    const json agreement = json::parse(text_of(folder_ / "bare.json")).at("results");
    ASSERT_EQ(agreement.size(), 3u);
    EXPECT_FALSE(agreement[0].contains("agree")) << "it is what the others are compared with";
    for (const std::size_t i : {1, 2}) {
        EXPECT_EQ(agreement[i].at("agree"), folder[i].at("agree"));
        EXPECT_NEAR(agreement[i].at("kl"), folder[i].at("kl"), 1e-5);
        EXPECT_EQ(agreement[i].at("images"), kValImages);
        for (const char* key : {"top1", "loss", "drop"}) EXPECT_FALSE(agreement[i].contains(key)) << key;
    }
    fail(with({"-k", "0.7"}), {"[eval] --pictures have no labels, and there is no dense model to agree with"});
    fail(with({"--data", "pictures"}), {"--data", "--pictures"});
}

// infer names the classes that eval counts, keeps the patches that visualize draws, and goes on past what it cannot
// read.
TEST_F(Program, InferSaysWhatEvalCounts) {
    write_weights("w.safetensors");
    write_pictures("pictures/val");
    std::string classes;
    for (int label = 0; label < 10; ++label) classes += class_folder(label) + " the " + str(label) + "th\n";
    write("classes.txt", classes);
    succeed({"eval", "-w", "w.safetensors", "--data", "pictures", "--classes", "classes.txt", "--resize", "32", "-k",
             "0.5", "-d", "cpu", "--json", "eval.json"});
    const json row = json::parse(text_of(folder_ / "eval.json")).at("results").at(0);
    const Words infer = {"infer", "pictures", "-w", "w.safetensors", "--classes", "classes.txt", "--resize", "32",
                         "-k",    "0.5",      "-d", "cpu",           "-b",        "7",           "--json"};
    std::istringstream lines(succeed(infer));
    int pictures = 0, right = 0;
    for (std::string text; std::getline(lines, text); ++pictures) {
        const json line = json::parse(text);
        ASSERT_EQ(line.at("top").size(), 5u);
        const std::int64_t named = line.at("top").at(0).at("class");
        EXPECT_EQ(line.at("top").at(0).at("name"), str("the ", named, "th"));
        right += fs::path(line.at("picture").get<std::string>()).parent_path().filename() == class_folder(named);
        EXPECT_EQ(line.at("tokens_per_stage"), (json{8, 4}));
        const std::vector<std::int64_t> first = line.at("kept").at(0), last = line.at("kept").at(1);
        ASSERT_EQ(first.size(), 8u);
        ASSERT_EQ(last.size(), 4u);
        EXPECT_TRUE(std::ranges::includes(first, last)) << "what is gone does not come back";
        EXPECT_TRUE(0 <= first.front() && first.back() < 16);
    }
    EXPECT_EQ(pictures, kValImages);
    EXPECT_EQ(right, row.at("top1_count"));

    // By every policy; those that learn do so from the pictures themselves.
    for (const char* policy : {"predicted", "per_image", "random", "static", "cls_attention", "structural"}) {
        Words words = infer;
        words.insert(words.end(), {"--policy", policy});
        std::istringstream answers(succeed(words));
        std::int64_t kept = 0;
        for (std::string text; std::getline(answers, text);) {
            const json tokens = json::parse(text).at("tokens_per_stage");
            if (!tokens.empty()) kept += tokens.back().get<std::int64_t>();
        }
        EXPECT_EQ(kept, policy == std::string("structural") ? 0 : 4 * kValImages) << policy;
    }

    // A list on standard input, one of its files a text, one a picture of a single pixel.
    write_png(folder_ / "dot.png", Image(1, 1));
    write("text.png", "no picture");
    write("list.txt", "dot.png\ntext.png\n\npictures\r\n");
    const Outcome some = run_under("\"$@\" < list.txt", {"infer", "-", "-w", "w.safetensors", "-d", "cpu",
                                                         "--log-level", "off", "--threshold", "0.1", "--threads", "1"});
    EXPECT_EQ(some.code, 1);
    EXPECT_EQ(some.err,
              str("error: [infer] 1 of ", kValImages + 2, " pictures could not be read; the others are done\n"));
    EXPECT_EQ(some.out.rfind("dot.png\n", 0), 0u);
    std::size_t kept = 0;
    for (std::size_t at = 0; (at = some.out.find("\n   kept  ", at)) != std::string::npos; ++at) ++kept;
    EXPECT_EQ(kept, kValImages + 1);
}

// The command line before the config, the config before the model's file, the file before ImageNet's numbers: each key
// by itself.
TEST_F(Program, PicturesArePreparedByWhoeverSaysItFirst) {
    Preprocessing own;
    own.mean = {0.5, 0.4, 0.3};
    own.std = {0.5, 0.25, 0.5};
    own.crop = kSquash;
    own.interpolation = "bilinear";
    write_weights("untold.safetensors");
    const ModelFile untold = read_model_file(folder_ / "untold.safetensors");
    write_model_file(folder_ / "told.safetensors", untold.weights, untold.settings, std::nullopt, own);
    write("a.yaml", kAlone);
    write("b.yaml", replaced(kAlone, "  workers: 1\n", "  workers: 1\n  std: 0.3\n  mean: 0.1\n"));
    Image picture(50, 40);
    for (std::size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = static_cast<std::uint8_t>(i * 11 % 253);
    write_png(folder_ / "picture.png", picture);
    const auto infer = [&](Words words) {
        words.insert(words.begin(), {"infer", "picture.png", "-d", "cpu", "-k", "0.5", "--json", "-w"});
        return json::parse(succeed(words)).at("top");
    };
    const Words shape = {"untold.safetensors", "--interpolation", "bilinear", "--crop", "squash"};
    const auto by_hand = [&](const Words& more) {
        Words words = shape;
        words.insert(words.end(), more.begin(), more.end());
        return infer(words);
    };
    const json of_file = by_hand({"--mean", "0.5,0.4,0.3", "--std", "0.5,0.25,0.5"}),
               of_config = by_hand({"--mean", "0.1", "--std", "0.3"}),
               of_line = by_hand({"--mean", "0.9", "--std", "0.3"});
    EXPECT_EQ(infer({"told.safetensors"}), of_file);
    EXPECT_EQ(infer({"told.safetensors", "-c", "a.yaml"}), of_file);
    EXPECT_EQ(infer({"told.safetensors", "-c", "b.yaml"}), of_config);
    EXPECT_EQ(infer({"told.safetensors", "-c", "b.yaml", "--mean", "0.9"}), of_line);
    EXPECT_EQ(infer({"told.safetensors", "-c", "a.yaml", "-s", "data.std=0.3", "--mean", "0.9"}), of_line);
    EXPECT_EQ(std::set<json>({of_file, of_config, of_line, infer({"untold.safetensors"})}).size(), 4u);

    // What is trained or exported from it goes on saying so.
    succeed({"export", "-w", "told.safetensors", "-f", "bundle", "-o", "bundle", "--mean", "0.1", "--crop-pct", "0.9"});
    Preprocessing bundled = own;
    bundled.mean = {0.1, 0.1, 0.1};
    bundled.crop_pct = 0.9;
    EXPECT_EQ(read_model_file(folder_ / "bundle").preprocessing, bundled);
    succeed({"convert", "told.safetensors", "half.safetensors", "-p", "bfloat16"});
    EXPECT_EQ(read_model_file(folder_ / "half.safetensors").preprocessing, own);
    succeed({"train", "-c", "a.yaml", "-o", "run", "-s", "train.weights=told.safetensors", "-s", "train.max_steps=1",
             "-s", "data.std=0.2"});
    Preprocessing trained = own;
    trained.std = {0.2, 0.2, 0.2};
    EXPECT_EQ(read_model_file(folder_ / "run/checkpoints/last.safetensors").preprocessing, trained);
    EXPECT_EQ(read_config<Experiment>(config_from_file(folder_ / "run/config.yaml")).data.preprocessing, trained);
    succeed({"visualize", "-w", "told.safetensors", "-i", "picture.png", "-d", "cpu", "-k", "0.5", "-o", "drawn"});
    const Image row = read_image(folder_ / "drawn/picture.png");
    const Image squashed = resize(picture, kImageSize, kImageSize, Filter::kBilinear);
    for (int x = 0; x < kPanel; ++x) {
        const std::uint8_t* pixel = squashed.at(x * kImageSize / kPanel, 7);
        ASSERT_TRUE(std::equal(pixel, pixel + 3, row.at(x, 7 * kPanel / kImageSize))) << x;
    }

    const Words bad = {"infer", "picture.png", "-w", "told.safetensors", "-d", "cpu"};
    const auto refuses = [&](const Words& more, const std::string& text) {
        Words words = bad;
        words.insert(words.end(), more.begin(), more.end());
        fail(words, {text});
    };
    refuses({"--std", "0"}, "std: found '0', expected a number above 0 and at most 1");
    refuses({"--mean", "0.5,0.5"}, "[pictures] mean: found 2 numbers, expected one, or one a colour");
    refuses({"--crop", "all"}, "crop: found 'all', expected one of center, squash");
    refuses({"--resize", "40"}, "resize: found 40, expected 0 with crop squash");
}

TEST_F(Program, VisualizeDrawsWhatEachStageKeeps) {
    write_weights("w.safetensors");
    write_pictures("val");
    const std::string first = (folder_ / "val/z/0.png").string(), second = (folder_ / "val/y/1.png").string();
    fs::create_directories(folder_ / "more/deep");
    fs::copy_file(second, folder_ / "more/deep/0.PNG");  // the name of the first
    succeed({"visualize", "-w", "w.safetensors", "-i", first, "more", "-k", "0.5", "-d", "cpu", "-o", "drawn"});
    EXPECT_EQ(names(contents(folder_ / "drawn")),
              (Words{"0.png", "0~2.png", "contact_sheet.png", "keep_frequency.png"}));
    const EvalTransform eval_transform{kImageSize, kImageSize, 0};
    const Image sheet = read_image(folder_ / "drawn/contact_sheet.png");
    EXPECT_EQ(sheet.width, 3 * kPanel + 2 * kGap);
    EXPECT_EQ(sheet.height, 2 * kPanel + kGap);
    for (const auto& [name, source] : std::map<std::string, std::string>{{"0.png", first}, {"0~2.png", second}}) {
        const Image row = read_image(folder_ / "drawn" / name), picture = apply(eval_transform, read_image(source));
        ASSERT_EQ(row.width, 3 * kPanel + 2 * kGap);
        ASSERT_EQ(row.height, kPanel);
        for (int y = 0; y < kPanel; ++y) {
            for (int x = 0; x < kPanel; ++x) {
                const std::uint8_t* pixel = picture.at(x * kImageSize / kPanel, y * kImageSize / kPanel);
                ASSERT_TRUE(std::equal(pixel, pixel + 3, row.at(x, y))) << name << ' ' << x << ' ' << y;
            }
        }
        EXPECT_EQ(kept_patches(row, 1), 8) << name << ": half of 16";
        EXPECT_EQ(kept_patches(row, 2), 4) << name;
    }

    // Whoever keeps tokens can be drawn; a policy that learns does so from the pictures themselves.
    for (const char* policy : {"predicted", "per_image", "random", "static", "cls_attention"}) {
        succeed({"visualize", "-w", "w.safetensors", "-i", first, "more", "-k", "0.5", "-d", "cpu", "--policy", policy,
                 "-o", policy});
        const Image row = read_image(folder_ / policy / "0.png"), other = read_image(folder_ / policy / "0~2.png");
        EXPECT_EQ(kept_patches(row, 2) + kept_patches(other, 2), 2 * 4) << policy;
    }
    fail({"visualize", "-w", "w.safetensors", "-i", first, "--policy", "structural", "-o", "none"},
         {"not served here: selection policy 'structural'",
          "predicted, per_image, random, static, cls_attention, similarity\n"});

    // A bundle's stages may do something else than it says; what is one token with others looks otherwise.
    succeed({"export", "-w", "w.safetensors", "-k", "0.5", "-f", "bundle", "-o", "bundle.safetensors"});
    for (const char* reduction : {"merge", "fuse", "tome"}) {
        succeed({"visualize", "-w", "bundle.safetensors", "-i", first, "-d", "cpu", "--reduction", reduction, "-o",
                 reduction});
        const Image row = read_image(folder_ / reduction / "0.png");
        EXPECT_EQ(row.width, 3 * kPanel + 2 * kGap);
        EXPECT_LE(kept_patches(row, 2), 4) << reduction;
    }
    succeed({"visualize", "-w", "w.safetensors", "-i", first, "-d", "cpu", "-k", "1", "--reduction", "merge", "-o",
             "whole"});
    EXPECT_EQ(kept_patches(read_image(folder_ / "whole/0.png"), 2), 16);

    fs::rename(folder_ / "more/deep/0.PNG", folder_ / "more/contact_sheet.png");
    succeed({"visualize", "-w", "w.safetensors", "-i", "more", "-d", "cpu", "-o", "sheet"});
    EXPECT_EQ(names(contents(folder_ / "sheet")),
              (Words{"contact_sheet.png", "contact_sheet~2.png", "keep_frequency.png"}));

    write("a.yaml", kAlone);
    succeed({"visualize", "-c", "a.yaml", "-w", "w.safetensors", "-n", "5", "-d", "cpu", "-o", "samples"});
    EXPECT_EQ(contents(folder_ / "samples").size(), 7u) << "five validation pictures of the config, sheet, frequencies";
    EXPECT_EQ(read_image(folder_ / "samples/contact_sheet.png").height, 5 * kPanel + 4 * kGap);
}

TEST_F(Program,
       TargetsOfEachStageHoldInEveryCommand) {  // keep_ratio as a list: 12 and 4 of 16 patches, no powers of 0.75
    write("a.yaml", replaced(kAlone, "  epochs: 1\n", "  epochs: 1\n  keep_ratio: [0.75, 0.25]\n"));
    write_weights("w.safetensors");
    succeed({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "--json", "r.json"});
    const json rows = json::parse(text_of(folder_ / "r.json")).at("results");
    ASSERT_EQ(rows.size(), 2u);
    expect_row(rows[1], "predicted", 0.75, {12, 4});
    succeed({"visualize", "-c", "a.yaml", "-w", "w.safetensors", "-n", "1", "-d", "cpu", "-o", "drawn"});
    const Image sheet = read_image(folder_ / "drawn/contact_sheet.png");
    EXPECT_EQ(kept_patches(sheet, 1), 12);
    EXPECT_EQ(kept_patches(sheet, 2), 4);
    succeed({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "-k", "0.75", "--json", "r.json"});
    expect_row(json::parse(text_of(folder_ / "r.json")).at("results").at(0), "predicted", 0.75, {12, 9});
}

TEST_F(Program, ConfigPrintsWhatTrainTakesBack) {
    write("a.yaml", kAlone);
    const std::string resolved =
        succeed({"config", "-c", "a.yaml", "-s", "train.max_steps=1", "-s", "data.classes=a b.txt"});
    EXPECT_NE(resolved.find("max_steps: 1 "), std::string::npos);
    EXPECT_NE(resolved.find("lr: 0.01 "), std::string::npos);
    write("resolved.yaml", resolved);
    EXPECT_EQ(succeed({"config", "-c", "resolved.yaml"}), resolved);
    succeed({"train", "-c", "resolved.yaml", "-o", "run"});
    EXPECT_EQ(text_of(folder_ / "run/config.yaml"), resolved);
    const std::string defaults = succeed({"config"});
    EXPECT_NE(defaults.find("name: deit_small "), std::string::npos);
    EXPECT_NE(defaults.find("keep_ratio: [0.7] "), std::string::npos);
}

// Whole batches are counted, of each number of workers, and the figures of a row belong together.
TEST_F(Program, BenchCountsWhatTheLoaderPrepares) {
    write_pictures("val");
    const std::string out = succeed({"bench", "loader", "--data", "val", "--image-size", "16", "-b", "8", "-j", "1,2",
                                     "--images", "50", "--json", "bench.json"});
    EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3) << out;
    const json report = json::parse(text_of(folder_ / "bench.json"));
    EXPECT_EQ(report.at("height"), 16);
    EXPECT_EQ(report.at("data"), "val");
    ASSERT_EQ(report.at("results").size(), 2u);
    for (const json& row : report.at("results")) {
        EXPECT_EQ(row.at("images"), 56);
        EXPECT_GT(row.at("seconds").get<double>(), 0);
        EXPECT_DOUBLE_EQ(row.at("images_per_second").get<double>(), 56 / row.at("seconds").get<double>());
        EXPECT_DOUBLE_EQ(row.at("images_per_core_second").get<double>(), 56 / row.at("core_seconds").get<double>());
    }
    EXPECT_EQ(report.at("results")[1].at("workers"), 2);
    write("a.yaml", kAlone);
    EXPECT_NE(succeed({"bench", "loader", "-c", "a.yaml", "--images", "8", "-b", "8"}).find("      1         8 "),
              std::string::npos);
}

// An experiment's own step, without its pictures and its weights, which need not be there.
TEST_F(Program, BenchTimesTrainingSteps) {
    write("a.yaml", kAlone);
    const std::string out = succeed({"bench", "train", "-c", "a.yaml", "--set", "train.weights=absent.pth", "--set",
                                     "train.loss.kl=1", "--set", "train.device=cpu", "--set", "train.accumulate=2",
                                     "-b", "2,3", "--seconds", "0.05", "--json", "steps.json"});
    EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 4) << out;
    const json report = json::parse(text_of(folder_ / "steps.json"));
    EXPECT_EQ(report.at("accumulate"), 2);
    const json& rows = report.at("rows");
    ASSERT_EQ(rows.size(), 2u);
    for (const json& row : rows) {
        const double seconds = row.at("seconds").at("median"), images = 2 * row.at("batch").get<double>();
        EXPECT_NEAR(row.at("images_per_second").get<double>(), images / seconds, 1e-6 * images / seconds);
        EXPECT_LE(row.at("seconds").at("low"), row.at("seconds").at("high"));
    }
    EXPECT_EQ(rows[1].at("batch"), 3);
    EXPECT_GT(rows[1].at("peak_bytes"), rows[0].at("peak_bytes"));
    fail({"bench", "train"}, {"[bench] give --config"});
    fail({"bench", "train", "-c", "a.yaml", "--set", "train.device=cpu", "-b", "2", "--seconds", "0.01", "--profile",
          "3"},
         {"[bench] --profile tells of a GPU's kernels, found device cpu"});
}

// Rows for every batch, precision, ratio and policy, what they cost, and how they stand to an earlier run.
TEST_F(Program, BenchSetsPrunedBesideDense) {
    write("a.yaml", kAlone);
    const Words command = {"bench",
                           "-c",
                           "a.yaml",
                           "-d",
                           "cpu",
                           "-k",
                           "1.0,0.5",
                           "-b",
                           "1,3",
                           "-p",
                           "float32,bfloat16",
                           "--policy",
                           "predicted,per_image,structural",
                           "--seconds",
                           "0.01"};
    const auto with = [&](Words more) {
        more.insert(more.begin(), command.begin(), command.end());
        return more;
    };
    succeed(with({"--json", "first.json", "--plot", "plot.png"}));
    const json report = json::parse(text_of(folder_ / "first.json"));
    EXPECT_EQ(report.at("device"), "cpu");
    const json& rows = report.at("rows");
    ASSERT_EQ(rows.size(), 2u * 2u * 4u);
    const ModelSettings settings = read_config<Experiment>({kAlone, "test", {}}).model;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const json& row = rows[i];
        EXPECT_EQ(row.at("batch"), i < 8 ? 1 : 3);
        EXPECT_EQ(row.at("precision"), i % 8 < 4 ? "float32" : "bfloat16");
        EXPECT_EQ(row.at("policy"), (Words{"dense", "predicted", "per_image", "structural"}[i % 4]));
        EXPECT_EQ(row.contains("speedup"), i % 4 != 0);
        EXPECT_GE(row.at("rounds").get<int>(), 10);
        EXPECT_GT(row.at("peak_tensor_bytes").get<int>(), 0);
        const json &speed = row.at("images_per_second"), &latency = row.at("latency_ms");
        EXPECT_LE(speed.at("low"), speed.at("median"));
        EXPECT_LE(speed.at("median"), speed.at("high"));
        EXPECT_LE(latency.at("median"), latency.at("p95"));
        EXPECT_LE(latency.at("p95"), latency.at("p99"));
        EXPECT_NEAR(speed.at("median").get<double>(),
                    1e3 * row.at("batch").get<double>() / latency.at("median").get<double>(),
                    1e-6 * speed.at("median").get<double>());
        double sum = 0;
        for (const json& part : row.at("gmacs_per_stage")) sum += part.get<double>();
        EXPECT_NEAR(sum, row.at("gmacs").get<double>(), 1e-12);
    }
    EXPECT_DOUBLE_EQ(rows[0].at("gmacs").get<double>(), 1e-9 * static_cast<double>(count_macs(settings)));
    EXPECT_EQ(rows[1].at("tokens_per_stage"), tokens_per_stage(stage_ratios(0.5, 2), settings.patches()));
    EXPECT_LT(rows[1].at("gmacs"), rows[0].at("gmacs"));
    EXPECT_GT(read_image(folder_ / "plot.png").width, 500);

    EXPECT_EQ(succeed({"bench", "-c", "a.yaml", "-d", "cpu", "-b", "1", "--seconds", "0.01"}).find("x before"),
              std::string::npos);
    const std::string again =
        succeed({"bench", "-c", "a.yaml", "-d", "cpu", "-b", "1,2", "--seconds", "0.01", "--compare", "first.json"});
    EXPECT_NE(again.find("x before"), std::string::npos) << again;
    EXPECT_NE(again.find(" new\n"), std::string::npos) << "batch 2 was not in the first run\n" << again;
}

TEST_F(Program, HelpNamesEveryOption) {
    const std::map<std::string, Words> options = {
        {"",
         {"--help", "--version", "--log-level", "--threads", "train", "eval", "infer", "visualize", "export", "config",
          "bench"}},
        {"infer", {"pictures", "--weights", "--keep-ratio", "--threshold", "--classes", "--top", "--json"}},
        {"train", {"--config", "--set", "--output", "--resume"}},
        {"eval", {"--config",     "--set",       "--model",     "--weights",       "--image-size", "--pruning-loc",
                  "--keep-ratio", "--device",    "--precision", "--data",          "--pictures",   "--classes",
                  "--resize",     "--mean",      "--std",       "--interpolation", "--crop",       "--crop-pct",
                  "--policy",     "--threshold", "--gmacs",     "--batch-size",    "--workers",    "--json"}},
        {"visualize",
         {"--config", "--set", "--model", "--weights", "--image-size", "--pruning-loc", "--keep-ratio", "--device",
          "--precision", "--images", "--samples", "--resize", "--mean", "--std", "--interpolation", "--crop",
          "--crop-pct", "--policy", "--output"}},
        {"config", {"--config", "--set"}},
        {"bench",
         {"loader", "--config", "--model", "--weights", "--keep-ratio", "--device", "--precision", "--policy",
          "--batch-size", "--images", "--seconds", "--json", "--plot", "--compare", "--profile", "train"}},
    };
    for (const auto& [command, expected] : options) {
        const Outcome help = run(command.empty() ? Words{"--help"} : Words{command, "--help"});
        EXPECT_EQ(help.code, 0) << command;
        EXPECT_EQ(help.err, "") << command;
        for (const std::string& option : expected)
            EXPECT_NE(help.out.find(option), std::string::npos) << command << ' ' << option;
    }
    const Outcome version = run({"--version"});
    EXPECT_EQ(version.code, 0);
    EXPECT_EQ(version.out.rfind("dynvit ", 0), 0u) << version.out;
    EXPECT_EQ(std::count(version.out.begin(), version.out.end(), '\n'), 1);
}

TEST_F(Program, RunFolderHoldsWhatItSays) {
    write("a.yaml", kAlone);
    succeed({"train", "-c", "a.yaml", "-o", "deep/run"});
    const auto before = contents(folder_ / "deep/run");
    Words files = names(before);
    ASSERT_EQ(files.size(), 7u);
    EXPECT_EQ(files.back().rfind("tensorboard/events.out.tfevents.", 0), 0u) << files.back();
    files.pop_back();
    EXPECT_EQ(files, (Words{".lock", "checkpoints/best.safetensors", "checkpoints/last.safetensors",
                            "checkpoints/state.safetensors", "config.yaml", "metrics.jsonl"}));
    std::vector<std::pair<std::string, int>> found;
    for (const json& line : lines_of(folder_ / "deep/run/metrics.jsonl"))
        found.emplace_back(line.at("kind"), line.at("step"));
    EXPECT_EQ(found, (std::vector<std::pair<std::string, int>>{
                         {"train", 1}, {"train", 2}, {"train", 3}, {"train", 4}, {"eval", 4}, {"eval", 4}}));

    fail({"train", "-c", "a.yaml", "-o", "deep/run"}, {"deep/run: a run is already in this folder", "--resume"});
    EXPECT_EQ(differences(contents(folder_ / "deep/run"), before), Words()) << "refused without touching it";
    EXPECT_NE(succeed({"train", "--resume", "-o", "deep/run"}).find("trained to step 4"), std::string::npos);
    EXPECT_EQ(differences(contents(folder_ / "deep/run"), before), Words()) << "nothing was left to do";
    fail({"train", "-c", "a.yaml", "--resume", "-o", "other"},
         {"other: nothing to resume", "other/checkpoints/state.safetensors"});
    fail({"train", "--resume", "-o", "other"}, {"other/config.yaml: no such file"});
}

TEST_F(Program, ResumeGoesOnWithTheRunsOwnSettings) {
    write("a.yaml", kAlone);
    succeed({"train", "-c", "a.yaml", "-o", "whole", "-s", "train.eval_every=0"});
    succeed({"train", "-c", "a.yaml", "-o", "run", "-s", "train.eval_every=0", "-s", "train.max_steps=3"});
    succeed({"train", "--resume", "-o", "run", "-s", "train.max_steps=0"});
    EXPECT_EQ(differences(contents(folder_ / "run/checkpoints"), contents(folder_ / "whole/checkpoints")), Words());
}

// --- What a user can get wrong: an error of one line each. ---

class BadInput : public Program {};

TEST_F(BadInput, UnknownKey) {
    write("a.yaml", replaced(kAlone, "  batch_size: 8", "  batch_sise: 8"));
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml:17: train.batch_sise: unknown key", "batch_size"});
    EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(BadInput, WrongType) {
    write("a.yaml", replaced(kAlone, "depth: 3", "depth: three"));
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml:7: model.depth: found 'three', expected a whole number"});
    fail({"config", "-c", "a.yaml"}, {"a.yaml:7: model.depth"});
}

TEST_F(BadInput, NotYaml) {
    write("a.yaml", "model: [1, 2\n");
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml:", "not valid YAML"});
    write("a.yaml", kData + "train:\n  ? [lr]\n  : 1\n");
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml:7: found a list, expected a setting's name"});
    write("a.yaml", "just a text\n");
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml: found 'just a text', expected a map of settings"});
}

TEST_F(BadInput, KeepRatioAboveOne) {
    write_weights("w.safetensors");
    write("a.yaml", kAlone + "  keep_ratio: 1.5\n");
    const Words expected = {"found '1.5', expected a number above 0 and at most 1"};
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml:22: train.keep_ratio: ", expected[0]});
    write("b.yaml", kAlone);
    fail({"train", "-c", "b.yaml", "-s", "train.keep_ratio=1.5", "-o", "run"},
         {"--set train.keep_ratio=1.5", expected[0]});
    for (const char* command : {"eval", "visualize"}) {
        Words arguments = {command, "-c", "b.yaml", "-w", "w.safetensors", "--keep-ratio", "1.5"};
        if (arguments[0] == "visualize") arguments.insert(arguments.end(), {"-o", "drawn"});
        fail(arguments, {"keep-ratio", "found 1.5, expected a number above 0 and at most 1"});
    }
}

TEST_F(BadInput, KeepRatiosThatGrow) {
    write("a.yaml", kAlone + "  keep_ratio: [0.5, 0.7]\n");
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"a.yaml:", "keep_ratio", "0.7"});
    write("a.yaml", kAlone + "  keep_ratio: [0.9, 0.7, 0.5]\n");
    fail({"train", "-c", "a.yaml", "-o", "run"},
         {"a.yaml:", "train.keep_ratio: found 3 numbers, expected one or", "2"});
}

TEST_F(BadInput, PruningBehindTheLastBlock) {
    write("a.yaml", replaced(replaced(kAlone, "depth: 3", "depth: 12"), "[1, 2]", "[3, 12]"));
    fail({"train", "-c", "a.yaml", "-o", "run"},
         {"a.yaml:9: model.pruning_loc: found", "block 12 of 12", "at most 11"});
    write_weights("w.safetensors");
    fail({"eval", "-w", "w.safetensors", "--data", ".", "--pruning-loc", "1,3"},
         {"pruning_loc", "block 3 of 3", "at most 2"});
}

TEST_F(BadInput, MissingDataFolder) {
    write_weights("w.safetensors");
    fail({"eval", "-w", "w.safetensors", "--data", "nowhere", "-d", "cpu"}, {"nowhere/val: no such folder"});
    fail({"eval", "-w", "w.safetensors", "-d", "cpu"}, {"--data is missing"});
    write("a.yaml", replaced(kAlone, "  kind: cluttered_shapes\n", "  kind: image_folder\n  root: nowhere\n"));
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"nowhere/train: no such folder"});
    write("a.yaml", replaced(kAlone, "  kind: cluttered_shapes\n", "  kind: image_folder\n"));
    fail({"train", "-c", "a.yaml", "-o", "run"},
         {"a.yaml:", "data.root: found nothing, expected the pictures' folder"});
    EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(BadInput, MissingConfig) {
    fail({"train", "-c", "nowhere.yaml", "-o", "run"}, {"nowhere.yaml: no such file"});
    fail({"train", "-o", "run"}, {"--config is missing"});
    fail({"config", "-c", "."}, {".: is a directory, expected a file"});
}

TEST_F(BadInput, TextNamedLikeAPicture) {
    write_weights("w.safetensors");
    write("pictures/val/a/x.jpg", "This is no picture.\n");
    fail({"visualize", "-w", "w.safetensors", "-i", "pictures/val/a/x.jpg", "-d", "cpu", "-o", "drawn"},
         {"pictures/val/a/x.jpg"});
    fail({"eval", "-w", "w.safetensors", "--data", "pictures", "-d", "cpu"}, {"pictures/val/a/x.jpg"});
    write("pictures/val/b/notes.txt", "");
    fail({"visualize", "-w", "w.safetensors", "-i", "pictures/val/b", "-d", "cpu", "-o", "drawn"},
         {"pictures/val/b: no picture (.jpg, "});
    fail({"visualize", "-w", "w.safetensors", "-i", "nowhere.png", "-d", "cpu", "-o", "drawn"},
         {"nowhere.png: no such file"});
}

TEST_F(BadInput, WeightsThatAreNone) {
    fs::create_directories(folder_ / "folder");
    fail({"eval", "-w", "folder", "--data", "."}, {"folder: holds no weights"});
    fail({"eval", "-w", "nowhere.safetensors", "--data", "."}, {"nowhere.safetensors", "no such file"});
    write("text.safetensors", "This is no safetensors file.\n");
    fail({"eval", "-w", "text.safetensors", "--data", "."}, {"text.safetensors"});
    write("empty.safetensors", "");
    fail({"eval", "-w", "empty.safetensors", "--data", "."}, {"empty.safetensors"});
}

TEST_F(BadInput, TruncatedWeights) {
    write_weights("w.safetensors");
    const std::string whole = text_of(folder_ / "w.safetensors");
    for (const std::size_t bytes : {std::size_t{5}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
        write("cut.safetensors", whole.substr(0, bytes));
        fail({"eval", "-w", "cut.safetensors", "--data", "."}, {"cut.safetensors"});
    }
}

TEST_F(BadInput, WeightsOfAnotherShape) {
    write_weights("w.safetensors");
    write("a.yaml", replaced(kAlone, "embed_dim: 16", "embed_dim: 32"));
    const Words parts = {"w.safetensors: does not fit the model", "(1, 1, 16) in the weights, (1, 1, 32) in the model"};
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu"}, parts);
    fail({"train", "-c", "a.yaml", "-s", "train.weights=w.safetensors", "-o", "run"}, parts);
    EXPECT_FALSE(fs::exists(folder_ / "run"));
    fail({"eval", "-m", "deit_tiny", "-w", "w.safetensors", "--data", ".", "-d", "cpu"},
         {"w.safetensors: does not fit the model"});
}

TEST_F(BadInput, UnknownNames) {
    write_weights("w.safetensors");
    write("a.yaml", kAlone);
    fail({"eval", "-m", "deit_huge", "-w", "w.safetensors", "--data", "."}, {"unknown model 'deit_huge'", "deit_tiny"});
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "tpu"}, {"unknown device 'tpu'", "auto, cpu, cuda"});
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "-p", "int3"},
         {"--precision: found 'int3'", "bfloat16"});
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "--policy", "best"},
         {"'best'", "predicted, per_image, random, static, cls_attention, similarity, structural"});
    fail({"train", "-c", "a.yaml", "-s", "train.device=tpu", "-o", "run"}, {"unknown device 'tpu'"});
    fail({"train", "-c", "a.yaml", "-s", "model.name=deit_huge", "-o", "run"},
         {"model.name: found 'deit_huge'", "deit_tiny"});
    EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(BadInput, ThresholdsAndBudgets) {
    write_weights("w.safetensors");
    write("a.yaml", kAlone);
    const Words eval = {"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu"};
    const auto with = [&](const Words& more) {
        Words all = eval;
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    fail(with({"--threshold", "2"}), {"[policy] per_image: found a threshold of 2, expected 0 to 1"});
    fail(with({"--threshold", "0.1,0.2,0.3"}), {"[threshold] found 3 numbers, expected one or one a stage, 2"});
    fail(with({"--gmacs", "0.00001"}), {"[gmacs] found 1e-05, expected at least the", "keeps no patch"});
    fail(with({"--keep-ratio", "0"}), {"[keep-ratio] found 0, expected a number above 0 and at most 1"});
}

TEST_F(BadInput, NothingToInfer) {
    write_weights("w.safetensors");
    fs::create_directories(folder_ / "empty");
    const Words rest = {"-w", "w.safetensors", "-d", "cpu"};
    const auto with = [&](Words words) {
        words.insert(words.end(), rest.begin(), rest.end());
        return words;
    };
    fail(with({"infer", "empty"}), {"[pictures] empty: no picture (.jpg, "});
    fail(with({"infer", "-"}), {"[pictures] found none, expected files, folders or a list on standard input"});
    fail(with({"infer", "nowhere.png"}), {"1 of 1 pictures could not be read"});
    fail(with({"infer", "a.png", "-k", "0.5,0.7"}), {"[keep-ratio] found several, expected one"});
    fail(with({"infer", "a.png", "--threshold", "2"}), {"[policy] per_image: found a threshold of 2, expected 0 to 1"});
    // The header of a PNG that says 20,000 x 20,000.
    const std::string head("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x4e\x20\0\0\x4e\x20\x08\x02\0\0\0\0\0\0\0", 33);
    write("huge.png", head);
    fail(with({"infer", "huge.png"}), {"1 of 1 pictures could not be read"});
    write("classes.txt", "a\nb\n");
    fail(with({"infer", "huge.png", "--classes", "classes.txt"}),
         {"[classes] classes.txt: names 2 classes, expected the model's 10"});
}

TEST_F(BadInput, GpuThatIsNotThere) {
    if (at::hasCUDA()) GTEST_SKIP() << "there is a GPU";
    write_weights("w.safetensors");
    write("a.yaml", kAlone);
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cuda"}, {"cuda was asked for", "0 CUDA devices"});
    fail({"train", "-c", "a.yaml", "-s", "train.device=cuda:1", "-o", "run"},
         {"cuda:1 was asked for", "0 CUDA devices"});
}

TEST_F(BadInput, CommandLine) {
    fail({"train", "--out", "run"}, {"--out", "--help"});
    fail({"--colour", "config"}, {"--colour"});
    fail({}, {"subcommand is required"});
    fail({"trian"}, {"subcommand is required", "found trian"});
    fail({"eval", "--data", "."}, {"--weights is required"});
    fail({"eval", "-w", "w", "-k", "much"}, {"--keep-ratio", "much"});
    fail({"eval", "-w", "w", "-b", "0"}, {"--batch-size"});
    fail({"bench"}, {"[bench] give --model, --config or --weights"});
    fail({"bench", "-m", "deit_tiny", "-p", "int3"}, {"--precision: found 'int3'", "bfloat16"});
    fail({"bench", "-m", "deit_tiny", "--policy", "best"}, {"unknown selection policy 'best'", "per_image"});
    fail({"bench", "-m", "deit_tiny", "-b", "0"}, {"--batch-size", "0"});
    fail({"bench", "-m", "deit_tiny", "-k", "0"}, {"[keep-ratio] found 0, expected a number above 0 and at most 1"});
    write("report.json", R"({"model": "", "image_size": [], "device_name": "", "threads": 1, "rows": [{}]})");
    fail({"bench", "-m", "deit_tiny", "-d", "cpu", "--compare", "report.json"}, {"report.json: is not what --json"});
    fail({"bench", "loader"}, {"--config", "--data"});
    fail({"bench", "loader", "--data", "nowhere"}, {"nowhere: no such folder"});
    const Outcome level = run({"config", "--log-level", "loud"});
    EXPECT_EQ(level.code, 1);
    EXPECT_EQ(level.err, "error: [log] unknown level 'loud'; expected debug, info, warn, error or off\n");
}

TEST_F(BadInput, SetWithoutEquals) {
    write("a.yaml", kAlone);
    fail({"train", "-c", "a.yaml", "-s", "train.lr", "-o", "run"}, {"--set train.lr: expected KEY=VALUE"});
    fail({"config", "-c", "a.yaml", "-s", "train.schedule=3"},
         {"--set train.schedule=3: train.schedule: found '3'", "a map"});
    fail({"eval", "-w", "w", "-s", "train.epochs=1"}, {"--set needs --config"});
}

TEST_F(BadInput, BatchLargerThanTheData) {
    write("a.yaml", replaced(kAlone, "batch_size: 8", "batch_size: 33"));
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"found 32 training pictures", "train.batch_size, 33"});
    EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(BadInput, MoreClassesThanTheModelHas) {
    write("a.yaml", replaced(kAlone, "num_classes: 10", "num_classes: 4"));
    fail({"train", "-c", "a.yaml", "-o", "run"}, {"found 10 classes", "model.num_classes, 4"});
    EXPECT_FALSE(fs::exists(folder_ / "run"));
    write("b.yaml", kAlone);
    const ModelSettings settings = read_config<Experiment>({text_of(folder_ / "a.yaml"), "a.yaml", {}}).model;
    write_model_file(folder_ / "w.safetensors", *DynamicVit(settings, at::make_generator<at::CPUGeneratorImpl>(0)));
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu"}, {"label", "4 classes"});
}

TEST_F(BadInput, ClassListWithoutTheFolder) {
    write_weights("w.safetensors");
    write_pictures("pictures/val");
    write("classes.txt", "z\ny\na\nb\nc\nd\ne\nf\ng\nh\n");
    fail({"eval", "-w", "w.safetensors", "--data", "pictures", "--classes", "classes.txt", "-d", "cpu"},
         {"pictures/val/", "class list (10 classes) does not name this folder"});
    fail({"eval", "-w", "w.safetensors", "--data", "pictures", "--classes", "nowhere.txt", "-d", "cpu"},
         {"nowhere.txt: no such file"});
}

TEST_F(BadInput, OutputThatIsAFile) {
    write("a.yaml", kAlone);
    write_weights("w.safetensors");
    write("taken", "mine");
    fail({"train", "-c", "a.yaml", "-o", "taken"}, {"taken", "folder cannot be made"});
    fail({"visualize", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "-o", "taken"},
         {"taken: the folder cannot be made"});
    EXPECT_EQ(text_of(folder_ / "taken"), "mine");
    fs::create_directories(folder_ / "results");
    const Outcome eval =
        run({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "--json", "results", "--log-level", "off"});
    EXPECT_EQ(eval.code, 1);
    EXPECT_EQ(eval.err, "error: [eval] results: is a directory, expected a file to write\n");
}

TEST_F(BadInput, DenseModelHasNothingToPrune) {
    write("a.yaml", kDense);
    const ModelSettings settings = read_config<Experiment>({kDense, "a.yaml", {}}).model;
    write_model_file(folder_ / "w.safetensors", *DynamicVit(settings, at::make_generator<at::CPUGeneratorImpl>(0)));
    fail({"eval", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "-k", "0.7"}, {"0.7", "no prediction modules"});
    fail({"visualize", "-c", "a.yaml", "-w", "w.safetensors", "-d", "cpu", "-o", "drawn"}, {"no prediction modules"});
}

// --- A disk that takes no more: the checkpoint that was there stays, and the run can go on from it. ---

class FullDisk : public Program {
  protected:
    // A run stopped at step 2 of 4.
    void SetUp() override {
        write("a.yaml", kAlone);
        succeed({"train", "-c", "a.yaml", "-o", "run", "-s", "train.eval_every=0", "-s", "train.max_steps=2"});
        before_ = contents(folder_ / "run/checkpoints");
        ASSERT_EQ(names(before_), (Words{"last.safetensors", "state.safetensors"}));
    }

    // The checkpoint is the one of SetUp, whole, and leads to where a run that nothing disturbed ends.
    void expect_unharmed() const {
        EXPECT_EQ(differences(contents(folder_ / "run/checkpoints"), before_), Words())
            << "neither changed nor joined by parts";
        write("pictures/val/a/0.png", "");
        write_png(folder_ / "pictures/val/a/0.png", Image(kImageSize, kImageSize));
        succeed({"eval", "-w", "run/checkpoints/last.safetensors", "--data", "pictures", "-d", "cpu"});
        succeed({"train", "--resume", "-o", "run", "-s", "train.max_steps=0"});
        succeed({"train", "-c", "a.yaml", "-o", "whole", "-s", "train.eval_every=0"});
        EXPECT_EQ(differences(contents(folder_ / "run/checkpoints"), contents(folder_ / "whole/checkpoints")), Words());
    }

    std::map<std::string, std::string> before_;
};

TEST_F(FullDisk, FilesMayNotGrow) {  // the limit takes the settings and the metrics, not a checkpoint
    fail({"train", "--resume", "-o", "run", "-s", "train.max_steps=0"},
         {"run/checkpoints/last.safetensors: cannot be written: File too large"},
         "trap '' XFSZ; ulimit -f 16; exec \"$@\"");
    expect_unharmed();
}

TEST_F(FullDisk, NoSpaceIsLeft) {  // a file system in memory, seen by this run alone
    if (std::system("unshare -m mount -t tmpfs none /mnt >/dev/null 2>&1") != 0) {
        GTEST_SKIP() << "needs the right to mount a file system";
    }
    constexpr std::uint64_t kPage = 4096;
    std::uint64_t size = 0;
    for (const auto& [name, bytes] : contents(folder_ / "run")) size += (bytes.size() + kPage - 1) / kPage * kPage;
    size += before_.at("last.safetensors").size() / 2;
    const std::string mount = str("exec unshare -m bash -c 'cp -a run saved && mount -t tmpfs -o size=", size,
                                  " none run && cp -a saved/. run && { \"$@\"; code=$?; rm -r saved; cp -a run saved; "
                                  "exit $code; }' bash \"$@\"");
    fail({"train", "--resume", "-o", "run", "-s", "train.max_steps=0"},
         {"run/checkpoints/last.safetensors: cannot be written: No space left on device"}, mount);
    fs::remove_all(folder_ / "run");
    fs::rename(folder_ / "saved", folder_ / "run");
    EXPECT_EQ(lines_of(folder_ / "run/metrics.jsonl").back().at("step"), 4) << "the copy is of after the run";
    expect_unharmed();
}

TEST_F(FullDisk, ACheckpointPartlyInPlaceIsWrittenAgain) {  // a folder stands where one of its files belongs
    fs::remove(folder_ / "run/checkpoints/last.safetensors");
    fs::create_directories(folder_ / "run/checkpoints/last.safetensors");
    fail({"train", "--resume", "-o", "run", "-s", "train.max_steps=0"},
         {"run/checkpoints/last.safetensors: is a directory, expected a file to write"});
    fs::remove(folder_ / "run/checkpoints/last.safetensors");
    succeed({"train", "--resume", "-o", "run", "-s", "train.max_steps=0"});
    succeed({"train", "-c", "a.yaml", "-o", "whole", "-s", "train.eval_every=0"});
    EXPECT_EQ(differences(contents(folder_ / "run/checkpoints"), contents(folder_ / "whole/checkpoints")), Words());
}

}  // namespace
}  // namespace dynvit
