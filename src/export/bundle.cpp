#include "dynvit/export/bundle.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/weights/model_file.hpp"

namespace dynvit {

void export_bundle(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options) {
    if (options.kept_tokens) {
        throw Error("export", "a bundle is run by dynvit, which gives the kept tokens: --kept-tokens is not for it");
    }
    BundleSettings settings;
    settings.plan = options.plan;
    settings.resize = options.preprocessing.resize;
    settings.class_names = options.class_names;
    const TensorMap weights = state_dict(*model);
    write_model_file(path, weights, model->settings(), settings, options.preprocessing);

    const ModelFile read = read_model_file(path);
    const auto equal = [](const auto& a, const auto& b) { return a.first == b.first && at::equal(a.second, b.second); };
    if (!std::equal(weights.begin(), weights.end(), read.weights.begin(), read.weights.end(), equal) || !read.bundle ||
        read.bundle->plan.tokens != settings.plan.tokens || read.bundle->class_names != settings.class_names ||
        read.preprocessing != options.preprocessing) {
        throw Error("export", path.string(), ": does not hold what was written; is the disk in order?");
    }
}

}  // namespace dynvit
