#include "dynvit/io/json_text.hpp"

#include <nlohmann/json.hpp>

namespace dynvit {

std::string json_text(const nlohmann::json& value, int indent) {
    return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<nlohmann::json> parse_json(std::span<const std::uint8_t> text) {
    constexpr int kDeepest = 100;
    bool too_deep = false;
    using Event = nlohmann::json::parse_event_t;
    const auto watch = [&](int above, Event event, const nlohmann::json&) {
        const bool opens = event == Event::object_start || event == Event::array_start;
        too_deep = too_deep || (opens && above >= kDeepest);
        return !too_deep;
    };
    nlohmann::json value = nlohmann::json::parse(text.begin(), text.end(), watch, false);
    if (too_deep || value.is_discarded()) return std::nullopt;
    return value;
}

}  // namespace dynvit
