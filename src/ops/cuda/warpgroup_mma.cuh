// Matrix products of a warpgroup (128 threads), of operands in shared memory (wgmma, compute capability 9.0a), and the
// copies that bring them there. CUDA code only.
//
// A matrix in shared memory is made of slabs: rows of 64 numbers of a half type, 128 bytes, along which is summed. The
// eight pieces of 16 bytes in row r lie in the order of their number XOR r % 8, as the copy engine writes them and
// wgmma reads them ("128-byte swizzle"). A slab begins at a multiple of 1024 bytes.
#pragma once

#include <cuda.h>

#include "shared_barrier.cuh"
#include "tensor_cores.cuh"

namespace dynvit::cuda {

constexpr int kWarpgroup = 128;   // threads
constexpr int kSlabColumns = 64;  // numbers of a row
constexpr int kSlabRowBytes = 128;
constexpr int kMmaRows = 64, kMmaDepth = 16;  // of one product; depth: numbers that are summed

// Where the piece of 16 bytes number `piece` of a slab's row lies.
__device__ inline unsigned slab_offset(int row, int piece) {
    return row * kSlabRowBytes + ((piece ^ row & 7) << 4);
}

// What wgmma is told of a slab, at `address`.
__device__ inline unsigned long long slab_descriptor(unsigned address) {
    constexpr unsigned long long kSwizzle128 = 1ULL << 62, kEightRows = 1024 >> 4;
    return kSwizzle128 | kEightRows << 32 | 1ULL << 16 | (address & 0x3ffff) >> 4;
}
// A descriptor of what is `bytes` further on.
__device__ inline unsigned long long further(unsigned long long descriptor, int bytes) {
    return descriptor + (bytes >> 4);
}

// Before the first of some products, where other instructions have touched their sums or operands in registers.
__device__ inline void begin_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most `kPending` commits are under way.
template <int kPending>
__device__ inline void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// What ordinary stores wrote to shared memory is there for wgmma and the copy engine, behind the next barrier.
__device__ inline void show_stores() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#define DYNVIT_SUMS_4(how, c, i) how(c[i]), how(c[(i) + 1]), how(c[(i) + 2]), how(c[(i) + 3])
#define DYNVIT_WGMMA_96(type, how, adds)                                                                      \
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32." type "." type                                  \
                 " {"                                                                                         \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
                 "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
                 "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, %48, %49, " adds ", 1, 1, 0, 0;"         \
                 : DYNVIT_SUMS_4(how, c, 0), DYNVIT_SUMS_4(how, c, 4), DYNVIT_SUMS_4(how, c, 8),              \
                   DYNVIT_SUMS_4(how, c, 12), DYNVIT_SUMS_4(how, c, 16), DYNVIT_SUMS_4(how, c, 20),           \
                   DYNVIT_SUMS_4(how, c, 24), DYNVIT_SUMS_4(how, c, 28), DYNVIT_SUMS_4(how, c, 32),           \
                   DYNVIT_SUMS_4(how, c, 36), DYNVIT_SUMS_4(how, c, 40), DYNVIT_SUMS_4(how, c, 44)            \
                 : "l"(a), "l"(b))
#define DYNVIT_WGMMA_104(type, how, adds)                                                                             \
    asm volatile(                                                                                                     \
        "wgmma.mma_async.sync.aligned.m64n104k16.f32." type "." type                                                  \
        " {"                                                                                                          \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "                  \
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "                  \
        "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51}, %52, %53, " adds ", 1, 1, 0, 0;"      \
        : DYNVIT_SUMS_4(how, c, 0), DYNVIT_SUMS_4(how, c, 4), DYNVIT_SUMS_4(how, c, 8), DYNVIT_SUMS_4(how, c, 12),    \
          DYNVIT_SUMS_4(how, c, 16), DYNVIT_SUMS_4(how, c, 20), DYNVIT_SUMS_4(how, c, 24), DYNVIT_SUMS_4(how, c, 28), \
          DYNVIT_SUMS_4(how, c, 32), DYNVIT_SUMS_4(how, c, 36), DYNVIT_SUMS_4(how, c, 40), DYNVIT_SUMS_4(how, c, 44), \
          DYNVIT_SUMS_4(how, c, 48)                                                                                   \
        : "l"(a), "l"(b))
#define DYNVIT_WGMMA(columns)                                                 \
    if constexpr (kAdds && kHalf) DYNVIT_WGMMA_##columns("f16", "+f", "1");   \
    if constexpr (kAdds && !kHalf) DYNVIT_WGMMA_##columns("bf16", "+f", "1"); \
    if constexpr (!kAdds && kHalf) DYNVIT_WGMMA_##columns("f16", "=f", "0");  \
    if constexpr (!kAdds && !kHalf) DYNVIT_WGMMA_##columns("bf16", "=f", "0");

// c += a b^T, or c = a b^T unless kAdds: of 64 rows of a and kColumns (96 or 104) rows of b, along 16 numbers of
// both. Of c a warp has 16 rows; a thread's c[4 n + 2 i + e] is row lane / 4 + 8 i, column 8 n + 2 (lane % 4) + e.
template <class T, int kColumns, bool kAdds>
__device__ inline void warpgroup_multiply(float (&c)[kColumns / 2], unsigned long long a, unsigned long long b) {
    static_assert(kColumns == 96 || kColumns == 104);
    constexpr bool kHalf = std::is_same_v<T, __half>;
    if constexpr (kColumns == 96) {
        DYNVIT_WGMMA(96)
    } else {
        DYNVIT_WGMMA(104)
    }
}
#undef DYNVIT_WGMMA
#undef DYNVIT_WGMMA_104
#undef DYNVIT_WGMMA_96
#undef DYNVIT_SUMS_4

// Transposed 8 x 8 matrices from and to shared memory: four, or the first two; count is a constant. Lane l points to
// row l % 8 of matrix l / 8.
__device__ inline Fragment load_matrices_transposed(unsigned address, int count) {
    if (count == 4) return load_transposed(address);
    Fragment f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(f.x[0]), "=r"(f.x[1])
                 : "r"(address)
                 : "memory");
    return f;
}
__device__ inline void store_matrices_transposed(unsigned address, const Fragment& f, int count) {
    if (count == 4) {
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                     "r"(f.x[0]), "r"(f.x[1]), "r"(f.x[2]), "r"(f.x[3])
                     : "memory");
    } else {
        asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address), "r"(f.x[0]),
                     "r"(f.x[1])
                     : "memory");
    }
}

// A box of a matrix in global memory to shared memory, zeros past the matrix's end. By one thread; the barrier has been
// told of the bytes.
__device__ inline void copy_box(unsigned to, const CUtensorMap& map, int column, int row, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}
// A box that will be copied: to L2.
__device__ inline void prefetch_box(const CUtensorMap& map, int column, int row) {
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(&map), "r"(column), "r"(row)
                 : "memory");
}
// The same to all CTAs of a cluster whose bits `ctas` has, and their barriers.
__device__ inline void copy_box_to_all(unsigned to, const CUtensorMap& map, int column, int row, unsigned barrier,
                                       unsigned short ctas) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
        "{%2, %3}], [%4], %5;" ::"r"(to),
        "l"(&map), "r"(column), "r"(row), "r"(barrier), "h"(ctas)
        : "memory");
}
// A box from shared memory; what lies past the matrix's end is left out.
__device__ inline void store_box(const CUtensorMap& map, int column, int row, unsigned from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(column),
                 "r"(row), "r"(from)
                 : "memory");
}
__device__ inline void commit_stores() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Until the shared memory of all stores of this thread may be written again.
__device__ inline void wait_for_stores() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

}  // namespace dynvit::cuda
