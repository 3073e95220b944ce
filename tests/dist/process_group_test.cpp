#include "dynvit/dist/process_group.hpp"

#include <ATen/ATen.h>

#include "processes.hpp"

namespace dynvit {
namespace {

using std::chrono::milliseconds;
using Texts = std::vector<std::string>;

constexpr milliseconds kPatient(60000), kShort(1500);

std::string text_of(const at::Tensor& tensor) {
    std::string text;
    for (std::int64_t i = 0; i < tensor.numel(); ++i) text += str(tensor[i].item<double>(), ' ');
    return text;
}

TEST(ProcessGroup, AloneNothingMoves) {
    const ProcessGroup group{Launch{}};
    EXPECT_TRUE(group.alone());
    EXPECT_TRUE(group.leads());
    at::Tensor values = at::tensor({1.0, 2.0});
    group.add_up(values);
    group.share(values);
    group.meet();
    EXPECT_EQ(text_of(values), "1 2 ");
    EXPECT_EQ(group.gather("a"), Texts{"a"});
    EXPECT_NO_THROW(group.check_same("settings", "a"));
}

TEST(ProcessGroup, SumsAndSharedValues) {
    const Texts results = test::run_processes(3, [](const Launch& launch) {
        const ProcessGroup group(launch, kPatient);
        at::Tensor sum = at::tensor({1.0, 10.0 * launch.rank}), shared = at::tensor({7.0 + launch.rank});
        group.add_up(sum);
        group.share(shared);
        group.meet();
        return str(group.rank(), '/', group.size(), group.leads() ? " leads: " : ": ", text_of(sum), text_of(shared));
    });
    EXPECT_EQ(results, (Texts{"0/3 leads: 3 30 7 ", "1/3: 3 30 7 ", "2/3: 3 30 7 "}));
}

TEST(ProcessGroup, TextsOfAnyLengthAreGathered) {
    const Texts results = test::run_processes(3, [](const Launch& launch) {
        const ProcessGroup group(launch, kPatient);
        const std::string own = launch.rank == 1 ? "" : str("rank ", launch.rank, std::string(launch.rank, '\0'));
        return group.gather(own) == Texts{"rank 0", "", std::string("rank 2\0\0", 8)} ? "right" : "wrong";
    });
    EXPECT_EQ(results, Texts(3, "right"));
}

TEST(ProcessGroup, WhatDiffersNamesTheRankInEveryProcess) {
    const Texts results = test::run_processes(3, [](const Launch& launch) {
        const ProcessGroup group(launch, kPatient);
        group.check_same("data", "the same");
        group.check_same("settings", launch.rank == 2 ? "lr: 2" : "lr: 1");
        return std::string("no error");
    });
    EXPECT_EQ(results, Texts(3, "[dist] rank 2: found other settings than rank 0, expected the same"));
}

TEST(ProcessGroup, AProcessThatEndsIsNoticed) {
    const Texts results = test::run_processes(2, [](const Launch& launch) {
        const ProcessGroup group(launch, kPatient);
        group.meet();
        if (launch.rank == 1) ::_exit(3);
        group.meet();
        return std::string("no error");
    });
    const std::string error = "[dist] rank 0 of 2: adding up: another process has failed or does not answer: ";
    EXPECT_EQ(results[0].substr(0, error.size()), error);
    EXPECT_EQ(results[0].find('\n'), std::string::npos);
    EXPECT_EQ(results[1], "ended 3");
}

TEST(ProcessGroup, AProcessThatDoesNotAnswerIsNoticed) {
    const test::TemporaryFolder folder;
    const Texts results = test::run_processes(2, [&](const Launch& launch) {
        ProcessGroup group(launch, kPatient);
        group.meet();
        group.set_timeout(kShort);
        const std::filesystem::path noticed = folder / "noticed";
        if (launch.rank == 1) {
            while (!std::filesystem::exists(noticed)) ::sched_yield();
            return std::string("waited");
        }
        const std::string error = test::error_of([&] { group.meet(); });
        std::ofstream(noticed) << error;
        return error;
    });
    const std::string error = "[dist] rank 0 of 2: adding up: another process has failed or does not answer: ";
    EXPECT_EQ(results[0].substr(0, error.size()), error);
}

TEST(ProcessGroup, OneThatNeverComesIsNoticed) {
    const Texts results = test::run_processes(1, [](Launch launch) {
        launch.world_size = 2;
        const ProcessGroup group(launch, kShort);
        return std::string("no error");
    });
    const std::string error = "[dist] rank 0 of 2: meeting at 127.0.0.1:";
    EXPECT_EQ(results[0].substr(0, error.size()), error);
}

}  // namespace
}  // namespace dynvit
