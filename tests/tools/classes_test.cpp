// Class counts, class lists and label files, as a user gives them to the program.
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/io/image.hpp"
#include "dynvit/weights/model_file.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::Outcome;
using test::text_of;
using Words = std::vector<std::string>;

const std::string kConfig =
    R"(model: {name: custom, image_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2,
        pruning_loc: [1]}
data: {root: pictures, workers: 1, resize: 32}
train:
  epochs: 1
  batch_size: 2
  device: cpu
  loss: {kl: 0, distill: 0}
)";

class Classes : public testing::Test {
  protected:
    Outcome run(const Words& arguments, const std::string& level = "warn") const {
        std::string command = dynvit::str("'", DYNVIT_PROGRAM, "'");
        for (const std::string& argument : arguments) command += dynvit::str(" '", argument, "'");
        return test::run_in(folder_.path(), command + " --threads 1 --log-level " + level);
    }

    Outcome succeed(const Words& arguments, const std::string& level = "warn") const {
        Outcome outcome = run(arguments, level);
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        return outcome;
    }

    void fail(const Words& arguments, const std::string& error) const {
        const Outcome outcome = run(arguments, "off");
        EXPECT_EQ(outcome.code, 1);
        EXPECT_EQ(outcome.err, "error: " + error + '\n');
    }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }

    void write_picture(const std::string& name, int red) const {
        fs::create_directories((folder_ / name).parent_path());
        Image image(32, 32);
        for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 7 % red);
        write_png(folder_ / name, image);
    }

    // Two pictures of each class and split.
    void write_folders(const Words& classes) const {
        int red = 50;
        for (const char* split : {"train", "val"}) {
            for (const std::string& name : classes) {
                for (const char* picture : {"1", "2"}) {
                    write_picture(dynvit::str("pictures/", split, '/', name, '/', picture, ".png"), red += 7);
                }
            }
        }
    }

    void write_weights(std::int64_t classes) const {
        ModelSettings settings;
        settings.name = "custom";
        settings.image_size = {32};
        settings.patch_size = 8;
        settings.embed_dim = 16;
        settings.depth = 2;
        settings.num_heads = 2;
        settings.pruning_loc = {1};
        settings.num_classes = classes;
        const DynamicVit model(settings, at::make_generator<at::CPUGeneratorImpl>(0));
        write_model_file(folder_ / "w.safetensors", *model);
    }

    test::TemporaryFolder folder_;
};

std::int64_t occurrences(const std::string& text, const std::string& part) {
    std::int64_t count = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++count;
    return count;
}

TEST_F(Classes, AreCountedByTrainingAndKnownToWhatFollows) {
    write("a.yaml", kConfig);
    write_folders({"ant", "bee", "cat"});
    fs::create_directories(folder_ / "pictures/train/.ipynb_checkpoints");
    const Outcome trained = succeed({"train", "-c", "a.yaml", "-o", "run"}, "info");
    EXPECT_EQ(occurrences(trained.err, "model.num_classes: 3, from the class folders of pictures/train"), 1)
        << trained.err;
    EXPECT_EQ(occurrences(trained.err, "pictures/train: folders that are no classes: .ipynb_checkpoints"), 1)
        << trained.err;
    const Words eval = {"eval", "-c", "a.yaml", "-w", "run/checkpoints/last.safetensors", "-d", "cpu", "--json", "r"};
    EXPECT_EQ(succeed(eval).err, "") << "the weights' head says it to a file that does not";
    EXPECT_EQ(json::parse(text_of(folder_ / "r")).at("results").at(0).at("images"), 6);

    // From these weights with another class more, and with a number of one's own.
    write_picture("pictures/train/dog/1.png", 99);
    write_picture("pictures/val/dog/1.png", 98);
    const Words more = {"train", "-c", "a.yaml", "-s", "train.weights=run/checkpoints/last.safetensors", "-o"};
    const auto with = [&](const Words& rest) {
        Words words = more;
        words.insert(words.end(), rest.begin(), rest.end());
        return words;
    };
    const Outcome anew = succeed(with({"more"}), "info");
    EXPECT_EQ(occurrences(anew.err, "model.num_classes: 4, from the class folders"), 1) << anew.err;
    EXPECT_EQ(occurrences(anew.err, "starting the head anew: head.weight"), 1) << anew.err;
    const Outcome given = succeed(with({"given", "-s", "model.num_classes=5"}), "info");
    EXPECT_EQ(given.err.find("model.num_classes: "), std::string::npos) << given.err;
    EXPECT_EQ(occurrences(given.err, "4 classes were numbered 0 to 3 by their names; the model has 5 classes"), 1)
        << given.err;
    EXPECT_EQ(read_model_file(folder_ / "given/checkpoints/last.safetensors").settings->num_classes, 5);
}

TEST_F(Classes, FoldersOfAnotherNumberThanTheModelsAreWarnedOf) {
    write_folders({"ant", "bee", "cat"});
    const Words eval = {"eval", "-w", "w.safetensors", "--data", "pictures", "-d", "cpu"};
    write_weights(3);
    EXPECT_EQ(succeed(eval).err, "");
    write_weights(10);
    const Outcome other = succeed(eval);
    EXPECT_EQ(occurrences(other.err, "\n"), 1) << other.err;
    EXPECT_EQ(occurrences(other.err,
                          "3 classes were numbered 0 to 2 by their names; the model has 10 classes: give a class "
                          "list (--classes, data.classes) if they are not its first 3, in this order"),
              1)
        << other.err;
    write("classes.txt", "cat\nbee\nant\nd\ne\nf\ng\nh\ni\nj\n");
    Words listed = eval;
    listed.insert(listed.end(), {"--classes", "classes.txt"});
    EXPECT_EQ(succeed(listed).err, "");
}

TEST_F(Classes, AThousandFoldersOfOtherNamesThanImageNetsAreWarnedOf) {
    write_weights(1000);
    write_picture("one/1.png", 50);
    fs::create_directories(folder_ / "pictures/val");
    const auto link = [&](const std::string& name) {
        fs::create_directory_symlink(folder_ / "one", folder_ / "pictures/val" / name);
    };
    for (int i = 0; i < 999; ++i) link(dynvit::str('n', 10000000 + i));
    link("n20000000");
    const Words eval = {"eval", "-w", "w.safetensors", "--data", "pictures", "-d", "cpu"};
    EXPECT_EQ(succeed(eval).err, "");
    fs::remove(folder_ / "pictures/val/n20000000");
    link("zebra");
    const Outcome other = succeed(eval);
    EXPECT_EQ(occurrences(other.err,
                          "1000 classes were numbered 0 to 999 by their names (zebra is none of "
                          "ImageNet's); the model has 1000 classes"),
              1)
        << other.err;
}

TEST_F(Classes, AListOfAnotherLengthIsRefused) {
    write_folders({"ant", "bee", "cat"});
    write_weights(3);
    const Words eval = {"eval", "-w", "w.safetensors", "--data", "pictures", "-d", "cpu", "--classes", "classes.txt"};
    write("classes.txt", "# the classes\ncat\nbee\nant\n");
    fail(eval, "[classes] classes.txt: names 4 classes, expected the model's 3");
    write("classes.txt",
          "\xef\xbb\xbf"
          "cat\r\nbee\r\nant\r\n");
    succeed(eval);
    write("classes.txt", std::string("\xff\xfe"
                                     "c\0",
                                     4));
    fail(eval, "[image_folder] classes.txt: found text in UTF-16 (it begins with the bytes FF FE), expected UTF-8");
}

TEST_F(Classes, EmptyFoldersAreNone) {
    write_folders({"ant", "bee", "cat"});
    write_weights(3);
    fs::create_directories(folder_ / "pictures/val/__MACOSX/ant");
    const Words eval = {"eval", "-w", "w.safetensors", "--data", "pictures", "-d", "cpu"};
    EXPECT_EQ(occurrences(succeed(eval, "info").err, "pictures/val: folders that are no classes: __MACOSX"), 1);
    fs::create_directories(folder_ / "pictures/val/axolotl");
    fail(eval,
         "[image_folder] pictures/val/axolotl: no picture (.jpg, .jpeg, .jpe, .jfif, .png, .apng, .webp, .gif, .bmp, "
         ".tif, .tiff) in this class folder, expected some, no "
         "such folder, or a class list, which numbers the classes whatever is in theirs");
}

TEST_F(Classes, SeveralOfAPictureComeFromALabelFile) {
    std::string labels = "path,labels\n";
    const Words classes = {"sky", "sea", "sky sea", "", "sand sea", "sand"};
    for (int i = 0; i < 12; ++i) {
        const std::string name = dynvit::str(i % 2 ? "train/" : "val/", i, ".png");
        write_picture("pictures/" + name, 50 + 7 * i);
        labels += name + ',' + classes[static_cast<std::size_t>(i / 2)] + '\n';
    }
    write("labels.csv", labels);
    write("a.yaml", kConfig);
    const Words binary = {"-s", "data.labels=labels.csv", "-s", "train.loss.classification_kind=binary"};
    const auto with = [&](Words words, const Words& more) {
        words.insert(words.end(), more.begin(), more.end());
        return words;
    };
    const Outcome trained = succeed(with({"train", "-c", "a.yaml", "-o", "run"}, binary), "info");
    EXPECT_EQ(occurrences(trained.err, "model.num_classes: 3, from the names in labels.csv"), 1) << trained.err;
    EXPECT_EQ(occurrences(trained.out, "best mAP "), 1) << trained.out;

    const std::string weights = "run/checkpoints/last.safetensors";
    const Words eval = {"eval", "-w",      weights,    "--data", "pictures", "--labels", "labels.csv", "-d", "cpu",
                        "-k",   "1.0,0.7", "--resize", "32",     "-b",       "2",        "--json",     "r"};
    const std::string table = succeed(eval).out;
    EXPECT_EQ(occurrences(table, "mAP %"), 1) << table;
    EXPECT_EQ(table.find("top-1"), std::string::npos) << table;
    const json rows = json::parse(text_of(folder_ / "r")).at("results");
    ASSERT_EQ(rows.size(), 2u);
    for (const json& row : rows) {
        EXPECT_EQ(row.at("images"), 6);
        EXPECT_EQ(row.at("map_classes"), 3);
        EXPECT_GT(row.at("map"), 0);
        EXPECT_FALSE(row.contains("top1") || row.contains("drop_error"));
    }
    EXPECT_NEAR(rows[1].at("drop"), rows[0].at("map").get<double>() - rows[1].at("map").get<double>(), 1e-9);
    std::ifstream metrics(folder_ / "run/metrics.jsonl");
    json last;
    for (std::string line; std::getline(metrics, line);) {
        if (const json parsed = json::parse(line); parsed.at("kind") == "eval") last = parsed;
    }
    EXPECT_NEAR(last.at("map"), rows[1].at("map"), 1e-9) << "what training's last evaluation found";

    // The classes' own probabilities.
    const Words infer = {"infer", "pictures/val/0.png", "-w", weights, "-d", "cpu", "--resize", "32", "--json"};
    const auto sum = [&](const Words& more) {
        double all = 0;
        const json answer = json::parse(succeed(with(infer, more)).out);
        for (const json& one : answer.at("top")) all += one.at("probability").get<double>();
        return all;
    };
    EXPECT_NEAR(sum({}), 1, 1e-5);
    EXPECT_GT(std::abs(sum({"--independent"}) - 1), 1e-3) << "they do not exclude each other";
    EXPECT_NEAR(sum(with({"-c", "a.yaml"}, binary)), sum({"--independent"}), 1e-9);

    write("labels.csv", labels + "val/none.png,sky\n");
    fail(eval, "[labels] labels.csv:14: no such picture: pictures/val/none.png");
    write("labels.csv", labels);
    fail(with({"train", "-c", "a.yaml", "-o", "other"}, {"-s", "data.labels=labels.csv"}),
         "[train] the names in labels.csv: found pictures of several classes or of none, or data.label_kind multi, but "
         "train.loss.classification_kind cross_entropy, expected binary with them");
}

}  // namespace
}  // namespace dynvit
