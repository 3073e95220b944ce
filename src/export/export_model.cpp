#include "dynvit/export/export_model.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/export/bundle.hpp"
#include "dynvit/export/onnx.hpp"
#include "dynvit/export/torchscript.hpp"
#include "dynvit/models/pruning_plan.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {
namespace {

struct Format {
    const char* name;
    void (*write)(const std::filesystem::path&, DynamicVit, const ExportOptions&);
};

constexpr Format kFormats[] = {{"bundle", export_bundle}, {"torchscript", export_torchscript}, {"onnx", export_onnx}};

void check_options(const ExportOptions& options, const ModelSettings& settings) {
    if (options.plan.dense() && options.kept_tokens) {
        throw Error("export", "a dense model keeps every token: it has no kept tokens to give");
    }
    const bool own = options.plan.dense() || options.plan.policy == own_policy(settings);
    if (!own || !options.plan.thresholds.empty()) {
        throw Error("export", "found a plan of policy ", options.plan.policy, ", expected ", own_policy(settings),
                    " with a count of tokens a stage");
    }
    check_plan(options.plan, settings);
}

void check_weights(const DynamicVitImpl& model) {
    for (const auto& [name, tensor] : state_dict(model)) {
        if (!tensor.isfinite().all().item<bool>()) {
            throw Error("export", name, ": found infinity or NaN among the weights, expected numbers");
        }
    }
}

}  // namespace

const std::vector<std::string>& export_formats() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> made;
        for (const Format& format : kFormats) made.emplace_back(format.name);
        return made;
    }();
    return names;
}

void export_model(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options,
                  const std::string& format) {
    check_options(options, model->settings());
    check_weights(*model);
    for (const Format& known : kFormats) {
        if (format == known.name) return known.write(path, std::move(model), options);
    }
    throw Error("export", "unknown format '", format, "'; expected one of ", join(export_formats(), ", "));
}

}  // namespace dynvit
