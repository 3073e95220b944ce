#include "dynvit/dist/launch.hpp"

#include <charconv>
#include <cstdlib>
#include <limits>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr const char* kArea = "launch";
constexpr int kMostProcesses = 1 << 20;
constexpr int kFirstPort = 1, kLastPort = std::numeric_limits<std::uint16_t>::max();

class Variables {
  public:
    explicit Variables(const Environment& environment) : environment_(environment) {}

    bool has(const std::string& name) const { return environment_(name).has_value(); }

    // @param why who needs it, for the error
    std::string text(const std::string& name, const char* why) const {
        const std::optional<std::string> value = environment_(name);
        if (!value || value->empty()) {
            throw Error(kArea, name, value ? ": found nothing in it" : ": is not set", ", expected it ", why);
        }
        return *value;
    }

    int number(const std::string& name, const char* why, int least, int most) const {
        const std::string value = text(name, why);
        int number = 0;
        const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), number);
        if (problem != std::errc() || end != value.data() + value.size() || number < least || number > most) {
            throw Error(kArea, name, ": found '", value, "', expected a whole number of ", least, " to ", most);
        }
        return number;
    }

  private:
    const Environment& environment_;
};

Launch read_ranks(const Variables& variables) {
    constexpr const char* kWhy = "beside RANK or WORLD_SIZE";
    Launch launch{.launcher = "RANK and WORLD_SIZE"};
    launch.world_size = variables.number("WORLD_SIZE", kWhy, 1, kMostProcesses);
    launch.rank = variables.number("RANK", kWhy, 0, launch.world_size - 1);
    launch.local_rank =
        variables.has("LOCAL_RANK") ? variables.number("LOCAL_RANK", kWhy, 0, launch.world_size - 1) : launch.rank;
    if (launch.alone()) return launch;
    launch.host = variables.text("MASTER_ADDR", kWhy);
    launch.port = static_cast<std::uint16_t>(variables.number("MASTER_PORT", kWhy, kFirstPort, kLastPort));
    if (variables.has("TORCHELASTIC_USE_AGENT_STORE")) {
        launch.store_is_served = variables.text("TORCHELASTIC_USE_AGENT_STORE", "as torchrun sets it") == "True";
        launch.launcher = "torchrun";
    }
    if (variables.has("TORCHELASTIC_RESTART_COUNT")) {
        launch.store_prefix = variables.text("TORCHELASTIC_RESTART_COUNT", "as torchrun sets it");
    }
    return launch;
}

Launch read_slurm(const Variables& variables) {
    constexpr const char* kWhy = "in a step of Slurm";
    Launch launch{.launcher = "Slurm"};
    launch.world_size = variables.number("SLURM_STEP_NUM_TASKS", kWhy, 1, kMostProcesses);
    launch.rank = variables.number("SLURM_PROCID", kWhy, 0, launch.world_size - 1);
    launch.local_rank = variables.number("SLURM_LOCALID", kWhy, 0, launch.world_size - 1);
    if (launch.alone()) return launch;
    launch.host = variables.has("MASTER_ADDR") ? variables.text("MASTER_ADDR", kWhy)
                                               : first_host(variables.text("SLURM_STEP_NODELIST", kWhy));
    if (variables.has("MASTER_PORT")) {
        launch.port = static_cast<std::uint16_t>(variables.number("MASTER_PORT", kWhy, kFirstPort, kLastPort));
    } else {  // jobs that share a machine have other ids
        constexpr int kFrom = 20000, kPorts = 10000;
        const int job = variables.number("SLURM_JOB_ID", kWhy, 0, std::numeric_limits<int>::max());
        launch.port = static_cast<std::uint16_t>(kFrom + job % kPorts);
    }
    return launch;
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
    const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe): nobody changes it
    if (!value) return std::nullopt;
    return value;
}

std::string first_host(const std::string& node_list) {
    // "node[07-09,12]-a,gpu1": up to the bracket, the first number in it, what stands behind it.
    const std::size_t open = node_list.find_first_of("[,");
    std::string host = node_list.substr(0, open);
    if (open != std::string::npos && node_list[open] == '[') {
        const std::size_t close = node_list.find(']', open);
        const std::size_t end = node_list.find_first_of("-,]", open);
        if (close == std::string::npos) throw Error(kArea, "node list '", node_list, "': found '[' without its ']'");
        host += node_list.substr(open + 1, end - open - 1);
        const std::size_t behind = close + 1;
        host += node_list.substr(behind, std::min(node_list.find_first_of("[,", behind), node_list.size()) - behind);
    }
    if (host.empty()) throw Error(kArea, "node list '", node_list, "': found no host in it");
    return host;
}

Launch read_launch(const Environment& environment) {
    const Variables variables(environment);
    if (variables.has("RANK") || variables.has("WORLD_SIZE")) return read_ranks(variables);
    if (variables.has("SLURM_STEP_NUM_TASKS") && variables.has("SLURM_PROCID")) return read_slurm(variables);
    return {};
}

}  // namespace dynvit
