// Launchers of consecutive transformer blocks of one image in one kernel: raw device pointers, no tensors.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "element_type.hpp"

namespace dynvit::cuda {

/// The only sizes that the kernel is written for: DeiT-S.
constexpr int kOneImageChannels = 384, kOneImageHeads = 6, kOneImageHidden = 1536;

/// A block's parameters: weights (outputs, inputs), all contiguous and of one half type; biases of linear layers may be
/// null.
struct BlockParameters {
    const void *norm1_weight, *norm1_bias, *qkv_weight, *qkv_bias, *projection_weight, *projection_bias;
    const void *norm2_weight, *norm2_bias, *fc1_weight, *fc1_bias, *fc2_weight, *fc2_bias;
};

/// Bytes of what the kernel reads of a block, which pack_block() makes of its parameters. Aligned to 16 bytes.
std::size_t packed_block_bytes();
cudaError_t pack_block(Element element, const BlockParameters& block, void* packed, cudaStream_t stream);

/// A prediction module's: weights (C, C), (C / 2, C), (C / 4, C / 2) and (2, C / 4); like a block's.
struct PredictorParameters {
    const void *norm_weight, *norm_bias, *first_weight, *first_bias, *second_weight, *second_bias;
    const void *third_weight, *third_bias, *last_weight, *last_bias;
};

/// The same for a prediction module.
std::size_t packed_predictor_bytes();
cudaError_t pack_predictor(Element element, const PredictorParameters& predictor, void* packed, cudaStream_t stream);

/// Where tokens are dropped.
struct OneImageStage {
    int block;                  // before this one
    int kept;                   // patches that go on, of those left
    const void* packed;         // the prediction module
    long long* kept_positions;  // (kept): their places on the grid, ascending
};
constexpr int kMostStages = 12;

struct OneImageBlocksRun {
    Element element;                     // a half type
    int tokens, prefix, blocks, stages;  // prefix: tokens before the patches, at least one, never dropped
    float epsilon;                       // of the blocks' norms
    float predictor_epsilon;             // of the prediction modules'
    const void* packed;                  // the blocks, one after the other
    const void* x;                       // (tokens, kOneImageChannels), the prefix first
    void* out;                           // like x, and may be x; of no meaning for tokens that were dropped
    OneImageStage stage[kMostStages];    // in the order of blocks
    /// one_image_exchange_bytes(tokens), every byte 0xff before the first run: what the kernel's CTAs tell each other.
    /// Runs with the same one, of as many tokens, must follow each other.
    void* exchange;
};

/// Bytes of OneImageBlocksRun::exchange; 0 where tokens are more than 512 or the current device has too few
/// multiprocessors.
std::size_t one_image_exchange_bytes(int tokens);

/// Needs compute capability 9.0. An error if not all CTAs, which wait for each other, can be on the device at once.
cudaError_t one_image_blocks(const OneImageBlocksRun& run, cudaStream_t stream);

}  // namespace dynvit::cuda
