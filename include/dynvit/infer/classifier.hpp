// Pictures in, classes out: a model file with all that it takes to ask it.
#pragma once

#include "dynvit/infer/inference_session.hpp"
#include "dynvit/io/image.hpp"
#include "dynvit/weights/model_file.hpp"

namespace dynvit {

struct ClassifierOptions {
    /// rho: the stages keep rho, rho^2, ... of the patches; 1: dense. 0: what a bundle says; of another file with
    /// prediction modules kDefaultKeepRatio, without them dense.
    double keep_ratio = 0;
    std::string policy = {};  // who selects: one that learns_nothing; empty: the model's own
    /// In place of a keep ratio and of the policy: every token that is likelier needed than this goes on, in each
    /// picture its own number; one, or one a stage.
    std::vector<double> thresholds = {};
    at::Device device = at::kCPU;
    /// See InferenceModel. With kQInt8 an answer depends a little on the pictures beside it, as they share one scale.
    at::ScalarType precision = at::kFloat;
    std::string model = {};  // of the zoo, for weights that dynvit did not write
    /// In place of what the file says or, where it says nothing, of ImageNet's way.
    PreprocessingChanges preprocessing = {};
};

struct ClassScore {
    std::int64_t index;
    double probability;
    std::string name;  // empty where the file knows none
};

struct Classification {
    std::vector<ClassScore> classes;              // the likeliest, falling
    std::vector<std::vector<std::int64_t>> kept;  // a stage: places on the patch grid that it keeps, ascending
};

/// Calls may come from several threads at once.
class Classifier {
  public:
    /// @param file a bundle (`dynvit export --format bundle`), a training's weights, or a PyTorch checkpoint
    /// Throws Error naming the file and what is wrong with it or the options.
    explicit Classifier(const std::filesystem::path& file, const ClassifierOptions& options = {});

    /// @param pictures of any size; each is prepared as evaluation does it @param top so many classes of each
    std::vector<Classification> classify(const std::vector<Image>& pictures, std::int64_t top = 5) const;
    Classification classify(const Image& picture, std::int64_t top = 5) const;

    const InferenceSession& session() const { return *session_; }
    const std::vector<std::string>& class_names() const { return class_names_; }  // empty where the file knows none

  private:
    std::unique_ptr<const InferenceSession> session_;
    std::vector<std::string> class_names_;
};

}  // namespace dynvit
