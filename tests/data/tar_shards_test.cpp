// Archives made for each test, read back: samples against the members they were made of, batches against one worker's.
#include "dynvit/data/tar_shards.hpp"

#include <fstream>

#include "dynvit/data/loader.hpp"
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
    const TarShards unread({labelled, plain}, list, false);
    EXPECT_FALSE(unread.labelled());
    EXPECT_EQ(unread.get(0).label, -1);
    EXPECT_EQ(unread.size(), 2u);
}

TEST(TarShards, ErrorsNameFileAndByte) {
    const TemporaryFolder root;
    const auto error = [&](const Members& members) {
        const fs::path path = write_shard(root / "a.tar", members);
        const std::string text = error_of([&] { TarShards({path}, ClassList{{"x", "y"}, {"x", "y"}}); });
        const std::string place = "[tar_shards] " + path.string() + ": ";
        EXPECT_EQ(text.substr(0, place.size()), place);
        return text.substr(std::min(place.size(), text.size()));
    };
    const std::string index = "member at byte 1536: the class is no index, expected a whole number from 0 to 999999";
    for (const char* label : {"", "cat", "-1", "1.5", "1 2", "1000000", "99999999999999999999", "+1"})
        EXPECT_EQ(error({{"a.jpg", "A"}, {"a.cls", label}}), index) << label;
    EXPECT_EQ(error({{"a.jpg", "A"}, {"a.cls", std::string(65, '1')}}),
              "member at byte 1536: a class of 65 bytes, expected a whole number from 0 to 999999");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.cls", "2"}}), "member at byte 512: class 2, but the class list has 2 classes");
    EXPECT_EQ(error({{"a.cls", "1"}, {"b.jpg", ""}}),
              "member at byte 512: a class, but its sample has no picture (" + picture_endings() + ")");
    EXPECT_EQ(error({{"a.jpg", ""}, {"b.jpg", ""}, {"a.cls", "1"}}),
              "member at byte 1536: a class, but its sample has no picture (" + picture_endings() + ")");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.png", ""}}),
              "member at byte 1024: its sample has a picture already, at byte 512");
    EXPECT_EQ(error({{"a.cls", "1"}, {"a.cls", "1"}}), "member at byte 1536: its sample has a class already");
    EXPECT_EQ(error({{"a.jpg", ""}, {"a.cls", "1"}, {"b.jpg", ""}}),
              "member at byte 2048: a picture without a class (.cls), while others have one");
    EXPECT_EQ(error({{"a.txt", ""}}), "no picture (" + picture_endings() + ") in 1 archives: found 1 .txt");
    EXPECT_EQ(error({{"img.0.jpg", ""}, {"img.0.cls", "1"}}),
              "no picture (" + picture_endings() + ") in 1 archives: found 1 .cls, 1 .jpg behind a second dot");
    EXPECT_EQ(error({{"img.cls", "1"}, {"img.0.jpg", ""}}),
              "member at byte 512: a class, but its sample has no picture (" + picture_endings() +
                  "); a key ends at the first dot, which makes '0.jpg' the ending of 'img.0.jpg'");
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
    EXPECT_EQ(error("\x1f\x8b" + std::string(1000, 'x')),
              place + "a gzip file (1002 bytes), expected a tar archive: unpack it first");
}

TEST(TarShards, CompressedArchivesAreRefused) {
    const TemporaryFolder root;
    std::ofstream(root / "1.tar.gz") << "\x1f\x8b";
    std::ofstream(root / "2.TGZ") << "";
    write_shard(root / "3.tar", {});
    EXPECT_TRUE(has_shards(root.path()));
    EXPECT_EQ(
        error_of([&] { shards_in(root.path()); }),
        "[tar_shards] " + (root / "1.tar.gz").string() +
            " and 1 more: found a gzip file (2 bytes), expected tar archives as they are, in which a picture can be "
            "found: unpack it first");
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
