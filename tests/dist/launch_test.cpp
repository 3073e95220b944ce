#include "dynvit/dist/launch.hpp"

#include <map>

#include "support.hpp"

namespace dynvit {
namespace {

using Variables = std::map<std::string, std::string>;

Launch read(const Variables& variables) {
    return read_launch([&](const std::string& name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        if (found == variables.end()) return std::nullopt;
        return found->second;
    });
}

std::string error_of(const Variables& variables) {
    return test::error_of([&] { read(variables); });
}

const Variables kPlain = {{"RANK", "5"}, {"WORLD_SIZE", "8"}, {"MASTER_ADDR", "gpu1"}, {"MASTER_PORT", "29500"}};
const Variables kSlurm = {{"SLURM_JOB_ID", "1234567"},
                          {"SLURM_PROCID", "9"},
                          {"SLURM_STEP_NUM_TASKS", "16"},
                          {"SLURM_LOCALID", "1"},
                          {"SLURM_STEP_NODELIST", "node[07-08]"},
                          {"SLURM_NTASKS", "16"}};

Variables with(Variables variables, const Variables& more) {
    for (const auto& [name, value] : more) variables[name] = value;
    return variables;
}

Variables without(Variables variables, const std::string& name) {
    variables.erase(name);
    return variables;
}

TEST(Launch, AProcessThatNobodyLaunchedIsAlone) {
    const Launch launch = read({{"HOME", "/"}});
    EXPECT_TRUE(launch.alone());
    EXPECT_EQ(launch.rank, 0);
    EXPECT_EQ(launch.launcher, "");
}

TEST(Launch, PlainVariables) {
    const Launch launch = read(kPlain);
    EXPECT_EQ(launch.rank, 5);
    EXPECT_EQ(launch.world_size, 8);
    EXPECT_EQ(launch.local_rank, 5) << "one machine, where nothing says otherwise";
    EXPECT_EQ(launch.host, "gpu1");
    EXPECT_EQ(launch.port, 29500);
    EXPECT_FALSE(launch.store_is_served);
    EXPECT_EQ(launch.launcher, "RANK and WORLD_SIZE");
    EXPECT_TRUE(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).alone()) << "one process meets nobody: no address is needed";
}

TEST(Launch, Torchrun) {
    const Launch launch = read(with(
        kPlain, {{"LOCAL_RANK", "1"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "2"}}));
    EXPECT_EQ(launch.local_rank, 1);
    EXPECT_TRUE(launch.store_is_served);
    EXPECT_EQ(launch.store_prefix, "2");
    EXPECT_EQ(launch.launcher, "torchrun");
    EXPECT_FALSE(read(with(kPlain, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).store_is_served);
}

TEST(Launch, AStepOfSlurm) {
    const Launch launch = read(kSlurm);
    EXPECT_EQ(launch.rank, 9);
    EXPECT_EQ(launch.world_size, 16);
    EXPECT_EQ(launch.local_rank, 1);
    EXPECT_EQ(launch.host, "node07");
    EXPECT_EQ(launch.port, 20000 + 4567);
    EXPECT_EQ(launch.launcher, "Slurm");
    EXPECT_EQ(read(with(kSlurm, {{"MASTER_PORT", "4000"}, {"MASTER_ADDR", "a"}})).port, 4000);
    EXPECT_EQ(read(with(kSlurm, kPlain)).launcher, "RANK and WORLD_SIZE") << "torchrun inside a job";
    EXPECT_TRUE(read(without(kSlurm, "SLURM_STEP_NUM_TASKS")).alone()) << "a batch script without srun";
}

TEST(Launch, ErrorsNameTheVariable) {
    EXPECT_EQ(error_of(without(kPlain, "RANK")), "[launch] RANK: is not set, expected it beside RANK or WORLD_SIZE");
    EXPECT_EQ(error_of(without(kPlain, "WORLD_SIZE")),
              "[launch] WORLD_SIZE: is not set, expected it beside RANK or WORLD_SIZE");
    EXPECT_EQ(error_of(without(kPlain, "MASTER_ADDR")),
              "[launch] MASTER_ADDR: is not set, expected it beside RANK or WORLD_SIZE");
    EXPECT_EQ(error_of(with(kPlain, {{"RANK", "8"}})), "[launch] RANK: found '8', expected a whole number of 0 to 7");
    EXPECT_EQ(error_of(with(kPlain, {{"WORLD_SIZE", "8x"}})),
              "[launch] WORLD_SIZE: found '8x', expected a whole number of 1 to 1048576");
    EXPECT_EQ(error_of(with(kPlain, {{"MASTER_PORT", ""}})),
              "[launch] MASTER_PORT: found nothing in it, expected it beside RANK or WORLD_SIZE");
    EXPECT_EQ(error_of(with(kSlurm, {{"SLURM_STEP_NODELIST", "node[1-2"}})),
              "[launch] node list 'node[1-2': found '[' without its ']'");
}

TEST(Launch, FirstHostOfSlurmsList) {
    EXPECT_EQ(first_host("gpu1"), "gpu1");
    EXPECT_EQ(first_host("gpu1,gpu2"), "gpu1");
    EXPECT_EQ(first_host("node[07-09,12],gpu1"), "node07");
    EXPECT_EQ(first_host("node[3,5-6]"), "node3");
    EXPECT_EQ(first_host("r[1-4]n2.cluster,x"), "r1n2.cluster");
    EXPECT_EQ(test::error_of([] { first_host(",a"); }), "[launch] node list ',a': found no host in it");
}

}  // namespace
}  // namespace dynvit
