// What stands between the two layers of an MLP.
#pragma once

namespace at {
class Tensor;  // for who writes ONNX files, which knows no LibTorch
}

namespace dynvit {

enum class Activation {
    kGelu,       // x Phi(x), by erf
    kGeluTanh,   // its tanh approximation
    kQuickGelu,  // x sigmoid(1.702 x): OpenAI's CLIP
    kSwiGlu,     // silu(a) b, where a is the first half of the channels and b the second (Shazeer, 2020)
};

/// Computes the activation. @param x (..., channels) @return the same shape; half as many channels for kSwiGlu
at::Tensor activate(const at::Tensor& x, Activation activation);

}  // namespace dynvit
