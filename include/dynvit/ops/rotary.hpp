// Rotary position embedding: queries and keys are turned by angles that their token's place says (Su et al., 2021).
#pragma once

#include <cstdint>

namespace at {
class Tensor;  // for who writes ONNX files, which knows no LibTorch
}

namespace dynvit {

/// Which two channels of a head are turned together, by the angle j of d / 2.
enum class RotaryLayout {
    kHalves,  // j and j + d / 2: DINOv3
    kPairs,   // 2 j and 2 j + 1: EVA-02
};

/// Turns each head's queries and keys. @param qkv (B, n, 3 C) or (T, 3 C)
/// @param rotation cosines and sines, float32: (B or 1, n, 2, d / 2) or (T, 2, d / 2)
/// @return the shape and type of qkv
at::Tensor rotate_queries_keys(const at::Tensor& qkv, const at::Tensor& rotation, RotaryLayout layout);

}  // namespace dynvit
