#include "dynvit/data/label_kind.hpp"

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit {

bool one_class_each(const std::string& kind, const std::vector<std::vector<std::int64_t>>& rows,
                    const std::string& area, const std::string& place,
                    const std::function<std::string(std::size_t)>& picture) {
    if (kind == "multi") return false;
    const auto other = std::ranges::find_if(rows, [](const auto& row) { return row.size() != 1; });
    if (other == rows.end()) {
        if (kind == "auto")
            log::note(str(
                '[', area, "] ", place, ": one class in each of ", rows.size(),
                " pictures, taken as classes that exclude each other (data.label_kind: multi takes each by itself)"));
        return true;
    }
    if (kind == "single")
        throw Error(area, place, ": found ", other->size(), " classes for ",
                    picture(static_cast<std::size_t>(other - rows.begin())),
                    ", expected one (data.label_kind: single)");
    return false;
}

}  // namespace dynvit
