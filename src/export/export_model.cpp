#include "dynvit/export/export_model.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/export/bundle.hpp"
#include "dynvit/export/onnx.hpp"
#include "dynvit/export/torchscript.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {
namespace {

struct Format {
    const char* name;
    void (*write)(const std::filesystem::path&, DynamicVit, const ExportOptions&);
};

constexpr Format kFormats[] = {{"bundle", export_bundle}, {"torchscript", export_torchscript}, {"onnx", export_onnx}};

void check_counts(const ExportOptions& options, const ModelSettings& settings) {
    if (options.tokens.empty()) {
        if (options.kept_tokens)
            throw Error("export", "a dense model keeps every token: it has no kept tokens to give");
        return;
    }
    if (std::ssize(options.tokens) != settings.stages()) {
        throw Error("export", "found ", options.tokens.size(), " counts of tokens, expected one for each of the ",
                    settings.stages(), " stages");
    }
    std::int64_t most = settings.patches();
    for (const std::int64_t count : options.tokens) {
        if (count < 0 || count > most) throw Error("export", "found ", count, " tokens kept of ", most);
        most = count;
    }
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
    check_counts(options, model->settings());
    check_weights(*model);
    for (const Format& known : kFormats) {
        if (format == known.name) return known.write(path, std::move(model), options);
    }
    throw Error("export", "unknown format '", format, "'; expected one of ", join(export_formats(), ", "));
}

}  // namespace dynvit
