// Attention of one head in one_image_blocks.cu: 16 queries, whose keys a CTA's warps share out. CUDA code only.
#pragma once

#include <cfloat>

#include "one_image_exchange.cuh"
#include "one_image_layout.cuh"

namespace dynvit::cuda::one_image {

constexpr float kLogitScale = 0.125f * kLog2e;  // 1 / sqrt(kHeadDim)
constexpr int kHeadSteps = kHeadDim / kTile, kHeadUnits = kHeadDim / kUnit;

// What a CTA's warps leave for each other, in shared memory.
struct AttentionParts {
    float4 (*out)[kHeadUnits][32];  // [warp][unit][lane]
    float2 (*found)[kTile];         // [warp][row]: the greatest logit, times log2(e), and the sum of weights
};

// The head's words: of the queries' tile; of the first tile of keys, and of values.
struct HeadWords {
    const uint4 *q, *k, *v;
};

// A warp's share: every kWarps-th tile of keys, two at a time.
template <class T>
class HeadAttention {
  public:
    __device__ explicit HeadAttention(const HeadWords& words)
        : lane_(threadIdx.x % 32), warp_(threadIdx.x / 32), words_(words) {}

    /// @param kept a bit a token, whether it is a key: known once `choose` has run, which each warp calls once
    template <class Choose>
    __device__ void run(int tokens, const unsigned* kept, const Choose& choose) {
        const int tiles = (tokens + kTile - 1) / kTile;
        for (int first = warp_; first == warp_ || first < tiles; first += kAtOnce * kWarps) {
            // Where there is no tile, another serves as well: its logits are masked.
            const int tile[kAtOnce] = {first, first + kWarps};
            Logits logits = {};
            uint4 v[kAtOnce][kHeadSteps];
            const auto place = [&](int i) { return min(tile[i], tiles - 1) * kTileWords; };
            multiply_keys(logits, v, {{place(0), place(1)}}, first == warp_);
            if (first == warp_) choose();
            unsigned keys[kAtOnce];  // the lane's, from bit 0 on
            for (int i = 0; i < kAtOnce; ++i) {
                const unsigned pair = tile[i] < tiles ? kept[tile[i] * kTile / 32] : 0;
                keys[i] = pair >> (tile[i] * kTile % 32 + lane_ % 4 * 2);
            }
            weigh(logits, keys);
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) end_receive(v[i], words_.v + place(i), 32);
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) add_values(logits[i], v[i]);
        }
    }

    __device__ void leave(const AttentionParts& parts) {
        for (float& sum : sum_) sum = row_sum(sum);
#pragma unroll
        for (int u = 0; u < kHeadUnits; ++u) {
            parts.out[warp_][u][lane_] = make_float4(out_[u][0], out_[u][1], out_[u][2], out_[u][3]);
        }
        if (lane_ % 4 != 0) return;
        for (int r = 0; r < 2; ++r) parts.found[warp_][lane_ / 4 + 8 * r] = make_float2(greatest_[r], sum_[r]);
    }

  private:
    static constexpr int kAtOnce = 2;
    // Where a warp has no key at all: its weights become zero when all are put together.
    static constexpr float kLowest = -FLT_MAX;
    using Logits = float[kAtOnce][2][4];

    struct Places {
        int of[kAtOnce];
    };
    // Values may still be on their way.
    __device__ void multiply_keys(Logits& logits, uint4 (&v)[kAtOnce][kHeadSteps], const Places& places,
                                  bool is_first) {
        uint4 k[kAtOnce][kHeadSteps];
#pragma unroll
        for (const int place : places.of) wait_for(words_.v + place + (kHeadSteps - 1) * 32);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) begin_receive(k[i], words_.k + places.of[i], 32);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) begin_receive(v[i], words_.v + places.of[i], 32);
        if (is_first) {
            begin_receive(q_, words_.q, 32);
            end_receive(q_, words_.q, 32);
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) end_receive(k[i], words_.k + places.of[i], 32);
#pragma unroll
        for (int d = 0; d < kHeadSteps; ++d) {
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                multiply_add<T>(logits[i][0], q_[d], k[i][d].x, k[i][d].z);
                multiply_add<T>(logits[i][1], q_[d], k[i][d].y, k[i][d].w);
            }
        }
    }

    // Calls `work` with each logit, whether its key is kept and which of the lane's two rows it is in.
    template <class Work>
    __device__ static void each(Logits& logits, const unsigned (&keys)[kAtOnce], const Work& work) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e) work(logits[i][n][e], keys[i] >> (n * 8 + e % 2) & 1, e / 2);
            }
        }
    }

    // Logits become weights; what was found before shrinks to the new greatest logit.
    __device__ void weigh(Logits& logits, const unsigned (&keys)[kAtOnce]) {
        float highest[2] = {greatest_[0], greatest_[1]};
        each(logits, keys, [&](float& x, bool kept, int row) {
            x = kept ? x * kLogitScale : -INFINITY;
            highest[row] = fmaxf(highest[row], x);
        });
        for (int r = 0; r < 2; ++r) {
            highest[r] = row_max(highest[r]);
            const float shrink = exp2_fast(greatest_[r] - highest[r]);
            greatest_[r] = highest[r];
            sum_[r] *= shrink;
            for (int u = 0; u < kHeadUnits; ++u) {
                out_[u][2 * r] *= shrink;
                out_[u][2 * r + 1] *= shrink;
            }
        }
        each(logits, keys, [&](float& x, bool, int row) {
            x = exp2_fast(x - greatest_[row]);
            sum_[row] += x;
        });
    }

    __device__ void add_values(const float (&x)[2][4], const uint4 (&v)[kHeadSteps]) {
        const uint4 weights = make_uint4(pack<T>(x[0][0], x[0][1]), pack<T>(x[0][2], x[0][3]),
                                         pack<T>(x[1][0], x[1][1]), pack<T>(x[1][2], x[1][3]));
#pragma unroll
        for (int d = 0; d < kHeadSteps; ++d) {
            multiply_add<T>(out_[2 * d], weights, v[d].x, v[d].y);
            multiply_add<T>(out_[2 * d + 1], weights, v[d].z, v[d].w);
        }
    }

    const int lane_, warp_;
    const HeadWords words_;
    uint4 q_[kHeadSteps];
    float out_[kHeadUnits][4] = {}, greatest_[2] = {kLowest, kLowest}, sum_[2] = {};  // sum_: a lane's part
};

// Puts together what the warps left (the first always has a key, [CLS]); a warp takes one of the head's units.
template <class T>
__device__ inline uint2 merge_attention(const AttentionParts& parts) {
    static_assert(kHeadUnits == kWarps);
    const int lane = threadIdx.x % 32, unit = threadIdx.x / 32;
    float2 found[kWarps][2];
    float4 out[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        for (int r = 0; r < 2; ++r) found[w][r] = parts.found[w][lane / 4 + 8 * r];
        out[w] = parts.out[w][unit][lane];
    }
    float highest[2] = {-INFINITY, -INFINITY}, total[2] = {};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        for (int r = 0; r < 2; ++r) highest[r] = fmaxf(highest[r], found[w][r].x);
    }
    float4 y = {};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
        float share[2];
        for (int r = 0; r < 2; ++r) {
            share[r] = exp2_fast(found[w][r].x - highest[r]);
            total[r] += share[r] * found[w][r].y;
        }
        y = make_float4(y.x + share[0] * out[w].x, y.y + share[0] * out[w].y, y.z + share[1] * out[w].z,
                        y.w + share[1] * out[w].w);
    }
    const float top = __fdividef(1, total[0]), bottom = __fdividef(1, total[1]);
    return make_uint2(pack<T>(y.x * top, y.y * top), pack<T>(y.z * bottom, y.w * bottom));
}

}  // namespace dynvit::cuda::one_image
