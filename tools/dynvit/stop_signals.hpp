// Signals that end long work between two of its steps.
#pragma once

namespace dynvit::tool {

/// While it lives, the first SIGINT (Ctrl-C), SIGTERM or SIGUSR1 (a queue's warning that time is over) is remembered,
/// so that work can end where nothing is lost; a second one of either ends the program at once. One at a time may live.
class StopSignals {
  public:
    StopSignals();
    ~StopSignals();
    StopSignals(const StopSignals&) = delete;
    StopSignals(StopSignals&&) = delete;
    StopSignals& operator=(const StopSignals&) = delete;
    StopSignals& operator=(StopSignals&&) = delete;

    /// Whether one came.
    static bool came();

    /// Which one, for a message: "SIGTERM". Empty: none came.
    static const char* name();

    /// What the program exits with after it: 128 and its number, as shells have it.
    static int exit_code();
};

}  // namespace dynvit::tool
