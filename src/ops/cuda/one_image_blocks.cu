// Consecutive transformer blocks of one image in one kernel, whose CTAs are all on the GPU at once and wait for each
// other. A block of the network has five exchanges between them, all through L2 (see one_image_exchange.cuh):
//   x to the group's CTAs                               -> norm, qkv
//   k and v to all groups, q in the group               -> attention, a head and 16 queries a CTA
//   attention's outputs in the group                    -> projection, residual
//   x in the group                                      -> norm, fc1, GELU, then fc2 of the CTA's own hidden values
//   those partial sums to the CTA that owns the columns -> residual
// Before a block at which tokens are dropped, x goes through a prediction module's first layer too, from there to the
// judges (one_image_prediction.cuh), and their scores to all, before attention.
// Words lie in the order of the registers of mma.sync's operands: a reader has its operand when the loads are done.
// Whoever writes a word also makes it kMissing again, a block of the network later, when all are known to have read it;
// a warpgroup beside the others does so, with a fence before the CTA gives more. Who reads the word next has received
// some of that: no word of an earlier block is ever taken for a new one. Buffers alternate, and go on alternating from
// run to run (Exchange::sequence). A CTA's weights come in chunks by the copy engine, two chunks ahead.
#include <algorithm>

#include "element_dispatch.cuh"
#include "gelu.cuh"
#include "launch_limits.cuh"
#include "one_image_attention.cuh"
#include "one_image_exchange.cuh"
#include "one_image_layout.cuh"
#include "one_image_prediction.cuh"

namespace dynvit::cuda {
namespace one_image {
namespace {

constexpr int kClearers = 128, kAllThreads = kThreads + kClearers;
constexpr int kRegisters = 232, kClearersRegisters = 40;
constexpr int kTold = 32 + kClearers;  // threads at a barrier by which a warp tells the clearers
// Named barriers: those that tell the clearers how far a block is, and the clearers' answer.
enum Barrier { kInputRead = kWorking + 1, kCleared, kProjected, kHiddenFound, kFc2Held };

struct alignas(16) Shared {
    unsigned char weights[2][kChunkBytes];
    float constants[2][kConstants];
    float4 partial[4 * 2 * kHiddenUnits * 32];  // [inputs' part][tile][unit][lane]; attention: [warp][unit][lane]
    float4 projection[4 * 2 * kOwnUnits * 32];  // [inputs' part][tile][unit][lane]
    float2 statistics[64 * 8];                  // [row][inputs' part]: sums of x and its squares
    float2 found[kWarps][kTile];                // attention's
    Selection selection;
    unsigned long long full[2];  // barriers: a chunk of weights is there
};
// The hidden values are behind it: (m, kHiddenSteps, 32) uint4.
constexpr std::size_t shared_bytes(int m) {
    return sizeof(Shared) + static_cast<std::size_t>(m) * kHiddenSteps * 32 * sizeof(uint4);
}

// A CTA's threads, with kM tiles of 16 rows a group: of the working warps, each has one tile and a part of the inputs.
template <class T, int kM, bool kPrunes>
class Cta {
  public:
    __device__ Cta(const OneImageBlocksRun& run, Shared& shared, uint4* hidden, int groups)
        : p_(run),
          s_(shared),
          hidden_(hidden),
          lane_(threadIdx.x % 32),
          warp_(threadIdx.x / 32),
          cta_(blockIdx.x % kGroup),
          group_(blockIdx.x / kGroup),
          groups_(groups),
          tile_(warp_ % kM),
          part_(warp_ / kM),
          e_(exchange_for(groups_, kM)),
          first_(sequence()[0]),
          first_stage_(sequence()[1]) {}

    __device__ void work() {
        begin();
        for (block_ = 0; block_ < p_.blocks; ++block_) {
            // Two copies: what a stage adds would cost other blocks, too, a tenth of their time.
            if (at_stage()) {
                qkv<true>();
                attention<true>();
            } else {
                qkv<false>();
                attention<false>();
            }
            projection();
            mlp();
            receive_sums();
            stage_ += at_stage();
        }
        sync_workers();
        if (threadIdx.x > 0) return;
        sequence()[0] = first_ + p_.blocks;
        sequence()[1] = first_stage_ + p_.stages;
    }

    // What the clearers do meanwhile: words become missing again, weights are asked for.
    __device__ void clear_behind() {
        for (block_ = 0; block_ < p_.blocks; ++block_) {
            barrier_sync(kInputRead, kTold);
            const bool first = threadIdx.x == kThreads;
            if (first) load_chunk(chunk(2), 0, kQkvBytes, kChunkBytes);
            const int next = stage_ + at_stage();
            if (first && next < p_.stages && p_.stage[next].block == block_ + 1) {
                prefetch_bulk(first_layer(next), kFirstBytes);
            }
            clear_rows();
            __threadfence();
            barrier_arrive(kCleared, kAllThreads);
            barrier_sync(kProjected, kTold);
            if (first) load_chunk(chunk(2), kQkvBytes, kChunkBytes, 0);
            barrier_sync(kHiddenFound, kTold);
            if (first) load_chunk(chunk(3));
            clear_sums();  // the fence of the next block is soon enough
            if (at_stage()) clear_judged();
            stage_ += at_stage();
            barrier_sync(kFc2Held, kTold);
            if (first) load_chunk(chunk(4));
        }
    }

  private:
    static constexpr int kParts = kWarps / kM, kPartSteps = kSteps / kParts;
    static constexpr int kOwnTiles = kM == 4 ? 2 : 1;  // of x's units that the CTA owns, a warp's
    using Inputs = uint4[kPartSteps];

    // Called after sync_workers().
    __device__ void tell(Barrier barrier) const {
        if (warp_ == 0) barrier_arrive(barrier, kTold);
    }

    // Where exchanged words are: in the buffers for block `at`, counted from the very first run.
    __device__ unsigned now() const { return first_ + block_; }
    __device__ uint4* exchange() const { return static_cast<uint4*>(p_.exchange); }
    __device__ unsigned* sequence() const {
        return reinterpret_cast<unsigned*>(exchange() + e_.sequence) + 2 * blockIdx.x;
    }
    __device__ int all_rows() const { return groups_ * kM * kTileWords; }
    __device__ uint4* rows(int base, unsigned at) const {  // of the group
        return exchange() + base + (at & 1) * all_rows() + group_ * kM * kTileWords;
    }
    __device__ uint4* qkv_rows(int kind, unsigned at) const {  // of all groups
        return exchange() + e_.qkv + ((at & 3) * 3 + kind) * all_rows();
    }
    __device__ uint2* sums(unsigned at, int owner, int from) const {
        return reinterpret_cast<uint2*>(exchange() + e_.sums) +
               ((((at & 1) * groups_ + group_) * kGroup + owner) * kGroup + from) * (kOwnUnits * kM * 32);
    }

    // Stages.
    __device__ bool at_stage() const { return kPrunes && stage_ < p_.stages && p_.stage[stage_].block == block_; }
    __device__ unsigned stage_now() const { return first_stage_ + stage_; }
    __device__ const unsigned char* first_layer(int stage) const {  // of the prediction module: the CTA's share
        return static_cast<const unsigned char*>(p_.stage[stage].packed) + cta_ * kFirstBytes;
    }
    __device__ uint4* judged_rows() const {  // of the group
        return exchange() + e_.judged + (stage_now() & 3) * all_rows() + group_ * kM * kTileWords;
    }
    __device__ const unsigned* scores() const {
        return reinterpret_cast<const unsigned*>(exchange() + e_.scores) + (stage_now() & 3) * groups_ * kM * kTile;
    }

    // Weights.
    __device__ int chunk(int which) const { return kChunks * block_ + which; }
    __device__ unsigned full(int slot) const { return shared_address(&s_.full[slot]); }
    __device__ const float* constants() const { return s_.constants[block_ & 1]; }
    // Asks for a part of a chunk's bytes; `expected` are waited for from now on.
    __device__ void load_chunk(int chunk, int begin = 0, int end = kChunkBytes, int expected = kChunkBytes) const {
        if (chunk >= kChunks * p_.blocks) return;
        const int block = chunk / kChunks, which = chunk % kChunks, slot = chunk & 1;
        const bool with_constants = which == 0;
        if (expected > 0) expect_bytes(full(slot), expected + (with_constants ? kConstantsBytes : 0));
        const unsigned char* const share = static_cast<const unsigned char*>(p_.packed) +
                                           (static_cast<long long>(block) * kGroup + cta_) * kShareBytes;
        copy_bulk(s_.weights[slot] + begin, share + which * kChunkBytes + begin, end - begin, full(slot));
        if (with_constants) {
            copy_bulk(s_.constants[block & 1], share + kChunks * kChunkBytes, kConstantsBytes, full(slot));
        }
    }
    __device__ const unsigned char* wait_for_chunk(int chunk) const {
        wait_for_phase(full(chunk & 1), chunk >> 1 & 1);
        return s_.weights[chunk & 1];
    }

    __device__ void begin() {
        if (threadIdx.x == 0) {
            for (int slot = 0; slot < 2; ++slot) make_barrier(full(slot));
            show_barriers();
            load_chunk(0);
            load_chunk(1);
        }
        keep_all(s_.selection, p_.tokens);
        sync_workers();
#pragma unroll
        for (int i = 0; i < kOwnTiles; ++i) {
            if (own_unit(i) >= kOwnUnits) continue;
            for (int half = 0; half < 2; ++half) {
                const float2 pair = unpack<T>(input_word(own_row() + 8 * half, own_column(i)));
                x_[i][2 * half] = pair.x;
                x_[i][2 * half + 1] = pair.y;
            }
        }
    }
    __device__ int own_unit(int i) const {
        return part_ + i * kParts;
    }
    __device__ int own_row() const {
        return (group_ * kM + tile_) * kTile + lane_ / 4;
    }
    __device__ int own_column(int i) const {
        return (cta_ * kOwnUnits + own_unit(i)) * kUnit + lane_ % 4 * 2;
    }
    __device__ unsigned input_word(int row, int column) const {
        const T* const x = static_cast<const T*>(p_.x);
        return row < p_.tokens ? __ldcg(reinterpret_cast<const unsigned*>(x + row * kWidth + column)) : 0;
    }

    // The warp's part of its tile's columns, as A operands.
    __device__ void load_input(Inputs& a) const {
        const int row = own_row();
#pragma unroll
        for (int s = 0; s < kPartSteps; ++s) {
            const int column = (part_ * kPartSteps + s) * kTile + lane_ % 4 * 2;
            a[s] = make_uint4(input_word(row, column), input_word(row + 8, column), input_word(row, column + 8),
                              input_word(row + 8, column + 8));
        }
    }
    __device__ void receive_rows(Inputs& a, const uint4* rows) const {
        const uint4* const from = rows + tile_ * kTileWords + part_ * kPartSteps * 32 + lane_;
        begin_receive(a, from, 32);
        end_receive(a, from, 32);
    }

    // Weights that a warp reads before its inputs are there: those of so many steps as there are registers for.
    static constexpr int kMostHeld = kM == 4 ? 36 : 60;
    template <int kUnits, int kRoom = kMostHeld>
    struct Held {
        static constexpr int kHeldSteps = kPartSteps < kRoom / kUnits ? kPartSteps : kRoom / kUnits;
        const uint2* weights;
        uint2 words[kHeldSteps][kUnits];

        __device__ uint2 word(int step, int unit) const {
            return step < kHeldSteps ? words[step < kHeldSteps ? step : 0][unit] : weights[(step * kUnits + unit) * 32];
        }
    };
    template <int kUnits, int kRoom>
    __device__ void hold(Held<kUnits, kRoom>& held, const unsigned char* weights) const {
        held.weights = reinterpret_cast<const uint2*>(weights) + part_ * kPartSteps * kUnits * 32 + lane_;
#pragma unroll
        for (int s = 0; s < Held<kUnits, kRoom>::kHeldSteps; ++s) {
#pragma unroll
            for (int u = 0; u < kUnits; ++u) held.words[s][u] = held.weights[(s * kUnits + u) * 32];
        }
    }

    // The product of a warp's part of the inputs, 16 rows, kUnits * 8 outputs...
    template <int kUnits, int kRoom>
    __device__ void multiply(const Inputs& a, const Held<kUnits, kRoom>& held, float4* partial) const {
        float c[kUnits][4] = {};
#pragma unroll
        for (int s = 0; s < kPartSteps; ++s) {
#pragma unroll
            for (int u = 0; u < kUnits; ++u) {
                const uint2 w = held.word(s, u);
                multiply_add<T>(c[u], a[s], w.x, w.y);
            }
        }
        float4* const to = partial + (part_ * kM + tile_) * kUnits * 32 + lane_;
#pragma unroll
        for (int u = 0; u < kUnits; ++u) to[u * 32] = make_float4(c[u][0], c[u][1], c[u][2], c[u][3]);
    }
    // ... and the sum over all parts.
    template <int kUnits>
    __device__ float4 total(const float4* partial, int unit) const {
        float4 sum = {};
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
            const float4 x = partial[((part * kM + tile_) * kUnits + unit) * 32 + lane_];
            sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
        }
        return sum;
    }

    // Norms.
    __device__ void give_statistics(const Inputs& a) const {
        float sum[2] = {}, squares[2] = {};
        const auto add = [&](int half, unsigned word) {
            const float2 pair = unpack<T>(word);
            sum[half] += pair.x + pair.y;
            squares[half] += pair.x * pair.x;
            squares[half] += pair.y * pair.y;
        };
#pragma unroll
        for (int s = 0; s < kPartSteps; ++s) {
            add(0, a[s].x);
            add(1, a[s].y);
            add(0, a[s].z);
            add(1, a[s].w);
        }
        for (int half = 0; half < 2; ++half) {
            const float2 both = make_float2(row_sum(sum[half]), row_sum(squares[half]));
            if (lane_ % 4 == 0) s_.statistics[(tile_ * kTile + half * 8 + lane_ / 4) * kParts + part_] = both;
        }
    }
    struct RowNorm {
        float mean, scale;  // (x - mean) * scale
    };
    // Of the warp's tile. Squares of float32 leave the variance 2^-23 of the squared mean: more than x, of a half type,
    // can tell up to means of some hundred deviations.
    __device__ RowNorm row_norm(int row, float epsilon) const {
        float sum = 0, squares = 0;
        for (int part = 0; part < kParts; ++part) {
            const float2 both = s_.statistics[(tile_ * kTile + row) * kParts + part];
            sum += both.x;
            squares += both.y;
        }
        constexpr float kShare = 1.f / kWidth;
        const float mean = sum * kShare, variance = fmaxf(squares * kShare - mean * mean, 0.f);
        float scale;
        asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(scale) : "f"(variance + epsilon));
        return {mean, scale};
    }
    // Of a unit, from x W: activate(norm(x) W + b), packed.
    template <class Activate>
    __device__ static uint2 normed(const float4& x, const RowNorm& top, const RowNorm& bottom, float2 sum, float2 bias,
                                   const Activate& activate) {
        const auto value = [&](float product, const RowNorm& norm, float sum_of_inputs, float shift) {
            return activate((product - norm.mean * sum_of_inputs) * norm.scale + shift);
        };
        return make_uint2(pack<T>(value(x.x, top, sum.x, bias.x), value(x.y, top, sum.y, bias.y)),
                          pack<T>(value(x.z, bottom, sum.x, bias.x), value(x.w, bottom, sum.y, bias.y)));
    }
    // A tile's units of a layer behind a norm, from x W, its constants at `sums` and `biases`: stores packed words of
    // activate(y). A warp takes every kParts-th unit, the last one again where there is none left: without branches,
    // rounds overlap.
    template <int kUnits, class Activate, class Store>
    __device__ void finish_units(int sums, int biases, const Activate& activate, const Store& store) const {
        const RowNorm top = row_norm(lane_ / 4, p_.epsilon), bottom = row_norm(lane_ / 4 + 8, p_.epsilon);
        constexpr int kRounds = (kUnits + kParts - 1) / kParts;
        uint2 words[kRounds];
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
            const int unit = min(part_ + i * kParts, kUnits - 1), column = unit * kUnit + lane_ % 4 * 2;
            const float2 sum = *reinterpret_cast<const float2*>(constants() + sums + column);
            const float2 bias = *reinterpret_cast<const float2*>(constants() + biases + column);
            words[i] = normed(total<kUnits>(s_.partial, unit), top, bottom, sum, bias, activate);
        }
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
            const int unit = part_ + i * kParts;
            if (unit < kUnits) store(unit, words[i]);
        }
    }

    template <bool kStage>
    __device__ void qkv() const {
        Inputs a;
        Held<kQkvUnits, kStage ? kMostHeld / 2 : kMostHeld> held;
        Held<kOwnUnits> first;  // of a prediction module: from what is the block's input too
        hold(held, wait_for_chunk(chunk(0)));
        if constexpr (kStage) hold(first, first_layer(stage_));
        if (block_ == 0) {
            load_input(a);
        } else {
            receive_rows(a, rows(e_.x, now()));
        }
        if constexpr (kStage) multiply(a, first, s_.projection);
        multiply(a, held, s_.partial);
        give_statistics(a);
        sync_workers();
        tell(kInputRead);  // all of the group have read what was given before this block
        if constexpr (kStage) give_predicted();
        const auto as_it_is = [](float y) { return y; };
        finish_units<kQkvUnits>(kQkvSums, kQkvBias, as_it_is, [&](int unit, uint2 words) {
            const int kind = unit / kOwnUnits;
            if (kind == 2) words = make_uint2(transpose(words.x), transpose(words.y));
            give_unit(qkv_rows(kind, now()) + (group_ * kM + tile_) * kTileWords, unit % kOwnUnits, words);
        });
    }

    __device__ void give_predicted() const {
        const float* const layer = reinterpret_cast<const float*>(first_layer(stage_) + kProjectionBytes);
        const RowNorm top = row_norm(lane_ / 4, p_.predictor_epsilon),
                      bottom = row_norm(lane_ / 4 + 8, p_.predictor_epsilon);
        const auto gelu = [](float y) { return gelu_fast(y); };
#pragma unroll
        for (int i = 0; i < kOwnTiles; ++i) {
            if (own_unit(i) >= kOwnUnits) continue;
            const int column = own_unit(i) * kUnit + lane_ % 4 * 2;
            const float2 sum = *reinterpret_cast<const float2*>(layer + kFirstSums + column);
            const float2 bias = *reinterpret_cast<const float2*>(layer + kFirstBias + column);
            const uint2 words = normed(total<kOwnUnits>(s_.projection, own_unit(i)), top, bottom, sum, bias, gelu);
            give_unit(judged_rows() + tile_ * kTileWords, own_unit(i), words);
        }
    }

    template <bool kStage>
    __device__ void attention() const {
        constexpr int kTasks = kHeads * kM;
        // At a stage every CTA must choose: those without a task do one of another's for nothing.
        for (int task = cta_; task < kTasks || (kStage && task == cta_); task += kGroup) {
            sync_workers();            // s_.partial is free
            const auto choose = [&] {  // the keys, while the first are on their way
                if (!kStage || task != cta_) return;
                select(s_.selection, scores(), p_.tokens, p_.prefix, p_.stage[stage_].kept);
                sync_workers();
            };
            const int head = min(task, kTasks - 1) / kM, tile = min(task, kTasks - 1) % kM;
            const AttentionParts parts{reinterpret_cast<float4(*)[kHeadUnits][32]>(s_.partial), s_.found};
            const int place = head * kHeadSteps * 32 + lane_;
            HeadAttention<T> warps({qkv_rows(0, now()) + (group_ * kM + tile) * kTileWords + place,
                                    qkv_rows(1, now()) + place, qkv_rows(2, now()) + place});
            warps.run(p_.tokens, s_.selection.kept, choose);
            warps.leave(parts);
            sync_workers();
            if (task >= kTasks) return;
            uint4* const to = rows(e_.attention, now()) + tile * kTileWords;
            give(unit_words(to, head * kHeadUnits + warp_) + 2 * lane_, merge_attention<T>(parts));
        }
    }

    // Adds to the CTA's own columns of x.
    __device__ void add(int i, const float4& y, const float* bias) {
        const float2 shift = *reinterpret_cast<const float2*>(bias + own_unit(i) * kUnit + lane_ % 4 * 2);
        x_[i][0] += y.x + shift.x;
        x_[i][1] += y.y + shift.y;
        x_[i][2] += y.z + shift.x;
        x_[i][3] += y.w + shift.y;
    }
    __device__ uint2 own_words(int i) const {
        return make_uint2(pack<T>(x_[i][0], x_[i][1]), pack<T>(x_[i][2], x_[i][3]));
    }
    __device__ void give_own(int i, int base, unsigned at) const {
        give_unit(rows(base, at) + tile_ * kTileWords, own_unit(i), own_words(i));
    }
    // The lane's words of one of the CTA's units.
    __device__ void give_unit(uint4* tile_rows, int unit, uint2 words) const {
        give(unit_words(tile_rows, cta_ * kOwnUnits + unit) + 2 * lane_, words);
    }

    __device__ void projection() {
        Inputs a;
        Held<kOwnUnits> held;
        hold(held, s_.weights[chunk(0) & 1] + kQkvBytes);
        barrier_sync(kCleared, kAllThreads);  // words for the next block are missing again
        receive_rows(a, rows(e_.attention, now()));
        multiply(a, held, s_.projection);
        sync_workers();
        tell(kProjected);
#pragma unroll
        for (int i = 0; i < kOwnTiles; ++i) {
            if (own_unit(i) >= kOwnUnits) continue;
            add(i, total<kOwnUnits>(s_.projection, own_unit(i)), constants() + kProjectionBias);
            give_own(i, e_.x_between, now());
        }
    }

    __device__ void mlp() {
        {
            Inputs a;
            Held<kHiddenUnits> held;
            hold(held, wait_for_chunk(chunk(1)));
            receive_rows(a, rows(e_.x_between, now()));
            multiply(a, held, s_.partial);
            give_statistics(a);
        }
        sync_workers();
        tell(kHiddenFound);
        Fc2Weights held;
        hold_fc2(held);
        const auto gelu = [](float y) { return gelu_fast(y); };
        finish_units<kHiddenUnits>(kFc1Sums, kFc1Bias, gelu, [&](int unit, uint2 words) {
            *(unit_words(hidden_ + tile_ * kHiddenSteps * 32, unit) + 2 * lane_) = words;
        });
        sync_workers();
        tell(kFc2Held);
        fc2(held);
    }

    // fc2: a warp has some of the columns, of all the group's rows, for the CTA's own hidden values.
    using Fc2Weights = uint2[kHiddenSteps][kFc2Units];
    __device__ void hold_fc2(Fc2Weights& held) const {
        const uint2* const weights =
            reinterpret_cast<const uint2*>(wait_for_chunk(chunk(2))) + warp_ * kHiddenSteps * kFc2Units * 32 + lane_;
#pragma unroll
        for (int s = 0; s < kHiddenSteps; ++s) {
#pragma unroll
            for (int u = 0; u < kFc2Units; ++u) held[s][u] = weights[(s * kFc2Units + u) * 32];
        }
    }
    __device__ void fc2(const Fc2Weights& held) const {
        constexpr int kAtOnce = kM < 2 ? kM : 2;  // tiles
#pragma unroll
        for (int first = 0; first < kM; first += kAtOnce) {
            float c[kAtOnce][kFc2Units][4] = {};
#pragma unroll
            for (int s = 0; s < kHiddenSteps; ++s) {
                uint4 a[kAtOnce];
#pragma unroll
                for (int t = 0; t < kAtOnce; ++t) a[t] = hidden_[((first + t) * kHiddenSteps + s) * 32 + lane_];
#pragma unroll
                for (int u = 0; u < kFc2Units; ++u) {
#pragma unroll
                    for (int t = 0; t < kAtOnce; ++t) multiply_add<T>(c[t][u], a[t], held[s][u].x, held[s][u].y);
                }
            }
#pragma unroll
            for (int u = 0; u < kFc2Units; ++u) {
                uint2* const to = sums(now(), warp_ * 2 + u / kOwnUnits, cta_) + lane_;
#pragma unroll
                for (int t = 0; t < kAtOnce; ++t) {
                    give(to + ((first + t) * kOwnUnits + u % kOwnUnits) * 32,
                         make_uint2(pack<T>(c[t][u][0], c[t][u][1]), pack<T>(c[t][u][2], c[t][u][3])));
                }
            }
        }
    }

    __device__ void receive_sums() {
        const bool is_last = block_ == p_.blocks - 1;
#pragma unroll
        for (int i = 0; i < kOwnTiles; ++i) {
            if (own_unit(i) >= kOwnUnits) continue;
            constexpr int kStride = kOwnUnits * kM * 32;
            const uint2* const from = sums(now(), cta_, 0) + (tile_ * kOwnUnits + own_unit(i)) * 32 + lane_;
            uint2 words[kGroup];
            begin_receive(words, from, kStride);
            end_receive(words, from, kStride);
            float4 y = {};
#pragma unroll
            for (int c = 0; c < kGroup; ++c) {
                const float2 upper = unpack<T>(words[c].x), lower = unpack<T>(words[c].y);
                y = make_float4(y.x + upper.x, y.y + upper.y, y.z + lower.x, y.w + lower.y);
            }
            add(i, y, constants() + kFc2Bias);
            if (is_last) {
                write_output(i);
            } else {
                give_own(i, e_.x, now() + 1);
            }
        }
    }
    __device__ void write_output(int i) const {
        const int row = own_row();
        const uint2 words = own_words(i);
        T* const to = static_cast<T*>(p_.out) + row * kWidth + own_column(i);
        if (row < p_.tokens) *reinterpret_cast<unsigned*>(to) = words.x;
        if (row + 8 < p_.tokens) *reinterpret_cast<unsigned*>(to + 8 * kWidth) = words.y;
    }

    // The words that the CTA gave for the block before this (two before this, for qkv) and will for the next.
    __device__ void clear_rows() const {
        const unsigned at = now();
        const int clearer = threadIdx.x / 32 - kWarps;
        for (int i = clearer; i < kM * kOwnUnits; i += kClearers / 32) {
            const int tile = i / kOwnUnits, unit = cta_ * kOwnUnits + i % kOwnUnits;
            clear(unit_words(rows(e_.x, at + 1) + tile * kTileWords, unit) + 2 * lane_);
            clear(unit_words(rows(e_.x_between, at + 1) + tile * kTileWords, unit) + 2 * lane_);
            for (int kind = 0; kind < 3; ++kind) {
                clear(unit_words(qkv_rows(kind, at + 2) + (group_ * kM + tile) * kTileWords, unit) + 2 * lane_);
            }
        }
        static_assert(kClearers / 32 == kHeadSteps);
        for (int task = cta_; task < kHeads * kM; task += kGroup) {
            const int head = task / kM, tile = task % kM;
            clear(rows(e_.attention, at + 1) + tile * kTileWords + (head * kHeadSteps + clearer) * 32 + lane_);
        }
    }
    // All judges have read it: their scores are there.
    __device__ void clear_judged() const {
        const int clearer = threadIdx.x / 32 - kWarps;
        for (int i = clearer; i < kM * kOwnUnits; i += kClearers / 32) {
            uint4* const tile = judged_rows() + i / kOwnUnits * kTileWords;
            clear(unit_words(tile, cta_ * kOwnUnits + i % kOwnUnits) + 2 * lane_);
        }
    }
    __device__ void clear_sums() const {
        constexpr int kWords = kOwnUnits * kM * 16;
        for (int i = threadIdx.x - kThreads; i < kGroup * kWords; i += kClearers) {
            clear(reinterpret_cast<uint4*>(sums(now() + 1, i / kWords, cta_)) + i % kWords);
        }
    }

    const OneImageBlocksRun& p_;
    Shared& s_;
    uint4* const hidden_;
    const int lane_, warp_, cta_, group_, groups_, tile_, part_;
    const Exchange e_;
    const unsigned first_, first_stage_;
    int block_ = 0, stage_ = 0;
    float x_[kOwnTiles][4];  // the CTA's own columns of x
};

__host__ __device__ int groups_for(int tokens, int m) {
    return (tokens + kTile * m - 1) / (kTile * m);
}

template <class T, int kM, bool kPrunes>
__global__ void __launch_bounds__(kAllThreads, 1) run_blocks(const __grid_constant__ OneImageBlocksRun run) {
    extern __shared__ __align__(128) unsigned char raw[];
    const int groups = groups_for(run.tokens, kM);
    const bool judges = kPrunes && blockIdx.x >= groups * kGroup;
    Shared& shared = *reinterpret_cast<Shared*>(raw);
    // Each side finds its places by itself: what both need would be kept in local memory, far away.
    const auto cta = [&] {
        const int own_groups = groups_for(hidden_from_compiler(run.tokens), kM);
        return Cta<T, kM, kPrunes>(run, shared, reinterpret_cast<uint4*>(&shared + 1), own_groups);
    };
    if (threadIdx.x < kThreads) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
        if (judges) {
            Judge<T>(run, *reinterpret_cast<typename Judge<T>::Shared*>(raw), groups, kM).work();
        } else {
            cta().work();
        }
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kClearersRegisters));
        if (!judges) cta().clear_behind();
    }
}

// Tiles of rows a group: as few as leave a CTA, and at least one judge, a multiprocessor; 0 if there are too few.
int tiles_for(int tokens) {
    const int multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
    if (tokens > kMostTokens) return 0;
    for (const int m : {1, 2, 4}) {
        if (groups_for(tokens, m) * kGroup < multiprocessors) return m;
    }
    return 0;
}

template <class T, int kM>
cudaError_t launch(const OneImageBlocksRun& run, cudaStream_t stream) {
    const auto kernel = run.stages > 0 ? run_blocks<T, kM, true> : run_blocks<T, kM, false>;
    constexpr std::size_t kShared = std::max(shared_bytes(kM), sizeof(typename Judge<T>::Shared));
    if (const cudaError_t error = allow_shared_memory(kernel, kShared); error != cudaSuccess) return error;
    const int groups = groups_for(run.tokens, kM), workers = groups * kGroup;
    const int judges = std::min(groups * kM, device_attribute(cudaDevAttrMultiProcessorCount) - workers);
    cudaLaunchAttribute together = {};
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(workers + (run.stages > 0 ? judges : 0)));
    config.blockDim = dim3(kAllThreads);
    config.dynamicSmemBytes = kShared;
    config.stream = stream;
    config.attrs = &together;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, run);
}

}  // namespace
}  // namespace one_image

std::size_t one_image_exchange_bytes(int tokens) {
    const int m = one_image::tiles_for(tokens);
    if (m == 0) return 0;
    return static_cast<std::size_t>(one_image::exchange_for(one_image::groups_for(tokens, m), m).end) * sizeof(uint4);
}

cudaError_t one_image_blocks(const OneImageBlocksRun& run, cudaStream_t stream) {
    return with_half_type(run.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        switch (one_image::tiles_for(run.tokens)) {
            case 1:
                return one_image::launch<T, 1>(run, stream);
            case 2:
                return one_image::launch<T, 2>(run, stream);
            case 4:
                return one_image::launch<T, 4>(run, stream);
            default:
                return cudaErrorInvalidValue;
        }
    });
}

}  // namespace dynvit::cuda
