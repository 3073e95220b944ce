// What a model file says beside the model's sizes when it is meant to be used as it is.
#pragma once

#include <string>
#include <vector>

#include "dynvit/models/pruning_plan.hpp"

namespace dynvit {

/// How a bundle is run unless the user asks for something else.
struct BundleSettings {
    static constexpr std::int64_t kVersion = 1;

    std::int64_t version = kVersion;
    PruningPlan plan;  // by the model's own policy, with counts; dense without any
    /// The same as Preprocessing's, which holds where a file has both: older files have no other.
    std::int64_t resize = 0;
    std::vector<std::string> class_names;

    void fields(FieldVisitor& v);
};

}  // namespace dynvit
