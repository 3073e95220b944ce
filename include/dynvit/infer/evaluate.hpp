// Accuracy of a model, dense and pruned, over a data set.
#pragma once

#include <array>
#include <cmath>
#include <functional>
#include <memory>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/infer/selection_policy.hpp"

namespace dynvit {

class NeighbourBank;  // nearest_neighbours.hpp
class ProcessGroup;   // process_group.hpp

/// One way to run the model.
struct EvalCase {
    PruningPlan plan = {};
    double keep_ratio = 1.0;    // what results call it; 0: the share of the patches that stage 1 turns out to keep
    DynamicVit model{nullptr};  // in place of the model of all cases, and of its sizes; empty: that one
};

struct EvalResult {
    std::string policy;  // "dense" for a plan that drops nothing, "baseline" for EvalOptions::baseline
    double keep_ratio = 1.0;
    std::int64_t images = 0;
    bool labelled = true;  // false: the next three, and lost and gained, are of no meaning
    std::int64_t top1_count = 0;
    std::int64_t top5_count = 0;
    double loss = 0.0;  // cross-entropy with the labels, mean; multi_label: binary
    /// Pictures of any number of classes each: `map` and `map_lost` take the place of top1_count, top5_count, lost and
    /// gained.
    bool multi_label = false;
    double map = 0.0;                                 // mean average precision, percent, see mean_average_precision
    std::int64_t map_classes = 0;                     // over so many classes: those that any picture has
    double map_lost = 0.0;                            // percent that the case which this one is compared with has more
    double gmacs = 0.0;                               // of one image; per_image: the mean
    std::vector<double> gmacs_per_stage;              // see count_macs_per_stage; per_image: of its mean counts
    std::vector<std::int64_t> tokens_per_stage;       // per_image: the rounded mean; empty: dense
    std::vector<double> thresholds;                   // per_image
    std::vector<std::array<std::int64_t, 5>> spread;  // per_image, a stage: least, quartiles and most of the images
    /// Beside the baseline or, without one, a pruned case beside the last dense one before it, on the same pictures:
    /// pictures that only it, or only this one, gets right, and those where both name the same class. -1 where there is
    /// neither.
    std::int64_t lost = -1, gained = -1, agree = -1;
    double kl = 0.0;         // KL(that other case's class probabilities || this one's), nats, mean; needs no labels;
                             // see EvalOptions::independent_classes
    double cosine = 0.0;     // of that other case's outputs and this one's, mean: what tells of a model without a head
    bool classifies = true;  // false: the outputs are an embedding, and agree and kl of no meaning
    /// Pictures whose nearest neighbours tell their class, see EvalOptions::neighbours; -1 without those.
    std::int64_t knn_count = -1;
    /// Share of the object's patches (those at least half covered by it) that each stage keeps, where the data set
    /// knows its objects; empty elsewhere.
    std::vector<double> object_kept_per_stage;

    /// Whether the figures mean anything: outputs that are no numbers leave no loss, KL or cosine.
    bool finite() const { return std::isfinite(loss) && !std::isnan(kl) && !std::isnan(cosine); }
    double top1() const { return images ? 100.0 * static_cast<double>(top1_count) / static_cast<double>(images) : 0.0; }
    /// What tells the better of two models, percent: top-1, or `map`.
    double accuracy() const { return multi_label ? map : top1(); }
    bool paired() const { return agree >= 0; }
    /// Percent of the pictures for which both cases name the same class.
    double agreement() const { return images ? 100.0 * static_cast<double>(agree) / static_cast<double>(images) : 0.0; }
    /// Percent of the pictures that dropping tokens costs, and its standard error over the pictures (McNemar's).
    double drop() const {
        return images ? 100.0 * static_cast<double>(lost - gained) / static_cast<double>(images) : 0.0;
    }
    double drop_error() const;
    bool has_knn() const { return knn_count >= 0; }
    double knn() const { return images ? 100.0 * static_cast<double>(knn_count) / static_cast<double>(images) : 0.0; }
    double top5() const { return images ? 100.0 * static_cast<double>(top5_count) / static_cast<double>(images) : 0.0; }
};

struct EvalOptions {
    at::Device device = at::kCPU;
    at::ScalarType precision = at::kFloat;  // see InferenceModel
    std::uint64_t seed = 0;                 // of the random policy
    DynamicVit baseline{nullptr};           // run dense before all cases, which are compared with it; may be empty
    at::Tensor calibration = {};            // (M, 3, H, W), uint8: pictures that policies learn from; may be undefined
    Preprocessing preprocessing = {};       // how pixels are scaled; evaluate_split takes the data's
    /// Among what the class of each labelled picture is looked up by the model's outputs, which are an embedding; may
    /// be null.
    std::shared_ptr<const NeighbourBank> neighbours = {};
    /// Classes do not exclude each other: the divergence is independent_kl's. Multi-label pictures say so themselves.
    bool independent_classes = false;
    /// Of processes that share the pictures, each once; all of them get the results of them all. Null: this one is
    /// alone.
    const ProcessGroup* group = nullptr;
};

/// Runs every case on every batch, so that the pictures are decoded once. Pictures without labels (-1) tell how far
/// pruning agrees with the dense model; multi-label ones mean average precision in place of top-1.
/// @param progress told the number of images done after each batch; may be empty
/// Throws Error for a label that the model has no class for.
std::vector<EvalResult> evaluate(DynamicVit model, const std::vector<EvalCase>& cases, Loader& loader,
                                 const EvalOptions& options, const std::function<void(std::int64_t)>& progress = {});

/// Evaluates on the settings' validation pictures (or on `pictures`, which are those), a progress bar beside. Policies
/// that learn from pictures take calibration_pictures, without labels, where the options bring none. Corrupt
/// pictures are left out and named in the log; with data.strict, or where no picture is left, they are an Error.
/// Without `pictures`, a class list (data.classes) that has not as many classes as the model is an Error, too, and the
/// log warns as warn_of_numbering does.
std::vector<EvalResult> evaluate_split(DynamicVit model, const std::vector<EvalCase>& cases, const DataSettings& data,
                                       std::int64_t batch_size, const EvalOptions& options);
std::vector<EvalResult> evaluate_split(DynamicVit model, const std::vector<EvalCase>& cases, const Dataset& pictures,
                                       const DataSettings& data, std::int64_t batch_size, const EvalOptions& options);

/// Throws Error where a class list has not as many classes as the model. @param list the file, for the message
void check_class_count(const std::string& list, std::int64_t found, std::int64_t expected);

/// Warns where sorted folder names number the classes and a model of `classes` classes is likely to number them
/// otherwise: it has another number of them, or as many as ImageNet, whose names these are not.
void warn_of_numbering(const Dataset& pictures, std::int64_t classes);

/// kCalibrationPictures of the pictures, at random, as they go into the model: (M, 3, H, W), uint8. Corrupt ones are
/// left out; undefined where none is left. @param options how they are read
at::Tensor calibration_pictures(const Dataset& pictures, const SampleTransform& transform, LoaderOptions options);

/// Which patches belong to the object, those at least half covered. @param mask (H x W) @return (N), bool
at::Tensor object_patches(const std::vector<std::uint8_t>& mask, const ModelSettings& settings);

}  // namespace dynvit
