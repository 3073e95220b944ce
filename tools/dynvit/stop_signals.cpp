#include "stop_signals.hpp"

#include <array>
#include <atomic>
#include <csignal>

namespace dynvit::tool {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGUSR1};

// A signal handler sees nothing else.
std::atomic<int> first_signal = 0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler must not wait");

void remember(int signal);

auto handler_of(int signal) {
    struct sigaction action = {};
    ::sigaction(signal, nullptr, &action);
    return action.sa_handler;
}

// What a signal that is remembered does is again what it did before.
void let_go() {
    for (const int signal : kSignals) {
        if (handler_of(signal) == remember) std::signal(signal, SIG_DFL);
    }
}

void remember(int signal) {
    int none = 0;
    const bool first = first_signal.compare_exchange_strong(none, signal);
    let_go();
    if (!first) ::raise(signal);  // two came at once: the second ends the program
}

}  // namespace

StopSignals::StopSignals() {
    first_signal = 0;
    for (const int signal : kSignals) {
        if (handler_of(signal) != SIG_IGN) std::signal(signal, remember);  // as nohup, or a shell's & has it
    }
}

StopSignals::~StopSignals() {
    let_go();
}

bool StopSignals::came() {
    return first_signal != 0;
}

const char* StopSignals::name() {
    switch (first_signal) {
        case SIGINT:
            return "SIGINT";
        case SIGTERM:
            return "SIGTERM";
        case SIGUSR1:
            return "SIGUSR1";
        default:
            return "";
    }
}

int StopSignals::exit_code() {
    constexpr int kBySignal = 128;
    return kBySignal + first_signal;
}

}  // namespace dynvit::tool
