// dynvit export, run as a user runs it.
#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/io/image.hpp"
#include "dynvit/io/safetensors.hpp"
#include "dynvit/weights/model_file.hpp"
#include "export_support.hpp"
#include "run_program.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

using test::Outcome;

class ExportProgram : public testing::Test {
  protected:
    void SetUp() override {
        write_model_file(folder_ / "w.safetensors", *test::random_model(test::oblong_settings(), 3));
        ModelSettings dense = test::oblong_settings();
        dense.pruning_loc = {};
        write_model_file(folder_ / "dense.safetensors", *test::random_model(dense, 3));
    }

    /// Runs `dynvit export`, or another subcommand, in the test's folder. @param arguments as the shell reads them
    Outcome run(const std::string& arguments) const { return run("export", arguments); }
    Outcome run(const std::string& subcommand, const std::string& arguments) const {
        return test::run_in(folder_.path(),
                            str("'", DYNVIT_PROGRAM, "' ", subcommand, ' ', arguments, " --log-level off --threads 1"));
    }

    void succeed(const std::string& arguments, const std::string& line) const {
        const Outcome outcome = run("-w w.safetensors -o model " + arguments);
        EXPECT_EQ(outcome.code, 0);
        EXPECT_EQ(outcome.err, "");
        EXPECT_EQ(outcome.out, str("model: ", line, ", ", fs::file_size(folder_ / "model"), " bytes\n"));
    }

    /// A run that has to fail with one line, and leaves no file behind.
    void fail(const std::string& arguments, const std::string& part) const {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.code, 1);
        EXPECT_EQ(outcome.out, "");
        EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
        EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
        for (const auto& entry : fs::directory_iterator(folder_.path())) {
            EXPECT_EQ(entry.path().filename().string().find("model"), std::string::npos) << entry.path();
        }
    }

    void write(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }

    test::TemporaryFolder folder_;
};

TEST_F(ExportProgram, BothFormats) {
    succeed("-f torchscript -k 0.7", "torchscript, custom, keeps 168/117 of 240 patches");
    succeed("-f torchscript", "torchscript, custom, keeps 168/117 of 240 patches");
#ifdef DYNVIT_ONNX
    succeed("-f onnx -k 0.5 --kept-tokens", "onnx, custom, keeps 120/60 of 240 patches");
    succeed("-f onnx -k 1.0", "onnx, custom, dense");
#endif
}

TEST_F(ExportProgram, ABundleSaysHowItIsUsed) {
    write("classes.txt", "a first one\nb second\nc third\nd fourth\ne fifth\nf sixth: \"it\"\ng seventh\n");
    succeed("-f bundle -k 0.5 --classes classes.txt --resize 130", "bundle, custom, keeps 120/60 of 240 patches");
    write_png(folder_ / "picture.png", Image(200, 300));
    const auto infer = [&](const std::string& arguments) {
        return run("infer", "picture.png -d cpu --json " + arguments);
    };
    const Outcome plain = infer("-w w.safetensors -k 0.5 --resize 130 --classes classes.txt");
    const Outcome bundled = infer("-w model");
    EXPECT_EQ(bundled.code, 0) << bundled.err;
    nlohmann::json expected = nlohmann::json::parse(plain.out), found = nlohmann::json::parse(bundled.out);
    for (nlohmann::json* line : {&expected, &found}) line->erase("milliseconds");
    EXPECT_EQ(found, expected);
    EXPECT_EQ(found.at("tokens_per_stage"), (nlohmann::json{120, 60}));
    EXPECT_EQ(nlohmann::json::parse(infer("-w model -k 0.7").out).at("tokens_per_stage"), (nlohmann::json{168, 117}));

    Safetensors file = read_safetensors(folder_ / "model");
    std::string& settings = file.metadata.at("dynvit.bundle");
    settings.replace(settings.find("version: 1"), 10, "version: 9");
    write_safetensors(folder_ / "newer", file.tensors, file.metadata);
    const Outcome newer = infer("-w newer");
    EXPECT_EQ(newer.code, 1);
    EXPECT_EQ(newer.out, "");
    EXPECT_NE(newer.err.find("newer (its dynvit.bundle)"), std::string::npos) << newer.err;
    EXPECT_NE(newer.err.find("version: found 9, expected 1"), std::string::npos) << newer.err;
    EXPECT_EQ(newer.err.find('\n'), newer.err.size() - 1);
}

TEST_F(ExportProgram, TheConfigSaysTheRatio) {
    write_file_atomically(folder_ / "a.yaml",
                          "model: {name: custom, image_size: [96, 160], patch_size: 8, num_classes: 7, embed_dim: 36, "
                          "depth: 5, num_heads: 3, mlp_ratio: 2.5, qkv_bias: false, pruning_loc: [0, 3]}\n"
                          "data: {kind: cluttered_shapes}\n"
                          "train: {keep_ratio: [0.9, 0.2], loss: {kl: 0, distill: 0}}\n",
                          "test");
    succeed("-f torchscript -c a.yaml", "torchscript, custom, keeps 216/48 of 240 patches");
}

TEST_F(ExportProgram, BadInput) {
    const std::string weights = "-w w.safetensors ";
    std::vector<std::string> formats = {"torchscript"};
#ifdef DYNVIT_ONNX
    formats.push_back("onnx");
#endif
    for (const std::string& format : formats) {
        fail(weights + "-o none/model -f " + format,
             "[export] none/model: cannot be written: No such file or directory");
        fail(weights + "-o . -f " + format, "[export] .: is a directory, expected a file to write");
    }
    fail(weights + "-o model -f onnx -k 0", "[keep-ratio] found 0, expected a number above 0 and at most 1");
    fail(weights + "-o model -f onnx -k 0.9,0.7", "[keep-ratio] found several, expected one");
    fail(weights + "-o model -f caffe", "--format: found 'caffe', expected one of bundle, torchscript, onnx");
    fail(weights + "-o model", "--format is required");
    fail(weights + "-o model -f onnx -p bfloat16", "[export] --precision: found bfloat16, expected float32");
    fail(weights + "-o model -f onnx -k 1 --kept-tokens", "[export] a dense model keeps every token");
    fail(weights + "-o model -f bundle --kept-tokens", "[export] a bundle is run by dynvit");
    fail(weights + "-o model -f bundle --classes none", "[image_folder] none: no such file");
    fail("-w dense.safetensors -o model -f onnx -k 0.7", "[keep-ratio] the model has no prediction modules");
    fail("-w none -o model -f onnx", "[weights] none: no such file");
}

}  // namespace
}  // namespace dynvit
