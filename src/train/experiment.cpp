#include "dynvit/train/experiment.hpp"

#include "dynvit/core/error.hpp"
#include "dynvit/models/keep_ratio.hpp"
#include "dynvit/models/macs.hpp"

namespace dynvit {

void TrainSettings::fields(FieldVisitor& v) {
    v.field("epochs", epochs, "passes over the training pictures", at_least(1));
    v.field("max_steps", max_steps, "stop after so many steps; 0: after all epochs", at_least(0));
    v.field("batch_size", batch_size, "pictures a step", at_least(1));
    v.field("accumulate", accumulate, "batches whose gradients are added up before a step", at_least(1));
    v.field("keep_ratio", keep_ratio, "target rho (stages aim at rho, rho^2, ...), or a target a stage",
            above_up_to(0, 1));
    v.field("target_gmacs", target_gmacs,
            "in place of keep_ratio: the largest rho of at most so many GMACs; 0: keep_ratio", at_least(0));
    v.field("weights", weights, "start from this safetensors or .pth file; '': from random weights");
    v.field("teacher", teacher, "dense teacher's safetensors or .pth file; '': the starting weights");
    v.field("blend", blend,
            "what is saved and evaluated: this share of the way from the starting weights to the trained ones, which "
            "forgets less; 1: the trained ones",
            between(0, 1));
    v.field("precision", precision, "of matrix products", std::vector<std::string>{"float32", "bfloat16", "float16"});
    v.field("device", device, "auto (the GPU if there is one), cpu, cuda, cuda:1, ...");
    v.field("record_steps", record_steps,
            "on a GPU: start a step whose shapes repeat as one recorded piece (CUDA graph)");
    v.field("seed", seed, "of the order of pictures, augmentation, decisions, new weights", at_least(0));
    v.field("log_every", log_every, "steps between lines of metrics.jsonl", at_least(1));
    v.field("eval_every", eval_every, "epochs between evaluations; the last epoch always; 0: never", at_least(0));
    v.field("save_every", save_every, "epochs between checkpoints; the last epoch always", at_least(1));
    v.field("save_as", save_as, "type of the weights in last and best.safetensors (training goes on in float32)",
            std::vector<std::string>{"float32", "bfloat16", "float16"});
    v.field("best_by", best_by, "top-1 that chooses best.safetensors and its weights; *_ema: of the averaged weights",
            std::vector<std::string>{"pruned", "dense", "pruned_ema", "dense_ema"});
    v.field("stop_at", stop_at, "stop once that top-1 reaches so many percent; 0: never", between(0, 100));
    v.field("max_skipped_steps", max_skipped_steps,
            "so many steps in a row without a finite loss and gradient stop the run", at_least(1));
    v.field("tensorboard", tensorboard, "write RUN/tensorboard too: scalars and kept tokens");
    v.section("schedule", schedule, "learning rate: linear warm-up, then half a cosine");
    v.section("optimizer", optimizer, "AdamW");
    v.section("loss", loss, "weights of the losses");
    v.section("selection", selection, "which tokens go on in training");
    v.section("mixup", mixup, "pictures blended two by two");
    v.section("ema", ema, "running average of the weights");
    if (v.reads() && blend < 1 && (weights.empty() || ema.on())) {
        v.reject("blend", str("is ", blend, weights.empty() ? ", expected train.weights" : ", expected ema.decay 0",
                              " with a blend below 1"));
    }
    if (ema.on() == false && best_by.ends_with("_ema"))
        v.reject("best_by", "found " + best_by + ", expected ema.decay above 0 with it");
}

std::vector<double> TrainSettings::stage_targets(std::int64_t stages) const {
    return static_cast<std::int64_t>(keep_ratio.size()) == stages && stages != 1
               ? keep_ratio
               : stage_ratios(keep_ratio.front(), stages);
}

void Experiment::fields(FieldVisitor& v) {
    v.section("model", model, "the network");
    v.section("data", data, "the pictures");
    v.section("train", train, "the training");
    if (v.reads() && train.target_gmacs > 0 && model.stages() > 0) {
        const double rho = find_keep_ratio(model, train.target_gmacs);
        if (rho > 0) {
            train.keep_ratio = {rho};
        } else {
            v.reject("train", str("target_gmacs is ", train.target_gmacs, ", expected at least the ",
                                  1e-9 * static_cast<double>(
                                             count_macs(model, std::vector<std::int64_t>(model.pruning_loc.size(), 0))),
                                  " of a model that keeps no patch"));
        }
    }
    const auto given = static_cast<std::int64_t>(train.keep_ratio.size());
    if (given == 0 || (given > 1 && given != model.stages())) {
        v.reject("train", str("keep_ratio has ", given, " numbers, expected one or as many as model.pruning_loc, ",
                              model.stages()));
    }
    for (std::size_t i = 1; i < train.keep_ratio.size(); ++i) {
        if (train.keep_ratio[i] > train.keep_ratio[i - 1]) {
            v.reject("train", str("keep_ratio has ", train.keep_ratio[i], " after ", train.keep_ratio[i - 1],
                                  ", expected shares that do not grow: a dropped patch does not come back"));
        }
    }
    if (v.reads() && train.optimizer.frozen_blocks > model.depth) {
        v.reject("train", str("optimizer.frozen_blocks is ", train.optimizer.frozen_blocks,
                              ", expected at most model.depth, ", model.depth));
    }
    const bool draws_to_the_end = model.stages() > 0 && train.selection.deterministic_from >= 1;
    if (v.reads() && !train.loss.teach(draws_to_the_end)) {
        v.reject("train",
                 "loss has no weight above 0 that moves the backbone, expected classification, kl or distill "
                 "above 0, or ratio with stages that are drawn to the end");
    }
    if (v.reads() && train.stop_at > 0 && train.eval_every == 0) {
        v.reject("train", "stop_at is set, expected eval_every above 0 with it");
    }
    if (v.reads() && train.target_gmacs > 0 && model.stages() == 0) {
        v.reject("train", "target_gmacs is set, expected model.pruning_loc to name stages that can save them");
    }
    for (const Loss& loss : all_losses()) {
        if (v.reads() && !data.labelled && loss.needs_labels && train.loss.weights.at(loss.name) > 0) {
            v.reject("train", str("loss.", loss.name, " is ", train.loss.weights.at(loss.name),
                                  ", expected 0 where data.labelled is false"));
        }
    }
    if (v.reads() && train.loss.need_teacher() && train.weights.empty() && train.teacher.empty()) {
        v.reject("train", str("the losses ", join(loss_names(&Loss::needs_teacher), ", "),
                              " need a teacher: give train.weights or train.teacher, or set them to 0 in loss"));
    }
}

}  // namespace dynvit
