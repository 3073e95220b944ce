// Weights of any library under the names of dynvit's models.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dynvit/weights/naming.hpp"

namespace dynvit {

struct CanonicalWeights {
    TensorMap tensors;                     // real numbers, in their stored types where those are computed with
    const Naming* naming = nullptr;        // whose names they had
    std::string prefix;                    // that stood before those
    std::vector<std::string> passed_over;  // tensors that nobody needs, sorted
    std::vector<std::string> notes;        // what was chosen among several, or is unusual, a line each
    bool queries_apart = false;            // queries, keys and values, or their biases, were tensors of their own
    bool has_mask_token = false;           // of masked pre-training
    bool has_decoder = false;              // likewise
};

/// Finds the backbone among a file's tensors, gives what belongs to it its name here, and puts together what stands
/// apart: queries, keys and values; the halves of SwiGLU. Nothing where no backbone is there.
/// @param file what errors name
/// @param prefix of the wanted backbone's names, where several are there; empty: found
/// @param unread tensors of the file that were not read, and why: they have names alone
/// Throws Error for several backbones, listing them, for one with tensors in its blocks that are not known, and for
/// tensors that it needs and that were not read or hold complex numbers.
std::optional<CanonicalWeights> canonical_weights(TensorMap tensors, const std::string& file,
                                                  const std::string& prefix = {},
                                                  const std::map<std::string, std::string>& unread = {});

/// The same numbers in a type that is computed with: float32 in place of 8-bit floats and unsigned integers of more
/// than 8 bits, for which LibTorch has little more than conversions.
at::Tensor computable(const at::Tensor& tensor);

/// "passed over 34 tensors: text_model.* (32), logit_scale, text_projection.weight"; empty where there is none.
std::string describe_passed_over(const std::vector<std::string>& names);

}  // namespace dynvit
