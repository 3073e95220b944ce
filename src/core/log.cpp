#include "dynvit/core/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>

#include "dynvit/core/error.hpp"

namespace dynvit::log {
namespace {

spdlog::logger& logger() {
    static const std::shared_ptr<spdlog::logger> instance = [] {
        auto made = std::make_shared<spdlog::logger>("dynvit", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
        made->set_pattern("%H:%M:%S %^%l%$ %v");
        made->flush_on(spdlog::level::info);
        return made;
    }();
    return *instance;
}

// Of the run, as the log is.
struct Notes {
    std::mutex mutex;
    std::vector<std::string> texts;
};

Notes& run_notes() {
    static Notes notes;
    return notes;
}

void keep(const std::string& message) {
    Notes& notes = run_notes();
    const std::scoped_lock lock(notes.mutex);
    if (notes.texts.size() > kMostNotes || std::ranges::find(notes.texts, message) != notes.texts.end()) return;
    notes.texts.push_back(notes.texts.size() < kMostNotes ? message : "and more, which the log has");
}

}  // namespace

void debug(const std::string& message) {
    logger().debug(message);
}
void info(const std::string& message) {
    logger().info(message);
}
void error(const std::string& message) {
    logger().error(message);
}
void note(const std::string& message) {
    keep(message);
    logger().info(message);
}
void warn(const std::string& message) {
    keep(message);
    logger().warn(message);
}

std::vector<std::string> notes() {
    Notes& notes = run_notes();
    const std::scoped_lock lock(notes.mutex);
    return notes.texts;
}

void set_level(const std::string& level) {
    const auto parsed = spdlog::level::from_str(level);
    if (parsed == spdlog::level::off && level != "off") {
        throw Error("log", "unknown level '", level, "'; expected debug, info, warn, error or off");
    }
    logger().set_level(parsed);
}

void set_prefix(const std::string& prefix) {
    std::string quoted;
    for (const char letter : prefix) quoted += letter == '%' ? "%%" : std::string(1, letter);
    logger().set_pattern("%H:%M:%S %^%l%$ " + quoted + "%v");
}

}  // namespace dynvit::log
