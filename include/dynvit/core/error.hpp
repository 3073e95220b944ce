// The one exception a user can cause, and small helpers to word it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace dynvit {

/// Joins anything that can be streamed: str("block ", 3, " of ", 12) == "block 3 of 12".
template <class... Parts>
std::string str(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return std::move(out).str();
}

/// A sequence's items with `separator` between them: join({3, 6, 9}, ", ") == "3, 6, 9".
template <class Sequence>
std::string join(const Sequence& items, const std::string& separator) {
    std::ostringstream out;
    const char* between = "";
    for (const auto& item : items) {
        out << between << item;
        between = separator.c_str();
    }
    return std::move(out).str();
}

/// A text with '?' for line ends and other control characters, which a text from a file may hold.
inline std::string one_line(std::string text) {
    constexpr unsigned char kBlank = 0x20, kDelete = 0x7f;
    for (char& letter : text) {
        const auto code = static_cast<unsigned char>(letter);
        if (code < kBlank || code == kDelete) letter = '?';
    }
    return text;
}

/// Something the user can put right: a bad file, setting or argument. Its text is one line, "[area] place: what was
/// found, what was expected". The program's main catches it once, prints it and exits with 1.
class Error : public std::runtime_error {
  public:
    /// @param area the part that noticed, such as "safetensors" or "config"
    template <class... Parts>
    explicit Error(const std::string& area, const Parts&... parts)
        : std::runtime_error(one_line(dynvit::str('[', area, "] ", parts...))) {}
};

}  // namespace dynvit
