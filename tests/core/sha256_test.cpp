// SHA-256 against the examples of FIPS 180-4 and what coreutils' sha256sum prints.
#include "dynvit/core/sha256.hpp"

#include <fstream>

#include "support.hpp"

namespace dynvit {
namespace {

std::string sha256(const std::string& text) {
    Sha256 hash;
    hash.add(text.data(), text.size());
    return hash.hex();
}

// `size` bytes that follow no simple pattern of blocks.
std::string bytes(std::size_t size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) text += static_cast<char>((i * i + 7 * i) % 251);
    return text;
}

TEST(Sha256, PublishedExamples) {
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(sha256(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, LengthsAroundABlocksEnd) {
    EXPECT_EQ(sha256(bytes(55)), "4b663894c980186aa740d5da70463a756b5fa62c0bc8acfd1e9080c37fdc0373");
    EXPECT_EQ(sha256(bytes(56)), "733a5a43bd57834a1afb4c26da6beddaaa308b41dfdfcce729addbcc2a9874ce");
    EXPECT_EQ(sha256(bytes(63)), "504aca729bd1b4a56b7721bb6b151ca753dd38b2a3503e3e925bd3afd27da297");
    EXPECT_EQ(sha256(bytes(64)), "7c197ff83a25657dd0b28850ac8d03f3862acb6944a1c4f2ddfd795e69c581f9");
    EXPECT_EQ(sha256(bytes(65)), "77a271d331a393f88ea0bb92cf8b3cd99bc5caf7315fa10926061fd7baeb697f");
    EXPECT_EQ(sha256(bytes(119)), "6258dd1f062c807fd450ab3c952bb9c39fe78c7292cd7cdb1f074af6cee92320");
    EXPECT_EQ(sha256(bytes(120)), "bcb31c42d2311b60f250d2064167960e8f9dace974328720ddc87c405fa55680");
}

TEST(Sha256, PiecesOfAnySize) {
    const std::string text = bytes(1000);
    for (const std::size_t piece : {1, 7, 63, 64, 65, 200, 999}) {
        Sha256 hash;
        for (std::size_t at = 0; at < text.size(); at += piece) {
            hash.add(text.data() + at, std::min(piece, text.size() - at));
        }
        EXPECT_EQ(hash.hex(), "014c761b1ca6cf30692b9f1ae5c2b77c7cc2e6dc2a149a862d632fb9d4d9d742") << piece;
    }
}

TEST(Sha256, File) {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "a") << bytes(1000);
    EXPECT_EQ(sha256_of_file(folder / "a", "test"), sha256(bytes(1000)));
    EXPECT_EQ(test::error_of([&] { sha256_of_file(folder / "b", "test"); }),
              "[test] " + (folder / "b").string() + ": cannot be read");
}

}  // namespace
}  // namespace dynvit
