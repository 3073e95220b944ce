// Builds without CUDA kernels, or by an nvcc older than 12.0, have none for one image; the others have
// cuda/one_image_blocks.cpp.
#ifndef DYNVIT_HOPPER_KERNELS
#include "dynvit/ops/one_image_blocks.hpp"

#include <c10/util/Exception.h>

namespace dynvit {

struct OneImageBlocks::Impl {};

bool OneImageBlocks::supports(const at::Device&, at::ScalarType, const Sizes&, std::int64_t) {
    return false;
}

OneImageBlocks::OneImageBlocks(const std::vector<Block>&, const std::vector<Predictor>&, at::ScalarType,
                               const Epsilons&, std::int64_t) {
    TORCH_CHECK(false, "this build has no kernel for the blocks of one image");
}
OneImageBlocks::~OneImageBlocks() = default;
void OneImageBlocks::prepare(std::int64_t) {}
OneImageBlocks::Output OneImageBlocks::run(const at::Tensor& x, const std::vector<std::int64_t>&) {
    return {x, {}};
}

}  // namespace dynvit
#endif
