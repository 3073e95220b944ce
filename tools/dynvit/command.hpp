// What the subcommands share: arguments that name a model, its data and the device.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "dynvit/infer/evaluate.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/train/experiment.hpp"
#include "dynvit/weights/model_file.hpp"

namespace dynvit::tool {

/// Adds a subcommand, which runs when the command line names it, below `bench`.
void add_bench_loader(CLI::App& bench);
void add_bench_train(CLI::App& bench);

/// Pictures that a command line names: files as they are given, those below folders, sorted, and for "-" what the lines
/// of standard input name likewise. Throws Error for a folder without any, and where there are none at all.
std::vector<std::filesystem::path> find_pictures(const std::vector<std::string>& given);

/// Writes a command's report to the file that --json names, with the run's notes; does nothing where it names none.
void write_json(const std::string& path, nlohmann::json report, const std::string& area);

/// --config FILE and --set KEY=VALUE.
struct ConfigArguments {
    std::string config;
    std::vector<std::string> overrides;

    void add_to(CLI::App& command);
    /// The experiment; defaults where no file is given.
    /// @param of_model how a model's file has pictures prepared: it holds for what the settings do not say
    Experiment read(const std::optional<Preprocessing>& of_model = {}) const;
};

/// Where the settings do not say model.num_classes, it becomes that of a model's file which classifies; the log tells.
void take_head_size(Experiment& experiment, const ModelFile& file);

/// --policy: who selects, of those that the command serves; any other name is an Error when the command line is read.
/// @param policies one name, or as many as are given
void add_policy_option(CLI::App& command, std::string& policy, PolicyFilter serves);
void add_policy_option(CLI::App& command, std::vector<std::string>& policies, PolicyFilter serves);

/// --mean, --std, --interpolation, --crop, --resize and --crop-pct: what is given takes the place of the settings'.
void add_preprocessing_options(CLI::App& command, PreprocessingChanges& changes);

/// Those, --batch-size and --workers: how pictures are read.
struct PictureArguments {
    PreprocessingChanges preprocessing = {};
    std::int64_t batch_size = 64;
    std::int64_t workers = 0;

    void add_to(CLI::App& command);
    /// What is given takes the place of the settings'.
    void change(DataSettings& data) const;
};

/// A model by --config, or by --model and --weights alone, and how to run it.
struct ModelArguments {
    ConfigArguments config;
    std::string model;
    std::string weights;  // empty, where a command does not need any: drawn
    ReadOptions reading;  // what of that file is meant, and what it may not say
    std::vector<std::int64_t> image_size;
    std::vector<std::int64_t> pruning_loc;
    std::string reduction;    // of tokens that are not kept; empty: the model's own
    std::string stage_place;  // likewise
    std::vector<std::int64_t> tokens;
    std::vector<double> keep_ratios, gmacs;
    std::string device = "auto";
    std::string precision = "float32";

    void add_to(CLI::App& command);
    /// Those that a command takes which makes its own experiment.
    void add_model_to(CLI::App& command);

    /// The experiment with the model that the arguments mean (the config's, or the weights' own settings, or the zoo's
    /// with as many classes as the weights' head has), and its weights as they stand in the file.
    struct Choice {
        Experiment experiment;
        ModelFile file;
        PruningPlan plan;         // where no keep ratio is given: a bundle's, or the experiment's
        double keep_ratio = 1.0;  // its first stage's

        /// Those of a class-list file or, where none is given, of a bundle; empty where neither is there. Throws Error
        /// where they are not as many as the model's classes.
        std::vector<std::string> class_names(const std::string& list) const;
    };
    Choice choose();

    /// A plan that the arguments ask for, and its first stage's share of the patches.
    struct Asked {
        PruningPlan plan;
        double keep_ratio;
    };
    /// By --keep-ratio, then by --gmacs, where what a policy costs counts, or by --tokens; empty where none is given.
    /// The dense one comes once, whatever the policies, and so does what keeps a number of its own.
    /// @param policies who selects in plans that are not dense: each in turn; empty: the model's own
    /// Throws Error for a ratio below 1 or a budget where the model has no stage, and for counts that it can't keep.
    std::vector<Asked> plans(const ModelSettings& settings, std::vector<std::string> policies) const;
    bool asks_for_plans() const { return !(keep_ratios.empty() && gmacs.empty() && tokens.empty()); }

    /// The only one of these or, where none is given, the choice's plan; by the policy, where one is named.
    /// Throws Error for several.
    PruningPlan plan(const Choice& choice, const std::string& policy = {}) const;

    /// The chosen model with its weights, on the device.
    /// @param plans that it is for: where one asks prediction modules, it is said if the weights have none
    DynamicVit load(const Choice& choice, const std::vector<PruningPlan>& plans) const;

    EvalOptions options() const;

  private:
    std::vector<Asked> plans_of(const ModelSettings& settings, const std::string& policy) const;
    ModelSettings settings_without_config(const ModelFile& file) const;
    bool asks_for_stages() const;
};

}  // namespace dynvit::tool
