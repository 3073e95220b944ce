#include "dynvit/core/text.hpp"

#include "support.hpp"

namespace dynvit {
namespace {

TEST(Text, WholeNumbersAreDecimal) {
    EXPECT_EQ(parse_integer("0256"), 256);
    EXPECT_EQ(parse_integer("-5"), -5);
    EXPECT_EQ(parse_integer("+7"), 7);
    EXPECT_EQ(parse_integer("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
    for (const char* text : {"", "+", "-", "+-1", "1.5", "1e3", "0x10", " 1", "1 ", "one", "9223372036854775808"}) {
        EXPECT_EQ(parse_integer(text), std::nullopt) << text;
    }
}

TEST(Text, NumbersAreFinite) {
    EXPECT_EQ(parse_number("0.7"), 0.7);
    EXPECT_EQ(parse_number(".5"), 0.5);
    EXPECT_EQ(parse_number("1e-4"), 1e-4);
    EXPECT_EQ(parse_number("+3"), 3.0);
    EXPECT_EQ(parse_number("010"), 10.0);
    for (const char* text : {"", ".", "nan", "inf", "-inf", "1e999", "0x10", "1,5", "1 ", "much"}) {
        EXPECT_EQ(parse_number(text), std::nullopt) << text;
    }
}

TEST(Text, GuessesWhatANameWasMeantToBe) {
    const std::vector<std::string> known = {"weights", "weights-part", "output", "keep-ratio"};
    EXPECT_EQ(nearest_name("weight", known), "weights");
    EXPECT_EQ(nearest_name("keepratio", known), "keep-ratio");
    EXPECT_EQ(nearest_name("out", known), "output") << "the only one that begins so";
    EXPECT_EQ(nearest_name("out", {"set", "output"}), "output") << "rather than two letters";
    EXPECT_EQ(nearest_name("trian", {"train", "eval"}), "train");
    EXPECT_EQ(nearest_name("we", known), "") << "two begin so";
    EXPECT_EQ(nearest_name("colour", known), "");
    EXPECT_EQ(nearest_name("", known), "");
    EXPECT_EQ(nearest_name("k", {"b", "c"}), "") << "nothing is left of it";
}

TEST(Text, LowerCaseIsOfAsciiLetters) {
    EXPECT_EQ(lower_case("x.JPEG Az"), "x.jpeg az");
    EXPECT_EQ(lower_case("\xc3\x84_09[`"), "\xc3\x84_09[`") << "others stay";
    EXPECT_EQ(lower_case(""), "");
}

}  // namespace
}  // namespace dynvit
