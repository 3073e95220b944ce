// Numbers that the definition of an operation, its loops on the processor and its CUDA kernels share. Host and device
// code include it.
#pragma once

namespace dynvit {

/// Is added to the sums of the policy softmax: keeps it finite and its rows summing to one where every visible weight
/// underflows. See ops/masked_attention.hpp.
inline constexpr double kPolicyEpsilon = 1e-6;

/// The largest number of float8 e4m3. See ops/scaled_rows.hpp.
inline constexpr double kLargestFloat8 = 448;

/// What the largest magnitude of a row counts as, at least, when the row is scaled for float8: a row of zeros has a
/// scale above zero. See ops/scaled_rows.hpp.
inline constexpr double kLeastRowMagnitude = 1e-12;

}  // namespace dynvit
