// A small model with random weights and a few pictures in a folder, for tests that run the program on them.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "dynvit/io/image.hpp"
#include "dynvit/weights/model_file.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit::test {

class SmallModel : public testing::Test {
  protected:
    // 16 patches of 8 pixels, stages at blocks 1 and 2, ten classes.
    static ModelSettings settings() {
        ModelSettings made;
        made.name = "custom";
        made.image_size = {32};
        made.patch_size = 8;
        made.num_classes = 10;
        made.embed_dim = 16;
        made.depth = 3;
        made.num_heads = 2;
        made.pruning_loc = {1, 2};
        return made;
    }

    void SetUp() override {
        const DynamicVit model(settings(), at::make_generator<at::CPUGeneratorImpl>(0));
        write_model_file(folder_ / "w.safetensors", *model);
        write_picture("a.png", 3);
        write_picture("b.png", 7);
    }

    void write_picture(const std::string& name, int seed) const {
        Image picture(50, 40);
        for (std::size_t i = 0; i < picture.pixels.size(); ++i) {
            picture.pixels[i] = static_cast<std::uint8_t>(i * static_cast<std::size_t>(seed) % 251);
        }
        std::filesystem::create_directories((folder_ / name).parent_path());
        write_png(folder_ / name, picture);
    }

    void write(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }

    // Bash commands, run in the folder; `dynvit` is the program, on one thread and without a log.
    Outcome bash(const std::string& commands) const {
        write(".commands",
              str("dynvit() { command '", DYNVIT_PROGRAM, "' \"$@\" --threads 1 --log-level off; }\n", commands, '\n'));
        return run_in(folder_.path(), "bash .commands");
    }

    // The standard output of commands that have to succeed and say nothing else.
    std::string succeed(const std::string& commands) const {
        const Outcome outcome = bash(commands);
        EXPECT_EQ(outcome.code, 0) << commands << '\n' << outcome.err;
        EXPECT_EQ(outcome.err, "") << commands;
        return outcome.out;
    }

    // Commands that have to fail with exit code 1 and this one line.
    void fail(const std::string& commands, const std::string& line) const {
        const Outcome outcome = bash(commands);
        EXPECT_EQ(outcome.code, 1) << commands;
        EXPECT_EQ(outcome.err, str("error: ", line, '\n')) << commands;
    }

    TemporaryFolder folder_;
};

}  // namespace dynvit::test
