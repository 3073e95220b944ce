// The types of numbers that kernels read and write.
#pragma once

namespace dynvit::cuda {

enum class Element { kFloat, kHalf, kBFloat16, kFloat8 };

}  // namespace dynvit::cuda
