// What the command line means, and the words for what it can't mean.
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "small_model.hpp"

namespace dynvit {
namespace {

using nlohmann::json;

class CommandLine : public test::SmallModel {
  protected:
    // What infer says of pictures, without the time that it took.
    std::vector<json> infer(const std::string& arguments) const {
        std::istringstream lines(succeed("dynvit infer -w w.safetensors -d cpu --json " + arguments));
        std::vector<json> answers;
        for (std::string line; std::getline(lines, line);) {
            answers.push_back(json::parse(line));
            answers.back().erase("milliseconds");
            answers.back().erase("notes");
        }
        return answers;
    }

    // An error of the command line itself.
    void refuse(const std::string& arguments, const std::string& text) const {
        fail("dynvit " + arguments, str("[arguments] ", text, " (see --help)"));
    }
};

TEST_F(CommandLine, EmptyTextsAreNothingGiven) {
    const std::string empty = "found an empty text (an unset shell variable?), expected ";
    for (const char* command : {"infer a.png", "eval --data .", "export -f bundle -o x", "visualize -i a.png -o x",
                                "prune --images .", "bench"}) {
        refuse(str(command, " -m deit_tiny -w \"$UNSET\" -k 1"), "--weights: " + empty + "a value");
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "x"));
    refuse("infer -w w.safetensors --pruning-loc '' a.png", "--pruning-loc: " + empty + "a value");
    refuse("infer -w w.safetensors --threshold '' a.png", "--threshold: " + empty + "a value");
    refuse("infer -w w.safetensors --resize '' a.png", "--resize: " + empty + "a whole number");
    refuse("infer -w w.safetensors --crop-pct '' a.png", "--crop-pct: " + empty + "a number");
    refuse("infer -w w.safetensors ''", "pictures: " + empty + "a value");
    refuse("shard --data . -o x --train-folders ''", "--train-folders: " + empty + "a value");
    refuse("train -c a.yaml -o ''", "--output: " + empty + "a value");
    refuse("train -c a.yaml -o run -s ''", "--set: " + empty + "a value");
    refuse("config --log-level ''", "--log-level: " + empty + "a value");
    fail("dynvit infer a.png --weights= -k 0.7", "[arguments] --weights: " + empty + "a value");
    refuse("infer a.png -w w.safetensors -k 1.0,,0.7",
           "--keep-ratio: found '1.0,,0.7', which has an empty text, expected values between commas");
}

TEST_F(CommandLine, AnOptionIsNoValue) {  // an unset variable without quotes
    refuse("infer a.png -w $UNSET -k 0.7", "--weights: found the option -k in its value's place, expected a value");
    refuse("eval --data . -w w.safetensors -b --top 3", "--batch-size: found '--top', expected a whole number");
    fail(str('\'', DYNVIT_PROGRAM, "' infer a.png -w"),
         "[arguments] --weights: found nothing after it, expected a value (see --help)");
}

TEST_F(CommandLine, NumbersAreDecimalAndWithinLimits) {
    const std::vector<json> whole = infer("a.png --resize 48");
    ASSERT_EQ(whole.size(), 1u);
    EXPECT_EQ(infer("a.png --resize 048"), whole) << "not octal";
    EXPECT_EQ(infer("a.png --resize=+48"), whole);
    EXPECT_NE(infer("a.png --resize 34"), whole);
    refuse("infer -w w.safetensors a.png --resize -5", "--resize: found -5, expected at least 0");
    refuse("infer -w w.safetensors a.png --resize 1e2", "--resize: found '1e2', expected a whole number");
    refuse("infer -w w.safetensors a.png -b 0", "--batch-size: found 0, expected at least 1");
    refuse("infer -w w.safetensors a.png --top 0", "--top: found 0, expected at least 1");
    refuse("infer -w w.safetensors a.png --image-size 0", "--image-size: found 0, expected at least 1");
    refuse("infer -w w.safetensors a.png -b 4611686018427387904",
           "--batch-size: found 4611686018427387904, expected at most 1000000000");
    refuse("infer -w w.safetensors a.png -k much", "--keep-ratio: found 'much', expected a number");
    refuse("infer -w w.safetensors a.png -k nan", "--keep-ratio: found 'nan', expected a number");
    refuse("infer -w w.safetensors a.png -j 100000", "--workers: found 100000, expected at most 1024");
    refuse("prune -w w.safetensors --images . --seed -1", "--seed: found -1, expected at least 0");
    refuse("prune -w w.safetensors --images . --agreement 1.5", "--agreement: found 1.5, expected at most 1");
    fail(str('\'', DYNVIT_PROGRAM, "' config --threads -1"),
         "[arguments] --threads: found -1, expected at least 0 (see --help)");
    fail(str('\'', DYNVIT_PROGRAM, "' config --threads 100000"),
         "[arguments] --threads: found 100000, expected at most 1024 (see --help)");
    const std::string set = "--set train.epochs=4611686018427387904";
    fail("dynvit config -s data.root=x " + set,
         str("[config] ", set,
             ": train.epochs: found '4611686018427387904', expected a whole number of at least "
             "1 and at most 1000000000"));
}

TEST_F(CommandLine, PicturesMayFollowAList) {
    const std::vector<json> before = infer("a.png b.png -k 0.5");
    ASSERT_EQ(before.size(), 2u);
    EXPECT_EQ(before[0].at("tokens_per_stage"), (json{8, 4}));
    EXPECT_EQ(infer("-k 0.5 a.png b.png"), before);
    EXPECT_EQ(infer("--image-size 32 -k 0.5 a.png b.png"), before);
    EXPECT_EQ(infer("--image-size 32,32 -k '[0.5]' a.png b.png"), before);
    EXPECT_EQ(infer("-k 0.5 --pruning-loc 1,2 a.png b.png"), before);
    EXPECT_EQ(infer("--tokens 8,4 a.png b.png"), before);
    EXPECT_EQ(infer("--threshold 0.1 a.png b.png").size(), 2u);
    EXPECT_EQ(infer("-k 0.5 --mean 0.5 --std 0.5 a.png b.png").size(), 2u);
    fail("dynvit infer a.png -w w.safetensors -d cpu -k 0.5 -k 0.7", "[keep-ratio] found several, expected one");
}

TEST_F(CommandLine, WrongWordsAreNamedAndGuessed) {
    refuse("eval --weight w.safetensors --data .", "unknown option --weight; did you mean --weights?");
    refuse("train --out run -c a.yaml", "unknown option --out; did you mean --output?");
    refuse("infer a.png -w w.safetensors --keepratio=0.7",
           "unknown option --keepratio=0.7; did you mean --keep-ratio?");
    refuse("infer a.png -w w.safetensors --colour", "unknown option --colour");
    refuse("trian", "A subcommand is required, found trian; did you mean train?");
    refuse("config more", "found 'more', expected nothing more");
    refuse("infer a.png", "--weights is required");
    refuse("infer a.png -w w.safetensors -b 1 -b 2", "--batch-size: found more than once, expected one value");
    refuse("eval -w w.safetensors --data . --pictures a.png", "--data and --pictures: found both, expected one");
    refuse("infer a.png -w w.safetensors -p int3",
           "--precision: found 'int3', expected one of float32, bfloat16, float16, int8, float8");
}

TEST_F(CommandLine, ValuesOfSetStandAsTheyAre) {
    write("a.yaml", "data: {root: x}\ntrain: {weights: w.pth, loss: {kl: 0, distill: 0}}\n");
    EXPECT_NE(succeed("dynvit config -c a.yaml -s 'data.root=/a #1'").find("root: \"/a #1\" "), std::string::npos);
    fail("dynvit config -c a.yaml -s train.weights=$UNSET",
         "[config] --set train.weights=: found no value (an unset shell variable?), expected one; \"\" means an empty "
         "text");
    EXPECT_NE(succeed("dynvit config -c a.yaml -s 'train.weights=\"\"'").find("weights: \"\" "), std::string::npos);
}

TEST_F(CommandLine, ConfigsInYamlsOwnWays) {
    write("tabs.yaml", "train:\n\tepochs: 3\n");
    fail("dynvit config -c tabs.yaml", "[config] tabs.yaml:2: found a tab at the start of the line, expected spaces");
    write("two.yaml", "train: {epochs: 3}\n---\ntrain: {epochs: 4}\n");
    fail("dynvit config -c two.yaml", "[config] two.yaml:3: found a second document, expected one");
    write("merged.yaml",
          "x-short: &short {epochs: 3, batch_size: 8}\n"
          "data: {root: pictures}\ntrain:\n  <<: *short\n  batch_size: 16\n  loss: {kl: 0, distill: 0}\n");
    const std::string resolved = succeed("dynvit config -c merged.yaml");
    EXPECT_NE(resolved.find("  epochs: 3 "), std::string::npos) << resolved;
    EXPECT_NE(resolved.find("  batch_size: 16 "), std::string::npos) << resolved;
    EXPECT_EQ(resolved.find("x-short"), std::string::npos);
}

TEST_F(CommandLine, ListsOnStandardInputMayBeOfFind) {
    write_picture("new\nline/c.png", 11);
    const std::vector<json> found = infer("- < <(find a.png new* -name '*.png' -print0)");
    ASSERT_EQ(found.size(), 2u);
    EXPECT_EQ(found[0].at("picture"), "a.png");
    EXPECT_EQ(found[1].at("picture"), "new\nline/c.png");
    EXPECT_EQ(infer("- < <(printf 'a.png\\0b.png')").size(), 2u) << "nothing after the last";
    EXPECT_EQ(infer("- < <(printf 'a.png\\r\\nb.png\\n')").size(), 2u);
}

TEST_F(CommandLine, SafetensorsKeepTheirEnding) {
    for (const char* name : {"out.pth", "out.PT", "out.bin", "out.onnx"}) {
        const std::string ending = name + std::string(name).find('.');
        std::string lower = ending;
        for (char& letter : lower) letter = static_cast<char>(std::tolower(letter));
        fail(str("dynvit convert w.safetensors ", name), str("[convert] ", name, ": found the ending ", lower,
                                                             " for a safetensors file, expected out.safetensors"));
        EXPECT_FALSE(std::filesystem::exists(folder_ / name));
    }
    fail("dynvit export -w w.safetensors -k 0.5 -f bundle -o out.pth",
         "[export] out.pth: found the ending .pth for a safetensors file, expected out.safetensors");
    fail("dynvit prune -w w.safetensors --images . -o out.pth",
         "[prune] out.pth: found the ending .pth for a safetensors file, expected out.safetensors");
    succeed("dynvit convert w.safetensors out && dynvit convert w.safetensors model.v1");
}

TEST_F(CommandLine, EightBitWeightsAreConverted) {
    const at::Tensor values = at::arange(-4, 4, at::kFloat);
    write_safetensors(folder_ / "eight.safetensors",
                      {{"a", values.to(at::kFloat8_e4m3fn)}, {"b", values.to(at::kFloat8_e5m2)}});
    succeed("dynvit convert eight.safetensors out.safetensors -p float32");
    for (const auto& [name, tensor] : read_safetensors(folder_ / "out.safetensors").tensors) {
        EXPECT_EQ(tensor.scalar_type(), at::kFloat);
        EXPECT_TRUE(tensor.equal(values)) << name << ": small whole numbers";
    }
}

TEST_F(CommandLine, SizesMayHaveAFraction) {
    for (const char* name : {"pictures/train/one/a.png", "pictures/train/one/b.png", "pictures/train/one/c.png"}) {
        write_picture(name, 5);
    }
    const auto archives = [&](const std::string& size) {
        const std::string said = succeed("rm -rf out; dynvit shard --data pictures -o out --shard-size " + size);
        return said.substr(said.find(" in ") + 4, 1);
    };
    EXPECT_EQ(archives("1.5MB"), "1");
    EXPECT_EQ(archives("0.5kib"), "3") << "each larger than 512 bytes";
    EXPECT_EQ(archives("4000000"), "1");
    for (const char* size : {"MB", "1.5QB", "0", "-3MB", "1.2.3MB", "2iB"}) {
        refuse(str("shard --data pictures -o out --shard-size ", size),
               str("--shard-size: found '", size, "', expected a size such as 256MB or 1.5GiB"));
    }
}

}  // namespace
}  // namespace dynvit
