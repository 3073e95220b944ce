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

// A prediction module: its first layer is dealt out as the projection is; CTAs behind the groups, the judges, hold the
// others whole, and each judges some tiles of rows.
constexpr int kMostTokens = 512;
constexpr int kHalf = kWidth / 2, kHalfSteps = kHalf / kTile, kHalfUnits = kHalf / kUnit / kWarps;  // of a warp
constexpr int kQuarter = kWidth / 4, kQuarterUnits = 2, kQuarterWarps = kQuarter / kUnit / kQuarterUnits;
static_assert(kQuarterWarps <= kWarps);
constexpr int kFirstSums = 0, kFirstBias = kFirstSums + kOwnUnits * kUnit;  // floats, behind a CTA's weights
constexpr int kFirstConstants = kFirstBias + kOwnUnits * kUnit, kFirstBytes = kProjectionBytes + 4 * kFirstConstants;
// The judges': the second layer's weights for a row's own half, then for the mean; the third's; floats.
constexpr int kSecondBytes = kWarps * kHalfSteps * kHalfUnits * kUnitBytes;
constexpr int kThirdBytes = kQuarterWarps * kHalfSteps * kQuarterUnits * kUnitBytes;
constexpr int kSecondBias = 0, kThirdBias = kSecondBias + kHalf, kLastWeights = kThirdBias + kQuarter;
constexpr int kLastBias = kLastWeights + 2 * kQuarter, kJudgeConstants = (kLastBias + 2 + 3) / 4 * 4;
constexpr int kJudgeBytes = 2 * kSecondBytes + kThirdBytes + 4 * kJudgeConstants;
constexpr int kPredictorBytes = kGroup * kFirstBytes + kJudgeBytes;

// 16 rows of x as A operands, uint4: (step, lane).
constexpr int kTileWords = kSteps * 32;
// A unit's words in a tile's rows; a lane's are 2 * lane further on.
__device__ inline uint2* unit_words(uint4* tile_rows, int unit) {
    return reinterpret_cast<uint2*>(tile_rows + unit / 2 * 32) + unit % 2;
}

// Where exchanged words lie, in uint4. Rows are (group, m, kTileWords).
struct Exchange {
    int x, x_between, attention;  // two of each
    int qkv;                      // four of (q, k, v)
    int sums;                     // two of (group, owner, from, tile and unit, lane) uint2
    int judged;                   // four: rows of a prediction module's first layer
    int column_sums;              // four of (judge, kHalf / 2) float2: its tiles' parts of the mean
    int scores;                   // four of (tile, 16) floats, log pi_keep
    int sequence;                 // two words for each CTA: blocks and stages that were run, from any start
    int end;
};
constexpr int kColumnSumWords = kHalf / 4;
__host__ __device__ inline Exchange exchange_for(int groups, int m) {
    const int tiles = groups * m, rows = tiles * kTileWords;
    Exchange e;
    e.x = 0;
    e.x_between = e.x + 2 * rows;
    e.attention = e.x_between + 2 * rows;
    e.qkv = e.attention + 2 * rows;
    e.sums = e.qkv + 4 * 3 * rows;
    e.judged = e.sums + 2 * groups * kGroup * kGroup * kOwnUnits * m * 16;
    e.column_sums = e.judged + 4 * rows;
    e.scores = e.column_sums + 4 * tiles * kColumnSumWords;  // as many as judges at most
    e.sequence = e.scores + 4 * tiles * kTile / 4;
    e.end = e.sequence + (groups * kGroup + tiles + 1) / 2;
    return e;
}

}  // namespace dynvit::cuda::one_image
