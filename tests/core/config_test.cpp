#include "dynvit/core/config.hpp"

#include <fstream>
#include <map>

#include "support.hpp"

namespace dynvit {
namespace {

using test::error_of;

struct Inner {
    double lr = 1e-3;
    std::int64_t epochs = 30;
    void fields(FieldVisitor& v) {
        v.field("lr", lr, "learning rate", above(0));
        v.field("epochs", epochs, "epochs", at_least(1));
    }
};

struct Outer {
    std::string name = "small";
    bool flip = true;
    std::vector<double> scale = {0.08, 1.0};
    std::vector<std::int64_t> stages = {3, 6, 9};
    std::string root = "a: b # c";
    std::vector<std::string> folders = {"train"};
    Inner train;
    void fields(FieldVisitor& v) {
        v.field("name", name, "size", std::vector<std::string>{"small", "base"});
        v.field("flip", flip, "mirror");
        v.field("scale", scale, "of the area", between(0, 1));
        v.field("stages", stages, "blocks");
        v.field("root", root, "folder");
        v.field("folders", folders, "several folders");
        v.section("train", train, "training");
    }
};

Outer read(const std::string& text, std::vector<std::string> overrides = {}) {
    return read_config<Outer>({text, "a.yaml", std::move(overrides)});
}

TEST(Config, DefaultsStandWhereNothingIsSaid) {
    const Outer settings = read("");
    EXPECT_EQ(settings.name, "small");
    EXPECT_EQ(settings.train.epochs, 30);
}

TEST(Config, ReadsEveryType) {
    const Outer s =
        read("name: base\nflip: false\nscale: [0.25, 1]\nstages: 4\nroot: x\ntrain:\n  lr: 5e-4\n  epochs: 3\n");
    EXPECT_EQ(s.name, "base");
    EXPECT_FALSE(s.flip);
    EXPECT_EQ(s.scale, (std::vector<double>{0.25, 1.0}));
    EXPECT_EQ(s.stages, std::vector<std::int64_t>{4});
    EXPECT_EQ(s.root, "x");
    EXPECT_EQ(s.train.lr, 5e-4);
    EXPECT_EQ(s.train.epochs, 3);
}

TEST(Config, SetWinsOverTheFile) {
    const Outer s = read("train: {lr: 1}", {"train.lr=1e-4", "scale=[0.5, 0.75]", "name=base"});
    EXPECT_EQ(s.train.lr, 1e-4);
    EXPECT_EQ(s.scale, (std::vector<double>{0.5, 0.75}));
    EXPECT_EQ(s.name, "base");
}

// A struct that looks which of its keys, and of its section's, the source says.
struct Asking {
    Inner train;
    std::map<std::string, bool> given;
    void fields(FieldVisitor& v) {
        v.section("train", train, "training");
        for (const char* key : {"train.lr", "train.epochs", "train", "model.lr"}) given[key] = v.gives(key);
    }
};

TEST(Config, ToldFromDefaultsByWhoeverGivesThem) {
    using Given = std::map<std::string, bool>;
    const auto given = [](const std::string& text, std::vector<std::string> overrides = {}) {
        return read_config<Asking>({text, "a.yaml", std::move(overrides)}).given;
    };
    const Given lr = {{"train.lr", true}, {"train.epochs", false}, {"train", true}, {"model.lr", false}};
    EXPECT_EQ(given("train: {lr: 1e-3}"), lr) << "also where the default is given";
    EXPECT_EQ(given("", {"train.lr=1"}), lr);
    EXPECT_EQ(given("", {"train={lr: 1}"}), lr);
    EXPECT_EQ(given(""), (Given{{"train.lr", false}, {"train.epochs", false}, {"train", false}, {"model.lr", false}}));
    EXPECT_EQ(given("train:"),
              (Given{{"train.lr", false}, {"train.epochs", false}, {"train", true}, {"model.lr", false}}));
    Asking written;
    write_config(written);
    EXPECT_FALSE(written.given["train.lr"]);
}

TEST(Config, WhatIsWrittenReadsBackToTheSame) {
    Outer settings;
    settings.train.lr = 1.0 / 3.0;
    settings.stages = {};
    settings.root = "";
    for (const bool comments : {true, false}) {
        const std::string text = write_config(settings, comments);
        const Outer back = read(text);
        EXPECT_EQ(back.train.lr, settings.train.lr);
        EXPECT_EQ(back.stages, settings.stages);
        EXPECT_EQ(back.root, settings.root);
        EXPECT_EQ(write_config(back, comments), text);
        EXPECT_EQ(text.find("# learning rate") != std::string::npos, comments);
    }
    EXPECT_EQ(read(write_config(Outer{})).root, "a: b # c");
}

TEST(Config, ReadsListsOfTexts) {
    using Strings = std::vector<std::string>;
    EXPECT_EQ(read("").folders, Strings{"train"});
    EXPECT_EQ(read("folders: [a, b c, 'd, e', 7, ~]").folders, (Strings{"a", "b c", "d, e", "7", ""}));
    EXPECT_EQ(read("folders:\n  - a\n  - b").folders, (Strings{"a", "b"}));
    EXPECT_EQ(read("folders: alone").folders, Strings{"alone"});
    EXPECT_EQ(read("folders: []").folders, Strings{});
    EXPECT_EQ(read("", {"folders=[x, y]"}).folders, (Strings{"x", "y"}));
    EXPECT_EQ(error_of([] { read("folders: {a: 1}"); }),
              "[config] a.yaml:1: folders: found a map, expected a list of texts");
    EXPECT_EQ(error_of([] { read("folders: [a, [b]]"); }), "[config] a.yaml:1: folders: found a list, expected a text");
}

TEST(Config, ListsOfTextsReadBackToTheSame) {
    Outer settings;
    for (const std::vector<std::string>& folders : std::vector<std::vector<std::string>>{
             {},
             {""},
             {"train", "more pictures"},
             {"a, b", "[c]", "d: e # f", "{g}", "'h'", "\"i\"", "~", "null", "true", "-", "- j", "*k", "&l", "!m", "%n",
              " o ", "back\\slash", "two\nlines", "\xc3\xa4"}}) {
        settings.folders = folders;
        const std::string text = write_config(settings);
        EXPECT_EQ(read(text).folders, folders) << text;
    }
}

TEST(Config, ErrorsNameFileLineKeyAndWhatWouldBeRight) {
    EXPECT_EQ(error_of([] { read("flip: true\ntrain:\n  lrr: 1\n"); }),
              "[config] a.yaml:3: train.lrr: unknown key; did you mean lr?");
    EXPECT_EQ(error_of([] { read("train:\n  optimizer: sgd\n"); }),
              "[config] a.yaml:2: train.optimizer: unknown key; expected one of lr, epochs");
    EXPECT_EQ(error_of([] { read("\ntrain:\n  lr: fast\n"); }),
              "[config] a.yaml:3: train.lr: found 'fast', expected a number above 0");
    EXPECT_EQ(error_of([] { read("train: {epochs: 1.5}"); }),
              "[config] a.yaml:1: train.epochs: found '1.5', expected a whole number of at least 1");
    EXPECT_EQ(error_of([] { read("scale: [0.5, 1.5]"); }),
              "[config] a.yaml:1: scale: found '1.5', expected a number of at least 0 and at most 1");
    EXPECT_EQ(error_of([] { read("flip: maybe"); }), "[config] a.yaml:1: flip: found 'maybe', expected true or false");
    EXPECT_EQ(error_of([] { read("name: huge"); }),
              "[config] a.yaml:1: name: found 'huge', expected one of small, base");
    EXPECT_EQ(error_of([] { read("train: 3"); }), "[config] a.yaml:1: train: found '3', expected a map of settings");
    EXPECT_EQ(error_of([] { read("flip: true\nflip: false"); }).substr(0, 17), "[config] a.yaml:1");
    EXPECT_EQ(error_of([] { read("- 1"); }), "[config] a.yaml: found a list, expected a map of settings");
    EXPECT_EQ(error_of([] { read("train: {lr: .nan}"); }),
              "[config] a.yaml:1: train.lr: found '.nan', expected a number above 0");
}

TEST(Config, ErrorsInSetNameTheArgument) {
    EXPECT_EQ(error_of([] { read("", {"train.lr=fast"}); }),
              "[config] --set train.lr=fast: train.lr: found 'fast', expected a number above 0");
    EXPECT_EQ(error_of([] { read("", {"train.bogus=1"}); }),
              "[config] --set train.bogus=1: train.bogus: unknown key; expected one of lr, epochs");
    EXPECT_EQ(error_of([] { read("", {"train"}); }),
              "[config] --set train: expected KEY=VALUE, such as train.schedule.lr=1e-4");
    EXPECT_EQ(error_of([] { read("train: {lr: 1}", {"train.lr.x=1"}); }),
              "[config] --set train.lr.x=1: train.lr is a value, not a section");
}

// Files of settings in a folder.
class ConfigBase : public testing::Test {
  protected:
    void write(const std::string& name, const std::string& text) const {
        std::filesystem::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name) << text;
    }
    Outer read(const std::string& name, std::vector<std::string> overrides = {}) const {
        return read_config<Outer>(config_from_file(folder_ / name, std::move(overrides)));
    }
    // The error, without the folder's name.
    std::string error(const std::string& name, const std::vector<std::string>& overrides = {}) const {
        std::string text = error_of([&] { read(name, overrides); });
        const std::string folder = folder_.path().string() + '/';
        for (auto at = text.find(folder); at != std::string::npos; at = text.find(folder))
            text.erase(at, folder.size());
        return text;
    }

    test::TemporaryFolder folder_;
};

TEST_F(ConfigBase, KeysWinOverTheBasesOneByOne) {
    write("common/root.yaml", "name: base\nscale: [0.1, 0.2, 0.3]\ntrain:\n  lr: 1\n  epochs: 5\n");
    write("common/middle.yaml", "base: root.yaml\nflip: false\ntrain: {epochs: 7}\n");
    write("a.yaml", "train:\n  epochs: 9\nbase: common/middle.yaml\nscale: [0.5]\n");
    const Outer s = read("a.yaml", {"root=x"});
    EXPECT_EQ(s.name, "base");
    EXPECT_FALSE(s.flip);
    EXPECT_EQ(s.scale, std::vector<double>{0.5}) << "a list is replaced";
    EXPECT_EQ(s.train.lr, 1);
    EXPECT_EQ(s.train.epochs, 9);
    EXPECT_EQ(s.root, "x");
    EXPECT_EQ(read("a.yaml", {"train.epochs=11"}).train.epochs, 11);
    EXPECT_EQ(write_config(s).find("base:"), std::string::npos) << "what is written stands alone";
}

// The current folder, while the object lives.
class WorkingFolder {
  public:
    explicit WorkingFolder(const std::filesystem::path& path) : before_(std::filesystem::current_path()) {
        std::filesystem::current_path(path);
    }
    ~WorkingFolder() {
        std::error_code ignored;
        std::filesystem::current_path(before_, ignored);
    }
    WorkingFolder(const WorkingFolder&) = delete;
    WorkingFolder& operator=(const WorkingFolder&) = delete;

  private:
    std::filesystem::path before_;
};

TEST_F(ConfigBase, FilesOfTheCurrentFolderNeedNoFolderInTheirNames) {
    write("root.yaml", "name: base\n");
    write("middle.yaml", "base: root.yaml\ntrain: {lr: 1}\n");
    write("a.yaml", "base: middle.yaml\nflip: false\n");
    const WorkingFolder working(folder_.path());
    const Outer s = read_config<Outer>(config_from_file("a.yaml"));
    EXPECT_EQ(s.name, "base");
    EXPECT_EQ(s.train.lr, 1);
    EXPECT_FALSE(s.flip);
    write("a.yaml", "base: missing.yaml\n");
    EXPECT_EQ(error_of([] { read_config<Outer>(config_from_file("a.yaml")); }),
              "[config] a.yaml:1: base: missing.yaml: no such file");
}

TEST_F(ConfigBase, ErrorsNameTheFileThatHasTheKey) {
    write("root.yaml", "name: base\ntrain:\n  lr: fast\n");
    write("a.yaml", "base: root.yaml\nflip: false\n");
    EXPECT_EQ(error("a.yaml"), "[config] root.yaml:3: train.lr: found 'fast', expected a number above 0");
    write("b.yaml", "base: root.yaml\n\ntrain: {lr: -1}\n");
    EXPECT_EQ(error("b.yaml"), "[config] b.yaml:3: train.lr: found '-1', expected a number above 0");
    EXPECT_EQ(error("b.yaml", {"train.lr=slow"}),
              "[config] --set train.lr=slow: train.lr: found 'slow', expected a number above 0");
    write("c.yaml", "base: root.yaml\ntrain:\n  lr: 1\n  epoch: 3\n");
    EXPECT_EQ(error("c.yaml"), "[config] c.yaml:4: train.epoch: unknown key; did you mean epochs?");
    write("twice.yaml", "base: root.yaml\ntrain:\n  lr: 1\n  lr: 2\n");
    EXPECT_EQ(error("twice.yaml"), "[config] twice.yaml:3: train.lr: stands here twice");
}

TEST_F(ConfigBase, ABaseThatIsNone) {
    write("a.yaml", "flip: true\nbase: missing.yaml\n");
    EXPECT_EQ(error("a.yaml"), "[config] a.yaml:2: base: missing.yaml: no such file");
    write("b.yaml", "base: [c.yaml]\n");
    EXPECT_EQ(error("b.yaml"), "[config] b.yaml:1: base: found a list, expected a file's name");
    write("self.yaml", "base: ./self.yaml\n");
    EXPECT_EQ(error("self.yaml"), "[config] self.yaml:1: base: found ./self.yaml, whose own base leads back here");
    write("x.yaml", "base: y.yaml\n");
    write("y.yaml", "\nbase: x.yaml\n");
    EXPECT_EQ(error("x.yaml"), "[config] y.yaml:2: base: found x.yaml, whose own base leads back here");
    EXPECT_EQ(error_of([] {
                  ::dynvit::read_config<Outer>({"base: a.yaml", "weights.safetensors (its settings)", {}});
              }),
              "[config] weights.safetensors (its settings):1: base: found 'a.yaml', expected none outside a file");
    write("c.yaml", "flip: true\n");
    EXPECT_EQ(error("c.yaml", {"base=a.yaml"}).substr(0, 34), "[config] --set base=a.yaml: base: ");
}

// Two settings that do not go together.
struct Paired {
    Inner first, second;
    void fields(FieldVisitor& v) {
        v.section("first", first, "one");
        v.section("second", second, "the other");
        if (v.reads() && second.epochs < first.epochs) {
            v.reject("second.epochs", "is the smaller one", {"second.lr", "first.epochs"});
        }
    }
};

TEST(Config, AWrongPairNamesTheKeyThatIsWrong) {
    const auto read = [](const std::string& text, std::vector<std::string> overrides) {
        return error_of([&] { read_config<Paired>({text, "a.yaml", overrides}); });
    };
    EXPECT_EQ(read("first: {epochs: 3}\nsecond:\n  lr: 1\n  epochs: 2\n", {}),
              "[config] a.yaml:4: second.epochs: is the smaller one");
    EXPECT_EQ(read("first: {epochs: 3}\n", {"second.epochs=2"}),
              "[config] --set second.epochs=2: second.epochs: is the smaller one");
    EXPECT_EQ(read("\nfirst: {epochs: 31}\n", {}), "[config] a.yaml:2: second.epochs: is the smaller one")
        << "nobody gave the second";
    EXPECT_EQ(read("", {"first.epochs=31"}), "[config] --set first.epochs=31: second.epochs: is the smaller one");
    EXPECT_EQ(read("first: {epochs: 31}\nsecond: {lr: 1}\n", {"first.epochs=40"}),
              "[config] a.yaml:2: second.epochs: is the smaller one")
        << "the first that somebody gave";
}

TEST(Config, WholeNumbersAreDecimalAndBounded) {
    EXPECT_EQ(read("train: {epochs: 030}").train.epochs, 30) << "not octal";
    EXPECT_EQ(read("", {"train.epochs=0256"}).train.epochs, 256);
    EXPECT_EQ(read("", {"train.lr=010"}).train.lr, 10);
    EXPECT_EQ(error_of([] { read("", {"train.epochs=4611686018427387904"}); }),
              "[config] --set train.epochs=4611686018427387904: train.epochs: found '4611686018427387904', expected a "
              "whole number of at least 1 and at most 1000000000");
    EXPECT_EQ(error_of([] { read("train: {epochs: 0x10}"); }),
              "[config] a.yaml:1: train.epochs: found '0x10', expected a whole number of at least 1");
    EXPECT_EQ(error_of([] { read("train: {epochs: 9223372036854775808}"); }),
              "[config] a.yaml:1: train.epochs: found '9223372036854775808', expected a whole number of at least 1");
}

TEST(Config, ValuesOfSetAreTextsAsTheyStand) {
    for (const char* text : {"/a #1", "a: b", "- c", "*d", "&e", "!f", "%g", "h, i", "#", "--- j", "k\ttab"}) {
        EXPECT_EQ(read("", {str("root=", text)}).root, text);
    }
    EXPECT_EQ(read("", {"root= /a "}).root, "/a") << "blanks at its ends don't count";
    EXPECT_EQ(read("", {"root=\"a #1\""}).root, "a #1");
    EXPECT_EQ(read("", {"root='b'"}).root, "b");
    EXPECT_EQ(read("", {"root=\"\""}).root, "");
    EXPECT_EQ(read("", {"root=~"}).root, "");
    EXPECT_EQ(read("", {"train={lr: 2, epochs: 3}"}).train.lr, 2);
    for (const char* none : {"", " "}) {
        EXPECT_EQ(error_of([&] { read("", {str("root=", none)}); }),
                  str("[config] --set root=", none,
                      ": found no value (an unset shell variable?), expected one; \"\" means an empty text"));
    }
    EXPECT_EQ(error_of([] { read("", {"root=\"a\" #1"}); }),
              "[config] --set root=\"a\" #1: found \"a\" #1, expected it to end as it begins");
    EXPECT_EQ(error_of([] { read("", {"scale=[1, [2]"}); }).substr(0, 62),
              "[config] --set scale=[1, [2]: the value is not valid YAML: end");
}

TEST(Config, OneDocumentAFile) {
    EXPECT_EQ(read("---\nname: base\n---\n").name, "base") << "nothing comes after the second line";
    EXPECT_EQ(error_of([] { read("name: base\n---\nflip: false\n"); }),
              "[config] a.yaml:3: found a second document, expected one");
}

TEST(Config, ACommaThatSeparatesNothingEnds) {
    EXPECT_EQ(error_of([] { read(", flip: true"); }),
              "[config] a.yaml:1: not valid YAML: a comma that separates nothing");
    EXPECT_EQ(error_of([] { read("--- \n---\n, x"); }),
              "[config] a.yaml:3: not valid YAML: a comma that separates nothing");
}

TEST(Config, TabsDoNotIndent) {
    const std::string text = "found a tab at the start of the line, expected spaces";
    EXPECT_EQ(error_of([] { read("flip: true\ntrain:\n\tlr: 1\n"); }), "[config] a.yaml:3: " + text);
    EXPECT_EQ(error_of([] { read("train:\n  lr: 1\n \tepochs: 3\n"); }), "[config] a.yaml:3: " + text);
    EXPECT_EQ(error_of([] { read("\tflip: true\n"); }), "[config] a.yaml:1: " + text);
    EXPECT_EQ(read("train:\n  lr:\t1\n").train.lr, 1) << "elsewhere they are blanks";
}

TEST(Config, MergesMapsThatAnchorsName) {
    const std::string shared = "x-shared: &shared\n  lr: 2\n  epochs: 5\n";
    const Outer one = read(shared + "train:\n  <<: *shared\n  epochs: 7\n");
    EXPECT_EQ(one.train.lr, 2);
    EXPECT_EQ(one.train.epochs, 7) << "a map's own key wins";
    const Outer several = read("x-a: &a {lr: 3}\nx-b: &b {lr: 4, epochs: 6}\ntrain: {<<: [*a, *b]}\n");
    EXPECT_EQ(several.train.lr, 3) << "the first wins";
    EXPECT_EQ(several.train.epochs, 6);
    EXPECT_EQ(error_of([] { read("x-a: &a {lr: fast}\ntrain:\n  <<: *a\n"); }),
              "[config] a.yaml:1: train.lr: found 'fast', expected a number above 0");
    EXPECT_EQ(error_of([] { read("train:\n  <<: 3\n"); }),
              "[config] a.yaml:2: <<: found '3', expected an alias of a map");
    EXPECT_EQ(error_of([] { read("train: &t\n  lr: 1\n  more: *t\n"); }),
              "[config] a.yaml: found an alias that stands inside its own anchor");
    EXPECT_EQ(error_of([] { read("train: {x-a: 1}"); }),
              "[config] a.yaml:1: train.x-a: unknown key; expected one of lr, epochs")
        << "only at the top";
}

// Each level has two of the one before: 2^40 settings.
TEST(Config, AliasesDoNotMultiplyWithoutEnd) {
    const std::string expected = "[config] a.yaml: found more than 2000 settings, those behind aliases with them";
    std::string maps = "x-0: &a0 {lr: 1}\n", merges = "x-0: &a0 {k0: 1}\n";
    for (int i = 1; i <= 40; ++i) {
        maps += str("x-", i, ": &a", i, " {l: *a", i - 1, ", r: *a", i - 1, "}\n");
        merges += str("x-", i, ": &a", i, " {<<: [*a", i - 1, "], k", i, ": {<<: [*a", i - 1, "]}}\n");
    }
    EXPECT_EQ(error_of([&] { read(maps); }), expected);
    EXPECT_EQ(error_of([&] { read(merges + "train: *a40\n"); }), expected);
}

TEST(Config, AnErrorIsOneLineWhateverTheTextHolds) {
    EXPECT_EQ(error_of([] { read("name: \"big\\n\\e[2Jger\"\n"); }),
              "[config] a.yaml:1: name: found 'big??[2Jger', expected one of small, base");
    EXPECT_EQ(error_of([] { read("", {"a\nb"}); }),
              "[config] --set a?b: expected KEY=VALUE, such as train.schedule.lr=1e-4");
}

TEST(Config, AFileThatIsNoTextSaysWhatItIs) {
    const test::TemporaryFolder folder;
    const auto error = [&](const std::string& bytes) {
        std::ofstream(folder / "c.yaml", std::ios::binary) << bytes;
        return test::error_of([&] { config_from_file(folder / "c.yaml", {}); });
    };
    const std::string place = "[config] " + (folder / "c.yaml").string() + ": found ";
    EXPECT_EQ(error(std::string("\x40\0\0\0\0\0\0\0{}", 10)),
              place + "a safetensors file (10 bytes), expected YAML text");
    EXPECT_EQ(error("version https://git-lfs.github.com/spec/v1\n"),
              place + "a git-lfs pointer (43 bytes), expected YAML text: `git lfs pull` brings the file itself");
    std::ofstream(folder / "c.yaml", std::ios::binary) << "\xef\xbb\xbf# text\n";
    EXPECT_NO_THROW(config_from_file(folder / "c.yaml", {}));
}

TEST(Config, BrokenYamlNamesTheLine) {
    const std::string text = error_of([] { read("flip: true\ntrain: [1, 2\nname: base"); });
    EXPECT_EQ(text.substr(0, 17), "[config] a.yaml:3");
    EXPECT_NE(text.find("not valid YAML"), std::string::npos);
}

}  // namespace
}  // namespace dynvit
