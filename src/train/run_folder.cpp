#include "dynvit/train/run_folder.hpp"

#include <ATen/ATen.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/infer/model_file.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kParameter = "parameter.";

// A number that reads back to the same bits.
at::Tensor number(double value) { return at::scalar_tensor(value, at::kDouble); }

}  // namespace

RunFolder::RunFolder(fs::path path, bool resume) : path_(std::move(path)) {
    const bool started = fs::exists(state());
    if (started && !resume) {
        throw Error("run", path_.string(), ": a run is already in this folder; give --resume to go on, or another --output");
    }
    if (resume && !started) {
        throw Error("run", path_.string(), ": nothing to resume: ", state().string(), " is not there");
    }
    make_directory(path_ / "checkpoints", "run");
    std::error_code ignored;  // what a run that never came to a checkpoint logged
    if (!resume) fs::remove(path_ / "metrics.jsonl", ignored);
}

void RunFolder::save_config(const Experiment& experiment) const {
    write_file_atomically(path_ / "config.yaml", write_config(experiment), "run");
}

void RunFolder::log_metrics(const nlohmann::json& line) const {
    const fs::path file = path_ / "metrics.jsonl";
    std::ofstream out(file, std::ios::app);
    out << line.dump() << '\n' << std::flush;
    if (!out) throw Error("run", file.string(), ": cannot be written; is the disk full?");
}

void RunFolder::save(const DynamicVitImpl& model, const AdamW& optimizer, const RunProgress& progress, bool best,
                     at::ScalarType type) const {
    TensorMap tensors = optimizer.state();
    for (const auto& [name, tensor] : state_dict(model)) tensors.emplace(kParameter + name, tensor);
    tensors.emplace("progress.step", at::scalar_tensor(progress.step, at::kLong));
    tensors.emplace("progress.best_top1", number(progress.best_top1));
    write_model_file(last(), model, type);
    if (best) write_model_file(this->best(), model, type);
    write_safetensors(state(), tensors);  // last: a run that fails before it does these steps, and these files, again
}

RunProgress RunFolder::restore(DynamicVitImpl& model, AdamW& optimizer) const {
    const std::string file = state().string();
    const TensorMap tensors = read_safetensors(state()).tensors;
    TensorMap parameters;
    for (const auto& [name, tensor] : tensors) {
        if (name.rfind(kParameter, 0) == 0) parameters.emplace(name.substr(std::string(kParameter).size()), tensor);
    }
    const LoadReport report = load_state_dict(model, parameters);
    if (!report.clean() || report.pos_embed_resized) {
        throw Error("run", file, ": is of another model: ", report.clean() ? "pos_embed differs" : report.text());
    }
    optimizer.load_state(tensors, file);
    const auto step = tensors.find("progress.step"), best = tensors.find("progress.best_top1");
    if (step == tensors.end() || best == tensors.end()) throw Error("run", file, ": does not say how far the run was");
    const RunProgress progress{step->second.item<std::int64_t>(), best->second.item<double>()};

    const fs::path metrics = path_ / "metrics.jsonl";
    std::ifstream in(metrics);
    std::string kept;
    for (std::string line; std::getline(in, line);) {
        const auto parsed = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (parsed.is_object() && parsed.value("step", std::int64_t{0}) <= progress.step) kept += line + '\n';
    }
    write_file_atomically(metrics, kept, "run");
    return progress;
}

}  // namespace dynvit
