// The types of numbers that kernels read and write. Host and device code include it.
#pragma once

namespace dynvit::cuda {

enum class Element { kFloat, kHalf, kBFloat16, kFloat8 };

}  // namespace dynvit::cuda
