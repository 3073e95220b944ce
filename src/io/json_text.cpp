#include "dynvit/io/json_text.hpp"

#include <nlohmann/json.hpp>

namespace dynvit {

std::string json_text(const nlohmann::json& value, int indent) {
    return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<nlohmann::json> parse_json(std::span<const std::uint8_t> text) {
    constexpr int kDeepest = 100;
    bool too_deep = false;
    const auto watch = [&](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
        too_deep = too_deep || depth > kDeepest;
        return !too_deep;
    };
    nlohmann::json value = nlohmann::json::parse(text.begin(), text.end(), watch, false);
    if (too_deep || value.is_discarded()) return std::nullopt;
    return value;
}

}  // namespace dynvit
