// How the kernel of one_image_blocks.cu deals out a block of the network, and in which order it has weights and
// exchanged words in memory. CUDA code only.
//
// Rows of x are dealt out to groups of kGroup CTAs (16 m rows a group), and in a group each CTA has its share of every
// layer's outputs. A "unit" is 8 columns; a "step" 16 inputs, what mma.sync multiplies at a time.
#pragma once

#include <cuda_runtime_api.h>

#include "one_image_blocks.cuh"
#include "tensor_cores.cuh"

namespace dynvit::cuda::one_image {

constexpr int kWidth = kOneImageChannels, kHeads = kOneImageHeads, kHidden = kOneImageHidden, kHeadDim = 64;
static_assert(kWidth == kHeads * kHeadDim);
constexpr int kGroup = 16;                         // CTAs
constexpr int kWarps = 8, kThreads = 32 * kWarps;  // that multiply
constexpr int kUnit = 8;
constexpr int kSteps = kWidth / kTile;
constexpr int kOwnUnits = kWidth / kUnit / kGroup;  // units of x that a CTA owns: 3
constexpr int kQkvUnits = 3 * kOwnUnits, kHiddenUnits = kHidden / kUnit / kGroup;
constexpr int kHiddenSteps = kHidden / kGroup / kTile;
constexpr int kFc2Units = kWidth / kUnit / kWarps;  // of a warp
static_assert(kFc2Units == 2 * kOwnUnits);          // those of two owners

// A CTA's share of a block's weights lies in one piece, as three chunks: qkv and the projection, fc1, fc2. In each, B
// operands of mma.sync in the order of lanes and registers.
constexpr int kUnitBytes = kTile * kUnit * 2;
constexpr int kQkvBytes = kSteps * kQkvUnits * kUnitBytes, kProjectionBytes = kSteps * kOwnUnits * kUnitBytes;
constexpr int kChunks = 3, kChunkBytes = kQkvBytes + kProjectionBytes;
static_assert(kChunkBytes == kSteps * kHiddenUnits * kUnitBytes);
static_assert(kChunkBytes == kWarps * kHiddenSteps * kFc2Units * kUnitBytes);

// Behind the weights, floats. The norms' weights are in the weights that follow them, their biases in these biases; the
// sums are over a weight's inputs: with them, (x - mean) W = x W - mean * sums.
constexpr int kQkvSums = 0, kQkvBias = kQkvSums + kQkvUnits * kUnit;
constexpr int kFc1Sums = kQkvBias + kQkvUnits * kUnit, kFc1Bias = kFc1Sums + kHiddenUnits * kUnit;
constexpr int kProjectionBias = kFc1Bias + kHiddenUnits * kUnit, kFc2Bias = kProjectionBias + kOwnUnits * kUnit;
constexpr int kConstants = kFc2Bias + kOwnUnits * kUnit, kConstantsBytes = kConstants * 4;
constexpr int kShareBytes = kChunks * kChunkBytes + kConstantsBytes;  // of a block, for a CTA

// 16 rows of x as A operands, uint4: (step, lane).
constexpr int kTileWords = kSteps * 32;

// Where exchanged words lie, in uint4. Rows are (group, m, kTileWords).
struct Exchange {
    long long x, x_between, attention;  // two of each
    long long qkv;                      // four of (q, k, v)
    long long sums;                     // two of (group, owner, from, tile and unit, lane) uint2
    long long sequence;                 // a word for each CTA: blocks that were run so far, from any start
    long long end;
};
__host__ __device__ inline Exchange exchange_for(int groups, int m) {
    const long long rows = static_cast<long long>(groups) * m * kTileWords;
    Exchange e;
    e.x = 0;
    e.x_between = e.x + 2 * rows;
    e.attention = e.x_between + 2 * rows;
    e.qkv = e.attention + 2 * rows;
    e.sums = e.qkv + 4 * 3 * rows;
    e.sequence = e.sums + 2ll * groups * kGroup * kGroup * kOwnUnits * m * 16;
    e.end = e.sequence + groups * kGroup / 4;
    return e;
}

}  // namespace dynvit::cuda::one_image
