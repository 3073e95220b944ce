// Which pictures, and what is done to them: one experiment's data section.
#pragma once

#include <memory>

#include "dynvit/core/fields.hpp"
#include "dynvit/data/augment.hpp"
#include "dynvit/data/loader.hpp"
#include "dynvit/data/transforms.hpp"

namespace dynvit {

struct DataSettings {
    std::string kind = "image_folder";
    std::string root;
    std::string val_root;
    std::string classes;
    std::string labels;
    std::string val_labels;
    std::string label_kind = "auto";
    std::string label_from = "auto";
    std::string label_key;
    std::vector<std::string> train_folders = {"train"};
    bool labelled = true;
    double hold_out = 0.0;
    std::int64_t max_images = 0;
    bool strict = false;
    std::string unpack_to;
    std::int64_t shuffle_window = 10000;
    std::int64_t repeats = 1;
    Preprocessing preprocessing;  // its keys stand among these
    std::vector<double> scale = {0.08, 1.0};
    std::vector<double> ratio = {0.75, 4.0 / 3.0};
    double flip = 0.5;
    bool exact_decode = false;
    bool gpu_decode = false;
    AugmentSettings augment;
    std::int64_t train_images = 20000;
    std::int64_t val_images = 1000;
    std::int64_t seed = 0;
    std::int64_t workers = 0;

    void fields(FieldVisitor& visitor);
};

enum class Split { kTrain, kVal };

/// The data set of a split; height and width are the model's. With `hold_out` the validation split is that share of the
/// pictures below train_folders, every so many of their sorted list, and training has the others. `max_images` takes as
/// many of those at most, from all over the list, and that share of it of those held back. With `labels` it is those of
/// the pictures that the label file has a line for.
/// Throws Error: a missing folder, a class list or a label file that doesn't fit, cluttered_shapes for a picture that
/// is no square.
std::unique_ptr<Dataset> make_dataset(const DataSettings& settings, Split split, std::int64_t height,
                                      std::int64_t width);

/// Whether the settings name a validation split that is there.
bool has_validation(const DataSettings& settings);

/// How a split is read. Training: in random order, full batches only, corrupt pictures replaced. Validation: all of it,
/// in order, corrupt pictures left out. With `strict`, a corrupt picture is an Error in both. Without `workers`, a
/// thread a processor core; several in training with `gpu_decode`, as most of them wait for the GPU. Batch size, seed
/// and epoch are the caller's.
LoaderOptions loader_options(const DataSettings& settings, Split split);

/// What happens to each picture of a split: random crop, mirror and augmentation, or eval_transform's. The
/// pictures of cluttered_shapes are drawn at the model's size and stay as they are, with their object masks. Training
/// with `gpu_decode` throws Error where make_gpu_decoder does.
SampleTransform make_transform(const DataSettings& settings, Split split, std::int64_t height, std::int64_t width);

/// Pictures of equal size as a batch: (B, 3, H, W), uint8.
at::Tensor stack_images(const std::vector<Image>& pictures);

/// A batch's pictures as the network takes them: on the device, the mean taken off, divided by the standard deviation.
/// @param images (B, 3, H, W) uint8 @return float32
at::Tensor normalize_images(const at::Tensor& images, const at::Device& device,
                            const Preprocessing& preprocessing = {});

}  // namespace dynvit
