// Processes that work together: what they tell each other. c10d underneath, over Gloo.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "dynvit/dist/launch.hpp"

namespace dynvit {

/// The processes of a launch. Every call below is one that all of them make, in the same order and with tensors of the
/// same sizes; a process alone returns at once. Throws Error that names this process and the call where another one
/// fails or does not come within the timeout.
class ProcessGroup {
  public:
    /// Meets the others: rank 0 serves the meeting place, unless the launcher does.
    /// @param timeout of each call, and of the meeting
    explicit ProcessGroup(Launch launch, std::chrono::milliseconds timeout = std::chrono::minutes(1));
    ~ProcessGroup();
    ProcessGroup(ProcessGroup&&) noexcept;
    ProcessGroup(const ProcessGroup&) = delete;
    ProcessGroup& operator=(const ProcessGroup&) = delete;
    ProcessGroup& operator=(ProcessGroup&&) = delete;

    /// Of the calls that follow.
    void set_timeout(std::chrono::milliseconds timeout);

    int rank() const { return launch_.rank; }
    int size() const { return launch_.world_size; }
    bool alone() const { return launch_.alone(); }
    /// Whether this process is the one that writes and speaks.
    bool leads() const { return launch_.rank == 0; }

    /// Replaces the tensor's values, on the processor and contiguous, by their sums over all processes.
    void add_up(at::Tensor& tensor) const;

    /// The same of several tensors of one type, in one exchange.
    void add_up(const std::vector<at::Tensor>& tensors) const;

    /// Whether any process says so.
    bool any(bool here) const;

    /// Replaces the tensor's values by those of rank 0.
    void share(at::Tensor& tensor) const;

    /// Every process's text, in the order of the ranks.
    std::vector<std::string> gather(const std::string& text) const;

    /// Every process's rows, on the processor, behind each other in the order of the ranks.
    /// @param rows of a type and a row size that are the same everywhere; their number may differ
    at::Tensor gather_rows(const at::Tensor& rows) const;

    /// Returns once all processes have called it.
    void meet() const;

    /// Throws Error in every process where they don't all have the same text: it names a rank that differs from rank 0.
    /// @param what what the text is, for the error: "settings"
    void check_same(const std::string& what, const std::string& text) const;

  private:
    struct Connection;
    template <class Work>
    auto call(const char* what, const Work& work) const;

    Launch launch_;
    std::unique_ptr<Connection> connection_;  // null: alone
};

}  // namespace dynvit
