// A block's parameters in the order in which the kernel of one_image_blocks.cu reads them.
#include "element_dispatch.cuh"
#include "one_image_layout.cuh"

namespace dynvit::cuda {
namespace one_image {
namespace {

constexpr int kShareUnits = kChunks * kChunkBytes / kUnitBytes, kUnitsAtOnce = 8;

template <class T>
__device__ const T* as(const void* p) {
    return static_cast<const T*>(p);
}
template <class T>
__device__ float value(const void* p, int index) {
    return static_cast<float>(as<T>(p)[index]);
}

// A column of qkv's share: of q's, k's and v's units, kOwnUnits each.
__device__ int qkv_output(int cta, int unit, int column) {
    return unit / kOwnUnits * kWidth + (cta * kOwnUnits + unit % kOwnUnits) * kUnit + column;
}

// A lane's words of a B operand of `weight`, (outputs, inputs), each input times its norm's weight, if there is one.
template <class T>
__device__ uint2 operand(const void* weight, const void* norm, int inputs, int output, int input) {
    const auto number = [&](int k) { return value<T>(weight, output * inputs + k) * (norm ? value<T>(norm, k) : 1); };
    const auto word = [&](int k) { return pack<T>(number(k), number(k + 1)); };
    return make_uint2(word(input), word(input + 8));
}

// The lane's words of the share's i-th unit.
template <class T>
__device__ uint2 share_unit(const BlockParameters& p, int cta, int i, int lane) {
    constexpr int kQkv = kQkvBytes / kUnitBytes, kChunk = kChunkBytes / kUnitBytes;
    const int row = lane / 4, k = lane % 4 * 2;
    if (i < kQkv) {
        const int output = qkv_output(cta, i % kQkvUnits, row);
        return operand<T>(p.qkv_weight, p.norm1_weight, kWidth, output, i / kQkvUnits * kTile + k);
    }
    if (i < kChunk) {
        i -= kQkv;
        const int output = (cta * kOwnUnits + i % kOwnUnits) * kUnit + row;
        return operand<T>(p.projection_weight, nullptr, kWidth, output, i / kOwnUnits * kTile + k);
    }
    i -= kChunk;
    if (i < kChunk) {
        const int output = (cta * kHiddenUnits + i % kHiddenUnits) * kUnit + row;
        return operand<T>(p.fc1_weight, p.norm2_weight, kWidth, output, i / kHiddenUnits * kTile + k);
    }
    i -= kChunk;
    const int warp = i / (kHiddenSteps * kFc2Units), step = i / kFc2Units % kHiddenSteps;
    const int output = (warp * kFc2Units + i % kFc2Units) * kUnit + row;
    return operand<T>(p.fc2_weight, nullptr, kHidden, output, (cta * kHiddenSteps + step) * kTile + k);
}

template <class T>
__global__ void pack_weights(BlockParameters p, unsigned char* packed) {
    const int cta = blockIdx.y, lane = threadIdx.x % 32, unit = blockIdx.x * kUnitsAtOnce + threadIdx.x / 32;
    if (unit >= kShareUnits) return;
    reinterpret_cast<uint2*>(packed + static_cast<long long>(cta) * kShareBytes)[unit * 32 + lane] =
        share_unit<T>(p, cta, unit, lane);
}

// The sum of the weights of an output as the product sees them: rounded.
template <class T>
__device__ float sum_of_inputs(const void* weight, const void* norm, int output) {
    float sum = 0;
    for (int k = 0; k < kWidth; ++k) {
        sum += static_cast<float>(static_cast<T>(value<T>(weight, output * kWidth + k) * value<T>(norm, k)));
    }
    return sum;
}
// Of a layer behind a norm, with what the norm's bias adds to it.
template <class T>
__device__ float bias_after_norm(const void* weight, const void* shift, const void* bias, int output) {
    float sum = bias ? value<T>(bias, output) : 0;
    for (int k = 0; k < kWidth; ++k) sum += value<T>(weight, output * kWidth + k) * value<T>(shift, k);
    return sum;
}

template <class T>
__device__ float constant(const BlockParameters& p, int cta, int i) {
    if (i < kFc1Sums) {
        const int column = i % kQkvBias, output = qkv_output(cta, column / kUnit, column % kUnit);
        return i < kQkvBias ? sum_of_inputs<T>(p.qkv_weight, p.norm1_weight, output)
                            : bias_after_norm<T>(p.qkv_weight, p.norm1_bias, p.qkv_bias, output);
    }
    if (i < kProjectionBias) {
        const int output = cta * kHiddenUnits * kUnit + (i - kFc1Sums) % (kFc1Bias - kFc1Sums);
        return i < kFc1Bias ? sum_of_inputs<T>(p.fc1_weight, p.norm2_weight, output)
                            : bias_after_norm<T>(p.fc1_weight, p.norm2_bias, p.fc1_bias, output);
    }
    const void* const bias = i < kFc2Bias ? p.projection_bias : p.fc2_bias;
    const int output = cta * kOwnUnits * kUnit + (i - kProjectionBias) % (kFc2Bias - kProjectionBias);
    return bias ? value<T>(bias, output) : 0;
}

// A prediction module: the i-th unit of a CTA's share of the first layer; of what the judges have.
template <class T>
__device__ uint2 first_unit(const PredictorParameters& p, int cta, int i, int lane) {
    const int output = (cta * kOwnUnits + i % kOwnUnits) * kUnit + lane / 4;
    return operand<T>(p.first_weight, p.norm_weight, kWidth, output, i / kOwnUnits * kTile + lane % 4 * 2);
}
template <class T>
__device__ uint2 judge_unit(const PredictorParameters& p, int i, int lane) {
    constexpr int kSecond = kSecondBytes / kUnitBytes;
    const int row = lane / 4, k = lane % 4 * 2;
    if (i < 2 * kSecond) {
        const int of_mean = i / kSecond, step = i / kHalfUnits % kHalfSteps;
        const int warp = i % kSecond / (kHalfSteps * kHalfUnits);
        const int output = (warp * kHalfUnits + i % kHalfUnits) * kUnit + row;
        return operand<T>(p.second_weight, nullptr, kWidth, output, of_mean * kHalf + step * kTile + k);
    }
    i -= 2 * kSecond;
    const int warp = i / (kHalfSteps * kQuarterUnits), step = i / kQuarterUnits % kHalfSteps;
    const int output = (warp * kQuarterUnits + i % kQuarterUnits) * kUnit + row;
    return operand<T>(p.third_weight, nullptr, kHalf, output, step * kTile + k);
}
constexpr int kFirstUnits = kProjectionBytes / kUnitBytes;
constexpr int kJudgeUnits = (2 * kSecondBytes + kThirdBytes) / kUnitBytes;

// A block a CTA's share, and those behind them a unit of the judges' each.
template <class T>
__global__ void pack_predictor_weights(PredictorParameters p, unsigned char* packed) {
    const int lane = threadIdx.x, i = blockIdx.x;
    if (i < kGroup * kFirstUnits) {
        const int cta = i / kFirstUnits, unit = i % kFirstUnits;
        reinterpret_cast<uint2*>(packed + cta * kFirstBytes)[unit * 32 + lane] = first_unit<T>(p, cta, unit, lane);
    } else {
        const int unit = i - kGroup * kFirstUnits;
        reinterpret_cast<uint2*>(packed + kGroup * kFirstBytes)[unit * 32 + lane] = judge_unit<T>(p, unit, lane);
    }
}

template <class T>
__device__ float judge_constant(const PredictorParameters& p, int i) {
    const auto bias = [](const void* from, int index) { return from ? value<T>(from, index) : 0; };
    if (i < kThirdBias) return bias(p.second_bias, i - kSecondBias);
    if (i < kLastWeights) return bias(p.third_bias, i - kThirdBias);
    if (i < kLastBias) return value<T>(p.last_weight, i - kLastWeights);
    return i < kLastBias + 2 ? bias(p.last_bias, i - kLastBias) : 0;
}

template <class T>
__global__ void pack_predictor_constants(PredictorParameters p, unsigned char* packed) {
    const int block = blockIdx.x, i = threadIdx.x;
    if (block < kGroup) {
        if (i >= kFirstConstants) return;
        const int output = block * kOwnUnits * kUnit + i % kFirstBias;
        reinterpret_cast<float*>(packed + block * kFirstBytes + kProjectionBytes)[i] =
            i < kFirstBias ? sum_of_inputs<T>(p.first_weight, p.norm_weight, output)
                           : bias_after_norm<T>(p.first_weight, p.norm_bias, p.first_bias, output);
    } else if (i < kJudgeConstants) {
        unsigned char* const judges = packed + kGroup * kFirstBytes;
        reinterpret_cast<float*>(judges + 2 * kSecondBytes + kThirdBytes)[i] = judge_constant<T>(p, i);
    }
}

template <class T>
__global__ void pack_constants(BlockParameters p, unsigned char* packed) {
    const int cta = blockIdx.x, i = threadIdx.x;
    unsigned char* const share = packed + static_cast<long long>(cta) * kShareBytes;
    reinterpret_cast<float*>(share + kChunks * kChunkBytes)[i] = constant<T>(p, cta, i);
}

}  // namespace
}  // namespace one_image

std::size_t packed_block_bytes() {
    return static_cast<std::size_t>(one_image::kGroup) * one_image::kShareBytes;
}

cudaError_t pack_block(Element element, const BlockParameters& block, void* packed, cudaStream_t stream) {
    using namespace one_image;
    constexpr dim3 grid((kShareUnits + kUnitsAtOnce - 1) / kUnitsAtOnce, kGroup);
    unsigned char* const to = static_cast<unsigned char*>(packed);
    with_half_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        pack_weights<T><<<grid, 32 * kUnitsAtOnce, 0, stream>>>(block, to);
        pack_constants<T><<<kGroup, kConstants, 0, stream>>>(block, to);
    });
    return cudaGetLastError();
}

std::size_t packed_predictor_bytes() {
    return one_image::kPredictorBytes;
}

cudaError_t pack_predictor(Element element, const PredictorParameters& predictor, void* packed, cudaStream_t stream) {
    using namespace one_image;
    unsigned char* const to = static_cast<unsigned char*>(packed);
    with_half_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        pack_predictor_weights<T><<<kGroup * kFirstUnits + kJudgeUnits, 32, 0, stream>>>(predictor, to);
        pack_predictor_constants<T><<<kGroup + 1, 512, 0, stream>>>(predictor, to);
    });
    return cudaGetLastError();
}

}  // namespace dynvit::cuda
