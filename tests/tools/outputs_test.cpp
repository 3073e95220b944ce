// Where the program's output goes: files, pipes, devices, and standard output that takes no more; and what stands in
// it.
#include <ATen/ATen.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "small_model.hpp"

namespace dynvit {
namespace {

using nlohmann::json;
using test::Outcome;
using test::text_of;

namespace fs = std::filesystem;

const std::string kInfer = "dynvit infer -w w.safetensors -d cpu ";
const std::string kEval = "dynvit eval -w w.safetensors -d cpu -k 1.0,0.5 --pictures a.png b.png ";

class Outputs : public test::SmallModel {};

TEST_F(Outputs, AFullDiskIsNoticed) {
    const std::string line = "[output] standard output cannot be written: No space left on device";
    fail(kInfer + "a.png > /dev/full", line);
    fail(kInfer + "a.png --json > /dev/full", line);
    fail(kEval + "> /dev/full", line);
    fail("dynvit config > /dev/full", line);
    fail("dynvit convert w.safetensors out.safetensors > /dev/full", line);
    fail(str('\'', DYNVIT_PROGRAM, "' --help > /dev/full"), line);
    fail(str('\'', DYNVIT_PROGRAM, "' --version > /dev/full"), line);
}

TEST_F(Outputs, AClosedStreamIsNoticed) {
    fail(kInfer + "a.png >&-", "[output] standard output cannot be written: Bad file descriptor");
    // No file that is written takes its place.
    fail("dynvit convert w.safetensors out.safetensors >&-",
         "[output] standard output cannot be written: Bad file descriptor");
    EXPECT_EQ(text_of(folder_ / "out.safetensors"), text_of(folder_ / "w.safetensors"));
}

TEST_F(Outputs, WithoutAReaderTheRunEnds) {
    for (int i = 0; i < 200; ++i) fs::copy_file(folder_ / "a.png", folder_ / str("many", i, ".png"));
    const std::string infer =
        str('\'', DYNVIT_PROGRAM, "' infer -w w.safetensors -d cpu -b 1 -j 1 many*.png --json --threads 1 2> log");
    const Outcome outcome = bash(infer + " | head -1\necho ${PIPESTATUS[0]}");
    ASSERT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 2) << outcome.out;
    EXPECT_TRUE(outcome.out.ends_with("\n141\n")) << outcome.out << ": as SIGPIPE ends a program";
    const std::string end = "200 pictures, ";  // what the log says after all of them
    EXPECT_EQ(text_of(folder_ / "log").find(end), std::string::npos);
    EXPECT_EQ(text_of(folder_ / "log").find("error"), std::string::npos);
    bash(infer + " > all");
    EXPECT_NE(text_of(folder_ / "log").find(end), std::string::npos);
}

TEST_F(Outputs, PipesAndDevicesAreWrittenThrough) {
    const auto is_report = [](const std::string& text) { return json::parse(text).at("results").size() == 2; };
    succeed(kEval + "--json >(cat > process.json) > table; wait $!");
    EXPECT_TRUE(is_report(text_of(folder_ / "process.json")));
    succeed("mkfifo pipe; cat pipe > read.json & " + kEval + "--json pipe > table; wait");
    EXPECT_TRUE(is_report(text_of(folder_ / "read.json")));
    EXPECT_TRUE(fs::is_fifo(folder_ / "pipe"));

    // Behind the table, wherever standard output goes, and nothing of it is lost.
    const std::string table = succeed(kEval);
    for (const char* output : {"> both", "| cat > both", ">> both"}) {
        succeed(str("rm -f both; ", kEval, "--json /dev/stdout ", output));
        const std::string both = text_of(folder_ / "both");
        EXPECT_EQ(both.substr(0, both.find("{\n")), table) << output;
        EXPECT_TRUE(is_report(both.substr(both.find("{\n")))) << output;
    }
    EXPECT_TRUE(fs::is_symlink("/dev/stdout"));
    EXPECT_TRUE(fs::is_character_file("/dev/null"));
    succeed(kEval + "--json /dev/fd/3 3> third > table");
    EXPECT_TRUE(is_report(text_of(folder_ / "third")));
    succeed(kEval + "--json /dev/null > table");
    EXPECT_TRUE(fs::is_character_file("/dev/null"));
    fail(kEval + "--json /dev/full > table", "[eval] /dev/full: cannot be written: No space left on device");
    fail("dynvit export -w w.safetensors -k 0.5 -f bundle -o /dev/stdout",
         "[export] /dev/stdout: is no regular file, expected one: what is written is read back");
}

TEST_F(Outputs, WeightsOnStandardOutputAreAlone) {
    for (const char* output : {"> out", "| cat > out"}) {
        succeed(str("dynvit convert w.safetensors /dev/stdout ", output));
        EXPECT_EQ(text_of(folder_ / "out"), text_of(folder_ / "w.safetensors")) << output;
    }
}

TEST_F(Outputs, LinksStay) {
    write("there.json", "old");
    fs::create_symlink("there.json", folder_ / "link.json");
    succeed(kEval + "--json link.json");
    EXPECT_TRUE(fs::is_symlink(folder_ / "link.json"));
    EXPECT_EQ(json::parse(text_of(folder_ / "there.json")).at("results").size(), 2u);
}

TEST_F(Outputs, NamesThatAreNotUtf8) {
    const std::string latin = "caf\xe9.png", replaced = "caf\xef\xbf\xbd.png";
    write_picture(latin, 5);
    std::string classes;
    for (int i = 0; i < 10; ++i) classes += str('c', i, " caf\xe9 ", i, '\n');
    write("classes.txt", classes);
    std::istringstream lines(succeed(kInfer + "a.png caf*.png b.png --json --classes classes.txt"));
    std::vector<std::string> pictures;
    for (std::string line; std::getline(lines, line);) {
        const json answer = json::parse(line);
        pictures.push_back(answer.at("picture"));
        EXPECT_EQ(answer.at("top")[0].at("name").get<std::string>().rfind("caf\xef\xbf\xbd ", 0), 0u);
    }
    EXPECT_EQ(pictures, (std::vector<std::string>{"a.png", replaced, "b.png"}));
    EXPECT_NE(succeed(kInfer + "caf*.png").find(latin), std::string::npos) << "a text has the bytes themselves";

    succeed(
        "cp w.safetensors $'w\\xe9.safetensors'; dynvit eval -w $'w\\xe9.safetensors' -d cpu -k 1.0,0.5 --pictures "
        "caf*.png --json r.json");
    EXPECT_EQ(json::parse(text_of(folder_ / "r.json")).at("weights"), "w\xef\xbf\xbd.safetensors");
}

TEST_F(Outputs, MemoryThatIsNotThere) {
    const Outcome outcome = bash("ulimit -v 1200000; " + kInfer + "a.png --image-size 8192");
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.err, "error: [memory] not enough memory; a smaller batch or picture size needs less\n");
}

TEST_F(Outputs, WhatCanBeReadIsDrawn) {
    write("broken.png", "no picture");
    const std::string visualize = "dynvit visualize -w w.safetensors -d cpu -k 0.5 -o drawn -i ";
    fail(visualize + "a.png broken.png b.png", "[visualize] 1 of 3 pictures could not be read; the others are drawn");
    for (const char* name : {"a.png", "b.png", "contact_sheet.png", "keep_frequency.png"}) {
        EXPECT_TRUE(fs::exists(folder_ / "drawn" / name)) << name;
    }
    EXPECT_FALSE(fs::exists(folder_ / "drawn/broken.png"));
    const Outcome told = bash(str('\'', DYNVIT_PROGRAM,
                                  "' visualize -w w.safetensors -d cpu -k 0.5 -o more -i a.png "
                                  "broken.png"));
    EXPECT_NE(told.err.find("left out: "), std::string::npos) << told.err;
    EXPECT_NE(told.err.find("broken.png"), std::string::npos) << told.err;
    const Outcome none = bash(visualize + "broken.png");
    EXPECT_EQ(none.code, 1);
    EXPECT_EQ(none.err.rfind("error: [visualize] none of the 1 pictures can be read; the first: ", 0), 0u) << none.err;

    const std::string longest = std::string(240, 'n');
    write_picture(longest + ".png", 9);
    succeed(visualize + longest + ".png");
    EXPECT_TRUE(fs::exists(folder_ / "drawn" / (longest + ".png")));
}

// What is assumed, chosen and passed over stands in the JSON too, whether or not it is logged.
TEST_F(Outputs, ReportsHaveTheRunsNotes) {
    write("broken.png", "no picture");
    const auto has = [](const json& notes, const std::string& text) {
        return std::ranges::any_of(
            notes, [&](const json& note) { return note.get<std::string>().find(text) != std::string::npos; });
    };
    succeed(kEval + "broken.png --json eval.json --image-size 40");
    const json eval = json::parse(text_of(folder_ / "eval.json")).at("notes");
    EXPECT_TRUE(has(eval, "pos_embed resized to a grid of 5 x 5")) << eval;
    EXPECT_TRUE(has(eval, "left out: ")) << eval;
    succeed("dynvit bench -w w.safetensors -d cpu -b 1 --seconds 0.01 --image-size 40 --json bench.json");
    EXPECT_TRUE(has(json::parse(text_of(folder_ / "bench.json")).at("notes"), "pos_embed resized"));

    const Outcome infer = bash(kInfer + "-b 1 -j 1 --image-size 40 a.png broken.png b.png --json");
    EXPECT_EQ(infer.code, 1);
    std::istringstream lines(infer.out);
    std::vector<json> answers;
    for (std::string line; std::getline(lines, line);) answers.push_back(json::parse(line));
    ASSERT_EQ(answers.size(), 2u);
    EXPECT_TRUE(has(answers[0].at("notes"), "pos_embed resized"));
    json all = answers[0].at("notes");
    if (answers[1].contains("notes")) all.insert(all.end(), answers[1]["notes"].begin(), answers[1]["notes"].end());
    EXPECT_TRUE(has(all, "broken.png")) << all;
    EXPECT_EQ(std::ranges::count_if(
                  all, [](const json& note) { return note.get<std::string>().find("pos_embed") != std::string::npos; }),
              1)
        << "said once";
}

// A model of the zoo has stages, and weights of a dense one don't: that counts where a stage is asked.
TEST_F(Outputs, MissingModulesAreTheUsersConcernWhereTheyAreAsked) {
    ModelSettings dense = settings();
    dense.pruning_loc = {};
    const DynamicVit model(dense, at::make_generator<at::CPUGeneratorImpl>(0));
    write_model_file(folder_ / "dense.safetensors", *model);
    const auto said = [&](const std::string& ratio) {
        const std::string command = str('\'', DYNVIT_PROGRAM,
                                        "' infer -w dense.safetensors -d cpu --pruning-loc 1,2 "
                                        "a.png --threads 1 -k ",
                                        ratio);
        return bash(command).err.find("no prediction modules") != std::string::npos;
    };
    EXPECT_FALSE(said("1"));
    EXPECT_TRUE(said("0.5"));
}

TEST_F(Outputs, ARowWithoutNumbersIsMarked) {
    const DynamicVit model(settings(), at::make_generator<at::CPUGeneratorImpl>(0));
    TensorMap weights = read_safetensors(folder_ / "w.safetensors").tensors;
    const ModelFile file = read_model_file(folder_ / "w.safetensors");
    weights.at("blocks.0.mlp.fc1.bias").fill_(3e38);  // finite itself, and what comes of it is not
    write_model_file(folder_ / "wild.safetensors", weights, file.settings);
    const std::string table =
        succeed("dynvit eval -w wild.safetensors -d cpu -k 1.0,0.5 --pictures a.png b.png --json r.json");
    EXPECT_NE(table.find("predicted 0.50: outputs are not finite (NaN or infinity), its figures mean nothing\n"),
              std::string::npos)
        << table;
    const json notes = json::parse(text_of(folder_ / "r.json")).at("notes");
    EXPECT_TRUE(std::ranges::any_of(notes, [](const json& note) {
        return note.get<std::string>().starts_with("predicted 0.50: outputs are not finite");
    })) << notes;
    EXPECT_EQ(succeed(kEval).find("not finite"), std::string::npos);
}

}  // namespace
}  // namespace dynvit
