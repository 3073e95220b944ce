// dynvit convert, run as a user runs it, compared with the golden student's safetensors file and with the closed forms
// that golden/checkpoints was filled with.
#include <ATen/ATen.h>

#include <cmath>

#include "dynvit/weights/model_file.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

using test::Outcome;

class Convert : public testing::Test {
  protected:
    /// Runs `dynvit convert` in the test's folder. @param arguments as the shell reads them
    Outcome convert(const std::string& arguments) const {
        return test::run_in(folder_.path(),
                            str("'", DYNVIT_PROGRAM, "' convert ", arguments, " --log-level off --threads 1"));
    }

    /// The tensors of a run that has to succeed and say `line`.
    TensorMap converted(const std::string& arguments, const std::string& line) const {
        const Outcome outcome = convert(arguments);
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        EXPECT_EQ(outcome.err, "");
        EXPECT_EQ(outcome.out, "out.safetensors: " + line + "\n");
        return read_safetensors(folder_ / "out.safetensors").tensors;
    }

    /// A run that has to fail with one line, and leaves no file behind.
    void fail(const std::string& arguments, const std::string& line) const {
        const Outcome outcome = convert(arguments);
        EXPECT_EQ(outcome.code, 1);
        EXPECT_EQ(outcome.out, "");
        EXPECT_EQ(outcome.err, "error: " + line + "\n");
        for (const auto& entry : fs::directory_iterator(folder_.path())) {
            EXPECT_EQ(entry.path().filename().string().find("out.safetensors"), std::string::npos) << entry.path();
        }
    }

    static std::string golden(const std::string& name) { return "'" + test::golden(name).string() + "'"; }

    test::TemporaryFolder folder_;
};

TEST_F(Convert, CheckpointBecomesTheSafetensorsFile) {
    const TensorMap expected = read_safetensors(test::golden("model/tiny_student.safetensors")).tensors;
    for (const char* name : {"zip", "legacy"}) {
        const TensorMap found =
            converted(golden(str("model/tiny_student_", name, ".pth")) + " out.safetensors",
                      "182 tensors, 189192 parameters, from \"model\"; skipped \"optimizer\", \"epoch\", "
                      "\"args\", \"scaler\"");
        ASSERT_EQ(found.size(), expected.size());
        for (const auto& [key, tensor] : expected) EXPECT_TRUE(found.at(key).equal(tensor)) << key;
    }
}

TEST_F(Convert, PrecisionConcernsNumbersWithAFraction) {
    const std::string rest =
        "13 tensors, 85 parameters, from \"model\"; skipped \"model_ema\", \"optimizer\", \"epoch\", "
        "\"args\", \"best\"";
    const TensorMap stored = converted(golden("checkpoints/zip.pth") + " out.safetensors", rest);
    EXPECT_EQ(stored.at("half").scalar_type(), at::kHalf);
    EXPECT_EQ(stored.at("bfloat").scalar_type(), at::kBFloat16);
    for (const auto& [name, type] : std::map<std::string, at::ScalarType>{
             {"float32", at::kFloat}, {"float16", at::kHalf}, {"bfloat16", at::kBFloat16}}) {
        const TensorMap found = converted(golden("checkpoints/zip.pth") + " out.safetensors --precision " + name, rest);
        for (const auto& [key, tensor] : stored) {
            EXPECT_EQ(found.at(key).scalar_type(), tensor.is_floating_point() ? type : tensor.scalar_type()) << key;
            EXPECT_TRUE(found.at(key).to(at::kDouble).equal(tensor.to(at::kDouble))) << key << ": small whole numbers";
        }
    }
}

TEST_F(Convert, EveryTypeThatPyTorchSaves) {
    const TensorMap expected = read_pth(test::golden("checkpoints/types.pth")).tensors;
    const TensorMap stored =
        converted(golden("checkpoints/types.pth") + " out.safetensors", "37 tensors, 185 parameters");
    for (const auto& [name, tensor] : expected) {
        if (name == "complex128") continue;  // the format has no name for it
        EXPECT_EQ(stored.at(name).scalar_type(), tensor.scalar_type()) << name;
        EXPECT_TRUE(stored.at(name).view(at::kByte).equal(tensor.view(at::kByte))) << name;
    }
    const TensorMap floats =
        converted(golden("checkpoints/types.pth") + " out.safetensors -p float32", "37 tensors, 185 parameters");
    for (const auto& [name, tensor] : expected) {
        if (!tensor.is_floating_point()) continue;
        EXPECT_TRUE(floats.at(name).equal(tensor.to(at::kFloat))) << name;
    }
}

TEST_F(Convert, WhatIsLeftOutOrDoubtfulIsSaid) {
    const auto said = [&](const std::string& name) {
        const Outcome outcome =
            test::run_in(folder_.path(), str("'", DYNVIT_PROGRAM, "' convert ", name, " out.safetensors --threads 1"));
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        return outcome.err;
    };
    const std::string types = said(golden("checkpoints/types.pth"));
    EXPECT_NE(types.find("left out: tensor float4_e2m1fn_x2: its type is torch.float4_e2m1fn_x2, which is not read"),
              std::string::npos)
        << types;
    EXPECT_NE(types.find("left out: tensor complex128: its type is ComplexDouble, which safetensors files do not hold"),
              std::string::npos)
        << types;
    const std::string others = said(golden("checkpoints/others.pth"));
    EXPECT_NE(others.find("left out: tensor sparse: is sparse (torch.sparse_coo)"), std::string::npos) << others;
    write_safetensors(folder_ / "nan", {{"a", at::full({2}, NAN)}, {"b", at::ones({1})}, {"c", at::full({1}, NAN)}});
    const std::string nan = said("nan");
    EXPECT_NE(nan.find("warning nan: a and 1 more tensors hold numbers that are not finite"), std::string::npos) << nan;
}

TEST_F(Convert, MovingAverageOnRequest) {
    const std::string rest =
        "13 tensors, 85 parameters, from \"model_ema\"; skipped \"model\", \"optimizer\", \"epoch\", "
        "\"args\", \"best\"";
    const TensorMap found = converted("--ema " + golden("checkpoints/legacy.pth") + " out.safetensors", rest);
    EXPECT_TRUE(found.at("parameter").equal(at::arange(3, at::kFloat) + 1));
}

TEST_F(Convert, SettingsOfASafetensorsFileStay) {
    ModelSettings settings;
    settings.name = "custom";
    settings.depth = 13;
    write_model_file(folder_ / "in.pth", {{"a", at::arange(3, at::kFloat)}}, settings);  // whatever its name
    converted("in.pth out.safetensors -p float16", "1 tensors, 3 parameters");
    const ModelFile file = read_model_file(folder_ / "out.safetensors");
    ASSERT_TRUE(file.settings);
    EXPECT_EQ(file.settings->depth, 13);
    EXPECT_EQ(file.weights.at("a").scalar_type(), at::kHalf);
}

TEST_F(Convert, ItsOwnOutputInPlace) {
    fs::copy_file(test::golden("checkpoints/zip.pth"), folder_ / "w");
    EXPECT_EQ(convert("w w").code, 0);
    EXPECT_EQ(read_safetensors(folder_ / "w").tensors.size(), 13u);
}

TEST_F(Convert, WhatCannotBeConverted) {
    fail("none.pth out.safetensors", "[weights] none.pth: no such file");
    write_safetensors(folder_ / "large", {{"a", at::full({1}, 1e6)}});
    fail("large out.safetensors -p float16", "[convert] large: a has values too large for float16; try bfloat16");
    fail("large out.safetensors --ema",
         "[weights] large: is a safetensors file, which holds one set of weights; EMA weights "
         "are read from PyTorch checkpoints");
    const std::string student = test::golden("model/tiny_student_half_bare.pth").string();
    fs::copy_file(student, folder_ / "bare.pth");
    const Outcome ema = convert("bare.pth out.safetensors --ema");
    EXPECT_EQ(ema.code, 1);
    EXPECT_EQ(
        ema.err.rfind("error: [pth] bare.pth: holds no EMA weights; expected a dict of tensors under model_ema, ", 0),
        0u)
        << ema.err;
    EXPECT_NE(ema.err.find("found \"blocks.0.attn.proj.bias\" (a tensor)"), std::string::npos) << ema.err;
    EXPECT_EQ(convert("bare.pth").code, 1);
    EXPECT_EQ(convert("bare.pth out.safetensors -p int3").code, 1);
    EXPECT_FALSE(fs::exists(folder_ / "out.safetensors"));
    fs::create_directories(folder_ / "folder");
    fail("bare.pth folder", "[safetensors] folder: is a directory, expected a file to write");
}

TEST_F(Convert, HelpNamesItsArguments) {
    const Outcome outcome = convert("--help");
    EXPECT_EQ(outcome.code, 0);
    for (const char* part : {"IN", "OUT", "--ema", "--precision", "nothing in it is executed"}) {
        EXPECT_NE(outcome.out.find(part), std::string::npos) << part;
    }
}

}  // namespace
}  // namespace dynvit
