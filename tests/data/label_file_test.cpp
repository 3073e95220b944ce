// Label files as people write them, against the classes that they mean.
#include "dynvit/data/label_file.hpp"

#include <fstream>

#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using Strings = std::vector<std::string>;
using Indices = std::vector<std::int64_t>;

class LabelFiles : public testing::Test {
  protected:
    void SetUp() override {
        for (const char* name : {"a.png", "b.JPG", "deep/a, \"b\".png"}) write(name, "");
    }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }

    LabelFile read(const std::string& text, const std::optional<ClassList>& classes = std::nullopt) const {
        write("labels.csv", text);
        return read_label_file(folder_ / "labels.csv", {folder_.path()}, classes);
    }

    // What is wrong with it, behind the file's name.
    std::string fault(const std::string& text, const std::optional<ClassList>& classes = std::nullopt) const {
        const std::string error = error_of([&] { read(text, classes); });
        const std::string place = "[labels] " + (folder_ / "labels.csv").string();
        EXPECT_EQ(error.substr(0, place.size()), place);
        return error.size() > place.size() ? error.substr(place.size()) : "";
    }

    Indices of(const LabelFile& file, const std::string& picture) const {
        return file.pictures.at((folder_ / picture).string());
    }

    test::TemporaryFolder folder_;
};

TEST_F(LabelFiles, NamesAreSorted) {
    const LabelFile file = read("a.png,dog cat\n\nb.JPG, ant  \n");
    EXPECT_EQ(file.class_names, (Strings{"ant", "cat", "dog"}));
    EXPECT_EQ(of(file, "a.png"), (Indices{1, 2}));
    EXPECT_EQ(of(file, "b.JPG"), Indices{0});
    EXPECT_EQ(file.classes_from, "the names in " + (folder_ / "labels.csv").string());
}

TEST_F(LabelFiles, NumbersAreIndices) {
    const LabelFile file = read("a.png,10 2\nb.JPG,\n");
    EXPECT_EQ(file.class_names.size(), 11u);
    EXPECT_EQ(file.class_names.back(), "10");
    EXPECT_EQ(of(file, "a.png"), (Indices{2, 10}));
    EXPECT_EQ(of(file, "b.JPG"), Indices{}) << "a picture of no class";
    EXPECT_EQ(read("a.png,10 x\n").class_names, (Strings{"10", "x"})) << "names, where one is none";
}

TEST_F(LabelFiles, HeadingsMarksQuotesAndSemicolons) {
    const std::string deep = "\"deep/a, \"\"b\"\".png\"";
    const LabelFile file =
        read("\xef\xbb\xbfimage,labels\r\na.png,traffic light;dog\r\n" + deep + ",\"cat,dog\"\r\nb.JPG,cat,dog\r\n");
    EXPECT_EQ(file.class_names, (Strings{"cat", "dog", "traffic light"}));
    EXPECT_EQ(of(file, "a.png"), (Indices{1, 2}));
    EXPECT_EQ(of(file, "deep/a, \"b\".png"), (Indices{0, 1}));
    EXPECT_EQ(of(file, "b.JPG"), (Indices{0, 1}));
    EXPECT_EQ(read("./deep/../a.png,x\n").pictures.size(), 1u);
    EXPECT_EQ(of(read((folder_ / "a.png").string() + ",x\n"), "a.png"), Indices{0}) << "an absolute path";
}

TEST_F(LabelFiles, AClassListNumbersThem) {
    const ClassList list{{"n2", "n1"}, {"goldfish", "tench, Tinca tinca"}, "list.txt"};
    const LabelFile file = read("a.png,tench, Tinca tinca;goldfish\nb.JPG,n1 0\n", list);
    EXPECT_EQ(file.class_names, list.names);
    EXPECT_EQ(of(file, "a.png"), (Indices{0, 1}));
    EXPECT_EQ(of(file, "b.JPG"), (Indices{0, 1}));
    EXPECT_EQ(file.classes_from, "the class list list.txt");
    EXPECT_EQ(fault("a.png,n1\nb.JPG,n3\n", list),
              ":2: found the class 'n3', which is not in the class list list.txt (2 classes)");
    EXPECT_EQ(fault("a.png,2\n", list), ":1: found the class '2', which is not in the class list list.txt (2 classes)");
}

TEST_F(LabelFiles, ErrorsNameFileAndLine) {
    const std::string here = folder_.path().string();
    EXPECT_EQ(fault("a.png,x\n\nnone.png,x\n"), ":3: no such picture: " + here + "/none.png");
    EXPECT_EQ(fault("path,labels\na.txt,x\n"), ":2: found 'a.txt', expected a picture (" + picture_endings() + ')');
    EXPECT_EQ(fault("a.txt,x\n"), ":1: found 'a.txt', expected a picture (" + picture_endings() + ')') << "no heading";
    EXPECT_EQ(fault("a.png,x\nb.JPG\n"), ":2: found 'b.JPG' and no comma behind it, expected PATH,LABELS");
    EXPECT_EQ(fault("a.png,x\n./a.png,y\n"), ":2: ./a.png has its classes at " + here + "/labels.csv:1 already");
    EXPECT_EQ(fault("a.png,x y x\n"), ":1: found the class 'x' twice, expected it once");
    EXPECT_EQ(fault("\"a.png,x\n"), ":1: found a double quote without a second one");
    EXPECT_EQ(fault("a.png,\"x\" y\n"), ":1: found 'y' behind the labels, expected the line's end");
    EXPECT_EQ(fault("path,labels\n"), ": no picture in the file, a line PATH,LABELS each is expected");
    EXPECT_EQ(fault("a.png,\n"), ": no picture has a class");
    EXPECT_NE(fault(std::string("\xff\xfe\x61\0", 4)).find("found text in UTF-16"), std::string::npos);
}

TEST_F(LabelFiles, PicturesWithoutALineAreLeftOut) {
    const LabelFile file = read("b.JPG,x\na.png,y\n");
    const std::vector<fs::path> all = {folder_ / "a.png", folder_ / "./b.JPG", folder_ / "c.png"};
    const LabelledPictures pictures(file, with_labels(file, all));
    ASSERT_EQ(pictures.size(), 2u);
    EXPECT_EQ(pictures.name(0), all[0].string());
    EXPECT_EQ(pictures.get(1).labels, Indices{0});
    EXPECT_EQ(pictures.get(1).label, -1);
    EXPECT_TRUE(pictures.multi_label());
    EXPECT_EQ(pictures.numbered_folders(), (Strings{"x", "y"}));
    EXPECT_EQ(error_of([&] { with_labels(file, {all[2]}); }),
              "[labels] " + file.path.string() + ": has a line for none of 1 pictures; the first: " + all[2].string());
}

}  // namespace
}  // namespace dynvit
