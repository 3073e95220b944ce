#include "dynvit/infer/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/dist/process_group.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/infer/multi_label.hpp"
#include "dynvit/infer/nearest_neighbours.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kNoLabel = -1;

// Sums over the batches of one case; on the device until the end, so that no batch waits for the host.
struct Tally {
    std::shared_ptr<InferenceSession> session;
    EvalResult result;
    bool independent_classes = false;
    // (8): top-1, top-5, loss; lost, gained, agreeing with the dense model, KL and cosine to it
    at::Tensor sums;
    at::Tensor named, right;                        // of this batch: (B) the class named, (B) whether it is the label
    at::Tensor outputs, log_probs;                  // of this batch: (B, K)
    at::Tensor looked_up;                           // pictures whose neighbours are of their class; undefined: unasked
    std::vector<at::Tensor> found;                  // a stage: object patches kept
    std::vector<std::vector<std::int64_t>> counts;  // of an own number in each image, a stage: of every image so far
    std::vector<at::Tensor> scores;                 // multi-label: (B, K) of every batch so far
    const Tally* compared = nullptr;                // with which this one is; null if there is none

    // @param labels (B), or rows of classes (B, K); undefined: there are none
    // @param objects (B, N), bool, or undefined
    // @param dense the dense model's tally after the same batch; null if there is none
    void add(const SessionOutput& output, const at::Tensor& labels, const at::Tensor& objects, const Tally* dense) {
        const at::Tensor logits = output.logits.to(at::kFloat);
        const std::int64_t candidates = std::min<std::int64_t>(5, logits.size(1));
        const at::Tensor top = std::get<1>(logits.topk(candidates, 1));  // (B, 5)
        result.labelled = labels.defined();
        result.multi_label = result.labelled && labels.dim() == 2;
        compared = dense;
        const bool one_label = result.labelled && !result.multi_label;
        const at::Tensor best = one_label ? top == labels.unsqueeze(1) : at::zeros_like(top, at::kBool);
        named = top.select(1, 0);
        right = best.select(1, 0);
        outputs = logits;
        log_probs = at::log_softmax(logits, -1);
        at::Tensor loss = at::zeros({1}, logits.options());
        if (one_label) loss = log_probs.gather(1, labels.unsqueeze(1)).neg();
        if (result.multi_label) {
            loss = at::binary_cross_entropy_with_logits(logits, labels.to(at::kFloat)) * logits.size(0);
            scores.push_back(logits.clone());  // what a session gives may be written again
        }
        std::vector<at::Tensor> values = {right.sum(), best.sum(), loss.sum()};
        if (dense) {
            values.push_back(dense->right.logical_and(right.logical_not()).sum());
            values.push_back(right.logical_and(dense->right.logical_not()).sum());
            values.push_back((named == dense->named).sum());
            values.push_back(independent_classes || result.multi_label
                                 ? independent_kl(logits, dense->outputs).sum()
                                 : (dense->log_probs.exp() * (dense->log_probs - log_probs)).sum());
            values.push_back(at::cosine_similarity(dense->outputs, outputs, 1).sum());
        }
        for (at::Tensor& value : values) value = value.to(at::kDouble);
        const at::Tensor batch = at::stack(values);
        sums = sums.defined() ? sums + batch : batch;
        counts.resize(result.thresholds.size());
        for (std::size_t s = 0; s < counts.size(); ++s) {
            counts[s].insert(counts[s].end(), output.counts[s].begin(), output.counts[s].end());
        }
        if (!objects.defined()) return;
        found.resize(output.kept.size());
        for (std::size_t s = 0; s < output.kept.size(); ++s) {
            const at::Tensor& places = output.kept[s];
            const at::Tensor is_place = places != kFused;
            const at::Tensor kept = objects.flatten().index_select(0, places.clamp_min(0)).logical_and(is_place).sum();
            found[s] = found[s].defined() ? found[s] + kept : kept;
        }
    }

    // Of the same batch. @param labels (B)
    void look_up(const NeighbourBank& neighbours, const at::Tensor& labels) {
        const at::Tensor count = neighbours.classify(outputs).eq(labels).sum();
        looked_up = looked_up.defined() ? looked_up + count : count;
    }

    // What several processes have, put together in each of them.
    void put_together(const ProcessGroup& group) {
        std::vector<at::Tensor> totals = {sums};
        if (looked_up.defined()) totals.push_back(looked_up);
        totals.insert(totals.end(), found.begin(), found.end());
        std::vector<at::Tensor> added;
        for (at::Tensor& total : totals) added.push_back(total.to(at::kCPU, at::kDouble));
        group.add_up(added);
        std::size_t next = 0;
        sums = added[next++];
        if (looked_up.defined()) looked_up = added[next++];
        for (at::Tensor& kept : found) kept = added[next++];
        if (!scores.empty()) scores = {group.gather_rows(at::cat(scores).cpu())};
        for (std::vector<std::int64_t>& stage : counts) {
            const at::Tensor all = group.gather_rows(at::tensor(at::ArrayRef<std::int64_t>(stage), at::kLong));
            stage.assign(all.const_data_ptr<std::int64_t>(), all.const_data_ptr<std::int64_t>() + all.numel());
        }
    }

    // @param rows of classes of all images, (images, K); undefined where there are none
    EvalResult finish(std::int64_t images, double object_total, const at::Tensor& rows) {
        result.images = images;
        if (images == 0) return result;
        if (result.multi_label) {
            const MeanAveragePrecision found_map = mean_average_precision(at::cat(scores), rows);
            result.map = 100 * found_map.mean;
            result.map_classes = found_map.classes;
            if (compared) result.map_lost = compared->result.map - result.map;  // that one is finished
        }
        const at::Tensor host = sums.cpu();
        result.top1_count = static_cast<std::int64_t>(host[0].item<double>());
        result.top5_count = static_cast<std::int64_t>(host[1].item<double>());
        result.loss = host[2].item<double>() / static_cast<double>(images);
        if (host.size(0) > 3) {
            result.lost = static_cast<std::int64_t>(host[3].item<double>());
            result.gained = static_cast<std::int64_t>(host[4].item<double>());
            result.agree = static_cast<std::int64_t>(host[5].item<double>());
            result.kl = host[6].item<double>() / static_cast<double>(images);
            result.cosine = host[7].item<double>() / static_cast<double>(images);
        }
        if (looked_up.defined()) result.knn_count = static_cast<std::int64_t>(looked_up.item<double>());
        for (const at::Tensor& kept : found) result.object_kept_per_stage.push_back(kept.item<double>() / object_total);
        if (!counts.empty()) finish_counts(static_cast<std::size_t>(images));
        return result;
    }

  private:
    void finish_counts(std::size_t images) {
        double gmacs = 0;
        for (std::size_t i = 0; i < images; ++i) {
            std::vector<std::int64_t> kept;
            for (const std::vector<std::int64_t>& stage : counts) kept.push_back(stage[i]);
            gmacs += session->gmacs(kept);
        }
        result.gmacs = gmacs / static_cast<double>(images);
        result.tokens_per_stage.clear();
        for (std::vector<std::int64_t>& stage : counts) {
            std::ranges::sort(stage);
            const double sum = std::accumulate(stage.begin(), stage.end(), 0.0);
            result.tokens_per_stage.push_back(std::llround(sum / static_cast<double>(images)));
            const auto quartile = [&](std::size_t i) { return stage[i * (images - 1) / 4]; };
            result.spread.push_back({quartile(0), quartile(1), quartile(2), quartile(3), quartile(4)});
        }
        result.gmacs_per_stage = session->gmacs_per_stage(result.tokens_per_stage);
        if (result.keep_ratio == 0) {  // given thresholds: what they come to
            const auto first = static_cast<double>(result.tokens_per_stage.front());
            result.keep_ratio = first / static_cast<double>(session->settings().patches());
        }
    }
};

using Engine = std::shared_ptr<const InferenceModel>;

// Weights laid out for inference, once for each model.
class Engines {
  public:
    explicit Engines(const EvalOptions& options) : options_(options) {}
    const Engine& of(const DynamicVit& model) {
        Engine& engine = engines_[model.get()];
        if (!engine) {
            engine = std::make_shared<const InferenceModel>(*model, options_.precision, options_.preprocessing);
        }
        return engine;
    }

  private:
    const EvalOptions& options_;
    std::map<const DynamicVitImpl*, Engine> engines_;
};

Tally prepare_case(const EvalCase& one, const Engine& model, const EvalOptions& options) {
    Tally tally;
    tally.session =
        std::make_shared<InferenceSession>(model, one.plan, PolicyInputs{options.calibration, options.seed});
    const PruningPlan& plan = tally.session->plan();
    tally.independent_classes = options.independent_classes;
    tally.result.policy = plan.dense() ? "dense" : plan.policy;
    tally.result.keep_ratio = plan.dense() ? 1.0 : one.keep_ratio;
    tally.result.tokens_per_stage = plan.tokens;
    tally.result.thresholds = plan.thresholds;
    tally.result.classifies = model->settings().classifies();
    tally.result.gmacs = tally.session->gmacs();
    tally.result.gmacs_per_stage = tally.session->gmacs_per_stage();
    if (tally.session->policy().selects == Selects::kAveraged) {
        tally.result.keep_ratio =
            static_cast<double>(plan.tokens.front()) / static_cast<double>(model->settings().patches());
    }
    return tally;
}

std::vector<Tally> prepare(const DynamicVit& model, const std::vector<EvalCase>& cases, const EvalOptions& options) {
    Engines engines(options);
    std::vector<Tally> tallies;
    if (options.baseline) {
        tallies.push_back(prepare_case({}, engines.of(options.baseline), options));
        tallies.back().result.policy = "baseline";
    }
    for (const EvalCase& one : cases) {
        tallies.push_back(prepare_case(one, engines.of(one.model ? one.model : model), options));
    }
    return tallies;
}

// @param labels (B), or rows of classes (B, K)
void check_labels(const at::Tensor& labels, std::int64_t classes) {
    if (labels.dim() == 2) {
        if (labels.size(1) <= classes) return;
        throw Error("eval", "the data has ", labels.size(1), " classes, but the model has ", classes,
                    ": give the class list that fixes the indices (--classes), or the right model");
    }
    const std::int64_t low = labels.min().item<std::int64_t>(), high = labels.max().item<std::int64_t>();
    if (low < 0 || high >= classes) {
        throw Error("eval", "the data has a label of ", low < 0 ? low : high, ", but the model has ", classes,
                    " classes: give the class list that fixes the indices (--classes), or the right model");
    }
}

// Every count-th sample, from number `first` on.
class PartOfDataset : public Dataset {
  public:
    PartOfDataset(const Dataset& whole, int first, int count)
        : whole_(whole), first_(static_cast<std::size_t>(first)), count_(static_cast<std::size_t>(count)) {}
    std::size_t size() const override { return (whole_.size() + count_ - 1 - first_) / count_; }
    Sample get(std::size_t index) const override { return whole_.get(first_ + index * count_); }
    std::string name(std::size_t index) const override { return whole_.name(first_ + index * count_); }
    const std::vector<std::string>& class_names() const override { return whole_.class_names(); }
    bool labelled() const override { return whole_.labelled(); }
    bool multi_label() const override { return whole_.multi_label(); }

  private:
    const Dataset& whole_;
    const std::size_t first_, count_;
};

// A WordNet id, as ImageNet's class folders have for a name.
bool is_of_imagenet(const std::string& folder) {
    constexpr std::size_t kDigits = 8;
    return folder.size() == 1 + kDigits && folder.front() == 'n' &&
           std::all_of(folder.begin() + 1, folder.end(), [](char letter) { return letter >= '0' && letter <= '9'; });
}

}  // namespace

void check_class_count(const std::string& list, std::int64_t found, std::int64_t expected) {
    if (found != expected) {
        throw Error("classes", list, ": names ", found, " classes, expected the model's ", expected);
    }
}

void warn_of_numbering(const Dataset& pictures, std::int64_t classes) {
    // ImageNet-1k, and heads of ImageNet-21k: all of it, with one class more, of winter 2021, of 21k-P.
    constexpr std::int64_t kImageNet[] = {1000, 21841, 21843, 19167, 11221};
    const std::vector<std::string> folders = pictures.numbered_folders();
    if (folders.empty()) return;
    const auto other = std::ranges::find_if_not(folders, is_of_imagenet);
    const bool named_otherwise = std::ranges::find(kImageNet, classes) != std::end(kImageNet) && other != folders.end();
    if (std::ssize(folders) == classes && !named_otherwise) return;
    log::warn(str(folders.size(), " classes were numbered 0 to ", folders.size() - 1, " by their names",
                  named_otherwise ? str(" (", *other, " is none of ImageNet's)") : "", "; the model has ", classes,
                  " classes: give a class list (--classes, data.classes) if they are not its first ", folders.size(),
                  ", in this order"));
}

at::Tensor calibration_pictures(const Dataset& pictures, const SampleTransform& transform, LoaderOptions options) {
    options.batch_size = std::min(kCalibrationPictures, static_cast<std::int64_t>(pictures.size()));
    options.shuffle = true;  // from all over the data set
    Loader loader(pictures, transform, options);
    const std::optional<Batch> first = loader.next();
    return first ? first->images : at::Tensor();
}

double EvalResult::drop_error() const {  // of the mean of images values that are 1, -1 or 0
    if (images == 0) return 0.0;
    const double n = static_cast<double>(images), changed = static_cast<double>(lost + gained) / n;
    const double mean = static_cast<double>(lost - gained) / n;
    return 100.0 * std::sqrt((changed - mean * mean) / n);
}

at::Tensor object_patches(const std::vector<std::uint8_t>& mask, const ModelSettings& s) {
    const at::Tensor pixels = at::tensor(at::ArrayRef<std::uint8_t>(mask), at::kFloat)
                                  .view({s.grid_height(), s.patch_size, s.grid_width(), s.patch_size});
    return (pixels.mean(at::IntArrayRef{1, 3}) >= 0.5).flatten();
}

std::vector<EvalResult> evaluate(DynamicVit model, const std::vector<EvalCase>& cases, Loader& loader,
                                 const EvalOptions& options, const std::function<void(std::int64_t)>& progress) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model->settings();
    std::vector<Tally> tallies = prepare(model, cases, options);
    std::int64_t images = 0;
    double object_total = 0;
    std::vector<at::Tensor> rows;  // of classes, a batch
    while (std::optional<Batch> batch = loader.next()) {
        if (batch->images.size(0) == 0) continue;
        const bool labelled =
            settings.classifies() && (batch->labels.dim() == 2 || batch->labels.ne(kNoLabel).any().item<bool>());
        if (labelled) check_labels(batch->labels, settings.num_classes);
        if (labelled && batch->labels.dim() == 2) {
            batch->labels = widen_rows(batch->labels, settings.num_classes).to(at::kLong);
            rows.push_back(batch->labels);
        }
        const at::Tensor inputs =
            normalize_images(batch->images, options.device, options.preprocessing);  // once for all cases
        at::Tensor labels, classes;  // of the pictures: what a head tells; what neighbours tell
        if (labelled || options.neighbours) {
            classes = batch->labels.to(options.device, at::kLong, /*non_blocking=*/true);
            if (labelled) labels = classes;
        }
        at::Tensor objects;  // (B, N)
        if (std::ranges::none_of(batch->object_masks, [](const auto& mask) { return mask.empty(); })) {
            std::vector<at::Tensor> patches;
            for (const auto& mask : batch->object_masks) patches.push_back(object_patches(mask, settings));
            objects = at::stack(patches);
            object_total += objects.sum().item<double>();
            objects = objects.to(options.device);
        }
        const Tally* dense = nullptr;
        for (Tally& tally : tallies) {
            const bool is_dense = tally.session->plan().dense();
            const Tally* beside = is_dense && !options.baseline ? nullptr : dense;
            tally.add(tally.session->run(inputs), labels, objects, beside);
            if (options.neighbours) tally.look_up(*options.neighbours, classes);
            if (is_dense && (!dense || !options.baseline)) dense = &tally;
        }
        images += inputs.size(0);
        if (progress) progress(images);
    }
    std::vector<EvalResult> results;
    at::Tensor all_rows = rows.empty() ? at::Tensor() : at::cat(rows);
    if (options.group) {
        at::Tensor totals = at::tensor({static_cast<double>(images), object_total}, at::kDouble);
        options.group->add_up(totals);
        images = static_cast<std::int64_t>(totals[0].item<double>());
        object_total = totals[1].item<double>();
        for (Tally& tally : tallies) tally.put_together(*options.group);
        if (all_rows.defined()) all_rows = options.group->gather_rows(all_rows);
    }
    for (Tally& tally : tallies) results.push_back(tally.finish(images, object_total, all_rows));
    return results;
}

std::vector<EvalResult> evaluate_split(DynamicVit model, const std::vector<EvalCase>& cases, const DataSettings& data,
                                       std::int64_t batch_size, const EvalOptions& options) {
    const ModelSettings& settings = model->settings();
    const auto pictures = make_dataset(data, Split::kVal, settings.image_height(), settings.image_width());
    if (settings.classifies() && pictures->labelled()) {
        const std::int64_t classes = std::ssize(pictures->class_names());
        if (!data.classes.empty()) check_class_count(data.classes, classes, settings.num_classes);
        warn_of_numbering(*pictures, settings.num_classes);
    }
    return evaluate_split(std::move(model), cases, *pictures, data, batch_size, options);
}

std::vector<EvalResult> evaluate_split(DynamicVit model, const std::vector<EvalCase>& cases, const Dataset& pictures,
                                       const DataSettings& data, std::int64_t batch_size, const EvalOptions& options) {
    const ModelSettings& settings = model->settings();
    LoaderOptions loading = loader_options(data, Split::kVal);
    loading.batch_size = batch_size;
    loading.pin_memory = options.device.is_cuda();
    const SampleTransform transform =
        make_transform(data, Split::kVal, settings.image_height(), settings.image_width());
    EvalOptions run = options;
    run.preprocessing = data.preprocessing;
    const auto learns = [](const EvalCase& one) { return needs_pictures(one.plan); };
    if (!run.calibration.defined() && std::ranges::any_of(cases, learns)) {
        run.calibration = calibration_pictures(pictures, transform, loading);
    }
    const ProcessGroup* const group = run.group;
    if (group && pictures.size() < static_cast<std::size_t>(group->size())) {
        throw Error("eval", "found ", pictures.size(), " pictures for ", group->size(),
                    " processes, expected one each at least");
    }
    const PartOfDataset part(pictures, group ? group->rank() : 0, group ? group->size() : 1);
    Loader loader(part, transform, loading);
    std::optional<Progress> bar;
    if (!group || group->leads()) bar.emplace("evaluating", static_cast<std::int64_t>(part.size()));
    using Clock = std::chrono::steady_clock;
    const Clock::time_point start = Clock::now();
    std::vector<EvalResult> results = evaluate(model, cases, loader, run, [&](std::int64_t done) {
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (bar) bar->update(done, fixed(static_cast<double>(done) / seconds, 0) + " img/s");
    });
    const std::vector<CorruptSample> corrupt = loader.corrupt();
    if (corrupt.size() == part.size()) {
        throw Error("eval", "none of the ", corrupt.size(),
                    " pictures can be read; the first: ", corrupt.front().reason);
    }
    for (const CorruptSample& sample : corrupt) log::warn("left out: " + sample.reason);
    return results;
}

}  // namespace dynvit
