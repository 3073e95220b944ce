// dynvit eval on the same pictures in the forms in which people have them: the same accuracy in each.
#include <ATen/CPUGeneratorImpl.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dynvit/core/files.hpp"
#include "dynvit/io/image.hpp"
#include "dynvit/io/tar.hpp"
#include "dynvit/weights/model_file.hpp"
#include "pack_support.hpp"
#include "run_program.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::Outcome;
using test::text_of;
using Words = std::vector<std::string>;

const Words kClasses = {"n01440764", "n02100735", "n02110185", "n02119789"};

class DataForms : public testing::Test {
  protected:
    // Twelve pictures: their bytes by the name that a flat folder has them under, their classes in turn.
    void SetUp() override {
        ModelSettings settings;
        settings.name = "custom";
        settings.image_size = {32};
        settings.patch_size = 8;
        settings.embed_dim = 16;
        settings.depth = 2;
        settings.num_heads = 2;
        settings.pruning_loc = {1};
        settings.num_classes = 4;
        const DynamicVit model(settings, at::make_generator<at::CPUGeneratorImpl>(5));
        write_model_file(folder_ / "w.safetensors", *model);
        for (int i = 0; i < 12; ++i) {
            Image image(32, 32);
            for (std::size_t k = 0; k < image.pixels.size(); ++k)
                image.pixels[k] = static_cast<std::uint8_t>(k * (7 + i) % (50 + 17 * i));
            const std::vector<std::uint8_t> bytes = encode_png(image);
            pictures_.emplace_back(str("val_", 10 + i, ".png"), std::string(bytes.begin(), bytes.end()));
        }
        for (std::size_t i = 0; i < pictures_.size(); ++i)
            write("folders/val/" + class_of(i) + '/' + pictures_[i].first, pictures_[i].second);
        expected_ = eval("folders").first;
        EXPECT_EQ(expected_.at("images"), 12);
        EXPECT_GT(expected_.at("top1"), 0);
        EXPECT_LT(expected_.at("top1"), 100) << "so that wrong labels show";
    }

    static std::string class_of(std::size_t i) { return kClasses[i * 7 % 4]; }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }

    std::string archive(const std::vector<std::pair<std::string, std::string>>& members) const {
        TarWriter writer(folder_ / "new.tar");
        for (const auto& [name, text] : members)
            writer.add(name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
        writer.commit();
        return text_of(folder_ / "new.tar");
    }

    void write_flat(const std::string& data) const {
        for (const auto& [name, bytes] : pictures_) write(str(data, "/val/", name), bytes);
    }

    Outcome run(const std::string& data, const Words& more) const {
        std::string command =
            str("'", DYNVIT_PROGRAM, "' eval -w w.safetensors -d cpu --threads 1 --json r --data ", data);
        for (const std::string& word : more) command += str(" '", word, "'");
        return test::run_in(folder_.path(), command);
    }

    // The dense row of the report, and what was said.
    std::pair<json, std::string> eval(const std::string& data, const Words& more = {}) const {
        const Outcome outcome = run(data, more);
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        if (outcome.code != 0) return {};
        return {json::parse(text_of(folder_ / "r")).at("results").at(0), outcome.err};
    }

    // Evaluates, and compares with the class folders. Returns what was said.
    std::string same(const std::string& data, const Words& more = {}) const {
        const auto [found, said] = eval(data, more);
        if (found.is_null()) return "";
        for (const char* key : {"images", "top1", "top5"}) EXPECT_EQ(found.at(key), expected_.at(key)) << data << said;
        EXPECT_NEAR(found.at("loss"), expected_.at("loss"), 1e-5);
        return said;
    }

    static bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

    test::TemporaryFolder folder_;
    std::vector<std::pair<std::string, std::string>> pictures_;
    json expected_;
};

TEST_F(DataForms, FlatFoldersWithALabelFile) {
    write_flat("flat");
    std::string numbers, names, ids, kaggle = "ImageId,PredictionString\n";
    const std::map<std::string, int> ilsvrc = {{"n02119789", 1}, {"n02100735", 2}, {"n02110185", 3}, {"n01440764", 4}};
    for (std::size_t i = 0; i < pictures_.size(); ++i) {
        const std::string name = pictures_[i].first, label = class_of(i);
        numbers += str(name, ' ', std::ranges::find(kClasses, label) - kClasses.begin(), '\n');
        names += str("val/", name, ',', label, '\n');
        kaggle += str(name.substr(0, name.find('.')), ',', label, " 1 2 3 4 \n");
        ids += str(ilsvrc.at(label), '\n');
    }
    write("numbers.txt", numbers);
    write("names.csv", names);
    write("kaggle.csv", kaggle);
    write("devkit/ILSVRC2012_validation_ground_truth.txt", ids);
    EXPECT_TRUE(says(same("flat", {"--labels", "numbers.txt"}), "numbers.txt: one class in each of 12 pictures"));
    same("flat", {"--labels", "names.csv"});
    same("flat", {"--labels", "kaggle.csv"});
    const Words ground_truth = {"--labels", "devkit/ILSVRC2012_validation_ground_truth.txt"};
    const Outcome unknown = run("flat", ground_truth);
    EXPECT_EQ(unknown.code, 1);
    EXPECT_TRUE(says(unknown.err, "may be ILSVRC's own ids")) << unknown.err;
    fs::copy_file(test::golden("formats/synsets.mat"), folder_ / "devkit/meta.mat");
    EXPECT_TRUE(says(same("flat", ground_truth), "read as ILSVRC's own ids of 12 pictures"));
    const json notes = json::parse(text_of(folder_ / "r")).at("notes");
    EXPECT_TRUE(says(notes.dump(), "by devkit/meta.mat")) << notes;
    fs::remove(folder_ / "flat/val/val_15.png");
    EXPECT_TRUE(
        says(run("flat", ground_truth).err, "found 12 classes, a line each, expected as many as the 11 pictures"));
    EXPECT_TRUE(says(run("flat", {}).err, "no class folder in it, but pictures, whose classes a label file may say"));
}

TEST_F(DataForms, ShardsOfEveryKind) {
    using Members = std::vector<std::pair<std::string, std::string>>;
    Members cls, json_members, txt, folders, flat;
    std::map<std::string, Members> of_class;
    std::string names;
    for (std::size_t i = 0; i < pictures_.size(); ++i) {
        const auto& [name, bytes] = pictures_[i];
        const std::string key = name.substr(0, name.find('.')), label = class_of(i);
        cls.insert(cls.end(), {{key + ".CLS", label}, {name, bytes}});
        json_members.insert(json_members.end(),
                            {{name, bytes}, {key + ".json", R"({"caption": "x", "label": ")" + label + "\"}"}});
        txt.insert(txt.end(), {{name, bytes}, {key + ".txt", label + '\n'}});
        folders.emplace_back(label + '/' + name, bytes);
        flat.emplace_back(name, bytes);
        of_class[label].emplace_back(name, bytes);
        names += str(name, ' ', label, '\n');
    }
    write("cls/val/0.tar", archive(cls));
    EXPECT_TRUE(says(same("cls"), "classes from .cls"));
    write("json/val/0.tar.gz", test::gzip(archive(json_members)));
    EXPECT_TRUE(says(same("json"), "classes from the key label of .json"));
    write("txt/val/0.tar.zst", test::zstd(archive(txt)));
    EXPECT_TRUE(says(same("txt"), "classes from .txt"));
    write("members/val/0.tgz", test::gzip(archive(folders)));
    EXPECT_TRUE(says(same("members"), "classes from the members' folders"));
    Members inner;
    for (const auto& [label, members] : of_class) {
        write(str("tars/val/", label, ".tar"), archive(members));
        inner.emplace_back(label + ".tar", archive(members));
    }
    EXPECT_TRUE(says(same("tars"), "classes from the archives' names"));
    write("nested/val/ILSVRC2012_img_train.tar", archive(inner));
    EXPECT_TRUE(says(same("nested"), "classes from the archives' names"));
    write("flat/val/0.tar", archive(flat));
    write("names.txt", names);
    same("flat", {"--labels", "names.txt"});
    const std::string none = eval("flat").second;
    EXPECT_TRUE(says(none, "flat/val/0.tar: no classes: none in .cls,")) << none;
}

}  // namespace
}  // namespace dynvit
