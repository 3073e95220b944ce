// Whole runs on pictures that a test draws: of several classes each, and of a number of classes that only the data
// says.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <fstream>

#include "dynvit/core/config.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/infer/inference_session.hpp"
#include "dynvit/train/trainer.hpp"
#include "dynvit/weights/model_file.hpp"
#include "models/golden_model.hpp"
#include "train_support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;

constexpr int kSide = 32;
constexpr std::uint8_t kColors[4][3] = {{220, 30, 30}, {30, 200, 30}, {30, 30, 220}, {220, 220, 30}};
const char* const kNames[4] = {"red", "green", "blue", "yellow"};

class MultiLabel : public testing::Test {
  protected:
    void SetUp() override {
        log::set_level("off");
        at::set_num_threads(1);  // tensors this small only wait for more
    }
    void TearDown() override {
        at::set_num_threads(threads_);
        log::set_level("info");
    }

    // PICTURES/train and PICTURES/val, each picture half of one colour and half of another, with noise; and a label
    // file that names both.
    void write_pictures(int train, int val) const {
        std::string lines = "path,labels\n";
        Random random(1);
        for (int i = 0; i < train + val; ++i) {
            const auto left = random.integer(0, 4), right = (left + random.integer(1, 4)) % 4;
            Image image(kSide, kSide);
            for (int y = 0; y < kSide; ++y) {
                for (int x = 0; x < kSide; ++x) {
                    for (int c = 0; c < 3; ++c) {
                        const int value = kColors[x < kSide / 2 ? left : right][c];
                        image.at(x, y)[c] = static_cast<std::uint8_t>(value + random.integer(-30, 31));
                    }
                }
            }
            const std::string name = dynvit::str(i < train ? "train/" : "val/", i, ".png");
            fs::create_directories((folder_ / "pictures" / name).parent_path());
            write_png(folder_ / "pictures" / name, image);
            lines += dynvit::str(name, ',', kNames[left], ' ', kNames[right], '\n');
        }
        std::ofstream(folder_ / "labels.csv") << lines;
    }

    Experiment experiment() const {
        Experiment e;
        e.model.name = "custom";
        e.model.image_size = {kSide};
        e.model.patch_size = 8;
        e.model.embed_dim = 16;
        e.model.depth = 3;
        e.model.num_heads = 2;
        e.model.pruning_loc = {1, 2};
        e.num_classes_given = false;
        e.data.root = (folder_ / "pictures").string();
        e.data.labels = (folder_ / "labels.csv").string();
        e.data.workers = 1;
        e.data.preprocessing.resize = kSide;
        e.data.scale = {0.9, 1};
        e.train.epochs = 40;
        e.train.batch_size = 16;
        e.train.device = "cpu";
        e.train.eval_every = 40;
        e.train.save_every = 40;
        e.train.schedule = {
            .lr = 1e-2, .min_lr = 1e-3, .warmup_epochs = 2, .backbone_lr_scale = 1, .backbone_freeze_epochs = 0};
        e.train.loss = test::losses_of({{"classification", 1}, {"ratio", 2}});
        e.train.loss.choices.at("classification_kind") = "binary";
        return e;
    }

    TrainResult train_to(std::int64_t step, Experiment e, const std::string& run) const {
        e.train.max_steps = step;
        return train(e, folder_ / run, {.resume = Resume::kAuto});
    }

    fs::path checkpoint(const std::string& run, const std::string& name) const {
        return folder_ / run / "checkpoints" / (name + ".safetensors");
    }

    test::TemporaryFolder folder_;
    const int threads_ = at::get_num_threads();
};

// The mean over the classes of the mean precision at each picture that has it, scores all different.
double mean_precision(const at::Tensor& scores, const at::Tensor& has) {
    double sum = 0;
    for (std::int64_t c = 0; c < has.size(1); ++c) {
        double hits = 0, of_class = 0, seen = 0;
        const at::Tensor order = scores.select(1, c).argsort(0, /*descending=*/true);
        for (std::int64_t i = 0; i < order.size(0); ++i) {
            ++seen;
            if (has[order[i].item<std::int64_t>()][c].item<std::int64_t>() == 0) continue;
            ++hits;
            of_class += hits / seen;
        }
        sum += of_class / hits;
    }
    return 100 * sum / static_cast<double>(has.size(1));
}

TEST_F(MultiLabel, LearnsAllClassesOfAPicture) {
    write_pictures(64, 16);
    const Experiment e = experiment();
    const TrainResult untrained = train_to(1, e, "untrained"), result = train_to(0, e, "run");
    ASSERT_EQ(result.last_eval.size(), 2u);
    const ModelFile file = read_model_file(checkpoint("run", "last"));
    const ModelSettings& settings = *file.settings;
    EXPECT_EQ(settings.num_classes, 4) << "the data says it";
    DynamicVit model(settings, test::generator());
    load_weights(*model, file, Fit::kEvaluate);
    model->eval();

    const auto pictures = make_dataset(e.data, Split::kVal, kSide, kSide);
    LoaderOptions options = loader_options(e.data, Split::kVal);
    options.batch_size = 16;
    const SampleTransform transform = make_transform(e.data, Split::kVal, kSide, kSide);
    Loader loader(*pictures, transform, options);
    const std::optional<Batch> batch = loader.next();
    ASSERT_TRUE(batch && batch->labels.sizes() == (at::IntArrayRef{16, 4}));
    EXPECT_EQ(batch->labels.sum().item<std::int64_t>(), 32) << "two each";
    const std::vector<PruningPlan> plans = {{}, plan_for_shares(settings, e.train.stage_targets(2))};
    for (std::size_t i = 0; i < plans.size(); ++i) {
        const at::Tensor logits = InferenceSession(*model, plans[i]).run(batch->images).logits;
        const EvalResult& found = result.last_eval[i];
        EXPECT_TRUE(found.multi_label && found.labelled);
        EXPECT_NEAR(found.map, mean_precision(logits, batch->labels), 1e-6);
        EXPECT_EQ(found.map_classes, 4);
        EXPECT_NEAR(found.loss, binary_classification_loss(logits, batch->labels.to(at::kFloat)).item<double>(), 1e-5);
        EXPECT_GT(found.map, 80) << "half of all pictures have a class: 50 by chance";
        EXPECT_GT(found.map, untrained.last_eval[i].map);
    }
    EXPECT_NEAR(result.last_eval[1].map_lost, result.last_eval[0].map - result.last_eval[1].map, 1e-12);
    EXPECT_EQ(result.best_top1, result.last_eval[1].map) << "train.best_by goes by it";
    EXPECT_EQ(read_config<Experiment>(config_from_file(folder_ / "run/config.yaml")).model.num_classes, 4);
}

TEST_F(MultiLabel, MixedPicturesAndAStopChangeNothingOfTheResult) {
    write_pictures(34, 2);
    Experiment e = experiment();
    e.train.epochs = 3;
    e.train.eval_every = 0;
    e.train.mixup = {.mixup = 0.8, .cutmix = 1, .mode = "elem"};
    e.train.loss.target_threshold = 0;
    e.train.loss.label_smoothing = 0;
    EXPECT_EQ(train_to(0, e, "whole").steps, 6);
    train_to(3, e, "parts");
    train_to(0, e, "parts");
    for (const char* name : {"last", "state"}) {
        EXPECT_TRUE(read_file(checkpoint("parts", name), "test") == read_file(checkpoint("whole", name), "test"));
    }
    e.train.mixup = {};
    train_to(0, e, "unmixed");
    EXPECT_FALSE(read_file(checkpoint("unmixed", "last"), "test") == read_file(checkpoint("whole", "last"), "test"));
}

TEST_F(MultiLabel, LearnsFromATeacherOfIndependentClasses) {
    write_pictures(32, 8);
    Experiment e = experiment();
    e.train.epochs = 4;
    e.train.eval_every = 4;
    e.model.pruning_loc = {};
    train_to(0, e, "dense");
    e.model.pruning_loc = {1, 2};
    e.train.weights = checkpoint("dense", "last").string();
    e.train.selection.deterministic_from = 0;
    e.train.loss.weights = test::losses_of({{"kl", 1}, {"saliency", 1}}).weights;
    e.set_num_classes(4);  // no loss reads the labels: they do not say it
    const TrainResult result = train_to(0, e, "pruned");
    ASSERT_EQ(result.last_eval.size(), 2u);
    EXPECT_TRUE(result.last_eval[1].multi_label) << "evaluation has the labels all the same";
    EXPECT_GT(result.last_eval[1].kl, 0);
}

TEST_F(MultiLabel, OneLabelEachByTheBinaryLoss) {  // DeiT III's recipe; top-1 tells how good it is
    Experiment e = experiment();
    e.data = {};
    e.data.kind = "cluttered_shapes";
    e.data.train_images = 32;
    e.data.val_images = 20;
    e.data.workers = 1;
    e.train.epochs = 2;
    e.train.eval_every = 2;
    e.train.mixup = {.mixup = 0.8, .cutmix = 1};
    const TrainResult result = train_to(0, e, "run");
    EXPECT_FALSE(result.last_eval.front().multi_label);
    EXPECT_EQ(result.last_eval.front().images, 20);
}

TEST_F(MultiLabel, SettingsThatDoNotGoTogether) {
    const std::string text = "data: {root: r, labels: l.csv, label_kind: multi}\nmodel: {num_classes: 4}\n";
    const auto fault = [&](const std::string& train) {
        return error_of([&] { read_config<Experiment>({text + train, "a.yaml", {}}); });
    };
    EXPECT_EQ(fault("train: {weights: w}\n"),
              "[config] a.yaml:1: train.loss.classification_kind: found cross_entropy, expected binary with "
              "data.label_kind multi: a picture may have any number of classes");
    EXPECT_NO_THROW(
        read_config<Experiment>({text + "train: {weights: w, loss: {classification_kind: binary}}\n", "a.yaml", {}}));
}

// --- How many classes ---

class ClassCount : public MultiLabel {
  protected:
    Experiment shapes() const {
        Experiment e = experiment();
        e.data = {};
        e.data.kind = "cluttered_shapes";  // of ten
        e.data.train_images = 32;
        e.data.workers = 1;
        e.train.epochs = 1;
        e.train.eval_every = 0;
        e.train.loss = test::losses_of({{"classification", 1}});
        return e;
    }

    std::int64_t trained(const std::string& run) const {
        return read_model_file(checkpoint(run, "last")).settings->num_classes;
    }
};

TEST_F(ClassCount, TheDataSaysItWhereTheSettingsDoNot) {
    Experiment e = shapes();
    train_to(1, e, "open");
    EXPECT_EQ(trained("open"), 10);
    e.num_classes_given = true;
    e.model.num_classes = 12;
    train_to(1, e, "given");
    EXPECT_EQ(trained("given"), 12) << "the data may have fewer";
    e.model.num_classes = 9;
    EXPECT_EQ(error_of([&] { train_to(1, e, "too few"); }),
              "[train] found 10 classes in the data, expected at most model.num_classes, 9");

    // A head of another size starts anew; the rest is the weights' own. The first step's rate is 0.
    e = shapes();
    e.train.weights = checkpoint("given", "last").string();
    train_to(1, e, "from twelve");
    EXPECT_EQ(trained("from twelve"), 10);
    const TensorMap before = read_safetensors(checkpoint("given", "last")).tensors,
                    after = read_safetensors(checkpoint("from twelve", "last")).tensors;
    for (const auto& [name, tensor] : after) {
        EXPECT_EQ(at::equal(tensor, before.at(name)), !name.starts_with("head.")) << name;
    }
}

TEST_F(ClassCount, IsReadFromTheSettingsWhereTheySayIt) {
    const auto read = [](const std::string& model, const std::vector<std::string>& overrides = {}) {
        const std::string text = "model: {" + model + "}\ndata: {kind: cluttered_shapes}\ntrain: {weights: w}\n";
        return read_config<Experiment>({text, "a.yaml", overrides});
    };
    EXPECT_FALSE(read("name: deit_tiny").num_classes_given);
    EXPECT_TRUE(read("num_classes: 1000").num_classes_given);
    EXPECT_TRUE(read("name: deit_tiny", {"model.num_classes=7"}).num_classes_given);
    Experiment e = read("name: deit_tiny", {"train.target_gmacs=0.9"});
    const double before = e.train.keep_ratio.front();
    e.set_num_classes(21841);
    EXPECT_LT(e.train.keep_ratio.front(), before) << "a larger head leaves less for the tokens";
    EXPECT_TRUE(e.num_classes_given);
}

}  // namespace
}  // namespace dynvit
