// A picture beside what each stage keeps of it.
#pragma once

#include <set>

#include "dynvit/infer/evaluate.hpp"

namespace dynvit {

/// A picture of the model's size, with a name that a file may have.
struct NamedImage {
    std::string name;
    Image image;
};

/// Validation pictures as the network sees them, `count` of them (or all) spread over the split and so over its
/// classes. Throws Error as make_dataset does and for a corrupt picture.
std::vector<NamedImage> sample_pictures(const DataSettings& data, const ModelSettings& model, std::int64_t count);

/// Makes the names differ from each other and from those in `taken`: a second "a" becomes "a~2".
void make_names_unique(std::vector<NamedImage>& pictures, std::set<std::string> taken = {});

/// The picture and, to its right, a panel a stage with dropped patches faded; small pictures are enlarged.
/// @param tokens patches that each stage keeps
Image draw_stages(DynamicVit model, SelectionPolicy& policy, const std::vector<std::int64_t>& tokens,
                  const Image& picture, const EvalOptions& options);

}  // namespace dynvit
