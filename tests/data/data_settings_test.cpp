// Settings as a config file gives them, against the data sets and the loader options that they mean.
#include "dynvit/data/data_settings.hpp"

#include <ATen/ATen.h>

#include <map>

#include "dynvit/core/config.hpp"
#include "dynvit/io/tar.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;

void write_picture(const fs::path& path) {
    fs::create_directories(path.parent_path());
    write_png(path, Image(2, 1));
}

DataSettings settings(const std::string& text) {
    return read_config<DataSettings>({text, "a.yaml", {}});
}

std::vector<std::string> names(const Dataset& dataset, const fs::path& root) {
    std::vector<std::string> found;
    for (std::size_t i = 0; i < dataset.size(); ++i)
        found.push_back(fs::path(dataset.name(i)).lexically_normal().lexically_relative(root).string());
    return found;
}

using Strings = std::vector<std::string>;

TEST(DataSettings, TrainingWithoutLabelsTakesListedFolders) {
    const TemporaryFolder root;
    for (const char* name : {"train/n01/a.png", "train/n02/b.png", "unlabelled/c.png", "val/n02/d.png"})
        write_picture(root / name);
    DataSettings data =
        settings(str("root: ", root.path().string(), "\nlabelled: false\ntrain_folders: [train, unlabelled]\n"));
    const auto train = make_dataset(data, Split::kTrain, 8, 8);
    EXPECT_EQ(names(*train, root.path()), (Strings{"train/n01/a.png", "train/n02/b.png", "unlabelled/c.png"}));
    EXPECT_FALSE(train->labelled());
    const auto val = make_dataset(data, Split::kVal, 8, 8);  // evaluation has labels all the same
    EXPECT_EQ(names(*val, root.path()), Strings{"val/n02/d.png"});
    EXPECT_TRUE(val->labelled());

    data = settings(str("root: ", root.path().string()));
    const auto labelled = make_dataset(data, Split::kTrain, 8, 8);
    EXPECT_EQ(names(*labelled, root.path()), (Strings{"train/n01/a.png", "train/n02/b.png"}));
    EXPECT_TRUE(labelled->labelled());
    EXPECT_EQ(labelled->get(1).label, 1);
}

TEST(DataSettings, ATenthIsHeldBackFromTraining) {
    const TemporaryFolder root;
    std::vector<std::string> all;
    for (int i = 0; i < 23; ++i) {
        all.push_back(str("a/", i < 10 ? "0" : "", i, ".png"));
        write_picture(root / all.back());
    }
    const DataSettings data =
        settings(str("root: ", root.path().string(), "\nlabelled: false\ntrain_folders: [a]\nhold_out: 0.1\n"));
    const Strings train = names(*make_dataset(data, Split::kTrain, 8, 8), root.path());
    const auto held_back = make_dataset(data, Split::kVal, 8, 8);
    EXPECT_EQ(names(*held_back, root.path()), (Strings{"a/00.png", "a/10.png", "a/20.png"}));
    EXPECT_FALSE(held_back->labelled());
    EXPECT_EQ(train.size(), 20u);
    for (const std::string& name : names(*held_back, root.path())) EXPECT_EQ(std::ranges::count(train, name), 0);

    DataSettings few = data;
    few.max_images = 5;
    EXPECT_EQ(make_dataset(few, Split::kTrain, 8, 8)->size(), 5u);
    EXPECT_EQ(make_dataset(few, Split::kVal, 8, 8)->size(), 1u);  // as much of those held back
    EXPECT_TRUE(has_validation(data));

    EXPECT_EQ(error_of([] { settings("root: x\nhold_out: 0.1\n"); }),
              "[config] a.yaml:2: hold_out: found 0.1, expected 0, or kind image_folder with labelled: false");
}

TEST(DataSettings, ALabelFileSaysEachPicturesClasses) {
    const TemporaryFolder root;
    for (const char* name : {"train/deep/a.png", "train/b.png", "val/c.png", "more/d.png", "val/unknown.png"})
        write_picture(root / name);
    write_file_atomically(root / "labels.csv",
                          "path,labels\ntrain/deep/a.png,cat\ntrain/b.png,dog cat\nval/c.png,bird\nmore/d.png,\n",
                          "test");
    const std::string text = str("root: ", root.path().string(), "/.\nlabels: ", (root / "labels.csv").string(), '\n');
    const auto train = make_dataset(settings(text), Split::kTrain, 8, 8);
    EXPECT_TRUE(train->multi_label() && train->labelled());
    EXPECT_EQ(names(*train, root.path()), (Strings{"train/b.png", "train/deep/a.png"}));
    EXPECT_EQ(train->class_names(), (Strings{"bird", "cat", "dog"})) << "those of all splits";
    EXPECT_EQ(train->classes_from(), "the names in " + (root / "labels.csv").string());
    EXPECT_EQ(train->get(0).labels, (std::vector<std::int64_t>{1, 2}));
    const auto val = make_dataset(settings(text), Split::kVal, 8, 8);
    EXPECT_EQ(names(*val, root.path()), Strings{"val/c.png"});
    EXPECT_EQ(make_dataset(settings(text + "train_folders: [train, more]\n"), Split::kTrain, 8, 8)->size(), 3u);

    const DataSettings flat = settings(text + "train_folders: [\".\"]\nhold_out: 0.5\n");
    EXPECT_EQ(names(*make_dataset(flat, Split::kVal, 8, 8), root.path()), (Strings{"more/d.png", "train/deep/a.png"}));
    EXPECT_EQ(names(*make_dataset(flat, Split::kTrain, 8, 8), root.path()), (Strings{"train/b.png", "val/c.png"}));

    write_file_atomically(root / "classes.txt", "dog\nbird\ncat\n", "test");
    const std::string listed = str(text, "classes: ", (root / "classes.txt").string(), '\n');
    EXPECT_EQ(make_dataset(settings(listed), Split::kTrain, 8, 8)->get(0).labels, (std::vector<std::int64_t>{0, 2}));
    EXPECT_EQ(
        error_of([&] { settings(text + "labelled: false\n"); }),
        "[config] a.yaml:2: labels: found " + (root / "labels.csv").string() + ", expected none, or labelled: true");
}

TEST(DataSettings, AFlatValHasALabelFileOfItsOwn) {
    const TemporaryFolder root;
    for (const char* name : {"train/n01/a.png", "train/n02/b.png", "train/n10/c.png", "val/v1.png", "val/v2.png"})
        write_picture(root / name);
    const std::string text = str("root: ", root.path().string(), "\nval_labels: ", (root / "val.txt").string(), '\n');
    const auto labels_by = [&](const std::string& lines, const std::string& more = "") {
        write_file_atomically(root / "val.txt", lines, "test");
        const auto val = make_dataset(settings(text + more), Split::kVal, 8, 8);
        EXPECT_EQ(names(*val, root.path()), (Strings{"val/v1.png", "val/v2.png"}));
        EXPECT_EQ(val->class_names(), make_dataset(settings(text + more), Split::kTrain, 8, 8)->class_names());
        return std::pair{val->get(0).label, val->get(1).label};
    };
    const std::pair<std::int64_t, std::int64_t> expected = {2, 0};
    EXPECT_EQ(labels_by("v1.png 2\nv2.png 0\n"), expected) << "of the folders of train/";
    EXPECT_EQ(labels_by("val/v2.png,n01\nval/v1.png,n10\n"), expected);
    EXPECT_EQ(labels_by("ImageId,PredictionString\nv1,n10 1 2 3 4\nv2,n01 1 2 3 4 n01 1 2 3 4\n"), expected);
    EXPECT_EQ(labels_by("n10\nn01\n"), expected) << "in the order of the pictures";
    EXPECT_EQ(labels_by("2\n0\n"), expected);
    write_file_atomically(root / "list.txt", "n02\nn01\nn10\n", "test");
    EXPECT_EQ(labels_by("v1.png n10\nv2.png 1\n", str("classes: ", (root / "list.txt").string(), '\n')),
              (std::pair<std::int64_t, std::int64_t>{2, 1}));

    write_file_atomically(root / "val.txt", "n10\n", "test");
    EXPECT_NE(error_of([&] {
                  make_dataset(settings(text), Split::kVal, 8, 8);
              }).find("found 1 classes, a line each, expected as many as the 2 pictures"),
              std::string::npos);
    const std::string for_all = str("root: ", root.path().string(), "\nlabels: ", (root / "val.txt").string(), '\n');
    EXPECT_NE(error_of([&] { make_dataset(settings(for_all), Split::kTrain, 8, 8); }).find("expected data.val_labels"),
              std::string::npos);
    EXPECT_EQ(error_of([&] { make_dataset(settings(str("root: ", root.path().string(), '\n')), Split::kVal, 8, 8); }),
              "[image_folder] " + (root / "val").string() +
                  ": no class folder in it, but pictures, whose classes a label file may say (data.val_labels, "
                  "data.labels; --labels of eval and shard)");
    EXPECT_EQ(error_of([] { settings("root: x\nlabelled: false\nval_labels: v\nhold_out: 0.1\n"); }),
              "[config] a.yaml:3: val_labels: found v, expected none with hold_out, which has no val/");
}

TEST(DataSettings, SeveralFoldersNeedNoLabels) {
    EXPECT_EQ(error_of([] { settings("root: x\ntrain_folders: [a, b]\n"); }),
              "[config] a.yaml:2: train_folders: found 2 folders, expected one; several need labelled: false");
    EXPECT_EQ(error_of([] { settings("root: x\nlabelled: false\ntrain_folders: []\n"); }),
              "[config] a.yaml:3: train_folders: found 0 folders, expected at least one");
}

void write_shard(const fs::path& path, const std::map<std::string, std::string>& members) {
    fs::create_directories(path.parent_path());
    TarWriter writer(path);
    for (const auto& [name, text] : members)
        writer.add(name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    writer.commit();
}

TEST(DataSettings, ShardsWithALabelFile) {
    const TemporaryFolder root;
    write_shard(root / "val/ILSVRC2012_img_val.tar", {{"v_00000001.JPEG", "1"}, {"v_00000002.JPEG", "2"}});
    const std::string text =
        str("kind: tar_shards\nroot: ", root.path().string(), "\nval_labels: ", (root / "val.txt").string(), '\n');
    for (const char* lines :
         {"v_00000001.JPEG cat\nv_00000002.JPEG ant\n", "v_00000002,ant\nv_00000001,cat\n", "cat\nant\n"}) {
        write_file_atomically(root / "val.txt", lines, "test");
        const auto val = make_dataset(settings(text), Split::kVal, 8, 8);
        ASSERT_EQ(val->size(), 2u);
        EXPECT_EQ(val->class_names(), (Strings{"ant", "cat"}));
        EXPECT_EQ(val->get(0).label, 1);
        EXPECT_EQ(val->get(1).label, 0);
        EXPECT_EQ(val->shard_sizes(), std::vector<std::size_t>{2});
    }
    write_file_atomically(root / "val.txt", "v_00000002.JPEG ant\n", "test");
    const auto one = make_dataset(settings(text), Split::kVal, 8, 8);
    EXPECT_EQ(names(*one, root.path()), Strings{"val/ILSVRC2012_img_val.tar/v_00000002.JPEG"});
    EXPECT_EQ(one->get(0).encoded, std::vector<std::uint8_t>{'2'});
}

TEST(DataSettings, HowShardsAreReadIsASetting) {
    const TemporaryFolder root;
    write_shard(root / "train/0.tar", {{"x/a.json", R"({"kind": "dog", "label": 7})"}, {"x/a.jpg", ""}});
    const std::string text = str("kind: tar_shards\nroot: ", root.path().string(), '\n');
    const auto first = [&](const std::string& more) {
        const auto train = make_dataset(settings(text + more), Split::kTrain, 8, 8);
        return train->class_names().at(train->get(0).label);
    };
    EXPECT_EQ(first(""), "7");
    EXPECT_EQ(first("label_key: kind\n"), "dog");
    EXPECT_EQ(first("label_from: folder\n"), "x");
    EXPECT_EQ(error_of([&] { settings(text + "label_from: folder\nlabel_key: kind\n"); }),
              "[config] a.yaml:4: label_key: found kind, expected none with label_from folder");
}

TEST(DataSettings, ShardsOfEachSplit) {
    const TemporaryFolder root;
    write_shard(root / "train/000000.tar", {{"a.cls", "1"}, {"a.jpg", ""}});
    write_shard(root / "train/000001.tar", {{"b.cls", "0"}, {"b.jpg", ""}});
    write_shard(root / "more/x.tar", {{"c.png", ""}});
    write_shard(root / "val/000000.tar", {{"d.cls", "1"}, {"d.jpg", ""}});
    const std::string text = str("kind: tar_shards\nroot: ", root.path().string(), '\n');
    const auto train = make_dataset(settings(text), Split::kTrain, 8, 8);
    EXPECT_EQ(names(*train, root.path()), (Strings{"train/000000.tar/a.jpg", "train/000001.tar/b.jpg"}));
    EXPECT_EQ(train->get(0).label, 1);
    EXPECT_EQ(train->class_names(), (Strings{"0", "1"}));
    EXPECT_TRUE(has_validation(settings(text)));
    const auto val = make_dataset(settings(text), Split::kVal, 8, 8);
    EXPECT_EQ(names(*val, root.path()), Strings{"val/000000.tar/d.jpg"});

    write_file_atomically(root / "classes.txt", "n01 tench\nn02 goldfish\n", "test");
    EXPECT_EQ(make_dataset(settings(text), Split::kTrain, 8, 8)->class_names(), (Strings{"tench", "goldfish"}));
    write_file_atomically(root / "other.txt", "x\ny\nz\n", "test");
    const std::string other = str(text, "classes: ", (root / "other.txt").string(), '\n');
    EXPECT_EQ(make_dataset(settings(other), Split::kVal, 8, 8)->class_names(), (Strings{"x", "y", "z"}));

    const auto unlabelled =
        make_dataset(settings(text + "labelled: false\ntrain_folders: [train, more]\n"), Split::kTrain, 8, 8);
    EXPECT_EQ(names(*unlabelled, root.path()),
              (Strings{"train/000000.tar/a.jpg", "train/000001.tar/b.jpg", "more/x.tar/c.png"}));
    EXPECT_FALSE(unlabelled->labelled());
    EXPECT_EQ(unlabelled->get(0).label, -1);
    EXPECT_EQ(error_of([&] { make_dataset(settings(text + "train_folders: [train, more]\n"), Split::kTrain, 8, 8); }),
              "[tar_shards] " + (root / "more/x.tar").string() +
                  ": member at byte 512: found no .cls beside the picture, expected one beside each");
    EXPECT_EQ(error_of([] { settings("kind: tar_shards\n"); }),
              "[config] a.yaml: root: found nothing, expected the pictures' folder");
}

TEST(DataSettings, PreprocessingStandsAmongTheOtherKeys) {
    EXPECT_EQ(settings("root: x\nresize: 248\n").preprocessing.resize, 248);
    const Preprocessing found =
        settings("root: x\nmean: 0.5\nstd: [0.5, 0.25, 0.5]\ninterpolation: bilinear\ncrop: squash\n").preprocessing;
    EXPECT_EQ(found.mean, (std::array<double, 3>{0.5, 0.5, 0.5}));
    EXPECT_EQ(found.std, (std::array<double, 3>{0.5, 0.25, 0.5}));
    EXPECT_EQ(found.interpolation, "bilinear");
    EXPECT_EQ(found.crop, kSquash);
    EXPECT_EQ(settings("root: x\nworkers: 3\n").preprocessing, Preprocessing());
    EXPECT_EQ(error_of([] { settings("root: x\nstd: [0.2, 0.2, 0]\n"); }),
              "[config] a.yaml:2: std: found '0', expected a number above 0 and at most 1");
}

TEST(DataSettings, PicturesOfASplitArePreparedAsTheySay) {
    Image image(40, 30);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 7 % 256);
    const auto prepared = [&](const std::string& text, Split split) {
        Sample sample;
        sample.image = image;
        Random random(1);
        return make_transform(settings("root: x\n" + text), split, 12, 16)(sample, random).pixels;
    };
    EXPECT_EQ(prepared("", Split::kVal), center_crop(resize_to_cover(image, 18, 13), 16, 12).pixels);
    EXPECT_EQ(prepared("crop: squash\ninterpolation: bilinear\n", Split::kVal),
              resize(image, 16, 12, Filter::kBilinear).pixels);
    const std::string whole = "scale: [1, 1]\nratio: [1.3333, 1.3334]\nflip: 0\n";  // the whole picture
    EXPECT_EQ(prepared(whole, Split::kTrain), resize(image, 16, 12).pixels);
    EXPECT_EQ(prepared(whole + "interpolation: lanczos\n", Split::kTrain),
              resize(image, 16, 12, Filter::kLanczos).pixels);
}

// (value / 255 - mean) / std in double; float32 is off by its rounding.
TEST(NormalizeImages, IsItsDefinition) {
    const at::Tensor images = at::arange(0, 2 * 3 * 4 * 5).mul(2).to(at::kByte).view({2, 3, 4, 5});
    Preprocessing half;
    half.mean = {0.5, 0.25, 1};
    half.std = {0.5, 0.125, 0.2};
    for (const Preprocessing& preprocessing : {Preprocessing(), half}) {
        const at::Tensor found = normalize_images(images, at::kCPU, preprocessing);
        ASSERT_EQ(found.scalar_type(), at::kFloat);
        for (std::int64_t c = 0; c < 3; ++c) {
            const auto channel = static_cast<std::size_t>(c);
            const at::Tensor expected =
                (images.select(1, c).to(at::kDouble) / 255 - preprocessing.mean[channel]) / preprocessing.std[channel];
            EXPECT_LE((found.select(1, c) - expected).abs().max().item<double>(), 2e-6);
        }
    }
    const at::Tensor ends = normalize_images(at::tensor({0, 255, 0}, at::kByte).view({1, 3, 1, 1}), at::kCPU, half);
    EXPECT_EQ(ends.flatten()[0].item<float>(), -1);
    EXPECT_EQ(ends.flatten()[1].item<float>(), 6);
    EXPECT_EQ(ends.flatten()[2].item<float>(), -5);
}

TEST(DataSettings, LoaderOptionsOfTheSplits) {
    const DataSettings data = settings("root: x\nworkers: 3\nrepeats: 2\nshuffle_window: 77\n");
    const LoaderOptions train = loader_options(data, Split::kTrain), val = loader_options(data, Split::kVal);
    EXPECT_EQ(train.workers, 3);
    EXPECT_TRUE(train.shuffle && train.drop_last);
    EXPECT_EQ(train.repeats, 2);
    EXPECT_EQ(train.shuffle_window, 77);
    EXPECT_EQ(train.on_corrupt, OnCorrupt::kReplace);
    EXPECT_EQ(val.workers, 3);
    EXPECT_FALSE(val.shuffle || val.drop_last);
    EXPECT_EQ(val.repeats, 1);
    EXPECT_EQ(val.on_corrupt, OnCorrupt::kSkip);
    const DataSettings strict = settings("root: x\nstrict: true\n");
    EXPECT_EQ(loader_options(strict, Split::kTrain).on_corrupt, OnCorrupt::kFail);
    EXPECT_EQ(loader_options(strict, Split::kVal).on_corrupt, OnCorrupt::kFail);
}

TEST(DataSettings, MoreThreadsWaitForTheGpu) {
    const DataSettings plain = settings("root: x\n"), gpu = settings("root: x\ngpu_decode: true\n");
    EXPECT_FALSE(plain.gpu_decode);
    EXPECT_EQ(loader_options(gpu, Split::kTrain).workers, 4 * loader_options(plain, Split::kTrain).workers);
    EXPECT_EQ(loader_options(gpu, Split::kVal).workers, loader_options(plain, Split::kVal).workers);
    const DataSettings counted = settings("root: x\ngpu_decode: true\nworkers: 3\n");
    EXPECT_EQ(loader_options(counted, Split::kTrain).workers, 3);
}

TEST(DataSettings, DrawnPicturesAreNotDecoded) {
    EXPECT_EQ(error_of([] { settings("kind: cluttered_shapes\ngpu_decode: true\n"); }),
              "[config] a.yaml:2: gpu_decode: found true, expected false: cluttered_shapes has no files to decode");
}

}  // namespace
}  // namespace dynvit
