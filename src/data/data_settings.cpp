#include "dynvit/data/data_settings.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>
#include <thread>

#include "dynvit/core/error.hpp"
#include "dynvit/data/cluttered_shapes.hpp"
#include "dynvit/data/label_file.hpp"
#include "dynvit/data/label_kind.hpp"
#include "dynvit/data/tar_shards.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFolder = "image_folder";
constexpr const char* kShards = "tar_shards";
constexpr const char* kShapes = "cluttered_shapes";

fs::path val_folder(const DataSettings& settings) {
    return fs::path(settings.val_root.empty() ? settings.root : settings.val_root) / "val";
}

std::optional<ClassList> class_list(const DataSettings& settings, const fs::path& split_folder) {
    if (!settings.classes.empty()) return read_class_list(settings.classes);
    const fs::path beside = split_folder.parent_path() / "classes.txt";  // as `dynvit shard` leaves it
    if (settings.kind == kShards && fs::is_regular_file(beside)) return read_class_list(beside);
    return std::nullopt;
}

std::unique_ptr<Dataset> open_archives(const DataSettings& settings, const std::vector<fs::path>& folders,
                                       const std::optional<ClassList>& classes, bool labelled) {
    std::vector<fs::path> shards;
    for (const fs::path& folder : folders) {
        const std::vector<fs::path> found = shards_in(folder);
        shards.insert(shards.end(), found.begin(), found.end());
    }
    ShardOptions options;
    options.labelled = labelled;
    options.label_from = settings.label_from;
    options.label_key = settings.label_key;
    options.label_kind = settings.label_kind;
    options.unpack_to = settings.unpack_to;
    return std::make_unique<TarShards>(shards, classes, options);
}

std::vector<fs::path> split_folders(const DataSettings& settings, Split split) {
    if (split == Split::kVal) return {val_folder(settings)};
    std::vector<fs::path> folders;
    for (const std::string& folder : settings.train_folders) folders.push_back(fs::path(settings.root) / folder);
    return folders;
}

// Which pictures of a sorted list a split has.
std::vector<fs::path> of_split(std::vector<fs::path> pictures, double hold_out, Split split) {
    const auto period = static_cast<std::size_t>(std::llround(1 / hold_out));
    std::vector<fs::path> chosen;
    for (std::size_t i = 0; i < pictures.size(); ++i) {
        const bool held_back = i % period == 0;
        if (held_back == (split == Split::kVal)) chosen.push_back(std::move(pictures[i]));
    }
    return chosen;
}

// At most so many, from all over the list; 0: all.
std::vector<fs::path> spread(std::vector<fs::path> pictures, std::int64_t most) {
    const auto count = static_cast<std::size_t>(most);
    if (most == 0 || pictures.size() <= count) return pictures;
    std::vector<fs::path> chosen;
    for (std::size_t i = 0; i < count; ++i) chosen.push_back(std::move(pictures[i * pictures.size() / count]));
    return chosen;
}

// What a split has of all pictures where a share of them is held back.
std::vector<fs::path> held_out(const DataSettings& settings, std::vector<fs::path> all, Split split) {
    const double share = split == Split::kTrain ? 1 : settings.hold_out;
    const auto most = static_cast<std::int64_t>(std::ceil(share * static_cast<double>(settings.max_images)));
    return spread(of_split(std::move(all), settings.hold_out, split), most);
}

// The label file that tells a split's classes; empty: there is none.
const std::string& label_file_of(const DataSettings& settings, Split split) {
    return split == Split::kVal && !settings.val_labels.empty() ? settings.val_labels : settings.labels;
}

std::vector<std::string> names_of(const std::vector<fs::path>& paths) {
    std::vector<std::string> names;
    for (const fs::path& path : paths) names.push_back(path.string());
    return names;
}

std::vector<std::string> names_of(const Dataset& pictures) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < pictures.size(); ++i) names.push_back(pictures.name(i));
    return names;
}

// Those of each folder that is there.
std::vector<fs::path> pictures_of_both(std::vector<fs::path> folders, const fs::path& val) {
    folders.push_back(val);
    std::vector<fs::path> pictures;
    for (const fs::path& folder : folders) {
        PassedOver said_already;
        if (!fs::is_directory(folder)) continue;
        const std::vector<fs::path> found = pictures_below(folder, said_already);
        pictures.insert(pictures.end(), found.begin(), found.end());
    }
    return pictures;
}

// Numbers in a label file of val/ alone are those of the class folders of train/.
std::optional<ClassList> classes_of_training(const DataSettings& settings, const fs::path& split_folder) {
    std::optional<ClassList> list = class_list(settings, split_folder);
    const bool folders = settings.kind == kFolder && settings.labels.empty() && settings.labelled;
    const fs::path train = split_folders(settings, Split::kTrain).front();
    if (list || !folders || !fs::is_directory(train)) return list;
    std::vector<std::string> names = ImageFolder(train).class_names();
    return ClassList{names, names, train};
}

// The pictures of a split that the label file names.
std::unique_ptr<Dataset> open_labelled(const DataSettings& settings, Split split) {
    const std::string& path = label_file_of(settings, split);
    const std::vector<fs::path> training = split_folders(settings, Split::kTrain);
    const fs::path val = val_folder(settings);
    LabelPlaces places{.roots = {settings.root}};
    if (!settings.val_root.empty()) places.roots.emplace_back(settings.val_root);
    places.roots.insert(places.roots.end(), training.begin(), training.end());
    places.roots.push_back(val);
    const std::vector<fs::path> folders = split_folders(settings, settings.hold_out > 0 ? Split::kTrain : split);
    const bool of_val_alone = settings.hold_out == 0 && split == Split::kVal;

    std::unique_ptr<Dataset> archives;
    std::vector<fs::path> pictures;
    if (settings.kind == kShards) {
        archives = open_archives(settings, folders, std::nullopt, false);
        places.names = [&] { return names_of(*archives); };
        if (of_val_alone) places.ordered = places.names;
    } else {
        pictures = pictures_of_folders(folders);
        places.names = [&] { return names_of(pictures_of_both(training, val)); };
        if (of_val_alone || settings.hold_out > 0) places.ordered = [&] { return names_of(pictures); };
    }
    const bool own = split == Split::kVal && !settings.val_labels.empty();
    const std::optional<ClassList> classes =
        own ? classes_of_training(settings, folders.front()) : class_list(settings, folders.front());
    LabelFile file = read_label_file(path, places, classes, settings.label_kind);
    if (archives) return std::make_unique<LabelledPictures>(std::move(file), std::move(archives));
    pictures = with_labels(file, std::move(pictures));
    if (settings.hold_out > 0) pictures = held_out(settings, std::move(pictures), split);
    return std::make_unique<LabelledPictures>(std::move(file), std::make_unique<PictureList>(std::move(pictures)));
}

int worker_count(const DataSettings& settings, Split split) {
    if (settings.workers > 0) return static_cast<int>(settings.workers);
    constexpr int kWaiting = 4;  // threads a core, of which most wait for the GPU
    const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    return split == Split::kTrain && settings.gpu_decode ? kWaiting * cores : cores;
}

}  // namespace

void DataSettings::fields(FieldVisitor& v) {
    v.field("kind", kind, "where pictures come from", std::vector<std::string>{kFolder, kShards, kShapes});
    v.field("root", root,
            "the folder with train/ and val/: a folder a class in each, or *.tar, *.tar.gz, *.tar.zst (tar_shards)");
    v.field("val_root", val_root, "the folder with val/, where it is another");
    v.field("classes", classes,
            "a file with a class folder's name a line, in index order; '': sorted names, or the shards' own");
    v.field("labels", labels,
            "a file that names the classes of each picture, a line 'train/a.jpg,cat dog' or 'train/a.jpg 3' each; the "
            "folders' names, or what stands in shards, mean nothing then");
    v.field("val_labels", val_labels,
            "the same for val/ alone, such as ImageNet's flat one; also a class a line, in the order of the pictures' "
            "names (ILSVRC2012_validation_ground_truth.txt beside its meta.mat)");
    v.field("label_kind", label_kind,
            "of label files and .json: single, classes that exclude each other; multi, any number a picture; auto: "
            "single where every picture has exactly one",
            {kLabelKinds.begin(), kLabelKinds.end()});
    v.field("label_from", label_from,
            "tar_shards: where a picture's class stands: members beside it, the folder it lies in, the archive's name; "
            "auto: the first of these that there is",
            {kLabelSources.begin(), kLabelSources.end()});
    v.field("label_key", label_key,
            "tar_shards: the key of the .json members, a.b: b in a; '': label, labels, cls or class");
    v.field("train_folders", train_folders,
            "folders below root to train on; of image_folder several only without labels, or with a label file");
    v.field("labelled", labelled, "false: train on all pictures below train_folders, without labels");
    v.field(
        "hold_out", hold_out,
        "share of those pictures, every so many (0.1: every tenth), that training leaves out and evaluation has; needs "
        "labelled: false, or a label file",
        between(0, 0.5));
    v.field("max_images", max_images, "of those that are trained on, from all over the list; 0: all; needs hold_out",
            at_least(0));
    v.field("strict", strict, "true: a corrupt picture is an error; false: replaced (training) or left out");
    v.field("unpack_to", unpack_to,
            "tar_shards: folder for unpacked copies of .tar.gz and .tar.zst; '': .unpacked beside them");
    v.field("shuffle_window", shuffle_window, "tar_shards: pictures among which training shuffles; 0: all",
            at_least(0));
    v.field("repeats", repeats,
            "training: times a picture comes in a row, each time augmented anew; epochs stay as long", at_least(1));
    preprocessing.fields(v);
    v.field("scale", scale, "training: the random crop's share of the area, [least, most]", above_up_to(0, 1));
    v.field("ratio", ratio, "training: its width / height, [least, most]", above(0));
    v.field("flip", flip, "training: probability of a mirrored picture", between(0, 1));
    v.field("exact_decode", exact_decode,
            "training: decode every pixel, not only what the crop needs at its size; slower");
    v.field("gpu_decode", gpu_decode,
            "training: the GPU's own JPEG decoder (A100, H100 ...) takes plain JPEGs, every pixel; needs nvJPEG");
    v.field("train_images", train_images, "cluttered_shapes: pictures of an epoch", at_least(1));
    v.field("val_images", val_images, "cluttered_shapes: pictures that are never trained on", at_least(1));
    v.field("seed", seed, "cluttered_shapes: another seed, other pictures", between(0, 0x1p63));
    v.field("workers", workers, "threads that prepare pictures; 0: one a processor core, four with gpu_decode",
            between(0, 1024));
    v.section("augment", augment, "training: what is done to a cropped picture");
    for (const auto& [key, range] : {std::pair{"scale", scale}, std::pair{"ratio", ratio}}) {
        if (range.size() == 2 && range[0] <= range[1]) continue;
        v.reject(key, "found [" + join(range, ", ") + "], expected [least, most]");
    }
    const bool by_folder = kind == kFolder && labelled && labels.empty();  // of classes
    if (train_folders.empty() || (by_folder && train_folders.size() > 1)) {
        v.reject("train_folders", str("found ", train_folders.size(), " folders, expected ",
                                      train_folders.empty() ? "at least one" : "one; several need labelled: false"));
    }
    if (max_images > 0 && hold_out == 0)
        v.reject("max_images", str("found ", max_images, ", expected 0 without hold_out"));
    for (const auto& [key, file] : {std::pair{"labels", labels}, std::pair{"val_labels", val_labels}}) {
        if (file.empty() || kind != kShapes) continue;
        v.reject(key, str("found ", file, ", expected none with kind ", kShapes));
    }
    if (!labels.empty() && !labelled) {
        v.reject("labels", str("found ", labels, ", expected none, or labelled: true"));
    }
    if (!val_labels.empty() && hold_out > 0) {
        v.reject("val_labels", str("found ", val_labels, ", expected none with hold_out, which has no val/"));
    }
    if (!label_key.empty() && label_from != "auto" && label_from != "json") {
        v.reject("label_key", str("found ", label_key, ", expected none with label_from ", label_from));
    }
    if (hold_out > 0 && (by_folder || kind != kFolder)) {
        v.reject("hold_out", str("found ", hold_out, ", expected 0, or kind ", kFolder, " with labelled: false"));
    }
    if (gpu_decode && kind == kShapes) {
        v.reject("gpu_decode", str("found true, expected false: ", kShapes, " has no files to decode"));
    }
    if (v.reads() && kind != kShapes && root.empty()) v.reject("root", "found nothing, expected the pictures' folder");
}

std::unique_ptr<Dataset> make_dataset(const DataSettings& settings, Split split, std::int64_t height,
                                      std::int64_t width) {
    if (settings.kind == kShapes) {
        if (height != width) {
            throw Error("data", "cluttered_shapes draws squares; model.image_size is ", height, " x ", width);
        }
        const bool train = split == Split::kTrain;
        ClutteredShapesSettings shapes;
        shapes.image_size = static_cast<int>(width);
        shapes.count = train ? settings.train_images : settings.val_images;
        shapes.seed = mix_seed({static_cast<std::uint64_t>(settings.seed), train ? 0u : 1u});
        return std::make_unique<ClutteredShapes>(shapes);
    }
    if (!label_file_of(settings, split).empty()) return open_labelled(settings, split);
    if (settings.hold_out > 0) {
        return std::make_unique<PictureList>(
            held_out(settings, pictures_of_folders(split_folders(settings, Split::kTrain)), split));
    }
    const std::vector<fs::path> folders = split_folders(settings, split);
    const bool labelled = split == Split::kVal || settings.labelled;
    const std::optional<ClassList> classes = labelled ? class_list(settings, folders.front()) : std::nullopt;
    if (settings.kind == kShards) return open_archives(settings, folders, classes, labelled);
    if (!labelled) return std::make_unique<PictureList>(pictures_of_folders(folders));
    return std::make_unique<ImageFolder>(folders.front(), classes);
}

bool has_validation(const DataSettings& settings) {
    return settings.kind == kShapes || settings.hold_out > 0 || fs::is_directory(val_folder(settings));
}

LoaderOptions loader_options(const DataSettings& settings, Split split) {
    const bool train = split == Split::kTrain;
    LoaderOptions options;
    options.workers = worker_count(settings, split);
    options.shuffle = options.drop_last = train;
    options.shuffle_window = settings.shuffle_window;
    options.repeats = train ? settings.repeats : 1;
    options.on_corrupt = train ? OnCorrupt::kReplace : OnCorrupt::kSkip;
    if (settings.strict) options.on_corrupt = OnCorrupt::kFail;
    return options;
}

SampleTransform make_transform(const DataSettings& settings, Split split, std::int64_t height, std::int64_t width) {
    if (settings.kind == kShapes) {
        return [](Sample& sample, Random&) { return std::move(sample.image); };
    }
    if (split == Split::kTrain) {
        TrainTransform transform{static_cast<int>(width),
                                 static_cast<int>(height),
                                 {settings.scale[0], settings.scale[1]},
                                 {settings.ratio[0], settings.ratio[1]},
                                 settings.flip,
                                 settings.exact_decode,
                                 filter_of(settings.preprocessing.interpolation)};
        std::shared_ptr<WindowDecoder> decoder;
        if (settings.gpu_decode) decoder = make_gpu_decoder(transform.width, transform.height, transform.filter);
        return [transform, decoder, augmentation = make_augmentation(settings.augment, settings.preprocessing)](
                   Sample& sample, Random& random) {
            sample.object_mask.clear();
            return apply(augmentation, apply(transform, sample, random, decoder.get()), random);
        };
    }
    return [transform = eval_transform(settings.preprocessing, height, width)](Sample& sample, Random&) {
        sample.object_mask.clear();
        return apply(transform, whole_image(sample), sample.name);
    };
}

at::Tensor stack_images(const std::vector<Image>& pictures) {
    std::vector<at::Tensor> images;
    for (const Image& picture : pictures) {
        const at::Tensor pixels = at::tensor(at::ArrayRef<std::uint8_t>(picture.pixels), at::kByte);
        images.push_back(pixels.view({picture.height, picture.width, 3}).permute({2, 0, 1}));
    }
    return at::stack(images);
}

at::Tensor normalize_images(const at::Tensor& images, const at::Device& device, const Preprocessing& preprocessing) {
    const auto channels = [&](const std::array<double, 3>& values) {
        return at::tensor(at::ArrayRef<double>(values.data(), 3), at::kFloat)
            .mul_(255)
            .view({1, 3, 1, 1})
            .to(device, /*non_blocking=*/true);
    };
    return images.to(device, at::kFloat, /*non_blocking=*/true)
        .sub_(channels(preprocessing.mean))
        .div_(channels(preprocessing.std));
}

}  // namespace dynvit
