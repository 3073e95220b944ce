// Archives against the `tar` program, in both directions; damaged ones, made byte by byte here, against what is
// promised.
#include "dynvit/io/tar.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <thread>

#include "support.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;
using Bytes = std::vector<std::uint8_t>;
using Contents = std::map<std::string, std::string>;

void write_text(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

std::string read_text(const fs::path& path) {
    const Bytes bytes = read_file(path, "test");
    return {bytes.begin(), bytes.end()};
}

Contents contents_of(const fs::path& archive) {
    const TarFile file(archive);
    Contents contents;
    for (const TarMember& member : file.members()) {
        const Bytes bytes = file.read(member);
        EXPECT_TRUE(contents.emplace(member.name, std::string(bytes.begin(), bytes.end())).second) << member.name;
    }
    return contents;
}

void add(TarWriter& writer, const std::string& name, const std::string& text) {
    writer.add(name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

void write_archive(const fs::path& path, const Contents& contents) {
    TarWriter writer(path);
    for (const auto& [name, text] : contents) add(writer, name, text);
    writer.commit();
}

bool run_in(const fs::path& folder, const std::string& command) {
    return std::system(str("cd '", folder.string(), "' && ", command, " >/dev/null 2>&1").c_str()) == 0;
}

std::string repeated(const std::string& part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
}

/// Names on each side of what a header has room for, and contents on each side of a block.
Contents difficult_contents() {
    const std::string folder = repeated("d", 90);
    return {
        {"empty", ""},
        {"one", "1"},
        {"deep/er/block", std::string(512, 'b')},
        {"deep/er/more", std::string(513, '\0')},
        {repeated("n", 100), "a hundred letters"},
        {repeated("m", 101), "no slash to split at"},
        {folder + '/' + repeated("x", 100), "split"},
        {folder + '/' + repeated("x", 101), "the end is too long"},
        {folder + '/' + repeated("y", 64) + '/' + repeated("z", 99), "a prefix of 155"},
        {folder + '/' + repeated("y", 65) + '/' + repeated("z", 99), "a prefix of 156"},
        {repeated("long/", 120) + "name", "far too long"},
        {"sp ace/\xc3\xa4\xc3\xb6.txt", "not ASCII"},
    };
}

TEST(TarWriter, TarProgramReadsWhatIsWritten) {
    const TemporaryFolder folder;
    const Contents contents = difficult_contents();
    write_archive(folder / "a.tar", contents);
    EXPECT_EQ(contents_of(folder / "a.tar"), contents);
    EXPECT_EQ(fs::file_size(folder / "a.tar") % 10240, 0u);
    fs::create_directories(folder / "out");
    ASSERT_TRUE(run_in(folder / "out", "tar -xf ../a.tar"));
    Contents found;
    for (const auto& entry : fs::recursive_directory_iterator(folder / "out"))
        if (entry.is_regular_file())
            found[entry.path().lexically_relative(folder / "out").string()] = read_text(entry.path());
    EXPECT_EQ(found, contents);
}

TEST(TarFile, ReadsWhatTheTarProgramWrites) {
    const TemporaryFolder folder;
    const Contents contents = difficult_contents();
    for (const auto& [name, text] : contents) write_text(folder / "in" / name, text);
    fs::create_symlink("one", folder / "in/link");
    fs::create_symlink(repeated("far/", 60), folder / "in/long_link");  // a GNU long link's target
    ASSERT_TRUE(run_in(folder / "in", "mkfifo pipe"));
    for (const std::string format : {"gnu", "oldgnu", "pax"}) {
        SCOPED_TRACE(format);
        ASSERT_TRUE(run_in(folder / "in", str("tar --format=", format, " -cf ../a.tar *")));
        EXPECT_EQ(contents_of(folder / "a.tar"), contents);
    }
    ASSERT_TRUE(run_in(folder / "in", "tar --format=v7 -cf ../a.tar one deep"));
    EXPECT_EQ(
        contents_of(folder / "a.tar"),
        (Contents{{"one", "1"}, {"deep/er/block", std::string(512, 'b')}, {"deep/er/more", std::string(513, '\0')}}));
    ASSERT_TRUE(
        run_in(folder / "in", "tar --format=pax --pax-option=comment=hello,globexthdr.name=g,k=v -cf ../a.tar one"));
    EXPECT_EQ(contents_of(folder / "a.tar"), (Contents{{"one", "1"}}));
}

TEST(TarWriter, EqualMembersGiveEqualBytes) {
    const TemporaryFolder folder;
    for (const char* name : {"a.tar", "b.tar"}) write_archive(folder / name, difficult_contents());
    EXPECT_EQ(read_text(folder / "a.tar"), read_text(folder / "b.tar"));
}

TEST(TarWriter, NothingStandsThereBeforeCommit) {
    const TemporaryFolder folder;
    {
        TarWriter writer(folder / "a.tar");
        add(writer, "x", "1");
        EXPECT_EQ(writer.size(), 1024u);
        EXPECT_FALSE(fs::exists(folder / "a.tar"));
    }
    EXPECT_TRUE(fs::is_empty(folder.path()));
    TarWriter writer(folder / "a.tar");
    EXPECT_NE(error_of([&] { add(writer, "", "1"); }).find("'' is no name"), std::string::npos);
    EXPECT_NE(error_of([&] { add(writer, std::string("a\0b", 3), "1"); }).find("'a\\x00b' is no name"),
              std::string::npos);
}

TEST(TarFile, MembersKeepTheirOrderAndPlace) {
    const TemporaryFolder folder;
    TarWriter writer(folder / "a.tar");
    for (const char* name : {"b", "a", "c"}) add(writer, name, repeated(name, 600));
    writer.commit();
    const std::vector<TarMember> members = TarFile(folder / "a.tar").members();
    ASSERT_EQ(members.size(), 3u);
    EXPECT_EQ(members[0].name, "b");
    EXPECT_EQ(members[1].name, "a");
    EXPECT_EQ(members[2].name, "c");
    const std::string bytes = read_text(folder / "a.tar");
    for (const TarMember& member : members)
        EXPECT_EQ(bytes.substr(member.offset, member.size), repeated(member.name, 600));
    write_archive(folder / "none.tar", {});
    EXPECT_TRUE(TarFile(folder / "none.tar").members().empty());
}

TEST(TarFile, ManyThreadsReadAtOnce) {
    const TemporaryFolder folder;
    Contents contents;
    for (int i = 0; i < 40; ++i) contents[str("m", i)] = repeated(str(i, ','), 200);
    write_archive(folder / "a.tar", contents);
    const TarFile file(folder / "a.tar");
    const std::vector<TarMember> members = file.members();
    std::vector<int> wrong(8);
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t)
        threads.emplace_back([&, t] {
            for (const TarMember& member : members) {
                const Bytes bytes = file.read(member);
                wrong[t] += std::string(bytes.begin(), bytes.end()) != contents.at(member.name);
            }
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<int>(8));
}

TEST(TarFile, AnArchiveInAnother) {
    const TemporaryFolder folder;
    write_archive(folder / "in.tar", {{"a", "A"}, {"b", repeated("B", 700)}});
    const std::string inner = read_text(folder / "in.tar");
    write_archive(folder / "out.tar", {{"0", "first"}, {"in.tar", inner}, {"z", "no archive"}});
    const TarFile file(folder / "out.tar");
    const std::vector<TarMember> members = file.members();
    ASSERT_EQ(members.size(), 3u);
    const std::vector<TarMember> found = file.members(members[1]);
    ASSERT_EQ(found.size(), 2u);
    EXPECT_EQ(found[1].name, "b");
    const Bytes bytes = file.read(found[1]);
    EXPECT_EQ(std::string(bytes.begin(), bytes.end()), repeated("B", 700));
    const std::string place = "[tar] " + (folder / "out.tar").string() + ": ";
    EXPECT_EQ(error_of([&] { file.members(members[2]); }),
              place + "'z': found text (10 bytes) that starts with 'no archive', expected a tar archive");
    TarMember cut = members[1];
    cut.size = 1200;
    EXPECT_EQ(error_of([&] { file.members(cut); }),
              place + str("'in.tar': at byte ", cut.offset + 1024, ": the file ends (176 bytes left) without an ",
                          "end-of-archive block: it was cut short"));
    EXPECT_NE(error_of([&] { file.members({"far", 1 << 20, 1}); }).find("'far' lies beyond"), std::string::npos);
}

TEST(TarFile, AnotherNameInErrors) {
    const TemporaryFolder folder;
    EXPECT_EQ(error_of([&] { TarFile(folder / "nowhere", "a.tar.gz (unpacked)"); }),
              "[tar] a.tar.gz (unpacked): no such file");
}

// --- Damage ---

/// The bytes of an archive with one member "m" of 600 bytes, as a text that a test changes.
std::string small_archive() {
    const TemporaryFolder folder;
    write_archive(folder / "a.tar", {{"m", std::string(600, 'x')}});
    return read_text(folder / "a.tar");
}

/// Puts right the checksum of the header at `at`, for damage that a checksum does not show.
void seal(std::string& archive, std::size_t at) {
    archive.replace(at + 148, 8, 8, ' ');
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(archive[at + i]);
    char digits[8];
    std::snprintf(digits, sizeof digits, "%06o", sum);
    archive.replace(at + 148, 7, digits, 7);
}

/// A header with its data, of any type and with any size field.
std::string block(const std::string& name, char type, const std::string& size, const std::string& data = "") {
    std::string header(512, '\0');
    header.replace(0, name.size(), name);
    header.replace(124, size.size(), size);
    header[156] = type;
    header.replace(257, 6, "ustar", 6);
    seal(header, 0);
    return header + data + std::string((512 - data.size() % 512) % 512, '\0');
}

const std::string kEnd(1024, '\0');

class Damaged : public testing::Test {
  protected:
    std::string error(const std::string& archive) {
        write_text(folder_ / "a.tar", archive);
        std::string text = error_of([&] { TarFile(folder_ / "a.tar").members(); });
        const std::string place = "[tar] " + (folder_ / "a.tar").string() + ": ";
        EXPECT_EQ(text.substr(0, place.size()), place);
        return text.substr(std::min(place.size(), text.size()));
    }
    Contents contents(const std::string& archive) {
        write_text(folder_ / "a.tar", archive);
        return contents_of(folder_ / "a.tar");
    }
    TemporaryFolder folder_;
};

TEST_F(Damaged, NoFile) {
    const auto open = [&](const std::string& name) { return error_of([&] { TarFile(folder_ / name); }); };
    EXPECT_EQ(open("nowhere"), "[tar] " + (folder_ / "nowhere").string() + ": no such file");
    EXPECT_EQ(open(""), "[tar] " + (folder_ / "").string() + ": not a regular file, a tar archive is expected");
    ASSERT_TRUE(run_in(folder_.path(), "mkfifo pipe"));
    EXPECT_EQ(open("pipe"), "[tar] " + (folder_ / "pipe").string() + ": not a regular file, a tar archive is expected");
}

TEST_F(Damaged, CutShortAnywhere) {
    const std::string whole = small_archive();
    EXPECT_EQ(error(""), "found an empty file, expected a tar archive: a download or copy that did not finish");
    EXPECT_EQ(error(whole.substr(0, 511)),
              "at byte 0: the file ends (511 bytes left) without an end-of-archive block: it was cut short");
    EXPECT_EQ(error(whole.substr(0, 1000)),
              "at byte 0: a member of 600 bytes, but the file (1000 bytes) has only 488 more: it was cut short");
    EXPECT_EQ(error(whole.substr(0, 1200)),
              "at byte 0: the file ends within the member's last block: it was cut short");
    EXPECT_EQ(error(whole.substr(0, 1536)),
              "at byte 1536: the file ends (0 bytes left) without an end-of-archive block: it was cut short");
    EXPECT_EQ(contents(whole.substr(0, 2048)).size(), 1u) << "one block of zeros is an end";
}

TEST_F(Damaged, NoTar) {
    const std::string text = ": found no tar header (its checksum is wrong), expected one or the end-of-archive block";
    EXPECT_EQ(error(std::string(512, '\x01')), "at byte 0" + text);
    EXPECT_EQ(error(std::string(512, 'x')),
              "found text (512 bytes) that starts with 'xxxxxxxxxxxxxxxx', expected a tar archive");
    EXPECT_EQ(error("\x1f\x8b\x08 and so on"), "found a gzip file (13 bytes), expected a tar archive: unpack it first");
    std::string archive = small_archive();
    archive[1536] = 'x';
    EXPECT_EQ(error(archive), "at byte 1536" + text);
}

TEST_F(Damaged, DataBehindTheEnd) {
    const std::string text = ": data after the end-of-archive block: archives that were joined are not understood";
    EXPECT_EQ(error(small_archive() + small_archive()), "at byte 10240" + text);
    EXPECT_EQ(error(block("m", '0', "0") + kEnd + "x"), "at byte 1536" + text);
    EXPECT_EQ(contents(block("m", '0', "0") + kEnd + std::string(100, '\0')).size(), 1u);
}

TEST_F(Damaged, SizesThatLie) {
    const auto text = [](const std::string& size, std::size_t file, std::size_t rest) {
        return str("at byte 0: a member of ", size, " bytes, but the file (", file, " bytes) has only ", rest,
                   " more: it was cut short");
    };
    EXPECT_EQ(error(block("m", '0', "77777777777") + kEnd), text("8589934591", 1536, 1024));
    EXPECT_EQ(error(block("m", '0', "777777777777") + kEnd), text("68719476735", 1536, 1024));
    EXPECT_EQ(error(block("m", '0', "2001") + kEnd), text("1025", 1536, 1024));
    EXPECT_EQ(error(block("m", '0', "12x") + kEnd), "at byte 0: the member's size is no number");
    EXPECT_EQ(error(block("m", '0', "-1") + kEnd), "at byte 0: the member's size is no number");
    EXPECT_EQ(error(block("m", '0', std::string(12, '\xff')) + kEnd), "at byte 0: the member's size is no number");
    EXPECT_EQ(error(block("m", '0', "\x80" + std::string(11, '\xff')) + kEnd),
              "at byte 0: the member's size is no number");
    EXPECT_EQ(error(block("m", '0', std::string("\x80\0\0\0\x7f", 5) + std::string(7, '\xff')) + kEnd),
              text("9223372036854775807", 1536, 1024));
    EXPECT_EQ(contents(block("m", '0', std::string("\x80\0\0\0\0\0\0\0\0\0\0\3", 12), "abc") + kEnd),
              (Contents{{"m", "abc"}}));
    EXPECT_EQ(error(block("x", 'x', "15", "14 size=999999\n") + block("m", '0', "0") + kEnd).substr(0, 9), "at byte 0");
    EXPECT_EQ(
        error(block("x", 'x', "17", "15 size=999999\n") + block("m", '0', "0") + kEnd),
        str("at byte 1024: a member of 999999 bytes, but the file (2560 bytes) has only 1024 more: it was cut short"));
    EXPECT_EQ(error(block("d", '5', "7777") + block("m", '0', "7777") + kEnd).substr(0, 11), "at byte 512")
        << "a folder has no data";
}

TEST_F(Damaged, PaxRecordsThatLie) {
    const auto pax = [&](const std::string& records) {
        char size[12];
        std::snprintf(size, sizeof size, "%o", static_cast<unsigned>(records.size()));
        return block("x", 'x', size, records) + block("m", '0', "1", "y") + kEnd;
    };
    EXPECT_EQ(contents(pax("12 path=abc\n")), (Contents{{"abc", "y"}}));
    EXPECT_EQ(contents(pax("12 path=abc\n12 path=def\n")), (Contents{{"def", "y"}}));
    EXPECT_EQ(contents(pax("8 path=\n")), (Contents{{"m", "y"}}));
    EXPECT_EQ(contents(pax("9 size=1\n")), (Contents{{"m", "y"}}));
    const std::string length = "at byte 0: a pax header with a record of wrong length";
    for (const char* records :
         {"13 path=abc\n", "11 path=abc\n", "0 path=abc\n", "2 path=abc\n", "3 path=abc\n", " path=abc\n", "path=abc\n",
          "-1 path=abc\n", "99999999999999999999 a=b\n", "12 path=abc"})
        EXPECT_EQ(error(pax(records)), length) << records;
    EXPECT_EQ(error(pax("7 path\n")), "at byte 0: a pax header with a record that has no value");
    EXPECT_EQ(error(pax("9 size=x\n")), "at byte 0: a pax header with a size that is no number");
    EXPECT_EQ(error(pax(std::string("12 path=a\0c\n", 12))), "at byte 0: a pax header with a zero byte in a name");
    EXPECT_EQ(error(pax("22 GNU.sparse.major=1\n")), "at byte 0: a sparse file, which is not understood");
}

TEST_F(Damaged, WhatIsNotUnderstood) {
    EXPECT_EQ(error(block("m", 'S', "0") + kEnd), "at byte 0: a sparse file, which is not understood");
    EXPECT_EQ(error(block("", '0', "0") + kEnd), "at byte 0: a member without a name");
    EXPECT_EQ(error(block("n", 'L', "2", "ab") + kEnd), "at byte 1024: a name without a member after it");
    const std::string long_name = block("n", 'L', "4000001", std::string(1 << 20, 'a') + "b");
    EXPECT_EQ(error(long_name + kEnd), "at byte 0: a name of 1048577 bytes; at most 1048576 are understood");
    EXPECT_EQ(contents(block("v", 'V', "3", "abc") + block("m", '0', "0") + kEnd), (Contents{{"m", ""}}))
        << "a volume's label is passed over with its data";
}

TEST_F(Damaged, AnyBytesGiveAnErrorOrMembersWithinTheFile) {
    const std::string whole = block("n", 'L', "3", "ab") + block("m", '0', "5", "12345") +
                              block("x", 'x', "14", "12 path=abc\n") + block("o", '0', "1", "z") + kEnd;
    int refused = 0, read = 0;
    for (std::size_t at = 0; at < whole.size(); ++at)
        for (const int change : {1, 0x90}) {
            std::string changed = whole;
            changed[at] = static_cast<char>(changed[at] ^ change);
            const std::size_t start = at / 512 * 512;
            if (start != 512 && start != 1536 && start != 2560 && at % 2 == 0 && start + 512 < whole.size())
                seal(changed, start);  // every other header with a checksum that fits
            write_text(folder_ / "a.tar", changed);
            try {
                const TarFile file(folder_ / "a.tar");
                for (const TarMember& member : file.members()) {
                    ASSERT_LE(member.offset, changed.size());
                    ASSERT_LE(member.size, changed.size() - member.offset);
                    ASSERT_EQ(file.read(member).size(), member.size);
                }
                ++read;
            } catch (const Error&) {
                ++refused;
            }
        }
    EXPECT_GT(refused, 500);
    EXPECT_GT(read, 500);
}

TEST_F(Damaged, ShrunkWhileOpen) {
    write_text(folder_ / "a.tar", small_archive());
    const TarFile file(folder_ / "a.tar");
    const TarMember member = file.members().at(0);
    fs::resize_file(folder_ / "a.tar", 700);
    EXPECT_EQ(error_of([&] { file.read(member); }),
              "[tar] " + (folder_ / "a.tar").string() +
                  ": at byte 700: cannot be read: the file was cut short while it was open");
    EXPECT_NE(error_of([&] {
                  file.read({"m", 1 << 20, 1});
              }).find("'m' lies beyond the file's 10240 bytes"),
              std::string::npos);
    EXPECT_NE(error_of([&] { file.read({"m", 1, SIZE_MAX}); }).find("lies beyond"), std::string::npos);
}

}  // namespace
}  // namespace dynvit
