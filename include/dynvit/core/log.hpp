// The program's log: lines on standard error, through spdlog. This header hides spdlog, because LibTorch's include
// folder carries another version of the fmt that spdlog was built with.
#pragma once

#include <string>

namespace dynvit::log {

void debug(const std::string& message);
void info(const std::string& message);
void warn(const std::string& message);
void error(const std::string& message);

/// Sets the least level that is printed: "debug", "info", "warn", "error" or "off". Throws Error for any other name.
void set_level(const std::string& level);

}  // namespace dynvit::log
