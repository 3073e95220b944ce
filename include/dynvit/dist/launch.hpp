// Which of several processes this one is, as its launcher says it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace dynvit {

/// An environment variable's value; none where it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

/// The environment of this process.
std::optional<std::string> process_environment(const std::string& name);

/// One of `world_size` processes that work together.
struct Launch {
    int rank = 0;           // 0 ... world_size - 1
    int world_size = 1;     // 1: this process works alone
    int local_rank = 0;     // its place among those of its machine: the GPU that it takes
    std::string host = {};  // where rank 0 runs
    std::uint16_t port = 0;
    bool store_is_served = false;  // the launcher serves the store on that port; else rank 0 does
    std::string store_prefix =
        {};                     // in front of the store's keys, so that a restarted group finds none of the old ones
    std::string launcher = {};  // who said so, for the log: "RANK and WORLD_SIZE", "Slurm"; empty: nobody

    bool alone() const { return world_size == 1; }
};

/// Reads, in this order,
///     RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK (torchrun sets them; so may anybody; without LOCAL_RANK
///     rank itself), and torchrun's TORCHELASTIC_USE_AGENT_STORE and TORCHELASTIC_RESTART_COUNT;
///     a step of Slurm (srun): SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, the first host of
///     SLURM_STEP_NODELIST, a port made of SLURM_JOB_ID; MASTER_ADDR and MASTER_PORT go before the last two.
/// A batch script that starts the program without srun is no step: it works alone.
/// Throws Error naming the variable: one that is missing beside the others, or that is no number in its range.
Launch read_launch(const Environment& environment = process_environment);

/// The first host of Slurm's short form: "node[07-09,12],gpu1" gives "node07". Throws Error for a list without one.
std::string first_host(const std::string& node_list);

}  // namespace dynvit
