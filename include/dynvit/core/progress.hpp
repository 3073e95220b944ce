// What a long job shows: a bar that redraws itself on a terminal, now and then a plain line anywhere else.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace dynvit {

class Progress {
  public:
    /// @param label what is being done, such as "epoch 3/30"
    /// @param total steps to go; @param first steps that were done before (a resumed job)
    Progress(std::string label, std::int64_t total, std::int64_t first = 0);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Says that `done` steps are done. `text` follows the bar: losses, throughput. Cheap to call every step.
    void update(std::int64_t done, const std::string& text);

    /// True if the next update() will show its text: for texts that cost something to make.
    bool due() const;

  private:
    void draw(std::int64_t done, const std::string& text);

    std::string label_;
    std::int64_t total_;
    std::int64_t first_;
    bool terminal_;
    std::chrono::steady_clock::time_point started_;
    std::chrono::steady_clock::time_point drawn_;
};

/// "1:02:03" or "4:05".
std::string clock_text(double seconds);

/// A number with a fixed number of digits after the point: fixed(0.7254, 2) == "0.73".
std::string fixed(double value, int digits);

}  // namespace dynvit
