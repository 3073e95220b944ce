// A published model with prediction modules drawn from a seed, and photographs for it.
#pragma once

#include "dynvit/data/data_settings.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/data/transforms.hpp"
#include "dynvit/weights/model_file.hpp"
#include "models/golden_model.hpp"

namespace dynvit::test {

inline DynamicVit published_model(const std::filesystem::path& shared) {
    DynamicVit model(model_settings("deit_tiny"), generator());
    load_weights(*model, read_model_file(shared / "weights/deit_tiny_patch16_224.safetensors"), Fit::kEvaluate);
    const torch::NoGradGuard no_grad;
    at::Generator random = generator(1);
    for (const auto& item : model->named_parameters()) {  // wide, so that scores lie apart
        if (is_of_prediction_module(item.key())) at::Tensor(item.value()).normal_(0.0, 0.2, random);
    }
    return model;
}

/// The first photographs, normalized: (count, 3, 224, 224).
inline at::Tensor photographs(const std::filesystem::path& shared, std::size_t count) {
    std::vector<at::Tensor> batch;
    for (const std::filesystem::path& path : pictures_of_folders({shared / "data/imagenet-val-300/val"})) {
        const Image image = apply(EvalTransform{}, read_image(path));
        batch.push_back(
            at::tensor(at::ArrayRef<std::uint8_t>(image.pixels), at::kByte).view({224, 224, 3}).permute({2, 0, 1}));
        if (batch.size() == count) break;
    }
    return normalize_images(at::stack(batch), at::kCPU);
}

}  // namespace dynvit::test
