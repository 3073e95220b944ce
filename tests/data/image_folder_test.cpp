// Folders made for each test, read back.
#include "dynvit/data/image_folder.hpp"

#include <fstream>

#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;

void write_text(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

/// A picture of two pixels, the first of the given red.
void write_picture(const fs::path& path, int red = 0) {
    fs::create_directories(path.parent_path());
    Image image(2, 1);
    image.pixels[0] = static_cast<std::uint8_t>(red);
    write_png(path, image);
}

std::vector<std::string> relative_paths(const ImageFolder& folder, const fs::path& root) {
    std::vector<std::string> paths;
    for (std::size_t i = 0; i < folder.size(); ++i) paths.push_back(folder.path(i).lexically_relative(root).string());
    return paths;
}

using Strings = std::vector<std::string>;

TEST(ImageFolder, SortsClassesAndPictures) {
    const TemporaryFolder root;
    for (const char* name : {"zebra/b.png", "zebra/a.png", "ant/10.png", "ant/2.png", "ant/deep/er/1.png", "Bee/x.png"})
        write_picture(root / name);
    const ImageFolder folder(root.path());
    EXPECT_EQ(folder.class_names(), (Strings{"Bee", "ant", "zebra"}));
    EXPECT_EQ(relative_paths(folder, root.path()),
              (Strings{"Bee/x.png", "ant/10.png", "ant/2.png", "ant/deep/er/1.png", "zebra/a.png", "zebra/b.png"}));
    std::vector<std::int64_t> labels;
    for (std::size_t i = 0; i < folder.size(); ++i) labels.push_back(folder.get(i).label);
    EXPECT_EQ(labels, (std::vector<std::int64_t>{0, 1, 1, 1, 2, 2}));
}

TEST(ImageFolder, ReadsThePicture) {
    const TemporaryFolder root;
    write_picture(root / "a/one.png", 17);
    write_picture(root / "a/two.png", 90);
    const ImageFolder folder(root.path());
    const Sample sample = folder.get(1);
    const Image image = whole_image(sample);
    EXPECT_EQ(image.width, 2);
    EXPECT_EQ(image.height, 1);
    EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{90, 0, 0, 0, 0, 0}));
    EXPECT_EQ(sample.name, (root / "a/two.png").string());
    EXPECT_EQ(folder.name(1), sample.name);
    EXPECT_TRUE(folder.labelled());
    EXPECT_TRUE(sample.object_mask.empty());
}

TEST(ImageFolder, KnowsPicturesByTheirEnding) {
    const TemporaryFolder root;
    for (const char* name : {"a/1.JPG", "a/2.jpeg", "a/3.PnG", "a/4.jpg", "a/notes.txt", "a/png", "a/.hidden.png",
                             "a/.thumbnails/5.png", ".git/6.png", "outside.png", "a/7.png.part"})
        write_text(root / name, "");
    fs::create_directories(root / "a/folder.png");
    const ImageFolder folder(root.path());
    EXPECT_EQ(folder.class_names(), Strings{"a"});
    EXPECT_EQ(relative_paths(folder, root.path()), (Strings{"a/1.JPG", "a/2.jpeg", "a/3.PnG", "a/4.jpg"}));
}

TEST(ImageFolder, KnowsEveryFormatsEndings) {
    const TemporaryFolder root;
    const Strings names = {"a.apng", "b.bmp", "c.gif", "d.jfif", "e.jpe", "f.jpeg",
                           "g.jpg",  "h.png", "i.TIF", "j.tiff", "k.webp"};
    Strings expected;
    for (const std::string& name : names) {
        write_text(root / ("x/" + name), "");
        expected.push_back("x/" + name);
    }
    EXPECT_EQ(relative_paths(ImageFolder(root.path()), root.path()), expected);
}

TEST(ImageFolder, SaysOnceWhatItPassesOver) {
    const TemporaryFolder root;
    write_picture(root / "a/1.png");
    write_picture(root / "b/2.png");
    for (const char* name :
         {"a/1.heic", "a/2.HEIC", "b/3.heic", "b/notes.txt", "b/README", "b/.hidden", "3.png", "classes.txt"})
        write_text(root / name, "");
    testing::internal::CaptureStderr();
    EXPECT_EQ(ImageFolder(root.path()).size(), 2u);
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find(root.path().string() +
                       ": 6 files passed over: 3 .heic, 1 .txt, 1 beside the class folders, 1 without an ending; "
                       "pictures end in .jpg"),
              std::string::npos)
        << log;
    EXPECT_EQ(log.find("passed over"), log.rfind("passed over")) << log;
}

TEST(PassedOver, NamesTheMostFrequent) {
    PassedOver files;
    EXPECT_TRUE(files.empty());
    for (int i = 0; i < 9; ++i) files.add(str('.', i), i + 1);
    PassedOver more;
    more.add(".0", 100);
    files.add(more);
    EXPECT_EQ(files.text(), "101 .0, 9 .8, 8 .7, 7 .6, 6 .5, 5 .4, 9 others");
}

TEST(ImageFolder, FollowsLinks) {
    const TemporaryFolder root, elsewhere;
    write_picture(elsewhere / "there/1.png");
    fs::create_directory_symlink(elsewhere / "there", root / "linked");
    const ImageFolder folder(root.path());
    EXPECT_EQ(relative_paths(folder, root.path()), Strings{"linked/1.png"});
}

TEST(PicturesBelow, FollowsLinksButNotInCircles) {
    const TemporaryFolder root, elsewhere;
    write_picture(root / "a/1.png");
    write_picture(root / "2.png");
    write_picture(elsewhere / "3.png");
    fs::create_directory_symlink(elsewhere.path(), root / "a/there");
    fs::create_directory_symlink(root.path(), elsewhere / "back");
    fs::create_directory_symlink(root / "a", root / "a/itself");
    fs::create_directory_symlink("..", root / "a/up");
    fs::create_symlink("nowhere.png", root / "broken.png");
    fs::create_symlink("turning.png", root / "turning.png");
    fs::create_symlink("2.png", root / "linked.png");
    Strings found;
    PassedOver passed_over;
    for (const fs::path& path : pictures_below(root.path(), passed_over))
        found.push_back(path.lexically_relative(root.path()).string());
    EXPECT_EQ(found, (Strings{"2.png", "a/1.png", "a/there/3.png", "linked.png"}));
    EXPECT_EQ(passed_over.text(), "2 links to nothing");
    EXPECT_EQ(error_of([&] { pictures_below(root / "nowhere", passed_over); }),
              "[image_folder] " + (root / "nowhere").string() + ": cannot be read: No such file or directory");
}

TEST(PicturesOfFolders, TakesEveryPictureBelow) {
    const TemporaryFolder root;
    for (const char* name :
         {"train/n02/b.png", "train/n02/a.png", "train/n01/deep/c.png", "train/d.png", "other/e.png"})
        write_picture(root / name);
    write_picture(root / "train/.hidden/f.png");
    write_text(root / "train/notes.txt", "");
    const PictureList folder(pictures_of_folders({root / "train", root / "other"}));
    Strings found;
    for (std::size_t i = 0; i < folder.size(); ++i) {
        found.push_back(fs::path(folder.name(i)).lexically_relative(root.path()).string());
        const Sample sample = folder.get(i);
        EXPECT_EQ(sample.label, -1);
        EXPECT_EQ(sample.name, folder.name(i));
        EXPECT_EQ(whole_image(sample).width, 2);
    }
    EXPECT_EQ(found,
              (Strings{"train/d.png", "train/n01/deep/c.png", "train/n02/a.png", "train/n02/b.png", "other/e.png"}));
    EXPECT_FALSE(folder.labelled());
    EXPECT_TRUE(folder.class_names().empty());
}

TEST(PicturesOfFolders, SaysWhatIsMissing) {
    const TemporaryFolder root;
    write_picture(root / "train/1.png");
    write_text(root / "empty/notes.txt", "");
    const auto open = [&](const std::string& name) {
        return [&root, name] { pictures_of_folders({root / "train", root / name}); };
    };
    const std::string place = "[image_folder] " + root.path().string();
    EXPECT_EQ(error_of(open("nowhere")), place + "/nowhere: no such folder, a folder of pictures is expected");
    EXPECT_EQ(error_of(open("train/1.png")), place + "/train/1.png: not a folder, a folder of pictures is expected");
    EXPECT_EQ(error_of(open("empty")),
              place + "/empty: no picture (" + picture_endings() + ") in it or below: found 1 .txt");
}

TEST(ImageFolder, ClassListDecidesIndicesAndNames) {
    const TemporaryFolder root;
    write_picture(root / "data/ant/1.png");
    write_picture(root / "data/zebra/1.png");
    write_text(root / "classes.txt", "zebra the zebra\nmissing\nant\n");
    const ImageFolder folder(root / "data", read_class_list(root / "classes.txt"));
    EXPECT_EQ(folder.class_names(), (Strings{"the zebra", "missing", "ant"}));
    EXPECT_EQ(relative_paths(folder, root / "data"), (Strings{"ant/1.png", "zebra/1.png"}));
    EXPECT_EQ(folder.get(0).label, 2);
    EXPECT_EQ(folder.get(1).label, 0);
}

TEST(ImageFolder, SaysWhatIsMissing) {
    const TemporaryFolder root;
    const auto open = [](const fs::path& path) { return [path] { ImageFolder{path}; }; };
    const std::string place = "[image_folder] " + root.path().string();
    const std::string expected = ", a folder with a folder of pictures a class is expected";
    EXPECT_EQ(error_of(open(root / "nowhere")), place + "/nowhere: no such folder" + expected);
    write_text(root / "file", "");
    EXPECT_EQ(error_of(open(root / "file")), place + "/file: not a folder" + expected);
    fs::create_directories(root / "flat");
    write_picture(root / "flat/1.png");
    EXPECT_EQ(error_of(open(root / "flat")),
              place +
                  "/flat: no class folder in it, but pictures, whose classes a label file may say (data.val_labels, "
                  "data.labels; --labels of eval and shard)");
    write_text(root / "bare/a/readme.txt", "");
    write_text(root / "bare/b/readme.txt", "");
    EXPECT_EQ(error_of(open(root / "bare")),
              place + "/bare: no picture (" + picture_endings() + ") in its 2 class folders: found 2 .txt");
}

TEST(ImageFolder, WhatIsNoClassMovesNoIndex) {
    const TemporaryFolder root;
    for (const char* name : {"__MACOSX/a/1.png", ".ipynb_checkpoints/1.png", "a/1.png", "b/1.png"})
        write_picture(root / name);
    const ImageFolder folder(root.path());
    EXPECT_EQ(folder.class_names(), (Strings{"a", "b"}));
    EXPECT_EQ(folder.numbered_folders(), (Strings{"a", "b"}));
    EXPECT_EQ(folder.classes_from(), "the class folders of " + root.path().string());
    EXPECT_EQ(folder.get(1).label, 1);

    fs::create_directories(root / "aa");
    const std::string place = "[image_folder] " + root.path().string();
    EXPECT_EQ(error_of([&] { ImageFolder{root.path()}; }),
              place + "/aa: no picture (" + picture_endings() +
                  ") in this class folder, expected some, no such folder, or a class list, which numbers the classes "
                  "whatever is in theirs");
    write_text(root / "c/notes.txt", "");
    EXPECT_NE(error_of([&] { ImageFolder{root.path()}; }).find("in this class folder, nor in 1 others, expected"),
              std::string::npos);
    const ImageFolder listed(root.path(), ClassList{{"a", "aa", "b", "c"}, {"a", "aa", "b", "c"}, "list.txt"});
    EXPECT_EQ(listed.get(1).label, 2) << "a list says where it stands";
    EXPECT_EQ(listed.classes_from(), "the class list list.txt");
    EXPECT_TRUE(listed.numbered_folders().empty());
}

TEST(ImageFolder, NamesAFolderOutsideTheClassList) {
    const TemporaryFolder root;
    write_picture(root / "a/1.png");
    write_picture(root / "b/1.png");
    EXPECT_EQ(error_of([&] {
                  ImageFolder(root.path(), ClassList{{"a", "c", "d"}, {"a", "c", "d"}});
              }),
              "[image_folder] " + (root / "b").string() + ": the class list (3 classes) does not name this folder");
}

TEST(ImageFolder, BrokenPictureIsNamed) {
    const TemporaryFolder root;
    write_text(root / "a/broken.png", "no picture");
    const ImageFolder folder(root.path());
    EXPECT_NE(error_of([&] { whole_image(folder.get(0)); }).find((root / "a/broken.png").string()), std::string::npos);
}

TEST(ImageFolder, EmptyFileIsNamed) {
    const TemporaryFolder root;
    write_text(root / "a/empty.jpg", "");
    const ImageFolder folder(root.path());
    EXPECT_NE(error_of([&] { whole_image(folder.get(0)); }).find((root / "a/empty.jpg").string()), std::string::npos);
}

TEST(LabelByFolders, TheFirstFolderBelowTheRootIsTheClass) {
    for (const std::string root : {"some/pictures", "some/pictures/", "./some/pictures/.", "/some/pictures"}) {
        std::vector<fs::path> pictures;
        for (const char* name : {"dog/1.png", "ant/2.png", "dog/deep/er/3.png", "train/bee/4.png", "val/dog/5.png"})
            pictures.push_back(fs::path(root) / "." / name);
        const std::optional<PictureLabels> found = label_by_folders(root, pictures);
        ASSERT_TRUE(found) << root;
        EXPECT_EQ(found->class_names, (Strings{"ant", "bee", "dog"}));
        EXPECT_EQ(found->labels, (std::vector<std::int64_t>{2, 0, 2, 1, 2}));
    }
    EXPECT_TRUE(label_by_folders(".", {"a/1.png", "./b/2.png"}));
    EXPECT_TRUE(label_by_folders("..", {"../a/1.png", "../b/2.png"}));
}

TEST(LabelByFolders, FoldersThatTellNothing) {
    EXPECT_FALSE(label_by_folders("p", {"p/a/1.png", "p/a/2.png"})) << "one class";
    EXPECT_FALSE(label_by_folders("p", {"p/a/1.png", "p/b/2.png", "p/3.png"})) << "a picture in none";
    EXPECT_FALSE(label_by_folders("p", {"p/train/1.png", "p/val/2.png"})) << "splits";
    EXPECT_FALSE(label_by_folders("p", {}));
}

TEST(PictureList, HasALabelForEachPictureOrNone) {
    const TemporaryFolder root;
    write_picture(root / "a/1.png", 30);
    write_picture(root / "b/2.png", 40);
    const std::vector<fs::path> paths = {root / "b/2.png", root / "a/1.png"};
    const PictureList without(paths);
    EXPECT_FALSE(without.labelled());
    EXPECT_EQ(without.get(0).label, -1);
    const std::optional<PictureLabels> classes = label_by_folders(root.path(), paths);
    ASSERT_TRUE(classes);
    const PictureList labelled(paths, *classes);
    EXPECT_TRUE(labelled.labelled());
    EXPECT_EQ(labelled.class_names(), (Strings{"a", "b"}));
    EXPECT_EQ(labelled.get(0).label, 1);
    EXPECT_EQ(labelled.get(1).label, 0);
    EXPECT_EQ(whole_image(labelled.get(0)).pixels[0], 40);
}

TEST(ClassList, ReadsFoldersAndNames) {
    const TemporaryFolder root;
    write_text(root / "list", "n01440764 tench, Tinca tinca\r\n\n  n01443537\t goldfish \nn01484850");
    const ClassList list = read_class_list(root / "list");
    EXPECT_EQ(list.folders, (Strings{"n01440764", "n01443537", "n01484850"}));
    EXPECT_EQ(list.names, (Strings{"tench, Tinca tinca", "goldfish", "n01484850"}));
}

TEST(ClassList, MayBeginWithAByteOrderMark) {
    const TemporaryFolder root;
    write_text(root / "list", "\xef\xbb\xbfn01440764 tench\r\nn01443537\r\n");
    const ClassList list = read_class_list(root / "list");
    EXPECT_EQ(list.folders, (Strings{"n01440764", "n01443537"}));
    EXPECT_EQ(list.text(), "the class list " + (root / "list").string());
    write_text(root / "list", std::string("\xff\xfe\x61\0\n\0", 6));
    EXPECT_EQ(error_of([&] { read_class_list(root / "list"); }),
              "[image_folder] " + (root / "list").string() +
                  ": found text in UTF-16 (it begins with the bytes FF FE), expected UTF-8");
}

TEST(ClassList, ErrorsNameFileAndLine) {
    const TemporaryFolder root;
    const auto error = [&](const std::string& text) {
        write_text(root / "list", text);
        return error_of([&] { read_class_list(root / "list"); });
    };
    const std::string place = "[image_folder] " + (root / "list").string();
    EXPECT_EQ(error("a\n\nb\n a other\n"), place + ":4: folder 'a' was named on line 1 already");
    const std::string empty = place + ": no class in the file, a line 'FOLDER NAME' a class is expected";
    EXPECT_EQ(error(""), empty);
    EXPECT_EQ(error("\n  \n"), empty);
    EXPECT_NE(error_of([&] { read_class_list(root / "nowhere"); }).find((root / "nowhere").string()),
              std::string::npos);
}

}  // namespace
}  // namespace dynvit
