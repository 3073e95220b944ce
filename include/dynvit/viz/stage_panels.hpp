// A picture beside what each stage keeps of it.
#pragma once

#include <set>

#include "dynvit/data/data_settings.hpp"
#include "dynvit/infer/inference_session.hpp"

namespace dynvit {

/// A picture of the model's size, with a name that a file may have.
struct NamedImage {
    std::string name;
    Image image;
};

/// Pictures, and what is wrong with each that could not be read.
struct ReadPictures {
    std::vector<NamedImage> pictures;
    std::vector<std::string> left_out;
};

/// Validation pictures as the network sees them, `count` of them (or all) spread over the split and so over its
/// classes; corrupt ones are left out. Throws Error as make_dataset does.
ReadPictures sample_pictures(const DataSettings& data, const ModelSettings& model, std::int64_t count);

/// Makes the names differ from each other and from those in `taken`: a second "a" becomes "a~2".
void make_names_unique(std::vector<NamedImage>& pictures, std::set<std::string> taken = {});

struct StagePanels {
    Image row;                                    // the picture and, to its right, a panel a stage
    std::vector<std::vector<std::int64_t>> kept;  // a stage: places on the patch grid that it keeps
};

/// Runs the session on a picture and draws what each stage keeps, dropped patches faded; where tokens come to stand for
/// several patches, which ones those are (see draw_token_groups). Small pictures are enlarged.
StagePanels draw_stages(const InferenceSession& session, const Image& picture);

/// How often each place of the patch grid is kept, over many pictures: a heat map a stage, side by side.
/// @param counts a stage: how many of `pictures` keep each place, (N)
Image draw_keep_frequencies(const std::vector<std::vector<std::int64_t>>& counts, std::int64_t pictures,
                            const ModelSettings& settings);

}  // namespace dynvit
