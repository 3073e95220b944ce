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

TEST(JsonText, IndentsWhereAsked) {
    EXPECT_EQ(json_text({{"a", 1}}, 2), "{\n  \"a\": 1\n}");
}

}  // namespace
}  // namespace dynvit
