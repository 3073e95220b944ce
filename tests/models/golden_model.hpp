// The tiny model that the golden tensors come from.
#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include "dynvit/models/dynamic_vit.hpp"
#include "dynvit/weights/state_dict.hpp"
#include "support.hpp"
#include "tensor_support.hpp"

namespace dynvit::test {

inline at::Generator generator(std::uint64_t seed = 0) {
    return at::make_generator<at::CPUGeneratorImpl>(seed);
}

inline ModelSettings tiny_settings(std::vector<std::int64_t> pruning_loc = {3, 6, 9}) {
    ModelSettings settings;
    settings.name = "custom";
    settings.num_classes = 10;
    settings.embed_dim = 32;
    settings.num_heads = 2;
    settings.pruning_loc = std::move(pruning_loc);
    return settings;
}

/// Every token through every block of the trained model. @param images (B, 3, H, W), normalized
inline VisionTransformerImpl::Output dense_forward(DynamicVit model, const at::Tensor& images) {
    at::Tensor x = model->backbone().embed(images);
    for (std::int64_t i = 0; i < model->settings().depth; ++i) x = model->backbone().run_block(i, x);
    return model->backbone().read_out({x});
}

inline DynamicVit tiny_student() {
    DynamicVit model(tiny_settings(), generator());
    const LoadReport report =
        load_state_dict(*model, read_safetensors(golden("model/tiny_student.safetensors")).tensors);
    EXPECT_TRUE(report.clean()) << report.text();
    return model;
}

inline DynamicVit tiny_teacher() {
    DynamicVit model(tiny_settings({}), generator());
    const LoadReport report =
        load_state_dict(*model, read_safetensors(golden("model/tiny_teacher.safetensors")).tensors);
    EXPECT_TRUE(report.clean()) << report.text();
    return model;
}

}  // namespace dynvit::test
