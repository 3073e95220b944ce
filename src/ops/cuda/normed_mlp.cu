// A block's second half in one kernel: x + fc2(gelu(fc1(norm(x)))). Neither the normed rows nor the hidden values, four
// times as many as x's, ever come to global memory; what is left of its traffic are x, the result and the weights.
//
// A CTA has some 100 rows at a time, which lie in shared memory. The sums of fc2, which begin as x and fc2's bias, are
// in the registers of two warpgroups, half of the columns each. Another warpgroup makes the hidden values, kChunk at a
// time: fc1's product, GELU, and to shared memory, where the two read them. The two wait until the products of the next
// chunk are done, so that their own run beside its GELU. A fourth asks for weights. All products are of transposed
// matrices, weights times rows: so many rows make one wgmma's width. x goes into fc1's as it is. Its norm's weight is
// in fc1's weights, its bias in fc1's bias, and with the sums of a hidden value's weights
//     norm(x) W = (x W - mean * sum) / deviation.
// Each CTA of a cluster of two asks for one half of all weights for both: the weights, read once for two CTAs' rows,
// are most of what comes from L2.
#include <cudaTypedefs.h>

#include <algorithm>

#include "element_dispatch.cuh"
#include "gelu.cuh"
#include "normed_mlp.cuh"
#include "overlap.cuh"
#include "warpgroup_mma.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kChannels = kNormedMlpChannels, kHidden = kNormedMlpHidden;
constexpr int kCluster = 2;  // CTAs that read the same weights
constexpr int kAdders = 2;   // warpgroups that multiply with fc2's weights
constexpr int kThreads = (2 + kAdders) * kWarpgroup;
constexpr int kChunk = kMmaRows, kChunks = kHidden / kChunk;  // hidden values at a time
constexpr int kSlabs = kChannels / kSlabColumns;              // of the rows, and of fc1's weights for a chunk
constexpr int kOwnColumns = kChannels / kAdders, kBlocks = kOwnColumns / kMmaRows;  // of an adder; its products
constexpr int kCopierRegisters = 24, kMakerRegisters = 120, kAdderRegisters = 184;
constexpr int kWorkers = (1 + kAdders) * kWarpgroup;  // threads that compute
constexpr int kAlignment = 1024;

// Weights come as slabs of 64 rows; each has its place, for every chunk.
constexpr int kSlabBytes = kMmaRows * kSlabRowBytes, kPlaces = kSlabs + kAdders * kBlocks;

enum Barrier {
    kFull,
    kEmpty = kFull + kPlaces,
    kRowsThere = kEmpty + kPlaces,
    kRowsLeft,
    kProductsDone,  // of these three there are two, for chunks in turn
    kHiddenThere = kProductsDone + 2,
    kHiddenLeft = kHiddenThere + 2,
    kBarriers = kHiddenLeft + 2
};
constexpr int kAllWork = 1, kAddersWork = 2;  // named barriers; the last for each adder

// Where things are in shared memory, with kRows rows in a CTA.
template <int kRows>
struct Layout {
    static constexpr int kSlabBytes = kRows * kSlabRowBytes;                                      // of the rows
    static constexpr int kHiddenAt = kSlabs * kSlabBytes, kSlabsAt = kHiddenAt + 2 * kSlabBytes;  // two chunks'
    static constexpr int kNormsAt = kSlabsAt + kPlaces * cuda::kSlabBytes, kBarriersAt = kNormsAt + kRows * 8;
    static constexpr int kBytes = kBarriersAt + kBarriers * 8;
};

struct Maps {
    CUtensorMap x, out;    // boxes of a CTA's rows
    CUtensorMap fc1, fc2;  // boxes of a CTA's part of a slab
};

__device__ int rank_in_cluster() {
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ void sync_cluster() {
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

__device__ int lane() {
    return threadIdx.x % 32;
}
__device__ int warp() {  // of the warpgroup
    return threadIdx.x % kWarpgroup / 32;
}
__device__ bool leads() {  // the warpgroup
    return threadIdx.x % kWarpgroup == 0;
}

// What all warpgroups know.
template <class T, int kRows>
class Cta {
    using L = Layout<kRows>;

  public:
    __device__ Cta(const NormedMlpRun& run, const Maps& maps, unsigned memory)
        : run_(run), maps_(maps), memory_(memory) {}

    __device__ void make_barriers() const {
        for (int i = 0; i < kPlaces; ++i) {
            make_barrier(barrier(kFull, i));
            make_barrier(barrier(kEmpty, i), kCluster);
        }
        make_barrier(barrier(kRowsThere));
        make_barrier(barrier(kRowsLeft), kAdders);
        for (int i = 0; i < 2; ++i) {
            make_barrier(barrier(kProductsDone, i));
            make_barrier(barrier(kHiddenThere, i), kWarpgroup / 32);
            make_barrier(barrier(kHiddenLeft, i), kAdders);
        }
        show_barriers();
    }

  protected:
    __device__ unsigned barrier(Barrier which, int index = 0) const {
        return memory_ + L::kBarriersAt + 8 * (which + index);
    }
    __device__ unsigned rows() const { return memory_; }
    __device__ unsigned hidden(unsigned count) const { return memory_ + L::kHiddenAt + count % 2 * L::kSlabBytes; }
    __device__ float2* norms() const {  // of each row 1 / deviation, and -mean / deviation
        return static_cast<float2*>(__cvta_shared_to_generic(memory_ + L::kNormsAt));
    }

    // Chunks are counted through all tiles.
    __device__ unsigned of_chunk(Barrier which, unsigned count) const { return barrier(which, count % 2); }
    __device__ void wait_for_chunk(Barrier which, unsigned count) const {
        wait_for_phase(of_chunk(which, count), count / 2 & 1);
    }

    // Slabs of weights.
    __device__ unsigned slab(int place) const { return memory_ + L::kSlabsAt + place * kSlabBytes; }
    __device__ void wait_for_slab(int place, unsigned count) const { wait_for_phase(barrier(kFull, place), count & 1); }
    // The warpgroup's products have read it: both CTAs that write to its place are told.
    __device__ void leave_slab(int place) const {
        const int cta = threadIdx.x % kWarpgroup;
        if (cta < kCluster) arrive_at(barrier(kEmpty, place), cta);
    }

    // A worker's share of the rows' norms. Squares of float32 leave the variance 2^-23 of the squared mean: more than
    // x, of a half type, can tell up to means of some hundred deviations. The loops are short: what runs once for each
    // tile takes as long as its instructions take to come. Roundings are written out: the compiler makes this once for
    // each warpgroup, and which of them has a row must not show.
    __device__ void find_norms() const {
        constexpr int kWarps = kWorkers / 32, kAtOnce = 2;
        const unsigned own = rows() + lane() % 4 * 4;
#pragma unroll 1
        for (int row = static_cast<int>(threadIdx.x) / 32 - kWarpgroup / 32; row < kRows; row += kAtOnce * kWarps) {
            float sum[kAtOnce] = {}, squares[kAtOnce] = {};
#pragma unroll
            for (int r = 0; r < kAtOnce; ++r) {
                const int at = min(row + r * kWarps, kRows - 1);
#pragma unroll
                for (int s = 0; s < kSlabs; ++s) {
                    const float2 x = unpack<T>(*static_cast<const unsigned*>(
                        __cvta_shared_to_generic(own + s * L::kSlabBytes + slab_offset(at, lane() / 4))));
                    sum[r] += x.x + x.y;
                    squares[r] = __fmaf_rn(x.x, x.x, squares[r]);
                    squares[r] = __fmaf_rn(x.y, x.y, squares[r]);
                }
            }
#pragma unroll
            for (int other = 16; other > 0; other /= 2) {
#pragma unroll
                for (int r = 0; r < kAtOnce; ++r) {
                    sum[r] += __shfl_xor_sync(kAll, sum[r], other);
                    squares[r] += __shfl_xor_sync(kAll, squares[r], other);
                }
            }
#pragma unroll
            for (int r = 0; r < kAtOnce; ++r) {
                constexpr float kShare = 1.f / kChannels;
                const float mean = sum[r] * kShare;
                const float variance = fmaxf(__fmaf_rn(-mean, mean, __fmul_rn(squares[r], kShare)), 0.f);
                const float scale = rsqrtf(variance + run_.epsilon);
                if (lane() == 0 && row + r * kWarps < kRows) norms()[row + r * kWarps] = {scale, -mean * scale};
            }
        }
    }

    // Tiles of rows; both CTAs of a cluster have as many, the last perhaps without a row.
    __device__ unsigned own_tiles() const {
        const unsigned tiles = (run_.rows + kRows - 1) / kRows;
        return ((tiles + kCluster - 1) / kCluster * kCluster - blockIdx.x + gridDim.x - 1) / gridDim.x;
    }
    __device__ int first_row(unsigned own_tile) const {
        return (own_tile * gridDim.x + blockIdx.x) * kRows;
    }

    const NormedMlpRun& run_;
    const Maps& maps_;
    const unsigned memory_;
};

// One thread for each ring, and one for the rows.
template <class T, int kRows>
class Copier : Cta<T, kRows> {
    using Base = Cta<T, kRows>;

  public:
    __device__ explicit Copier(const Base& cta) : Base(cta) {}

    __device__ void work() const {
        if (lane() > 0) return;
        switch (warp()) {
            case 0:
                return copy_weights(this->maps_.fc1, 0, kSlabs);
            case 1:
                return copy_weights(this->maps_.fc2, kSlabs, kBlocks);
            case 2:
                return copy_weights(this->maps_.fc2, kSlabs + kBlocks, kBlocks);
            default:
                return copy_rows();
        }
    }

  private:
    // This CTA's half of each slab for both CTAs, once both have left what was in its place.
    __device__ void copy_weights(const CUtensorMap& map, int first_place, int places) const {
        constexpr unsigned short kAll = (1 << kCluster) - 1;
        constexpr int kPart = kMmaRows / kCluster;
        const int part = rank_in_cluster() * kPart;
        unsigned count = 0;
        for (unsigned tile = this->own_tiles(); tile > 0; --tile) {
            for (int chunk = 0; chunk < kChunks; ++chunk, ++count) {
                for (int place = first_place; place < first_place + places; ++place) {
                    const unsigned full = this->barrier(kFull, place);
                    wait_for_phase(this->barrier(kEmpty, place), (count & 1) ^ 1);
                    expect_bytes(full, kSlabBytes);
                    const bool is_fc1 = first_place == 0;
                    copy_box_to_all(this->slab(place) + part * kSlabRowBytes, map,
                                    is_fc1 ? place * kSlabColumns : chunk * kChunk,
                                    (is_fc1 ? chunk * kChunk : (place - kSlabs) * kMmaRows) + part, full, kAll);
                }
            }
        }
    }

    // Each tile's rows once the result of the tile before has left.
    __device__ void copy_rows() const {
        const unsigned there = this->barrier(kRowsThere);
        for (unsigned tile = 0; tile < this->own_tiles(); ++tile) {
            wait_for_phase(this->barrier(kRowsLeft), tile & 1 ^ 1);
            expect_bytes(there, kSlabs * Layout<kRows>::kSlabBytes);
            for (int s = 0; s < kSlabs; ++s) {
                copy_box(this->rows() + s * Layout<kRows>::kSlabBytes, this->maps_.x, s * kSlabColumns,
                         this->first_row(tile), there);
            }
            for (int s = 0; s < kSlabs && tile + 1 < this->own_tiles(); ++s) {
                prefetch_box(this->maps_.x, s * kSlabColumns, this->first_row(tile + 1));
            }
        }
    }
};

// The warpgroup that makes hidden values.
template <class T, int kRows>
class Maker : Cta<T, kRows> {
    using Base = Cta<T, kRows>;
    static constexpr int kRowsSlabBytes = Layout<kRows>::kSlabBytes;

  public:
    __device__ explicit Maker(const Base& cta) : Base(cta) {}

    __device__ void work() const {
        unsigned count = 0;  // of chunks
        for (unsigned tile = 0; tile < this->own_tiles(); ++tile) {
            wait_for_phase(this->barrier(kRowsThere), tile & 1);
            this->find_norms();
            barrier_sync(kAllWork, kWorkers);
            Norms norms;
            read_norms(norms);
            for (int chunk = 0; chunk < kChunks; ++chunk, ++count) make_hidden(norms, chunk, count);
        }
    }

  private:
    // Of the lane's rows 8 n + 2 (lane % 4) and the next: in registers, as shared memory is what the products need
    // most.
    using Norms = float4[kRows / 8];
    __device__ void read_norms(Norms& norms) const {
        const float4* const from = reinterpret_cast<const float4*>(this->norms()) + lane() % 4;
#pragma unroll
        for (int n = 0; n < kRows / 8; ++n) norms[n] = from[n * 4];
    }

    // gelu(fc1(norm(x))) of a chunk, to where the adders read it.
    __device__ void make_hidden(const Norms& norms, int chunk, unsigned count) const {
        float sums[kRows / 2];
        const int own = chunk * kChunk + warp() * kTile + lane() / 4;  // hidden value, and own + 8
        const float input_sum[] = {__ldg(this->run_.fc1_sums + own), __ldg(this->run_.fc1_sums + own + 8)};
        const float bias[] = {__ldg(this->run_.fc1_bias + own), __ldg(this->run_.fc1_bias + own + 8)};
        multiply_rows(sums, count);
        if (leads()) arrive(this->of_chunk(kProductsDone, count));
        if (count >= 2) this->wait_for_chunk(kHiddenLeft, count - 2);
        const unsigned to =
            this->hidden(count) + slab_offset(lane() / 16 * 8 + lane() % 8, warp() * 2 + lane() / 8 % 2);
#pragma unroll
        for (int n = 0; n < kRows / 8; n += 2) {  // 16 rows, or the last 8
            Fragment words;
            const int matrices = n + 1 < kRows / 8 ? 4 : 2;
#pragma unroll
            for (int w = 0; w < matrices; ++w) {
                const float4& pair = norms[n + w / 2];
                const float* const x = sums + n * 4 + w * 2;
                const auto value = [&](float product, float scale, float shift) {
                    return gelu_fast(product * scale + (shift * input_sum[w % 2] + bias[w % 2]));
                };
                words.x[w] = pack<T>(value(x[0], pair.x, pair.y), value(x[1], pair.z, pair.w));
            }
            store_matrices_transposed(to + n * 8 * kSlabRowBytes, words, matrices);
        }
        show_stores();
        __syncwarp();
        if (lane() == 0) arrive(this->of_chunk(kHiddenThere, count));
    }
    __device__ void multiply_rows(float (&sums)[kRows / 2], unsigned count) const {
        const unsigned long long rows = slab_descriptor(hidden_from_compiler(this->rows()));
        const unsigned long long weights = slab_descriptor(hidden_from_compiler(this->slab(0)));
        begin_products();
#pragma unroll
        for (int b = 0; b < kSlabs; ++b) {
            this->wait_for_slab(b, count);
#pragma unroll
            for (int k = 0; k < kSlabColumns; k += kMmaDepth) {
                const unsigned long long left = further(weights, b * kSlabBytes + k * 2),
                                         right = further(rows, b * kRowsSlabBytes + k * 2);
                if (b + k == 0) {
                    warpgroup_multiply<T, kRows, false>(sums, left, right);
                } else {
                    warpgroup_multiply<T, kRows, true>(sums, left, right);
                }
            }
            commit_products();
            if (b == 0) continue;
            wait_for_products<1>();
            this->leave_slab(b - 1);
        }
        wait_for_products<0>();
        this->leave_slab(kSlabs - 1);
    }
};

// A warpgroup that adds up the result, of its columns.
template <class T, int kRows, int kAdder>
class Adder : Cta<T, kRows> {
    using Base = Cta<T, kRows>;
    static constexpr int kRowsSlabBytes = Layout<kRows>::kSlabBytes;
    using Sums = float[kBlocks][kRows / 2];  // of columns (64 b + 16 warp + lane / 4 + 8 i), all rows

  public:
    __device__ explicit Adder(const Base& cta) : Base(cta) {}

    __device__ void work() const {
        unsigned count = 0;  // of chunks
        for (unsigned tile = 0; tile < this->own_tiles(); ++tile) {
            Sums sums;
            wait_for_phase(this->barrier(kRowsThere), tile & 1);
            this->find_norms();
            barrier_sync(kAllWork, kWorkers);
            begin(sums);
            for (int chunk = 0; chunk < kChunks; ++chunk, ++count) {
                this->wait_for_chunk(kHiddenThere, count);
                if (chunk + 1 < kChunks) this->wait_for_chunk(kProductsDone, count + 1);
                add_product(sums, count);
                if (leads()) arrive(this->of_chunk(kHiddenLeft, count));
            }
            store(sums);
            show_stores();
            barrier_sync(kAddersWork + kAdder, kWarpgroup);
            if (!leads()) continue;
            for (int b = 0; b < kBlocks; ++b) {
                store_box(this->maps_.out, kAdder * kOwnColumns + b * kSlabColumns, this->first_row(tile), own_slab(b));
            }
            commit_stores();
            wait_for_stores();
            arrive(this->barrier(kRowsLeft));
        }
    }

  private:
    // Of the rows: that of the adder's columns.
    __device__ unsigned own_slab(int b) const { return this->rows() + (kAdder * kBlocks + b) * kRowsSlabBytes; }
    // Where the lane points to for the warp's columns of 16 rows.
    __device__ unsigned place() const {
        return own_slab(0) + slab_offset(lane() / 16 * 8 + lane() % 8, warp() * 2 + lane() / 8 % 2);
    }

    // x and fc2's bias.
    __device__ void begin(Sums& sums) const {
        const unsigned from = place();
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            const int column = kAdder * kOwnColumns + b * kMmaRows + warp() * kTile + lane() / 4;
            const float bias[] = {__ldg(this->run_.fc2_bias + column), __ldg(this->run_.fc2_bias + column + 8)};
#pragma unroll
            for (int n = 0; n < kRows / 8; n += 2) {
                const int count = n + 1 < kRows / 8 ? 4 : 2;
                const Fragment words =
                    load_matrices_transposed(from + b * kRowsSlabBytes + n * 8 * kSlabRowBytes, count);
#pragma unroll
                for (int w = 0; w < count; ++w) {
                    const float2 x = unpack<T>(words.x[w]);
                    sums[b][n * 4 + w * 2] = x.x + bias[w % 2];
                    sums[b][n * 4 + w * 2 + 1] = x.y + bias[w % 2];
                }
            }
        }
    }

    __device__ void add_product(Sums& sums, unsigned count) const {
        constexpr int kFirst = kSlabs + kAdder * kBlocks;
        const unsigned long long hidden = slab_descriptor(hidden_from_compiler(this->hidden(count)));
        const unsigned long long weights = slab_descriptor(hidden_from_compiler(this->slab(kFirst)));
        begin_products();
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            this->wait_for_slab(kFirst + b, count);
#pragma unroll
            for (int k = 0; k < kChunk; k += kMmaDepth) {
                warpgroup_multiply<T, kRows, true>(sums[b], further(weights, b * kSlabBytes + k * 2),
                                                   further(hidden, k * 2));
            }
            commit_products();
            if (b == 0) continue;
            wait_for_products<1>();
            this->leave_slab(kFirst + b - 1);
        }
        wait_for_products<0>();
        this->leave_slab(kFirst + kBlocks - 1);
    }

    // To where the rows were: nobody reads them any more.
    __device__ void store(const Sums& sums) const {
        const unsigned to = place();
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
            for (int n = 0; n < kRows / 8; n += 2) {
                Fragment words;
                const int count = n + 1 < kRows / 8 ? 4 : 2;
#pragma unroll
                for (int w = 0; w < count; ++w)
                    words.x[w] = pack<T>(sums[b][n * 4 + w * 2], sums[b][n * 4 + w * 2 + 1]);
                store_matrices_transposed(to + b * kRowsSlabBytes + n * 8 * kSlabRowBytes, words, count);
            }
        }
    }
};

template <class T, int kRows>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    run_mlp(const __grid_constant__ NormedMlpRun run, const __grid_constant__ Maps maps) {
    extern __shared__ __align__(kAlignment) unsigned char memory[];
    const Cta<T, kRows> cta(run, maps, shared_address(memory));
    if (threadIdx.x == 0) cta.make_barriers();
    let_next_begin();
    wait_for_previous();
    __syncthreads();
    sync_cluster();
    switch (threadIdx.x / kWarpgroup) {
        case 0:
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCopierRegisters));
            Copier<T, kRows>(cta).work();
            break;
        case 1:
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kMakerRegisters));
            Maker<T, kRows>(cta).work();
            break;
        case 2:
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kAdderRegisters));
            Adder<T, kRows, 0>(cta).work();
            break;
        default:
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kAdderRegisters));
            Adder<T, kRows, 1>(cta).work();
    }
    __syncwarp();
    sync_cluster();  // no CTA ends while another may still write to its memory
}

// A map of a row-major matrix for boxes of `box_rows` rows of a slab.
cudaError_t make_map(CUtensorMap& map, Element element, const void* matrix, int rows, int columns, int box_rows) {
    static const auto encode = [] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult found;
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
        return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
    }();
    if (!encode) return cudaErrorNotSupported;
    const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
    const cuuint64_t strides[] = {static_cast<cuuint64_t>(columns) * 2};
    const cuuint32_t box[] = {kSlabColumns, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
    const auto type = element == Element::kHalf ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const CUresult result =
        encode(&map, type, 2, const_cast<void*>(matrix), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
               CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <class T, int kRows>
cudaError_t launch(const NormedMlpRun& run, cudaStream_t stream) {
    Maps maps;
    cudaError_t error = make_map(maps.x, run.element, run.x, run.rows, kChannels, kRows);
    if (!error) error = make_map(maps.out, run.element, run.out, run.rows, kChannels, kRows);
    if (!error) error = make_map(maps.fc1, run.element, run.fc1_weight, kHidden, kChannels, kMmaRows / kCluster);
    if (!error) error = make_map(maps.fc2, run.element, run.fc2_weight, kChannels, kHidden, kMmaRows / kCluster);
    if (error) return error;
    const int clusters = (run.rows + kCluster * kRows - 1) / (kCluster * kRows);
    const int most = device_attribute(cudaDevAttrMultiProcessorCount) / kCluster;
    const dim3 grid(static_cast<unsigned>(std::min(clusters, most) * kCluster));
    return launch_overlapping(run_mlp<T, kRows>, grid, kThreads, Layout<kRows>::kBytes, stream, run, maps);
}

// How the rows are dealt out: so many to a CTA at a time, in so many rounds of all CTAs.
struct Rounds {
    int rows, ctas, count;
    int capacity() const { return rows * ctas * count; }
};
// Those in which the last round leaves the least undone.
Rounds rounds_for(int rows) {
    const int ctas = device_attribute(cudaDevAttrMultiProcessorCount) / kCluster * kCluster;
    Rounds best = {};
    for (const int each : {104, 96}) {
        const Rounds some{each, ctas, (rows + each * ctas - 1) / (each * ctas)};
        if (best.count == 0 || some.count * some.rows < best.count * best.rows) best = some;
    }
    return best;
}

}  // namespace

int normed_mlp_capacity(int rows) {
    return rounds_for(rows).capacity();
}

cudaError_t normed_mlp(const NormedMlpRun& run, cudaStream_t stream) {
    return with_half_type(run.element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        return rounds_for(run.rows).rows == 96 ? launch<T, 96>(run, stream) : launch<T, 104>(run, stream);
    });
}

}  // namespace dynvit::cuda
