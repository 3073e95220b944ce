// What follows the first layer of a prediction module in one_image_blocks.cu, and the choice of tokens. CUDA code only.
//
// Tokens stay where they are: those that are not kept are no keys of attention any more, so that nothing of them
// reaches the others. Moving the rest together would save no time, as products are a small part of a block's.
#pragma once

#include "gelu.cuh"
#include "one_image_exchange.cuh"
#include "one_image_layout.cuh"

namespace dynvit::cuda::one_image {

struct Selection {
    alignas(16) unsigned keys[kMostTokens];  // the greater, the sooner a token is kept; 0: it may not be
    unsigned kept[kMostTokens / 32];         // a bit a token
};

// Before the first stage.
__device__ inline void keep_all(Selection& s, int tokens) {
    for (int i = threadIdx.x; i < kMostTokens / 32; i += kThreads) {
        const int behind = tokens - 32 * i;
        s.kept[i] = behind >= 32 ? kAll : behind > 0 ? (1u << behind) - 1 : 0;
    }
}

// Unsigned numbers in the order of floats, none of them 0; NaN is the greatest, as sorting has it.
__device__ inline unsigned order_of(float x) {
    if (isnan(x)) return kAll - 1;
    const unsigned bits = __float_as_uint(x + 0.f);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

// Of the tokens that are kept, keeps the first `prefix` and the `count` with the highest of the scores, which it waits
// for; of equal ones the first. By the working warps, who must pass a barrier before and behind it.
__device__ inline void select(Selection& s, const unsigned* scores, int tokens, int prefix, int count) {
    const int rows = (tokens + 31) / 32 * 32;
    for (int row = threadIdx.x; row < rows; row += kThreads) {
        unsigned key = 0;
        if (row >= prefix && s.kept[row / 32] >> row % 32 & 1) {
            unsigned score;
            do score = take(scores + row);
            while (score == kMissing);
            key = order_of(__uint_as_float(score));
        }
        s.keys[row] = key;
    }
    sync_workers();
    const uint4* const keys = reinterpret_cast<const uint4*>(s.keys);
    for (int row = threadIdx.x; row < rows; row += kThreads) {
        const unsigned own = s.keys[row];
        int before = 0;
#pragma unroll 8
        for (int i = 0; i < rows / 4; ++i) {
            const uint4 others = keys[i];
            before += others.x >= own + (4 * i >= row);
            before += others.y >= own + (4 * i + 1 >= row);
            before += others.z >= own + (4 * i + 2 >= row);
            before += others.w >= own + (4 * i + 3 >= row);
        }
        const unsigned kept = __ballot_sync(kAll, row < prefix || (own > 0 && before < count));
        if (row % 32 == 0) s.kept[row / 32] = kept;
    }
}

// A judge's threads.
template <class T>
class Judge {
  public:
    struct Shared {
        unsigned char weights[kJudgeBytes];
        uint4 rows[kTileWords];         // a tile, as A operands
        uint4 hidden[kHalfSteps * 32];  // the second layer's outputs of it
        uint4 mean[kHalfSteps * 32];    // in every row
        float2 last[kQuarterWarps][kTile];
        Selection selection;
        unsigned long long full;  // barrier: the weights are there
    };

    __device__ Judge(const OneImageBlocksRun& run, Shared& shared, int groups, int m)
        : p_(run),
          s_(shared),
          lane_(threadIdx.x % 32),
          warp_(threadIdx.x / 32),
          tiles_(groups * m),
          judge_(blockIdx.x - groups * kGroup),
          judges_(gridDim.x - groups * kGroup),
          e_(exchange_for(groups, m)) {}

    __device__ void work() {
        unsigned* const sequence = reinterpret_cast<unsigned*>(exchange() + e_.sequence) + 2 * blockIdx.x + 1;
        const unsigned first = *sequence;
        if (threadIdx.x == 0) {
            make_barrier(full());
            show_barriers();
            load(0);
        }
        keep_all(s_.selection, p_.tokens);
        sync_workers();
        int kept = p_.tokens - p_.prefix;
        for (int stage = 0; stage < p_.stages; ++stage) {
            now_ = first + stage;
            judge(stage, kept);
            kept = p_.stage[stage].kept;
            select(s_.selection, scores(now_), p_.tokens, p_.prefix, kept);
            sync_workers();
            if (threadIdx.x == 0) load(stage + 1);
            if (judge_ == 0) write_kept(p_.stage[stage].kept_positions);
            clear_before();
            sync_workers();
        }
        if (threadIdx.x == 0) *sequence = first + p_.stages;
    }

  private:
    using Outputs = float[kHalfUnits][4];

    __device__ uint4* exchange() const { return static_cast<uint4*>(p_.exchange); }
    __device__ const uint4* tile_words(int tile) const {
        return exchange() + e_.judged + ((now_ & 3) * tiles_ + tile) * kTileWords + lane_;
    }
    __device__ uint2* column_sums(unsigned at, int judge) const {
        return reinterpret_cast<uint2*>(exchange() + e_.column_sums + ((at & 3) * tiles_ + judge) * kColumnSumWords);
    }
    __device__ unsigned* scores(unsigned at) const {
        return reinterpret_cast<unsigned*>(exchange() + e_.scores) + (at & 3) * tiles_ * kTile;
    }

    __device__ unsigned full() const { return shared_address(&s_.full); }
    __device__ void load(int stage) const {
        if (stage >= p_.stages) return;
        expect_bytes(full(), kJudgeBytes);
        const auto* const from = static_cast<const unsigned char*>(p_.stage[stage].packed) + kGroup * kFirstBytes;
        copy_bulk(s_.weights, from, kJudgeBytes, full());
    }
    // Of a warp.
    __device__ const uint2* second_weights(bool of_mean) const {
        return reinterpret_cast<const uint2*>(s_.weights + of_mean * kSecondBytes) +
               warp_ * kHalfSteps * kHalfUnits * 32 + lane_;
    }
    __device__ const uint2* third_weights() const {
        return reinterpret_cast<const uint2*>(s_.weights + 2 * kSecondBytes) + warp_ * kHalfSteps * kQuarterUnits * 32 +
               lane_;
    }
    __device__ const float* constants() const {
        return reinterpret_cast<const float*>(s_.weights + 2 * kSecondBytes + kThirdBytes);
    }

    __device__ void judge(int stage, int kept) {
        wait_for_phase(full(), stage & 1);
        receive_rows();
        sync_workers();
        Outputs own = {};
        multiply_half(own, second_weights(false), s_.rows);
        receive_mean(kept);
        sync_workers();
        Outputs of_mean = {};  // the same in every row
        multiply_half(of_mean, second_weights(true), s_.mean);
        for (int tile = judge_; tile < tiles_; tile += judges_) {
            if (tile != judge_) {
                receive_tile(tile, [](int, const uint4&) {});
                sync_workers();
                for (auto& unit : own) {
                    for (float& x : unit) x = 0;
                }
                multiply_half(own, second_weights(false), s_.rows);
            }
            store_hidden(own, of_mean);
            sync_workers();
            third();
            sync_workers();
            if (threadIdx.x < kTile) give_score(tile * kTile + threadIdx.x);
        }
    }

    // Brings a tile to shared memory: kAtOnce steps of it a warp, with which it calls `see`.
    static constexpr int kAtOnce = kSteps / kWarps;
    static_assert(kHalfSteps % kAtOnce == 0);
    template <class See>
    __device__ void receive_tile(int tile, const See& see) const {
        const uint4* const from = tile_words(tile) + warp_ * kAtOnce * 32;
        uint4 words[kAtOnce];
        begin_receive(words, from, 32);
        end_receive(words, from, 32);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            s_.rows[(warp_ * kAtOnce + i) * 32 + lane_] = words[i];
            see(i, words[i]);
        }
    }
    // All tiles, and the first again stays. Gives their sums, over kept patches, of the half whose mean all share.
    __device__ void receive_rows() const {
        float4 sums[kAtOnce] = {};  // .x and .y: of a word's two columns, .z and .w: of those 8 further on
        for (int tile = tiles_ - 1 - (tiles_ - 1 - judge_) % judges_; tile >= 0; tile -= judges_) {
            const bool upper = counts(tile * kTile + lane_ / 4), lower = counts(tile * kTile + lane_ / 4 + 8);
            receive_tile(tile, [&](int i, const uint4& words) {
                const auto add = [](float& x, float& y, unsigned word, bool counted) {
                    const float2 pair = unpack<T>(word);
                    x += counted ? pair.x : 0.f;
                    y += counted ? pair.y : 0.f;
                };
                add(sums[i].x, sums[i].y, words.x, upper);
                add(sums[i].x, sums[i].y, words.y, lower);
                add(sums[i].z, sums[i].w, words.z, upper);
                add(sums[i].z, sums[i].w, words.w, lower);
            });
        }
        if (warp_ * kAtOnce < kHalfSteps) return;
        uint2* const to = column_sums(now_, judge_) + (warp_ * kAtOnce - kHalfSteps) * kTile / 2 + lane_;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const auto over_rows = [](float x) {
                for (const int apart : {4, 8, 16}) x += __shfl_xor_sync(kAll, x, apart);
                return __float_as_uint(x);
            };
            const uint2 left = make_uint2(over_rows(sums[i].x), over_rows(sums[i].y));
            const uint2 right = make_uint2(over_rows(sums[i].z), over_rows(sums[i].w));
            if (lane_ >= 4) continue;
            give(to + i * kTile / 2, left);
            give(to + i * kTile / 2 + kUnit / 2, right);
        }
    }
    __device__ bool counts(int row) const {
        return row >= p_.prefix && (s_.selection.kept[row / 32] >> row % 32 & 1);
    }

    __device__ void receive_mean(int kept) const {
        if (threadIdx.x >= kHalf / 2) return;
        constexpr int kAtOnce = 16;
        const int stride = 2 * kColumnSumWords;
        float2 sum = {};
        for (int first = 0; first < judges_; first += kAtOnce) {
            uint2 words[kAtOnce];
            const auto from = [&](int i) {  // where there is none left, the last one again
                return column_sums(now_, 0) + min(first + i, judges_ - 1) * stride + threadIdx.x;
            };
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) words[i] = take(from(i));
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                while (missing(words[i])) words[i] = take(from(i));
                if (first + i >= judges_) continue;
                sum.x += __uint_as_float(words[i].x);
                sum.y += __uint_as_float(words[i].y);
            }
        }
        const float share = kept > 0 ? 1.f / kept : 0.f;
        const unsigned pair = pack<T>(sum.x * share, sum.y * share);
        // A word has two rows of these columns; 8 rows are in as many lanes.
        const int step = threadIdx.x / kUnit, half = threadIdx.x % kUnit / 4;
        uint2* const to = reinterpret_cast<uint2*>(s_.mean + step * 32 + threadIdx.x % 4) + half;
#pragma unroll
        for (int row = 0; row < 8; ++row) to[2 * 4 * row] = make_uint2(pair, pair);
    }

    // What the judge gave at the stage before: it has all judges' sums of this one, given by those who had read it and
    // had words of workers who had. It gives more only behind the fence.
    __device__ void clear_before() const {
        const unsigned before = now_ - 1;
        for (int i = threadIdx.x; i < kHalf / 2; i += kThreads) clear(column_sums(before, judge_) + i);
        for (int tile = judge_; tile < tiles_; tile += judges_) {
            if (threadIdx.x < kTile) clear(scores(before) + tile * kTile + threadIdx.x);
        }
        __threadfence();
    }

    // The second layer: a warp has some of the columns.
    __device__ void multiply_half(Outputs& c, const uint2* weights, const uint4* rows) const {
#pragma unroll 4
        for (int s = 0; s < kHalfSteps; ++s) {
            const uint4 a = rows[s * 32 + lane_];
#pragma unroll
            for (int u = 0; u < kHalfUnits; ++u) {
                const uint2 w = weights[(s * kHalfUnits + u) * 32];
                multiply_add<T>(c[u], a, w.x, w.y);
            }
        }
    }
    __device__ void store_hidden(const Outputs& own, const Outputs& of_mean) const {
#pragma unroll
        for (int u = 0; u < kHalfUnits; ++u) {
            const int unit = warp_ * kHalfUnits + u;
            const float2 bias =
                *reinterpret_cast<const float2*>(constants() + kSecondBias + unit * kUnit + lane_ % 4 * 2);
            float y[4];
            for (int e = 0; e < 4; ++e) y[e] = gelu_fast(own[u][e] + of_mean[u][e] + (e % 2 ? bias.y : bias.x));
            *(unit_words(s_.hidden, unit) + 2 * lane_) = make_uint2(pack<T>(y[0], y[1]), pack<T>(y[2], y[3]));
        }
    }

    // The third layer, and a warp's part of the last one.
    __device__ void third() const {
        if (warp_ >= kQuarterWarps) return;
        float c[kQuarterUnits][4] = {};
        const uint2* const weights = third_weights();
#pragma unroll 4
        for (int s = 0; s < kHalfSteps; ++s) {
            const uint4 a = s_.hidden[s * 32 + lane_];
#pragma unroll
            for (int u = 0; u < kQuarterUnits; ++u) {
                const uint2 w = weights[(s * kQuarterUnits + u) * 32];
                multiply_add<T>(c[u], a, w.x, w.y);
            }
        }
        float2 out[2] = {};  // of a row: to keep, to drop
#pragma unroll
        for (int u = 0; u < kQuarterUnits; ++u) {
            for (int e = 0; e < 4; ++e) {
                const int column = (warp_ * kQuarterUnits + u) * kUnit + lane_ % 4 * 2 + e % 2;
                const float y = gelu_fast(c[u][e] + constants()[kThirdBias + column]);
                const float* const last = constants() + kLastWeights + column;
                out[e / 2] = make_float2(out[e / 2].x + y * last[0], out[e / 2].y + y * last[kQuarter]);
            }
        }
        for (int r = 0; r < 2; ++r) {
            const float2 sum = make_float2(row_sum(out[r].x), row_sum(out[r].y));
            if (lane_ % 4 == 0) s_.last[warp_][lane_ / 4 + 8 * r] = sum;
        }
    }
    // log pi_keep; row: threadIdx.x of the tile.
    __device__ void give_score(int row) const {
        float keep = constants()[kLastBias], drop = constants()[kLastBias + 1];
        for (int w = 0; w < kQuarterWarps; ++w) {
            keep += s_.last[w][threadIdx.x].x;
            drop += s_.last[w][threadIdx.x].y;
        }
        const float greatest = fmaxf(keep, drop);
        const float score = keep - greatest - logf(expf(keep - greatest) + expf(drop - greatest));
        give(scores(now_) + row, isnan(score) ? 0x7fffffffu : __float_as_uint(score));
    }

    // Places on the grid, ascending.
    __device__ void write_kept(long long* to) const {
        const unsigned* const kept = s_.selection.kept;
        for (int row = threadIdx.x; row < p_.tokens; row += kThreads) {
            if (!counts(row)) continue;
            int before = __popc(kept[row / 32] & ((1u << row % 32) - 1)) - p_.prefix;
            for (int i = 0; i < row / 32; ++i) before += __popc(kept[i]);
            to[before] = row - p_.prefix;
        }
    }

    const OneImageBlocksRun& p_;
    Shared& s_;
    const int lane_, warp_, tiles_, judge_, judges_;
    const Exchange e_;
    unsigned now_ = 0;  // the stage, counted from the very first run
};

}  // namespace dynvit::cuda::one_image
