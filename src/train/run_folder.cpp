#include "dynvit/train/run_folder.hpp"

#include <ATen/ATen.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/io/json_text.hpp"
#include "dynvit/weights/model_file.hpp"

namespace dynvit {
namespace fs = std::filesystem;

namespace {

using Metadata = std::map<std::string, std::string>;

std::string hash_key(const SourceFile& source) {
    return "dynvit.sha256." + source.setting;
}

// An Error where a file of weights that the run goes on reading isn't the one that it started from.
void verify_sources(const Learner& learner, const Metadata& metadata, const std::string& file) {
    for (const SourceFile& source : learner.sources) {
        if (!source.stays) continue;
        const auto expected = metadata.find(hash_key(source));
        if (expected == metadata.end()) {
            log::note(str(file, " was written without hashes: train.", source.setting, ", ", source.path,
                          ", is taken for the file that the run started from"));
        } else if (expected->second != source.sha256) {
            throw Error("run", source.path, " (train.", source.setting, "): found a file with SHA-256 ", source.sha256,
                        ", expected the one that the run started from, ", expected->second);
        }
    }
}

// Whether there is a checkpoint to go on from. Throws Error where `resume` says otherwise.
bool find_started(const fs::path& state, const fs::path& run, Resume resume) {
    const bool started = fs::exists(state);
    if (started && resume == Resume::kNo) {
        throw Error("run", run.string(),
                    ": a run is already in this folder; give --resume to go on, or another --output");
    }
    if (!started && resume == Resume::kYes) {
        throw Error("run", run.string(), ": nothing to resume: ", state.string(), " is not there");
    }
    return started;
}

FileLock lock(const fs::path& run) {
    make_directory(run / "checkpoints", "run");
    return {run / ".lock", "run", run.string() + ": found a run at work in this folder"};
}

}  // namespace

RunFolder::RunFolder(fs::path path, Resume resume, bool writes)
    : path_(std::move(path)), resumes_(find_started(state(), path_, resume)) {
    if (!writes) return;
    lock_.emplace(lock(path_));
    std::error_code ignored;  // what a run that never came to a checkpoint logged
    if (!resumes_) fs::remove(path_ / "metrics.jsonl", ignored);
}

void RunFolder::save_config(const Experiment& experiment) const {
    if (!writes()) return;
    write_file_atomically(path_ / "config.yaml", write_config(experiment), "run");
}

void RunFolder::log_metrics(const nlohmann::json& line) const {
    if (!writes()) return;
    const fs::path file = path_ / "metrics.jsonl";
    std::ofstream out(file, std::ios::app);
    out << json_text(line) << '\n' << std::flush;
    if (!out) throw Error("run", file.string(), ": cannot be written; is the disk full?");
}

void RunFolder::save(Learner& learner, const RunProgress& progress, const DynamicVit& best, at::ScalarType type) const {
    if (!writes()) return;
    TensorMap tensors = learner.state();
    tensors.emplace("progress.step", at::scalar_tensor(progress.step, at::kLong));
    tensors.emplace("progress.best_top1",
                    at::scalar_tensor(progress.best_top1, at::kDouble));  // reads back to the same bits
    tensors.emplace("progress.skipped", at::scalar_tensor(progress.skipped, at::kLong));
    tensors.emplace("progress.steps_per_epoch", at::scalar_tensor(progress.steps_per_epoch, at::kLong));
    tensors.emplace("progress.threads", at::scalar_tensor(progress.threads, at::kLong));
    write_model_file(last(), *learner.outcome(), type, learner.preprocessing);
    if (learner.ema) write_model_file(ema(), *learner.ema->average(), type, learner.preprocessing);
    if (best) write_model_file(this->best(), *best, type, learner.preprocessing);
    Metadata hashes;
    for (const SourceFile& source : learner.sources) hashes.emplace(hash_key(source), source.sha256);
    // Last: a run that fails before it does these steps, and these files, again.
    write_safetensors(state(), tensors, hashes);
}

RunProgress RunFolder::restore(Learner& learner, std::int64_t steps_per_epoch) const {
    const std::string file = state().string();
    const Safetensors read = read_safetensors(state());
    const TensorMap& tensors = read.tensors;
    learner.load_state(tensors, file);
    const auto number = [&](const char* name) {
        const auto found = tensors.find(name);
        if (found == tensors.end() || found->second.numel() != 1)
            throw Error("run", file, ": does not say how far the run was");
        return found->second;
    };
    RunProgress progress{number("progress.step").item<std::int64_t>(), number("progress.best_top1").item<double>(),
                         number("progress.skipped").item<std::int64_t>(),
                         number("progress.steps_per_epoch").item<std::int64_t>()};
    const auto threads = tensors.find("progress.threads");  // earlier checkpoints have none
    if (threads != tensors.end()) progress.threads = threads->second.item<std::int64_t>();
    if (progress.steps_per_epoch != steps_per_epoch) {
        throw Error("run", file, ": the run has ", progress.steps_per_epoch, " steps an epoch, found ", steps_per_epoch,
                    ", expected unchanged pictures, train.batch_size and train.accumulate");
    }
    verify_sources(learner, read.metadata, file);
    if (!writes()) return progress;

    const fs::path metrics = path_ / "metrics.jsonl";
    std::ifstream in(metrics);
    std::string kept;
    for (std::string line; std::getline(in, line);) {
        const auto parsed = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!parsed.is_object()) continue;
        const auto step = parsed.find("step");
        const bool later = step != parsed.end() && step->is_number() && step->get<double>() > progress.step;
        if (!later) kept += line + '\n';
    }
    write_file_atomically(metrics, kept, "run");
    return progress;
}

}  // namespace dynvit
