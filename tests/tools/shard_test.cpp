// dynvit shard, run as a user runs it: what its archives hold against the folder that they were made of.
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/data/tar_shards.hpp"
#include "dynvit/weights/model_file.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

using test::Outcome;
using test::text_of;

std::map<std::string, std::string> contents(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder))
        if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).string()] = text_of(entry.path());
    return files;
}

class Shard : public testing::Test {
  protected:
    // Runs the program in the test's folder, after `before`, a shell command that ends in "&& " or is empty.
    Outcome run(const Words& arguments, const std::string& before = "") const {
        std::string command = str(before, "'", DYNVIT_PROGRAM, "'");
        for (const std::string& argument : arguments) command += str(" '", argument, "'");
        return test::run_in(folder_.path(), command + " --log-level off --threads 1");
    }

    std::string succeed(const Words& arguments) const {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        EXPECT_EQ(outcome.err, "");
        return outcome.out;
    }

    void fail(const Words& arguments, const std::string& error, const std::string& before = "") const {
        const Outcome outcome = run(arguments, before);
        EXPECT_EQ(outcome.code, 1);
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.err.find(error), std::string::npos) << outcome.err;
        EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
    }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }

    // data/train with 25 files in classes b and c, data/val with 6 in a and c; no two with equal bytes.
    void write_data() const {
        for (int i = 0; i < 25; ++i)
            write(str("data/train/", i % 2 ? "b" : "c", "/p", i, i % 3 ? ".jpg" : ".PNG"),
                  str("train ", i, std::string(40 * i, '.')));
        for (int i = 0; i < 6; ++i) write(str("data/val/", i % 2 ? "a" : "c", "/q", i, ".jpeg"), str("val ", i));
    }

    DataSettings settings(const std::string& kind, const std::string& root) const {
        DataSettings data;
        data.kind = kind;
        data.root = (folder_ / root).string();
        return data;
    }

    // Bytes of each picture with its class's name, of a data set.
    static std::multiset<std::pair<std::string, std::string>> pictures(const Dataset& dataset) {
        std::multiset<std::pair<std::string, std::string>> found;
        for (std::size_t i = 0; i < dataset.size(); ++i) {
            const Sample sample = dataset.get(i);
            found.emplace(std::string(sample.encoded.begin(), sample.encoded.end()),
                          sample.label < 0 ? "" : dataset.class_names().at(sample.label));
        }
        return found;
    }

    // The pictures' names in their archives, in order.
    Words names(const std::string& split) const {
        const TarShards shards(shards_in(folder_ / split), std::nullopt, {.labelled = false});
        Words found;
        for (std::size_t i = 0; i < shards.size(); ++i) {
            const std::string name = fs::path(shards.name(i)).lexically_relative(folder_ / split).string();
            found.push_back(name.substr(name.find('/') + 1));
        }
        return found;
    }

    test::TemporaryFolder folder_;
};

TEST_F(Shard, HoldsEveryPictureOfBothSplits) {
    write_data();
    const std::string out = succeed({"shard", "--data", "data", "-o", "out", "--images-per-shard", "10"});
    EXPECT_NE(out.find("out/train: 25 pictures of 3 classes in 3 archives"), std::string::npos) << out;
    EXPECT_NE(out.find("out/val: 6 pictures of 3 classes in 1 archives"), std::string::npos) << out;
    EXPECT_EQ(text_of(folder_ / "out/classes.txt"), "a\nb\nc\n") << "of both splits together";
    for (const Split split : {Split::kTrain, Split::kVal}) {
        const auto folder = make_dataset(settings("image_folder", "data"), split, 8, 8);
        const auto shards = make_dataset(settings("tar_shards", "out"), split, 8, 8);
        EXPECT_EQ(pictures(*shards), pictures(*folder));
        EXPECT_EQ(shards->class_names(), (Words{"a", "b", "c"}));
    }
    EXPECT_EQ(TarShards(shards_in(folder_ / "out/train")).shard_sizes(), (std::vector<std::size_t>{10, 10, 5}));
    Words train = names("out/train");
    EXPECT_EQ(train.size(), 25u);
    EXPECT_FALSE(std::is_sorted(train.begin(), train.end()));
    EXPECT_EQ(std::count(train.begin(), train.end(), "train/c/p6.png"), 1);
    EXPECT_EQ(names("out/val"), (Words{"val/a/q1.jpeg", "val/a/q3.jpeg", "val/a/q5.jpeg", "val/c/q0.jpeg",
                                       "val/c/q2.jpeg", "val/c/q4.jpeg"}));
}

TEST_F(Shard, EqualSeedsGiveEqualBytes) {
    write_data();
    const auto make = [&](const std::string& output, const std::string& seed) {
        succeed({"shard", "--data", "data", "-o", output, "--images-per-shard", "10", "--shuffle-seed", seed});
        return contents(folder_ / output);
    };
    const auto first = make("one", "0");
    EXPECT_EQ(make("two", "0"), first);
    const auto other = make("three", "1");
    EXPECT_EQ(other.at("val/000000.tar"), first.at("val/000000.tar"));
    EXPECT_NE(names("three/train"), names("one/train"));
}

TEST_F(Shard, ShardSizeIsTheMost) {
    write_data();
    for (int i = 0; i < 5; ++i) write(str("data/train/b/large", i, ".jpg"), std::string(30000, 'x'));
    succeed({"shard", "--data", "data", "-o", "out", "--shard-size", "40KB"});
    const std::vector<fs::path> shards = shards_in(folder_ / "out/train");
    EXPECT_GE(shards.size(), 5u);
    for (const fs::path& shard : shards) EXPECT_LE(fs::file_size(shard), 40960u + 10240) << "the end is padded";
    EXPECT_EQ(names("out/train").size(), 30u);
}

TEST_F(Shard, ClassListFixesTheIndices) {
    write_data();
    write("list.txt", "c sea\nnobody\nb\na\n");
    succeed({"shard", "--data", "data", "-o", "out", "--classes", "list.txt"});
    EXPECT_EQ(text_of(folder_ / "out/classes.txt"), "c sea\nnobody\nb\na\n");
    const TarShards val(shards_in(folder_ / "out/val"));
    EXPECT_EQ(val.get(0).label, 3);
    EXPECT_EQ(val.get(5).label, 0);
    write("short.txt", "c\nb\n");
    fail({"shard", "--data", "data", "-o", "new", "--classes", "short.txt"},
         "val/a: the class list (2 classes) does not name");
    EXPECT_FALSE(fs::exists(folder_ / "new"));
}

TEST_F(Shard, UnlabelledFoldersMakeOneSplit) {
    write_data();
    write("data/more/deep/x.png", "x");
    succeed({"shard", "--data", "data", "-o", "out", "--unlabelled", "--train-folders", "train,more"});
    const TarShards train(shards_in(folder_ / "out/train"), std::nullopt, {.labelled = false});
    EXPECT_NE(test::error_of([&] {
                  TarShards(shards_in(folder_ / "out/train"), std::nullopt, {.label_from = "cls"});
              }).find("found no .cls beside the picture"),
              std::string::npos);
    EXPECT_EQ(train.size(), 26u);
    EXPECT_TRUE(TarShards(shards_in(folder_ / "out/val")).labelled());
    succeed({"shard", "--data", "data/more", "-o", "flat", "--unlabelled", "--train-folders", "."});
    EXPECT_EQ(names("flat/train"), Words{"deep/x.png"});
    EXPECT_EQ(contents(folder_ / "flat").size(), 1u) << "no classes.txt";
}

TEST_F(Shard, NamesThatWouldCollideStayApart) {
    for (const char* name : {"a.b/c.jpg", "a_b/c.jpg", "a_b/c.png", "a_b/c.d.jpg", "a_b/c_d.jpg", "a b/\xc3\xa4.jpg"})
        write(str("data/val/", name), name);
    succeed({"shard", "--data", "data", "-o", "out"});
    EXPECT_EQ(text_of(folder_ / "out/classes.txt"), "a_b a b\na.b\na_b~ a_b\n");
    const TarShards shards(shards_in(folder_ / "out/val"), read_class_list(folder_ / "out/classes.txt"));
    EXPECT_EQ(shards.class_names(), (Words{"a b", "a.b", "a_b"}));
    std::set<std::string> found;
    for (std::size_t i = 0; i < shards.size(); ++i) {
        const Sample sample = shards.get(i);
        found.emplace(sample.encoded.begin(), sample.encoded.end());
    }
    EXPECT_EQ(found.size(), 6u);
}

TEST_F(Shard, BadInput) {
    write_data();
    fail({"shard", "--data", "nowhere", "-o", "out"}, "nowhere/train: no such folder");
    fail({"shard", "--data", "data", "-o", "out", "--train-folders", "train,val"},
         "several need --unlabelled or --labels");
    fail({"shard", "--data", "data", "-o", "out", "--train-folders", "nowhere"}, "data/nowhere: no such folder");
    fail({"shard", "--data", "data", "-o", "out", "--images-per-shard", "0"}, "--images-per-shard");
    fail({"shard", "--data", "data", "-o", "out", "--shard-size", "much"}, "--shard-size");
    fail({"shard", "--data", "data", "-o", "out", "--shard-size", "1MB", "--images-per-shard", "5"},
         "found both, expected one");
    fail({"shard", "--data", "data", "-o", "data/train/b/p1.jpg"}, "folder cannot be made");
    EXPECT_FALSE(fs::exists(folder_ / "out"));
    write("out/train/000000.tar", "mine");
    fail({"shard", "--data", "data", "-o", "out"}, "out/train: exists already; remove it or give another --output");
    EXPECT_EQ(text_of(folder_ / "out/train/000000.tar"), "mine");
    EXPECT_FALSE(fs::exists(folder_ / "out/classes.txt"));
}

TEST_F(Shard, SplitAfterSplitKeepsOneClassList) {
    write_data();
    fs::create_directories(folder_ / "only");
    fs::rename(folder_ / "data/val", folder_ / "only/val");
    succeed({"shard", "--data", "data", "-o", "out"});
    EXPECT_EQ(text_of(folder_ / "out/classes.txt"), "b\nc\n");
    fail({"shard", "--data", "only", "-o", "out"}, "out/classes.txt: exists already and lists other classes");
    EXPECT_EQ(text_of(folder_ / "out/classes.txt"), "b\nc\n");
    EXPECT_FALSE(fs::exists(folder_ / "out/val"));
    fs::rename(folder_ / "only/val/a", folder_ / "only/val/b");
    succeed({"shard", "--data", "only", "-o", "out", "--classes", "out/classes.txt"});
    EXPECT_EQ(TarShards(shards_in(folder_ / "out/val")).size(), 6u);
}

TEST_F(Shard, FullDiskLeavesNoHalfSplit) {
    write_data();
    write("data/train/b/large.jpg", std::string(100000, 'x'));
    fail({"shard", "--data", "data", "-o", "out"}, "000000.tar: cannot be written: File too large",
         "trap '' XFSZ && ulimit -f 64 && ");
    EXPECT_FALSE(fs::exists(folder_ / "out/train"));
    EXPECT_FALSE(fs::exists(folder_ / "out/train.writing"));
    fs::create_directories(folder_ / "out/train.writing");  // of a run that was killed
    write("out/train.writing/000007.tar", "old");
    succeed({"shard", "--data", "data", "-o", "out"});
    EXPECT_EQ(names("out/train").size(), 26u);
}

TEST_F(Shard, LabelFilesClassesGoAlong) {
    write_data();
    std::string several = "path,labels\n", ones;
    const Words kinds = {"sky", "sea sky", "", "sand"};
    for (int i = 0; i < 25; ++i)
        several += str("train/", i % 2 ? "b" : "c", "/p", i, i % 3 ? ".jpg" : ".PNG", ',', kinds[i % 4], '\n');
    for (int i = 0; i < 6; ++i) several += str("val/", i % 2 ? "a" : "c", "/q", i, ".jpeg,sea\n");
    write("several.csv", several);
    succeed({"shard", "--data", "data", "-o", "out", "--labels", "several.csv"});
    EXPECT_EQ(text_of(folder_ / "out/classes.txt"), "sand\nsea\nsky\n");
    DataSettings folder = settings("image_folder", "data");
    folder.labels = (folder_ / "several.csv").string();
    const auto rows = [](const Dataset& dataset) {
        std::multiset<std::pair<std::string, std::string>> found;
        for (std::size_t i = 0; i < dataset.size(); ++i) {
            const Sample sample = dataset.get(i);
            found.emplace(std::string(sample.encoded.begin(), sample.encoded.end()), join(sample.labels, " "));
        }
        return found;
    };
    const auto train = make_dataset(settings("tar_shards", "out"), Split::kTrain, 8, 8);
    EXPECT_TRUE(train->multi_label());
    EXPECT_EQ(train->class_names(), (Words{"sand", "sea", "sky"}));
    EXPECT_EQ(rows(*train), rows(*make_dataset(folder, Split::kTrain, 8, 8)));

    // A flat val/ with a class a picture; train/ in class folders, which the numbers mean.
    for (int i = 0; i < 6; ++i) {
        fs::rename(folder_ / str("data/val/", i % 2 ? "a" : "c", "/q", i, ".jpeg"),
                   folder_ / str("data/val/q", i, ".jpeg"));
        ones += str("q", i, ".jpeg ", i % 2, '\n');
    }
    fs::remove(folder_ / "data/val/a");
    fs::remove(folder_ / "data/val/c");
    write("val.txt", ones);
    succeed({"shard", "--data", "data", "-o", "flat", "--val-labels", "val.txt"});
    EXPECT_EQ(text_of(folder_ / "flat/classes.txt"), "b\nc\n");
    const auto val = make_dataset(settings("tar_shards", "flat"), Split::kVal, 8, 8);
    ASSERT_EQ(val->size(), 6u);
    EXPECT_EQ(val->get(3).label, 1);
    EXPECT_FALSE(val->multi_label());
}

TEST_F(Shard, EvalAndTrainTakeTheFolder) {
    constexpr int kSize = 32;
    DataSettings shapes;
    shapes.kind = "cluttered_shapes";
    shapes.train_images = shapes.val_images = 20;
    for (const auto& [name, split] : {std::pair{"train", Split::kTrain}, std::pair{"val", Split::kVal}}) {
        const auto drawn = make_dataset(shapes, split, kSize, kSize);
        for (std::size_t i = 0; i < drawn->size(); ++i) {
            const Sample sample = drawn->get(i);
            const fs::path path = folder_ / str("data/", name, '/', drawn->class_names()[sample.label], '/', i, ".png");
            fs::create_directories(path.parent_path());
            write_png(path, sample.image);
        }
    }
    succeed({"shard", "--data", "data", "-o", "out", "--images-per-shard", "6"});
    write(
        "a.yaml",
        "model: {name: custom, image_size: 32, patch_size: 8, num_classes: 10, embed_dim: 16, depth: 3, num_heads: 2, "
        "pruning_loc: [1, 2]}\n"
        "data: {kind: tar_shards, root: out, workers: 2, shuffle_window: 8}\n"
        "train: {epochs: 1, batch_size: 5, device: cpu, loss: {kl: 0, distill: 0}, schedule: {warmup_epochs: 0}}\n");
    succeed({"train", "-c", "a.yaml", "-o", "run"});
    nlohmann::json results[2];
    for (const int i : {0, 1}) {
        succeed({"eval", "-w", "run/checkpoints/last.safetensors", "--data", i == 0 ? "data" : "out", "-d", "cpu", "-j",
                 "1", "--keep-ratio", "1.0,0.7", "--json", "r.json"});
        results[i] = nlohmann::json::parse(text_of(folder_ / "r.json")).at("results");
    }
    EXPECT_EQ(results[1], results[0]);
    EXPECT_EQ(results[1].at(0).at("images"), 20);
}

}  // namespace
}  // namespace dynvit
