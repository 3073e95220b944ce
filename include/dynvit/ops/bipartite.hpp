// The two halves of ToMe's matching, see match_bipartite of token_merge.hpp: patch tokens at even and at odd places,
// counted with the prefix tokens in front of them.
#pragma once

#include <cstdint>

namespace dynvit {

/// The first patch token at an even place.
inline std::int64_t first_even(std::int64_t prefix) {
    return prefix % 2;
}

/// How many patch tokens stand at even places.
inline std::int64_t count_even(std::int64_t tokens, std::int64_t prefix) {
    return (tokens - first_even(prefix) + 1) / 2;
}

/// The fewest of n patch tokens that the matching can leave: about half.
inline std::int64_t least_bipartite(std::int64_t tokens, std::int64_t prefix) {
    const std::int64_t even = count_even(tokens, prefix);
    return even == tokens ? tokens : tokens - even;  // without an odd place nothing can join
}

}  // namespace dynvit
