// How CTAs of one kernel hand words to each other through global memory, and weights come to shared memory. CUDA code
// only.
//
// What is exchanged says itself that it is there: a word is kMissing until it is written, and readers read until no
// word is missing. So an exchange costs a store and a load, with no flag, fence or barrier between them. No pair of
// numbers is ever kMissing: conversions to the half types make one NaN alone, 0x7fff.
#pragma once

#include "one_image_layout.cuh"
#include "shared_barrier.cuh"
#include "tensor_cores.cuh"

namespace dynvit::cuda::one_image {

constexpr unsigned kMissing = ~0u;

__device__ inline uint4 take(const uint4* p) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ inline uint2 take(const uint2* p) {
    uint2 v;
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
    return v;
}
__device__ inline unsigned take(const unsigned* p) {
    unsigned v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
__device__ inline void give(uint4* p, uint4 v) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}
__device__ inline void give(uint2* p, uint2 v) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(v.x), "r"(v.y) : "memory");
}
__device__ inline void give(unsigned* p, unsigned v) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
__device__ inline void clear(uint4* p) {
    give(p, make_uint4(kMissing, kMissing, kMissing, kMissing));
}
__device__ inline void clear(uint2* p) {
    give(p, make_uint2(kMissing, kMissing));
}
__device__ inline void clear(unsigned* p) {
    give(p, kMissing);
}
__device__ inline bool missing(const uint4& v) {
    return max(max(v.x, v.y), max(v.z, v.w)) == kMissing;
}
__device__ inline bool missing(const uint2& v) {
    return max(v.x, v.y) == kMissing;
}

// Waits for a warp's words with as few loads as can be: for those that are read by all CTAs.
__device__ inline void wait_for(const uint4* from) {
    while (__any_sync(kAll, missing(take(from)))) {
    }
}

// Starts loads of words that are `stride` apart...
template <int kCount, class V>
__device__ inline void begin_receive(V (&v)[kCount], const V* from, int stride) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = take(from + i * stride);
}
// ... and repeats those that came too early.
template <int kCount, class V>
__device__ inline void end_receive(V (&v)[kCount], const V* from, int stride) {
    bool again;
    do {
        again = false;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            if (missing(v[i])) {
                again = true;
                v[i] = take(from + i * stride);
            }
        }
    } while (__any_sync(kAll, again));
}

constexpr int kWorking = 1;  // the barrier of the working warps
__device__ inline void sync_workers() {
    barrier_sync(kWorking, kThreads);
}

__device__ inline void copy_bulk(void* to, const void* from, unsigned bytes, unsigned barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

__device__ inline void prefetch_bulk(const void* from, unsigned bytes) {  // to L2
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// c += a b. Unlike tensor_cores.cuh's, free to be moved among the loads around it.
template <class T>
__device__ inline void multiply_add(float (&c)[4], const uint4& a, unsigned b0, unsigned b1) {
    if constexpr (std::is_same_v<T, __half>) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
            "%2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
            "%1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
    }
}
// An 8 x 8 matrix of which each lane has two numbers of a row.
__device__ inline unsigned transpose(unsigned x) {
    unsigned y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

}  // namespace dynvit::cuda::one_image
