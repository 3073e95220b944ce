// What kernels ask of a tensor, to read 16 bytes at a time, and how they see it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "compute_capability.hpp"
#include "element_type_of_tensor.hpp"

namespace dynvit::cuda {

/// Bytes that a thread reads or writes in one access.
inline constexpr std::int64_t kVectorBytes = 16;

/// @return whether a tensor's first value stands at a multiple of kVectorBytes in memory.
inline bool is_aligned(const at::Tensor& tensor) {
    return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % kVectorBytes == 0;
}

/// @return the vectors in a row. @param x (..., C), whose rows are a multiple of kVectorBytes
inline int vectors_of(const at::Tensor& x) {
    return static_cast<int>(x.size(-1) * x.element_size() / kVectorBytes);
}

/// Rows, perhaps one for all images, whose values lie one after another. @param rows (B, n) @return it, or a copy
inline at::Tensor near_rows(const at::Tensor& rows) {
    return rows.stride(-1) == 1 ? rows : rows.contiguous();
}

static_assert(sizeof(long long) == sizeof(std::int64_t));

/// The values of an int64 tensor, by the type that kernels have for them.
inline const long long* numbers(const at::Tensor& tensor) {
    return static_cast<const long long*>(tensor.const_data_ptr());
}
inline long long* mutable_numbers(const at::Tensor& tensor) {
    return static_cast<long long*>(tensor.mutable_data_ptr());
}

/// @return whether a tensor is float16 or bfloat16 and lies on a GPU that the kernels were built for.
inline bool is_half_on_gpu(const at::Tensor& tensor) {
    return kernels_run_on(tensor.device()) && is_half(tensor.scalar_type());
}

}  // namespace dynvit::cuda
