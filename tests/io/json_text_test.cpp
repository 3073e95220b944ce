#include "dynvit/io/json_text.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "support.hpp"

namespace dynvit {
namespace {

TEST(JsonText, IsUtf8WhateverTheNames) {
    const std::string latin = "caf\xe9.jpg", cut = "\xc3";
    EXPECT_EQ(json_text({{"picture", latin}}), "{\"picture\":\"caf\xef\xbf\xbd.jpg\"}");
    EXPECT_EQ(json_text({{cut, 1}}), "{\"\xef\xbf\xbd\":1}");
    EXPECT_EQ(json_text({{"name", "caf\xc3\xa9"}}), "{\"name\":\"caf\xc3\xa9\"}") << "what is UTF-8 stays";
    EXPECT_EQ(json_text({{"loss", std::nan("")}}), "{\"loss\":null}");
}

TEST(JsonText, ParsesWhatIsNotTooDeep) {
    const auto parse = [](const std::string& text) {
        return parse_json({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    };
    const auto nested = [&](int levels) { return parse(std::string(levels, '[') + std::string(levels, ']')); };
    EXPECT_EQ(json_text(parse("{\"a\": [1]}").value()), "{\"a\":[1]}");
    EXPECT_TRUE(parse("null").value().is_null());
    for (const char* text : {"", "{", "[1]]", "{\"a\": \xff}"}) EXPECT_FALSE(parse(text)) << text;
    EXPECT_TRUE(nested(100));
    EXPECT_FALSE(nested(101));
    EXPECT_FALSE(nested(1'000'000));
}

TEST(JsonText, IndentsWhereAsked) {
    EXPECT_EQ(json_text({{"a", 1}}, 2), "{\n  \"a\": 1\n}");
}

}  // namespace
}  // namespace dynvit
