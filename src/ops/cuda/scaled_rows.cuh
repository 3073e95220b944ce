// Launcher of the rounding of rows to float8: raw device pointers, no tensors. They are 16 bytes aligned.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

inline constexpr int kScaledChannelStep = 8, kMaxScaledChannels = 6144;

struct QuantizeRows {
    int rows, channels;  // a multiple of kScaledChannelStep, up to kMaxScaledChannels
    bool gelu;           // of the values, before all else
    const void* x;       // (rows, channels), bfloat16
    void* values;        // written: (rows, channels), float8 e4m3
    float* scales;       // written: (rows)
};

cudaError_t quantize_rows(const QuantizeRows& arguments, cudaStream_t stream);

}  // namespace dynvit::cuda
