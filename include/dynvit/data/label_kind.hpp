// Whether a picture has one class or any number of them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace dynvit {

/// What the classes of a data set may be: one a picture, any number, or whichever is found.
inline constexpr std::array kLabelKinds = {"auto", "single", "multi"};

/// Whether pictures have one class each, by their class indices. "auto": where every picture has exactly one, which the
/// log says. Throws Error where `kind` is "single" and a picture has another number.
/// @param kind of kLabelKinds
/// @param area of messages @param place where the classes come from, for them: a file
/// @param picture what to call the picture of a row in an error
bool one_class_each(const std::string& kind, const std::vector<std::vector<std::int64_t>>& rows,
                    const std::string& area, const std::string& place,
                    const std::function<std::string(std::size_t)>& picture);

}  // namespace dynvit
