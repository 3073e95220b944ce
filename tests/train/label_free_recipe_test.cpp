// The recipe of `dynvit prune` against the file in configs/, and what it makes of other models.
#include "dynvit/train/label_free_recipe.hpp"

#include "dynvit/core/config.hpp"
#include "support.hpp"
#include "train_support.hpp"

namespace dynvit {
namespace {

using test::error_of;

LabelFreeInputs inputs_of(ModelSettings model, std::int64_t count = 3420) {
    model.pruning_loc = {};
    return {.model = std::move(model), .preprocessing = {}, .weights = "w", .pictures = "p", .count = count};
}

TEST(LabelFreeRecipe, OfDeitTinyIsTheFileInConfigs) {
    Experiment file = read_config<Experiment>(
        config_from_file(DYNVIT_CONFIGS "/label_free_deit_tiny.yaml",
                         {"train.weights=w", "data.root=p", "data.hold_out=0.1", "data.max_images=399360"}));
    EXPECT_EQ(write_config(label_free_recipe(inputs_of(model_settings("deit_tiny")))), write_config(file));
}

TEST(LabelFreeRecipe, IsAnExperimentForEveryModel) {
    for (const std::int64_t depth : {2, 3, 4, 24}) {
        for (const bool on_gpu : {false, true}) {
            ModelSettings model = model_settings("deit_small");
            model.name = "custom";
            model.depth = depth;
            model.class_token = false;
            model.pooling = "mean";
            model.num_classes = depth == 24 ? 0 : 10;
            LabelFreeInputs inputs = inputs_of(model, 100);
            inputs.on_gpu = on_gpu;
            const Experiment made = label_free_recipe(inputs);
            const Experiment read = read_config<Experiment>({write_config(made), "the recipe", {}});  // which checks it
            EXPECT_EQ(write_config(read), write_config(made));
            EXPECT_GE(read.model.stages(), 1);
            EXPECT_EQ(read.train.optimizer.frozen_blocks, read.model.pruning_loc.front());
            EXPECT_EQ(read.train.batch_size, on_gpu ? 100 : 64);
        }
    }
}

TEST(LabelFreeRecipe, WithoutAHeadTheEmbeddingIsLearnt) {
    ModelSettings model = model_settings("deit_tiny");
    model.num_classes = 0;
    const LossSettings loss = label_free_recipe(inputs_of(model)).train.loss;
    EXPECT_EQ(loss.weights.at("kl"), 0);
    EXPECT_GT(loss.weights.at("embedding"), 0);
}

TEST(LabelFreeRecipe, BatchesThatWouldNotFitAreSmallerAndAddedUp) {
    ModelSettings model = model_settings("deit_base");
    EXPECT_EQ(label_free_recipe(inputs_of(model)).train.batch_size, 256);
    model.name = "custom";  // a DINOv2-L at its own size
    model.image_size = {518};
    model.patch_size = 14;
    model.embed_dim = 1024;
    model.depth = 24;
    model.num_heads = 16;
    const TrainSettings train = label_free_recipe(inputs_of(model)).train;
    EXPECT_EQ(train.batch_size, 8);  // 256 x 197 x 768 x 12 / (1370 x 1024 x 24), as a power of two
    EXPECT_EQ(train.batch_size * train.accumulate, 64);
}

TEST(LabelFreeRecipe, WhatTheUserWantsOfTheStagesComesFirst) {
    LabelFreeInputs inputs = inputs_of(model_settings("deit_tiny"));
    inputs.stages = {.pruning_loc = {1, 4, 8}, .reduction = "tome"};
    const Experiment made = label_free_recipe(inputs);
    EXPECT_EQ(made.train.optimizer.frozen_blocks, 1);
    EXPECT_EQ(made.train.loss.weights.at("saliency"), 0);
    EXPECT_NO_THROW(read_config<Experiment>({write_config(made), "the recipe", {}}));
}

TEST(LabelFreeRecipe, MorePicturesThanItHasStepsFor) {
    LabelFreeInputs inputs = inputs_of(model_settings("deit_tiny"));
    EXPECT_EQ(label_free_data(inputs).max_images, 1560 * 256);
    inputs.on_gpu = false;
    EXPECT_EQ(label_free_data(inputs).max_images, 300 * 64);
    inputs.count = label_free_data(inputs).max_images;
    EXPECT_EQ(label_free_recipe(inputs).train.epochs, 1);
}

TEST(LabelFreeRecipe, StepsThatAreAskedFor) {
    LabelFreeInputs inputs = inputs_of(model_settings("deit_tiny"));
    inputs.steps = 20;
    const TrainSettings train = label_free_recipe(inputs).train;
    EXPECT_EQ(train.max_steps, 20);
    EXPECT_EQ(train.epochs, 2);  // of 13 steps
}

TEST(LabelFreeRecipe, NothingToPruneOrToLearnFrom) {
    EXPECT_EQ(error_of([] { label_free_recipe(inputs_of(model_settings("deit_tiny"), 0)); }),
              "[prune] p: found no picture to train on");
    ModelSettings one = model_settings("deit_tiny");
    one.name = "custom";
    one.depth = 1;
    EXPECT_EQ(error_of([&] { label_free_recipe(inputs_of(one)); }),
              "[prune] found a model of one block, expected two at least");
}

}  // namespace
}  // namespace dynvit
