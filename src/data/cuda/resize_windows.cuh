// Launcher of the passes that resize decoded windows: raw device pointers, no tensors.
#pragma once

#include <cuda_runtime_api.h>

namespace dynvit::cuda {

/// Fraction bits of the weights; those of the processor's passes.
inline constexpr int kPassFractionBits = 22;

/// One pass over an RGB picture, as data/resize_passes.hpp has them: each output column, or row, is a weighted sum of
/// input ones, rounded to 8 bits.
struct ResizePass {
    const unsigned char* in;
    unsigned char* out;  // out_height x out_width x 3
    const int2* spans;   // for each output column or row: the first input and how many
    const int* weights;  // taps for each
    int taps;
    int in_stride;  // bytes from an input row to the next
    int out_width, out_height;
    bool columns;  // makes new columns of each row; false: new rows
};

/// `count` passes that do not depend on each other. @param passes on the device
cudaError_t run_passes(const ResizePass* passes, int count, cudaStream_t stream);

}  // namespace dynvit::cuda
