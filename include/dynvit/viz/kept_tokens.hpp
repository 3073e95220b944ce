// Pictures of what a pruned model keeps.
#pragma once

#include <string>
#include <vector>

#include "dynvit/io/image.hpp"
#include "dynvit/models/model_settings.hpp"

namespace dynvit {

/// The picture with dropped patches faded to 0.2 x pixel + 0.8 x white.
/// @param image the network's input size
/// @param kept places on the patch grid, row by row from the top
/// Throws Error if the picture has another size than the model takes.
Image draw_kept_tokens(const Image& image, const std::vector<std::int64_t>& kept, const ModelSettings& settings);

/// The picture as its tokens see it: a patch that is a token by itself stays, patches that are one token have the mean
/// of their colours, with a dark line around them where their neighbours are of other tokens; patches of no token are
/// faded as above.
/// @param sources for each patch the place of the token that it is part of (any number for a fused one), -1 for none:
///     see InferenceSession::sources
/// Throws Error if the picture has another size than the model takes.
Image draw_token_groups(const Image& image, const std::vector<std::int64_t>& sources, const ModelSettings& settings);

/// Pictures side by side with a white gap, aligned at the top.
Image beside(const std::vector<Image>& images, int gap = 4);

/// Pictures one below the other with a white gap, aligned on the left.
Image below(const std::vector<Image>& images, int gap = 4);

/// Every pixel repeated `factor` times in both directions.
Image enlarge(const Image& image, int factor);

}  // namespace dynvit
