// The files that a model is in, as it was downloaded: one, or a folder of them.
#pragma once

#include <filesystem>
#include <vector>

namespace dynvit {

struct ModelFiles {
    std::vector<std::filesystem::path> weights;  // one, or the parts that an index lists
    std::filesystem::path folder;                // where config.json may be
    bool is_folder = false;                      // it was named, and not a file in it
};

/// What a path means. A folder: the weights under the names that libraries give them, safetensors first, or the only
/// weights file in it. An index ("model.safetensors.index.json"): the files that it lists, which must all be there. One
/// of those files: all of them.
/// Throws Error naming the path: nothing there, several weights files of which none has a known name (listed), a part
/// that is missing.
ModelFiles find_model_files(const std::filesystem::path& path);

}  // namespace dynvit
