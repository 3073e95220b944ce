#include "dynvit/train/learner.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "dynvit/core/error.hpp"
#include "dynvit/core/random.hpp"
#include "dynvit/core/sha256.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/train/seed_use.hpp"
#include "dynvit/weights/model_file.hpp"
#include "dynvit/weights/model_files.hpp"

namespace dynvit {
namespace {

constexpr const char* kParameter = "parameter.";
constexpr const char* kEma = "ema.";

// What the start is was said when the experiment was read; data.mean and data.std say how pictures are normalized.
ReadOptions reading(bool is_start) {
    return {.known = {.normalization_known = true}, .quiet = is_start};
}

// The weights that training starts from; none: it starts from random ones.
std::optional<ModelFile> read_start(const TrainSettings& settings) {
    if (settings.weights.empty()) return std::nullopt;
    return read_model_file(settings.weights, reading(true));
}

DynamicVit make_student(const Experiment& e, const std::optional<ModelFile>& start, const at::Device& device) {
    DynamicVit model(e.model, at::make_generator<at::CPUGeneratorImpl>(seed_for(e.train.seed, SeedUse::kWeights)));
    if (start) {
        load_weights(*model, *start, Fit::kFineTune);
        warn_of_other_scaling(*start, e.data.preprocessing, "the start");
    }
    model->to(device);
    for (auto& item : model->named_parameters()) {  // no gradient where nobody would use it
        item.value().requires_grad_(e.train.optimizer.trains(item.key()));
    }
    return model;
}

// The starting weights are the teacher's, too, where it has none of its own: a file is read once.
std::unique_ptr<const InferenceModel> make_teacher(const Experiment& e, const std::optional<ModelFile>& start,
                                                   const at::Device& device) {
    if (!e.train.loss.need_teacher()) return nullptr;
    const bool is_start = e.train.teacher.empty();
    TORCH_CHECK(!is_start || start.has_value(), "a loss needs a teacher, and there are no weights");
    std::optional<ModelFile> own;
    if (!is_start) own = read_model_file(e.train.teacher, reading(false));
    const ModelFile& file = is_start ? *start : *own;
    try {
        const DynamicVit model = load_dense(file, e.model, device);
        warn_of_other_scaling(file, e.data.preprocessing, "the teacher");
        return std::make_unique<const InferenceModel>(*model, parse_precision(e.train.precision), e.data.preprocessing);
    } catch (const Error& error) {
        throw Error("train", "the teacher, ", is_start ? "train.weights" : "train.teacher", ": ", error.what(),
                    "; expected a dense model of this shape and these classes, or ",
                    join(loss_names(&Loss::needs_teacher), ", "), " 0 in train.loss");
    }
}

std::vector<SourceFile> source_files(const TrainSettings& settings) {
    const bool teaches = settings.loss.need_teacher();
    std::vector<SourceFile> files;
    const auto add = [&](const char* setting, const std::string& path, bool stays) {
        std::vector<std::string> hashes;  // of a folder's weights, which may be in several files
        for (const std::filesystem::path& part : find_model_files(path).weights) {
            hashes.push_back(sha256_of_file(part, "train"));
        }
        files.push_back({setting, path, join(hashes, "+"), stays});
    };
    if (!settings.weights.empty()) {
        add("weights", settings.weights, settings.blend < 1 || (teaches && settings.teacher.empty()));
    }
    if (!settings.teacher.empty() && teaches) add("teacher", settings.teacher, true);
    return files;
}

void add_parameters(TensorMap& state, const std::string& prefix, const DynamicVit& model) {
    for (const auto& [name, tensor] : state_dict(*model)) state.emplace(prefix + name, tensor);
}

void load_parameters(const TensorMap& state, const std::string& prefix, DynamicVit& model, const std::string& file) {
    TensorMap parameters;
    for (const auto& [name, tensor] : state) {
        if (name.starts_with(prefix)) parameters.emplace(name.substr(prefix.size()), tensor);
    }
    const LoadReport report = load_state_dict(*model, parameters);
    if (!report.clean() || report.pos_embed_resized) {
        throw Error("run", file, ": is of another model: ", report.clean() ? "pos_embed differs" : report.text());
    }
}

}  // namespace

TensorMap Learner::state() const {
    TensorMap state = optimizer.state();
    state.merge(scaler.state());
    add_parameters(state, kParameter, student);
    if (ema) add_parameters(state, kEma, ema->average());
    return state;
}

void Learner::load_state(const TensorMap& state, const std::string& file) {
    load_parameters(state, kParameter, student, file);
    if (ema) {
        DynamicVit average = ema->average();
        load_parameters(state, kEma, average, file);
    }
    optimizer.load_state(state, file);
    scaler.load_state(state, file);
}

Learner make_learner(const Experiment& e, const at::Device& device) {
    std::optional<ModelFile> start = read_start(e.train);
    DynamicVit student = make_student(e, start, device);
    std::unique_ptr<const InferenceModel> teacher = make_teacher(e, start, device);
    start.reset();  // as large as the model
    Learner learner{student,
                    std::move(teacher),
                    AdamW(*student, e.train.optimizer),
                    LossScaler(device, parse_precision(e.train.precision) == at::kHalf),
                    std::nullopt,
                    std::nullopt,
                    source_files(e.train),
                    e.data.preprocessing};
    if (e.train.ema.on()) learner.ema.emplace(*student, e.train.ema);
    if (e.train.blend < 1) learner.blend.emplace(*student, e.train.blend);
    return learner;
}

}  // namespace dynvit
