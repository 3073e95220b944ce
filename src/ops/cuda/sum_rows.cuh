// Launcher of what comes after kernels whose blocks each add up a part of the rows.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

/// sums, (columns): the sums of partial, (rows, columns), over its rows, in a fixed order.
cudaError_t sum_rows(const float* partial, int rows, int columns, float* sums, cudaStream_t stream);

}  // namespace dynvit::cuda
