// Parameters under names with dots, drawn as they are before training.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "dynvit/models/vit_parts.hpp"

namespace dynvit {

/// What a parameter that is not drawn begins with.
inline double fill(Start start) {
    constexpr double kSmallFactor = 1e-5;  // LayerScale's: a block is near the identity at first
    if (start == Start::kOnes) return 1.0;
    return start == Start::kSmall ? kSmallFactor : 0.0;
}

/// Registers each part's parameter in a tree of modules below `root` ("blocks.0.norm1.weight" is the weight of norm1,
/// in a module 0, in a module blocks), with its value before training.
inline void register_parameters(torch::nn::Module& root, const std::vector<ParameterPart>& parts,
                                const at::Generator& generator) {
    constexpr double kInitialDeviation = 0.02;
    for (const ParameterPart& part : parts) {
        at::Tensor value = at::full(part.shape, fill(part.start));
        // timm's trunc_normal_ cuts at two units by default, which is a hundred of these deviations: nothing ever is
        // cut.
        if (part.start == Start::kNormal) value.normal_(0.0, kInitialDeviation, generator);
        torch::nn::Module* module = &root;
        std::string::size_type first = 0;
        for (auto dot = part.name.find('.'); dot != std::string::npos; dot = part.name.find('.', first)) {
            const std::string child = part.name.substr(first, dot - first);
            const auto children = module->named_children();
            const auto* found = children.find(child);
            module = found ? found->get() : module->register_module(child, std::make_shared<torch::nn::Module>()).get();
            first = dot + 1;
        }
        module->register_parameter(part.name.substr(first), value);
    }
}

}  // namespace dynvit
