// Archives made for each test, read back: samples against the members they were made of, batches against one worker's.
#include "dynvit/data/tar_shards.hpp"

#include <fstream>

#include "dynvit/core/text.hpp"
#include "dynvit/data/loader.hpp"
#include "pack_support.hpp"
#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;
using Strings = std::vector<std::string>;
using Members = std::vector<std::pair<std::string, std::string>>;

fs::path write_shard(const fs::path& path, const Members& members) {
    fs::create_directories(path.parent_path());
    TarWriter writer(path);
    for (const auto& [name, text] : members)
        writer.add(name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    writer.commit();
    return path;
}

/// A picture of 2 x 1 pixels whose first byte is `red`.
std::string png(int red) {
    Image image(2, 1);
    image.pixels[0] = static_cast<std::uint8_t>(red);
    const std::vector<std::uint8_t> bytes = encode_png(image);
    return {bytes.begin(), bytes.end()};
}

Strings names(const TarShards& shards, const fs::path& root) {
    Strings found;
    for (std::size_t i = 0; i < shards.size(); ++i)
        found.push_back(fs::path(shards.name(i)).lexically_relative(root).string());
    return found;
}

TEST(TarShards, SamplesAreAdjacentMembersOfOneKey) {
    const TemporaryFolder root;
    const fs::path one = write_shard(root / "1.tar", {{"n01/a.cls", "7"},
                                                      {"n01/a.jpg", "A"},
                                                      {"n01/a.json", "{}"},
                                                      {"n01/a.seg.png", "mask"},
                                                      {"b.PNG", "B"},
                                                      {"b.txt", "a caption"},
                                                      {"b.cls", " 12\n"},
                                                      {".hidden.jpg", ""},
                                                      {"README", ""},
                                                      {"notes.txt", ""},
                                                      {"v1.2/c.jpeg", "C"},
                                                      {"v1.2/c.cls", "0"}});
    const fs::path none = write_shard(root / "2.tar", {});
    const fs::path two = write_shard(root / "3.tar", {{"b.jpg", "another B"}, {"b.cls", "3"}});
    const TarShards shards({one, none, two});
    EXPECT_EQ(names(shards, root.path()),
              (Strings{"1.tar/n01/a.jpg", "1.tar/b.PNG", "1.tar/v1.2/c.jpeg", "3.tar/b.jpg"}));
    EXPECT_EQ(shards.shard_sizes(), (std::vector<std::size_t>{3, 0, 1}));
    EXPECT_TRUE(shards.labelled());
    EXPECT_EQ(shards.class_names().size(), 13u);
    EXPECT_EQ(shards.class_names()[12], "12");
    Strings texts;
    std::vector<std::int64_t> labels;
    for (std::size_t i = 0; i < shards.size(); ++i) {
        const Sample sample = shards.get(i);
        texts.emplace_back(sample.encoded.begin(), sample.encoded.end());
        labels.push_back(sample.label);
        EXPECT_EQ(sample.name, shards.name(i));
    }
    EXPECT_EQ(texts, (Strings{"A", "B", "C", "another B"}));
    EXPECT_EQ(labels, (std::vector<std::int64_t>{7, 12, 0, 3}));
}

TEST(TarShards, ClassesComeFromAListOrAreNone) {
    const TemporaryFolder root;
    const fs::path labelled = write_shard(root / "a.tar", {{"a.jpg", ""}, {"a.cls", "1"}});
    const fs::path plain = write_shard(root / "b.tar", {{"b.jpg", ""}});
    const ClassList list{{"x", "y", "z"}, {"the x", "the y", "the z"}};
    EXPECT_EQ(TarShards({labelled}, list).class_names(), list.names);
    const TarShards without({plain});
    EXPECT_FALSE(without.labelled());
    EXPECT_TRUE(without.class_names().empty());
    EXPECT_EQ(without.get(0).label, -1);
    const TarShards unread({labelled, plain}, list, {.labelled = false});
    EXPECT_FALSE(unread.labelled());
    EXPECT_EQ(unread.get(0).label, -1);
    EXPECT_EQ(unread.size(), 2u);
}

TEST(TarShards, ErrorsNameFileAndByte) {
    const TemporaryFolder root;
    const auto error = [&](const Members& members) {
        const fs::path path = write_shard(root / "a.tar", members);
        const std::string text = error_of([&] { TarShards({path}, ClassList{{"x", "y"}, {"x", "y"}, "list"}); });
        const std::string place = "[tar_shards] " + path.string() + ": ";
        EXPECT_EQ(text.substr(0, place.size()), place);
        return text.substr(std::min(place.size(), text.size()));
    };
    for (const char* label : {"-1", "1000000", "99999999999999999999", "+1"}) {
        if (parse_integer(label))
            EXPECT_EQ(error({{"a.jpg", "A"}, {"a.cls", label}}),
                      str("member at byte 512: class '", label, "', expected an index from 0 to 999999, or a name"));
        else
            EXPECT_EQ(error({{"a.jpg", "A"}, {"a.cls", label}}),
                      str("member at byte 512: class '", label, "', which is not in the class list list (2 classes)"));
    }
    EXPECT_EQ(error({{"a.jpg", "A"}, {"a.cls", " \n"}}),
              "member at byte 1536: an empty class, expected an index or a name");
    EXPECT_EQ(
        error({{"a.jpg", "A"}, {"a.cls", "x\ny"}}),
        "member at byte 1536: a class of several lines or of bytes that are no text, expected an index or a name");
    EXPECT_EQ(error({{"a.jpg", "A"}, {"a.cls", std::string(257, '1')}}),
              "member at byte 1536: a class of 257 bytes, expected at most 256");
    for (const char* label : {"2", "z"})
        EXPECT_EQ(error({{"a.jpg", ""}, {"a.cls", label}}),
                  str("member at byte 512: class '", label, "', which is not in the class list list (2 classes)"));
    EXPECT_EQ(error({{"a.cls", "1"}, {"b.jpg", ""}}),
              "member at byte 512: a class, but its sample has no picture (" + picture_endings() + ")");
    EXPECT_EQ(error({{"a.jpg", ""}, {"b.jpg", ""}, {"a.cls", "1"}}),
              "member at byte 1536: a class, but its sample has no picture (" + picture_endings() + ")");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.png", ""}}),
              "member at byte 1024: its sample has a picture already, at byte 512");
    EXPECT_EQ(error({{"a.cls", "1"}, {"a.CLS", "1"}}), "member at byte 1536: its sample has a class already");
    EXPECT_EQ(error({{"a.json", ""}, {"a.json", ""}}), "member at byte 1024: its sample has a .json already");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.cls", "1"}, {"b.jpg", ""}}),
              "member at byte 2048: found no .cls beside the picture, expected one beside each");
    EXPECT_EQ(error({{"a.txt", ""}}), "no picture (" + picture_endings() + ") in 1 archives: found 1 .txt");
    EXPECT_EQ(error({{"img.0.jpg", ""}, {"img.0.cls", "1"}}),
              "no picture (" + picture_endings() + ") in 1 archives: found 1 .cls, 1 .jpg behind a second dot");
    EXPECT_EQ(error({{"img.cls", "1"}, {"img.0.jpg", ""}}),
              "member at byte 512: a class, but its sample has no picture (" + picture_endings() +
                  "); a key ends at the first dot, which makes '0.jpg' the ending of 'img.0.jpg'");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.json", "{\"label\": 1.5}"}}),
              "member at byte 1024: the key label of .json: found number, expected a whole number or a name, or a list "
              "of them");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.json", "{"}}), "member at byte 1024: a .json that is no JSON object");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.json", "{\"cls\": [1, 1]}"}}),
              "member at byte 512: class '1', which the picture has twice");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.json", "{\"label\": 1}"}, {"b.jpg", ""}, {"b.json", "{\"cls\": 1, \"b\": 2}"}}),
              "member at byte 2560: a .json without the key label: found b, cls");
}

// --- Where classes stand ---

class Labels : public testing::Test {
  protected:
    fs::path shard(const std::string& name, const Members& members) { return write_shard(root_ / name, members); }

    // Each picture's class by its name, in order; several of one picture joined by '+', none for -1.
    static Strings classes_of(const TarShards& shards) {
        Strings found;
        for (std::size_t i = 0; i < shards.size(); ++i) {
            const Sample sample = shards.get(i);
            Strings names;
            for (const std::int64_t label : sample.labels) names.push_back(shards.class_names().at(label));
            if (sample.label >= 0) names.push_back(shards.class_names().at(sample.label));
            found.push_back(join(names, "+"));
        }
        return found;
    }

    // What opening says.
    template <class Action>
    static std::string log_of(const Action& action) {
        testing::internal::CaptureStderr();
        action();
        return testing::internal::GetCapturedStderr();
    }

    TemporaryFolder root_;
};

TEST_F(Labels, NamesAreSortedOverAllShards) {
    const std::vector<fs::path> paths = {shard("1.tar", {{"a.CLS", "traffic light\n"}, {"a.jpg", ""}}),
                                         shard("2.tar", {{"b.jpg", ""}, {"b.cls", "dog"}})};
    const TarShards shards(paths);
    EXPECT_EQ(shards.class_names(), (Strings{"dog", "traffic light"}));
    EXPECT_EQ(shards.numbered_folders(), shards.class_names());
    EXPECT_EQ(shards.classes_from(), ".cls in the shards of " + root_.path().string());
    EXPECT_EQ(shards.get(0).label, 1);
    const ClassList list{{"n1", "n2", "n3"}, {"dog", "cat", "traffic light"}, "list"};
    EXPECT_EQ(TarShards(paths, list).get(0).label, 2);
    EXPECT_TRUE(TarShards(paths, list).numbered_folders().empty());
    const fs::path mixed = shard("3.tar", {{"c.cls", "4"}, {"c.jpg", ""}});
    EXPECT_NE(error_of([&] {
                  TarShards({paths[1], mixed});
              }).find("class 'dog', while others are numbers, expected either of all pictures"),
              std::string::npos);
}

TEST_F(Labels, JsonByAKey) {
    const auto one = [&](const std::string& a, const std::string& b) {
        return shard("a.tar", {{"a.jpg", ""}, {"a.json", a}, {"b.jpg", ""}, {"b.json", b}});
    };
    EXPECT_EQ(classes_of(TarShards({one(R"({"caption": "x", "label": 3})", R"({"label": "1"})")})),
              (Strings{"3", "1"}));
    EXPECT_EQ(classes_of(TarShards({one(R"({"cls": "dog"})", R"({"cls": "cat"})")})), (Strings{"dog", "cat"}));
    const fs::path nested = one(R"({"meta": {"kind": "dog"}, "label": 0, "a.b": "x"})",
                                R"({"meta": {"kind": "cat"}, "label": 0, "a.b": "y"})");
    EXPECT_EQ(classes_of(TarShards({nested}, std::nullopt, {.label_key = "meta.kind"})), (Strings{"dog", "cat"}));
    EXPECT_EQ(classes_of(TarShards({nested}, std::nullopt, {.label_key = "a.b"})), (Strings{"x", "y"}));
    EXPECT_EQ(error_of([&] { TarShards({nested}, std::nullopt, {.label_key = "meta.none"}); }),
              "[tar_shards] " + nested.string() +
                  ": member at byte 1024: a .json without the key meta.none: found a.b, label, meta");
    const fs::path other = one(R"({"kind": 1})", "{}");
    EXPECT_EQ(
        error_of([&] { TarShards({other}, std::nullopt, {.label_from = "json"}); }),
        "[tar_shards] " + other.string() +
            ": member at byte 1024: a .json with none of the keys label, labels, cls, class: found kind, expected "
            "data.label_key");
}

TEST_F(Labels, ListsInJsonAreAnyNumberOfClasses) {
    const fs::path several = shard("a.tar", {{"a.jpg", ""},
                                             {"a.json", R"({"labels": ["sky", "sea"]})"},
                                             {"b.jpg", ""},
                                             {"b.json", R"({"labels": []})"},
                                             {"c.jpg", ""},
                                             {"c.json", R"({"labels": ["sea"]})"}});
    const TarShards shards({several});
    EXPECT_TRUE(shards.multi_label() && shards.labelled());
    EXPECT_EQ(classes_of(shards), (Strings{"sea+sky", "", "sea"}));
    EXPECT_NE(error_of([&] {
                  TarShards({several}, std::nullopt, {.label_kind = "single"});
              }).find("found 2 classes for " + several.string() + "/a.jpg, expected one"),
              std::string::npos);
    const fs::path ones = shard("b.tar", {{"a.jpg", ""}, {"a.json", R"({"labels": [4]})"}});
    EXPECT_FALSE(TarShards({ones}).multi_label());
    EXPECT_TRUE(TarShards({ones}, std::nullopt, {.label_kind = "multi"}).multi_label());
}

TEST_F(Labels, TextsAreClassesUnlessTheyAreCaptions) {
    const auto texts = [&](const Strings& each) {
        Members members;
        for (std::size_t i = 0; i < each.size(); ++i) {
            members.emplace_back(str(i, ".jpg"), "");
            members.emplace_back(str(i, ".txt"), each[i]);
        }
        return shard("a.tar", members);
    };
    EXPECT_EQ(classes_of(TarShards({texts({"3", "0"})})), (Strings{"3", "0"}));
    EXPECT_EQ(classes_of(TarShards({texts({"dog", "cat", "dog", "cat"})})), (Strings{"dog", "cat", "dog", "cat"}));
    const ClassList list{{"cat", "dog"}, {"cat", "dog"}, "list"};
    EXPECT_EQ(classes_of(TarShards({texts({"dog", "cat"})}, list)), (Strings{"dog", "cat"}));
    const fs::path captions = texts({"a dog on a lawn", "a cat", "a dog", "a dog"});
    EXPECT_FALSE(TarShards({captions}).labelled()) << "three texts of four pictures";
    EXPECT_TRUE(TarShards({captions}, std::nullopt, {.label_from = "txt"}).labelled());
    EXPECT_FALSE(TarShards({texts({"dog", "a sheep"})}, list).labelled());
}

TEST_F(Labels, FoldersOfMembers) {
    const fs::path path = shard("a.tar", {{"./train/dog/1.JPEG", ""}, {"./train/cat/2.JPEG", ""}, {"./x.txt", ""}});
    const TarShards shards({path});
    EXPECT_EQ(classes_of(shards), (Strings{"dog", "cat"}));
    EXPECT_EQ(shards.classes_from(), "the members' folders in the shards of " + root_.path().string());
    EXPECT_EQ(TarShards({path}, ClassList{{"cow", "cat", "dog"}, {"cow", "cat", "dog"}, "list"}).get(0).label, 2);
    const ClassList other{{"cow", "cat"}, {"cow", "cat"}, "list"};
    EXPECT_NE(error_of([&] { TarShards({path}, other); }).find("class 'dog', which is not in the class list list"),
              std::string::npos);
    const fs::path one = shard("b.tar", {{"images/1.jpg", ""}, {"images/2.jpg", ""}});
    EXPECT_FALSE(TarShards({one}).labelled()) << "one folder tells nothing";
    EXPECT_TRUE(TarShards({one}, std::nullopt, {.label_from = "folder"}).labelled());
    const fs::path bare = shard("c.tar", {{"a/1.jpg", ""}, {"2.jpg", ""}});
    EXPECT_EQ(error_of([&] { TarShards({bare}, std::nullopt, {.label_from = "folder"}); }),
              "[tar_shards] " + bare.string() + ": member at byte 1024: a picture in no folder, expected its class's");
    const fs::path numbers = shard("d.tar", {{"10/a.jpg", ""}, {"9/a.jpg", ""}});
    EXPECT_EQ(TarShards({numbers}).class_names(), (Strings{"10", "9"})) << "folders are names, as in ImageFolder";
}

TEST_F(Labels, AClassAnArchive) {
    const std::vector<fs::path> paths = {shard("n01440764.tar", {{"n01440764_1.JPEG", "1"}, {"n01440764_2.JPEG", "2"}}),
                                         shard("n01443537.TAR", {{"n01443537_1.JPEG", "3"}})};
    EXPECT_EQ(classes_of(TarShards(paths)), (Strings{"n01440764", "n01440764", "n01443537"}));
    const ClassList list{{"n01443537", "n01440764"}, {"goldfish", "tench"}, "list"};
    EXPECT_EQ(classes_of(TarShards({paths[0]}, list)), (Strings{"tench", "tench"}));
    for (const char* name : {"train-000000.tar", "train-000001.tar"}) shard(str("in/", name), {{"a.jpg", ""}});
    const std::vector<fs::path> numbered = shards_in(root_ / "in");
    const std::string log = log_of([&] { EXPECT_FALSE(TarShards(numbered).labelled()); });
    EXPECT_NE(log.find(": no classes: none in .cls,"), std::string::npos) << log;
    EXPECT_EQ(TarShards(numbered, std::nullopt, {.label_from = "shard"}).class_names(),
              (Strings{"train-000000", "train-000001"}));
}

TEST_F(Labels, ArchivesInAnArchive) {
    const auto bytes_of = [&](const std::string& name, const Members& members) {
        const std::vector<std::uint8_t> bytes = read_file(shard("inner/" + name, members), "test");
        return std::string(bytes.begin(), bytes.end());
    };
    Members members;
    for (int i = 0; i < 8; ++i)
        for (const char* name : {"n01440764", "n01443537"})
            if (i == 0) {
                Members pictures;
                for (int k = 0; k < 8; ++k) pictures.emplace_back(str(name, '_', k, ".JPEG"), str(name, k));
                members.emplace_back(str(name, ".tar"), bytes_of(str(name, ".tar"), pictures));
            }
    const fs::path path = shard("ILSVRC2012_img_train.tar", members);
    const TarShards shards({path});
    ASSERT_EQ(shards.size(), 16u);
    EXPECT_EQ(shards.class_names(), (Strings{"n01440764", "n01443537"}));
    EXPECT_EQ(shards.name(9), path.string() + "/n01443537.tar/n01443537_1.JPEG");
    const Sample sample = shards.get(9);
    EXPECT_EQ(std::string(sample.encoded.begin(), sample.encoded.end()), "n014435371");
    EXPECT_EQ(sample.label, 1);
    EXPECT_TRUE(shards.shard_sizes().empty()) << "classes lie one behind the other: all are shuffled";
}

TEST_F(Labels, WhatIsPassedOverIsSaid) {
    const fs::path pickles =
        shard("a.tar", {{"a.jpg", ""}, {"a.cls.pyd", "x"}, {"b.jpg", ""}, {"b.cls.pyd", "x"}, {"b.xml", ""}});
    const std::string none = log_of([&] { EXPECT_FALSE(TarShards({pickles}).labelled()); });
    EXPECT_NE(none.find(pickles.string() + ": no classes"), std::string::npos) << none;
    EXPECT_NE(none.find("; beside the pictures: 2 .cls.pyd, 1 .xml"), std::string::npos) << none;
    const fs::path web =
        shard("c.tar", {{"a.jpg", ""}, {"a.json", R"({"url": "u", "key": 1})"}, {"a.txt", "a caption"}, {"a.xml", ""}});
    const std::string captions = log_of([&] { EXPECT_FALSE(TarShards({web}).labelled()); });
    EXPECT_NE(captions.find("; beside the pictures: .json with the keys key, url, .txt with other texts than classes, "
                            "1 .xml (data.label_from"),
              std::string::npos)
        << captions;
    const fs::path both = shard("b.tar", {{"a.jpg", ""}, {"a.cls", "1"}, {"a.cls.pyd", "x"}});
    const std::string some = log_of([&] { EXPECT_TRUE(TarShards({both}).labelled()); });
    EXPECT_NE(some.find(": classes from .cls; passed over beside the pictures: 1 .cls.pyd"), std::string::npos) << some;
}

// --- Packed archives ---

class PackedShards : public Labels {
  protected:
    // A packed archive of pictures 0 to count - 1, each its own class and content.
    fs::path pack(const std::string& name, int count, std::string (*packer)(const std::string&)) {
        Members members;
        for (int i = 0; i < count; ++i) {
            members.emplace_back(str(i, ".jpg"), str(name, i));
            members.emplace_back(str(i, ".cls"), str(i));
        }
        const std::vector<std::uint8_t> bytes = read_file(shard("plain.tar", members), "test");
        fs::create_directories((root_ / name).parent_path());
        std::ofstream(root_ / name, std::ios::binary) << packer({bytes.begin(), bytes.end()});
        fs::remove(root_ / "plain.tar");
        return root_ / name;
    }
};

TEST_F(PackedShards, AreReadFromCopies) {
    pack("in/1.tar.gz", 3, test::gzip);
    pack("in/2.tgz", 2, test::gzip);
    pack("in/3.tar.zst", 4, test::zstd);
    pack("in/4.TZST", 1, test::zstd);
    const std::vector<fs::path> paths = shards_in(root_ / "in");
    ASSERT_EQ(paths.size(), 4u);
    EXPECT_TRUE(has_shards(root_ / "in"));
    const auto check = [&](const TarShards& shards) {
        ASSERT_EQ(shards.size(), 10u);
        EXPECT_EQ(shards.name(5), (root_ / "in/3.tar.zst/0.jpg").string());
        const Sample sample = shards.get(7);
        EXPECT_EQ(std::string(sample.encoded.begin(), sample.encoded.end()), "in/3.tar.zst2");
        EXPECT_EQ(sample.label, 2);
    };
    const std::string first = log_of([&] { check(TarShards(paths)); });
    EXPECT_NE(first.find("1.tar.gz and 3 more: packed ("), std::string::npos) << first;
    EXPECT_NE(first.find("unpacked once into " + (root_ / "in/.unpacked").string()), std::string::npos) << first;
    const auto time = fs::last_write_time(root_ / "in/.unpacked/1.tar.gz.tar");
    EXPECT_EQ(time, fs::last_write_time(paths[0]));
    const std::string second = log_of([&] { check(TarShards(paths)); });
    EXPECT_EQ(second.find("unpacked once"), std::string::npos) << second;
    EXPECT_NE(second.find("4 packed archives: read from their unpacked copies"), std::string::npos) << second;
    EXPECT_EQ(shards_in(root_ / "in"), paths) << "the copies are no shards";

    pack("in/1.tar.gz", 6, test::gzip);  // another archive of the same name
    fs::last_write_time(paths[0], time + std::chrono::seconds(5));
    EXPECT_EQ(TarShards(paths).size(), 13u);
}

TEST_F(PackedShards, CopiesOfAllFoldersInOne) {
    const fs::path one = pack("train/0.tar.gz", 3, test::gzip), two = pack("val/0.tar.gz", 2, test::gzip);
    const ShardOptions options{.unpack_to = root_ / "copies"};
    EXPECT_EQ(TarShards({one}, std::nullopt, options).size(), 3u);
    EXPECT_EQ(TarShards({two}, std::nullopt, options).size(), 2u);
    EXPECT_FALSE(fs::exists(root_ / "train/.unpacked"));
    EXPECT_EQ(std::distance(fs::directory_iterator(root_ / "copies"), fs::directory_iterator()), 2);
}

TEST_F(PackedShards, DamageNamesTheShard) {
    const fs::path path = pack("0.tar.gz", 30, test::gzip);
    const auto size = fs::file_size(path);
    fs::resize_file(path, size - 20);
    EXPECT_EQ(error_of([&] { TarShards({path}); }),
              str("[unpack] ", path.string(), ": at byte ", size - 20, " of ", size - 20,
                  ": the file ends within its packed data: it was cut short"));
    EXPECT_TRUE(fs::is_empty(root_ / ".unpacked")) << "no half copy";
    std::ofstream(path, std::ios::binary) << test::gzip(std::string(600, 'x'));
    EXPECT_EQ(error_of([&] { TarShards({path}); }),
              "[tar] " + path.string() +
                  " (unpacked): found text (600 bytes) that starts with 'xxxxxxxxxxxxxxxx', expected a tar archive");
    const fs::path misnamed = pack("misnamed.tar", 2, test::zstd);
    EXPECT_EQ(TarShards({misnamed}).size(), 2u) << "by its bytes";
}

TEST(TarShards, DamagedArchiveIsNamed) {
    const TemporaryFolder root;
    std::vector<fs::path> paths;
    for (int i = 0; i < 9; ++i) paths.push_back(write_shard(root / str(i, ".tar"), {{"a.jpg", "A"}, {"a.cls", "1"}}));
    fs::resize_file(paths[4], 2000);
    fs::resize_file(paths[7], 0);
    for (int i = 0; i < 10; ++i)  // whichever thread meets it first
        EXPECT_EQ(error_of([&] { TarShards{paths}; }),
                  "[tar] " + paths[4].string() +
                      ": at byte 1024: the file ends within the member's last block: it was cut short");
    EXPECT_EQ(error_of([&] { TarShards({root / "nowhere.tar"}); }),
              "[tar] " + (root / "nowhere.tar").string() + ": no such file");
}

TEST(TarShards, WhatIsNoArchiveSaysWhatItIs) {
    const TemporaryFolder root;
    const auto error = [&](const std::string& bytes) {
        std::ofstream(root / "a.tar", std::ios::binary) << bytes;
        return error_of([&] { TarShards({root / "a.tar"}); });
    };
    const std::string place = "[tar] " + (root / "a.tar").string() + ": found ";
    EXPECT_EQ(error(""), place + "an empty file, expected a tar archive: a download or copy that did not finish");
    EXPECT_EQ(error("version https://git-lfs.github.com/spec/v1\n"),
              place + "a git-lfs pointer (43 bytes), expected a tar archive: `git lfs pull` brings the file itself");
}

TEST(TarShards, OtherwisePackedArchivesAreRefused) {
    const TemporaryFolder root;
    std::ofstream(root / "1.tar.xz") << "\xfd"
                                        "7zXZ"
                                     << '\0';
    std::ofstream(root / "2.tar.BZ2") << "";
    write_shard(root / "3.tar", {});
    EXPECT_TRUE(has_shards(root.path()));
    EXPECT_EQ(
        error_of([&] { shards_in(root.path()); }),
        "[tar_shards] " + (root / "1.tar.xz").string() +
            " and 1 more: found an xz file (6 bytes), expected tar archives as they are, or of gzip or Zstandard: "
            "unpack it first");
}

TEST(TarShards, SamplesWithoutAPictureAreCounted) {
    const TemporaryFolder root;
    const fs::path path = write_shard(root / "a.tar", {{"a.heic", ""}, {"b.jpg", ""}, {"b.txt", ""}, {"c.HEIC", ""}});
    testing::internal::CaptureStderr();
    const TarShards shards({path});
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find(path.string() + ": 2 files passed over: 2 .heic; pictures end in .jpg"), std::string::npos)
        << log;
}

TEST(TarShards, FoldersShardsAreSorted) {
    const TemporaryFolder root;
    for (const char* name : {"in/10.tar", "in/2.TAR", "in/.hidden.tar"}) write_shard(root / name, {});
    std::ofstream(root / "in/notes.txt") << "";
    EXPECT_EQ(shards_in(root / "in"), (std::vector<fs::path>{root / "in/10.tar", root / "in/2.TAR"}));
    EXPECT_TRUE(has_shards(root / "in"));
    fs::create_directories(root / "empty");
    EXPECT_FALSE(has_shards(root / "empty"));
    EXPECT_FALSE(has_shards(root / "nowhere"));
    const std::string place = "[tar_shards] " + root.path().string();
    EXPECT_EQ(error_of([&] { shards_in(root / "empty"); }), place + "/empty: no tar archive in it");
    EXPECT_EQ(error_of([&] { shards_in(root / "nowhere"); }),
              place + "/nowhere: no such folder, a folder of tar archives is expected");
    EXPECT_EQ(error_of([&] { shards_in(root / "in/2.TAR"); }),
              place + "/in/2.TAR: not a folder, a folder of tar archives is expected");
}

/// Shards of noise: random crops of nothing but the sample's own numbers.
TEST(TarShards, WorkersChangeNothing) {
    const TemporaryFolder root;
    std::vector<fs::path> paths;
    for (int shard = 0, picture = 0; shard < 6; ++shard) {
        Members members;
        for (int i = 0; i < 10 + shard; ++i, ++picture) {
            members.emplace_back(str(picture, ".cls"), str(picture % 5));
            members.emplace_back(str(picture, ".png"), picture % 13 == 4 ? "no picture" : png(picture));
        }
        paths.push_back(write_shard(root / str(shard, ".tar"), members));
    }
    const TarShards shards(paths);
    ASSERT_EQ(shards.size(), 75u);
    const auto noise = [](Sample& sample, Random& random) {
        Image image = whole_image(sample);
        for (std::uint8_t& byte : image.pixels) byte = static_cast<std::uint8_t>(byte + random.integer(0, 256));
        return image;
    };
    struct Pass {
        std::vector<std::uint8_t> bytes;
        std::vector<std::int64_t> labels;
        Strings names, corrupt;
        bool operator==(const Pass&) const = default;
    };
    const auto pass = [&](int workers, OnCorrupt on_corrupt, std::int64_t first_batch) {
        LoaderOptions options{.batch_size = 8, .workers = workers, .shuffle = true, .seed = 1, .epoch = 2};
        options.first_batch = first_batch;
        options.shuffle_window = 20;
        options.repeats = 2;
        options.on_corrupt = on_corrupt;
        Loader loader(shards, noise, options);
        Pass result;
        while (const std::optional<Batch> batch = loader.next()) {
            const auto* bytes = batch->images.const_data_ptr<std::uint8_t>();
            const auto* labels = batch->labels.const_data_ptr<std::int64_t>();
            result.bytes.insert(result.bytes.end(), bytes, bytes + batch->images.numel());
            result.labels.insert(result.labels.end(), labels, labels + batch->labels.numel());
            result.names.insert(result.names.end(), batch->names.begin(), batch->names.end());
        }
        for (const CorruptSample& sample : loader.corrupt()) result.corrupt.push_back(sample.name);
        return result;
    };
    for (const OnCorrupt on_corrupt : {OnCorrupt::kReplace, OnCorrupt::kSkip}) {
        const Pass expected = pass(1, on_corrupt, 0);
        EXPECT_FALSE(expected.corrupt.empty());
        EXPECT_EQ(expected.labels.size() == 75, on_corrupt == OnCorrupt::kReplace);
        for (const int workers : {3, 8}) EXPECT_TRUE(pass(workers, on_corrupt, 0) == expected) << workers;
        const Pass tail = pass(3, on_corrupt, 4);
        EXPECT_TRUE(std::equal(tail.names.rbegin(), tail.names.rend(), expected.names.rbegin()));
        EXPECT_TRUE(std::equal(tail.bytes.rbegin(), tail.bytes.rend(), expected.bytes.rbegin()));
    }
}

}  // namespace
}  // namespace dynvit
