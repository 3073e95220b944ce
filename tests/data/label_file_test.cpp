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
        return read_label_file(folder_ / "labels.csv", {.roots = {folder_.path()}}, classes);
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
    write("labels.csv", "b.JPG,x\na.png,y\n");
    const LabelFile file = read_label_file(folder_ / "labels.csv", {.roots = {folder_.path()}}, std::nullopt, "multi");
    const std::vector<fs::path> all = {folder_ / "a.png", folder_ / "./b.JPG", folder_ / "c.png"};
    const LabelledPictures pictures(file, std::make_unique<PictureList>(with_labels(file, all)));
    ASSERT_EQ(pictures.size(), 2u);
    EXPECT_EQ(pictures.name(0), all[0].string());
    EXPECT_EQ(pictures.get(1).labels, Indices{0});
    EXPECT_EQ(pictures.get(1).label, -1);
    EXPECT_TRUE(pictures.multi_label());
    EXPECT_EQ(pictures.numbered_folders(), (Strings{"x", "y"}));
    EXPECT_EQ(error_of([&] { with_labels(file, {all[2]}); }),
              "[labels] " + file.path.string() + ": has a line for none of 1 pictures; the first: " + all[2].string());
}

// --- One class a picture ---

TEST_F(LabelFiles, OneClassEachIsALabel) {
    const std::string text = "a.png,x\nb.JPG,y\n";
    const LabelFile file = read(text);
    EXPECT_TRUE(file.single);
    const LabelledPictures pictures(file, std::make_unique<PictureList>(std::vector{folder_ / "b.JPG"}));
    EXPECT_FALSE(pictures.multi_label());
    EXPECT_EQ(pictures.get(0).label, 1);
    EXPECT_TRUE(pictures.get(0).labels.empty());
    EXPECT_FALSE(read("a.png,x\nb.JPG,y x\n").single);
    EXPECT_FALSE(read("a.png,x\nb.JPG,\n").single);
    const auto as = [&](const std::string& kind) {
        return read_label_file(folder_ / "labels.csv", {.roots = {folder_.path()}}, std::nullopt, kind).single;
    };
    write("labels.csv", text);
    EXPECT_TRUE(as("single"));
    EXPECT_FALSE(as("multi"));
    write("labels.csv", "a.png,x\nb.JPG,y x\n");
    EXPECT_EQ(error_of([&] { as("single"); }), "[labels] " + (folder_ / "labels.csv").string() +
                                                   ": found 2 classes for " + (folder_ / "b.JPG").string() +
                                                   ", expected one (data.label_kind: single)");
}

TEST_F(LabelFiles, LinesWithoutACommaArePartedByBlanks) {
    write("my photo.jpg", "");
    const LabelFile file = read("a.png 10\nb.JPG\t2\n  my photo.jpg   0\n");
    EXPECT_EQ(file.class_names.size(), 11u);
    EXPECT_EQ(of(file, "a.png"), Indices{10});
    EXPECT_EQ(of(file, "b.JPG"), Indices{2});
    EXPECT_EQ(of(file, "my photo.jpg"), Indices{0});
    EXPECT_TRUE(file.single);
    EXPECT_EQ(of(read("picture class\na.png dog\n"), "a.png"), Indices{0}) << "behind a heading";
    EXPECT_EQ(of(read("a.png dog cat\nb.JPG ant\n"), "a.png"), (Indices{1, 2}));
    EXPECT_EQ(fault("a.png 3\nb.JPG\n"), ":2: found 'b.JPG' and no label behind it, expected PATH LABEL");
    EXPECT_EQ(fault("a.png 3\nc.png 4\n"), ":2: no such picture: " + (folder_ / "c.png").string());
}

TEST_F(LabelFiles, PicturesMayBeNamedInPart) {
    for (const char* name : {"val/ILSVRC2012_val_1.JPEG", "val/x/7.jpg", "val/y/7.jpg"}) write(name, "");
    const auto read_in_part = [&](const std::string& text) {
        write("labels.csv", text);
        return read_label_file(folder_ / "labels.csv",
                               {.roots = {folder_.path()}, .names = [&] {
                                    std::vector<std::string> names;
                                    for (const char* name : {"val/ILSVRC2012_val_1.JPEG", "val/x/7.jpg", "val/y/7.jpg"})
                                        names.push_back((folder_ / name).string());
                                    return names;
                                }});
    };
    const LabelFile file = read_in_part("ILSVRC2012_val_1,dog\nx/7,cat\ny/7.jpg,cat\n");
    EXPECT_EQ(of(file, "val/ILSVRC2012_val_1.JPEG"), Indices{1}) << "a first line without a dot that is a picture";
    EXPECT_EQ(of(file, "val/x/7.jpg"), Indices{0});
    EXPECT_EQ(of(read_in_part("id,label\nILSVRC2012_val_1.JPEG,dog\n"), "val/ILSVRC2012_val_1.JPEG"), Indices{0});
    EXPECT_EQ(error_of([&] { read_in_part("a.png,cat\n7,dog\n"); }),
              str("[labels] ", (folder_ / "labels.csv").string(), ":2: '7' may be any of 2 pictures: ",
                  (folder_ / "val/x/7.jpg").string(), ", ", (folder_ / "val/y/7.jpg").string()));
    EXPECT_NE(error_of([&] { read_in_part("z/7.jpg,dog\n"); }).find(":1: no such picture: "), std::string::npos);
}

TEST_F(LabelFiles, BoxesOfKagglesCopy) {
    const LabelFile file = read(
        "ImageId,PredictionString\na.png,n03995372 85 1 499 272 \n"
        "b.JPG,n01751748 1 2 3 4 n01751748 5 6 7 8\n");
    EXPECT_EQ(file.class_names, (Strings{"n01751748", "n03995372"}));
    EXPECT_EQ(of(file, "b.JPG"), Indices{0});
    EXPECT_TRUE(file.single);
    EXPECT_EQ(read("a.png,n1 85 1 499 272\nb.JPG,n2\n").class_names.size(), 6u) << "not in every line";
}

// --- A class a line, in the order of the pictures ---

class OrderedLabels : public LabelFiles {
  protected:
    LabelFile read_ordered(const std::string& text, const std::optional<ClassList>& classes = std::nullopt) const {
        write("labels.txt", text);
        LabelPlaces places{.roots = {folder_.path()}};
        places.ordered = [&] {  // by their files' names: 1, 2, 3, whatever their folders
            return std::vector<std::string>{(folder_ / "v/a/2.png").string(), (folder_ / "v/b/1.png").string(),
                                            (folder_ / "v/3.png").string()};
        };
        return read_label_file(folder_ / "labels.txt", places, classes);
    }

    std::string ordered_fault(const std::string& text) const {
        const std::string error = error_of([&] { read_ordered(text); });
        const std::string place = "[labels] " + (folder_ / "labels.txt").string();
        EXPECT_EQ(error.substr(0, place.size()), place);
        return error.substr(std::min(place.size(), error.size()));
    }
};

TEST_F(OrderedLabels, NamesAndIndices) {
    const LabelFile names = read_ordered("dog\ncat\ndog\n");
    EXPECT_EQ(names.class_names, (Strings{"cat", "dog"}));
    EXPECT_EQ(of(names, "v/b/1.png"), Indices{1});
    EXPECT_EQ(of(names, "v/a/2.png"), Indices{0});
    EXPECT_EQ(of(names, "v/3.png"), Indices{1});
    EXPECT_EQ(of(read_ordered("2\n0\n1\n"), "v/b/1.png"), Indices{2}) << "there is a 0: indices";
    EXPECT_EQ(ordered_fault("dog\ncat\n"),
              ": found 2 classes, a line each, expected as many as the 3 pictures (the first: " +
                  (folder_ / "v/b/1.png").string() + ")");
    EXPECT_EQ(fault("dog\ncat\n"),
              ": a class a line without pictures, which tells nothing of the training pictures; expected "
              "data.val_labels, or a line PATH LABEL each");
}

TEST_F(OrderedLabels, IlsvrcIdsAreNoIndices) {
    EXPECT_EQ(ordered_fault("1\n4\n2\n"),
              ": found a number from 1 on a line and no 0, which may be ILSVRC's own ids, whose order is not that of "
              "class folders; expected the development kit's meta.mat beside it, or ILSVRC2012_ids.txt (a WordNet id a "
              "line, in their order), or a line 'PICTURE LABEL' each");
    for (const char* place : {"meta.mat", "ILSVRC2012_devkit_t12/data/meta.mat"}) {
        fs::create_directories((folder_ / place).parent_path());
        fs::copy_file(test::golden("formats/synsets_packed.mat"), folder_ / place);
        const LabelFile file = read_ordered("1\n4\n2\n");
        EXPECT_EQ(file.class_names, (Strings{"n01440764", "n02100735", "n02110185", "n02119789"}))
            << "all classes, but not what stands above them";
        EXPECT_TRUE(file.sorted);
        EXPECT_EQ(of(file, "v/b/1.png"), Indices{3});
        EXPECT_EQ(of(file, "v/a/2.png"), Indices{0});
        EXPECT_EQ(of(file, "v/3.png"), Indices{1});
        const ClassList list{{"n02119789", "n01440764", "n02100735"}, {"fox", "tench", "setter"}, "list"};
        EXPECT_EQ(of(read_ordered("1\n4\n2\n", list), "v/a/2.png"), Indices{1});
        EXPECT_EQ(ordered_fault("1\n4\n5\n"),
                  ":3: found the id 5, which " + (folder_ / place).string() + " does not have");
        fs::remove(folder_ / place);
    }
    write("ILSVRC2012_ids.txt", "n02119789 kit fox\nn02100735\nn02110185\nn01440764\n");
    EXPECT_EQ(of(read_ordered("1\n4\n2\n"), "v/b/1.png"), Indices{3});
    const std::string ids = "[labels] " + (folder_ / "ILSVRC2012_ids.txt").string();
    write("ILSVRC2012_ids.txt", "n01440764\nn02100735\nn02110185\nn02119789\n");
    EXPECT_EQ(error_of([&] { read_ordered("1\n4\n2\n"); }),
              ids + ": its 4 WordNet ids are sorted, but ILSVRC's own order, which is expected here, is another");
    write("ILSVRC2012_ids.txt", "n02119789\ndog\n");
    EXPECT_EQ(error_of([&] { read_ordered("1\n4\n2\n"); }),
              ids + ":2: found 'dog', expected a WordNet id (n01440764) a line, in the order of ILSVRC2012_ID");
}

}  // namespace
}  // namespace dynvit
