#include "dynvit/ops/activation.hpp"

#include <ATen/ATen.h>

namespace dynvit {

at::Tensor activate(const at::Tensor& x, Activation activation) {
    constexpr double kQuickFactor = 1.702;
    switch (activation) {
        case Activation::kGelu:
            return at::gelu(x);
        case Activation::kGeluTanh:
            return at::gelu(x, "tanh");
        case Activation::kQuickGelu:
            return x * at::sigmoid(kQuickFactor * x);
        case Activation::kSwiGlu: {
            const std::vector<at::Tensor> halves = x.chunk(2, -1);
            return at::silu(halves[0]) * halves[1];
        }
    }
    TORCH_CHECK(false, "unknown activation");
}

}  // namespace dynvit
