// Matrix products of 16 x 16 tiles by the tensor cores (mma.sync), and how operands get to them. CUDA code only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

namespace dynvit::cuda {

constexpr int kTile = 16;
constexpr unsigned kAll = ~0u;  // lanes of a warp

// Elements of a row in shared memory. An odd number of 16-byte pieces: the 8 rows that ldmatrix reads at a time then
// lie in different banks.
__host__ __device__ constexpr int row_length(int columns) {
    return columns + 8;
}

__device__ inline unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// The same number, as if it had just been found: nothing that follows from it is kept in registers from before.
template <class Number>
__device__ inline Number hidden_from_compiler(Number x) {
    static_assert(sizeof(Number) == 4);
    asm volatile("mov.u32 %0, %0;" : "+r"(x));
    return x;
}

// 16 (or 4) bytes from global to shared memory, zeros where there is nothing to copy.
__device__ inline void copy16(unsigned to, const void* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0));
}
__device__ inline void copy4(void* to, const void* from, bool exists) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(exists ? 4 : 0));
}
__device__ inline void commit_copies() {
    asm volatile("cp.async.commit_group;");
}
// Until at most `pending` commits are under way.
template <int kPending>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
__device__ inline void wait_for_copies(int pending) {
    switch (pending) {
        case 0:
            return wait_for_copies<0>();
        case 1:
            return wait_for_copies<1>();
        case 2:
            return wait_for_copies<2>();
        default:
            return wait_for_copies<3>();
    }
}

struct Fragment {
    unsigned x[4];
};

// Where a lane points for ldmatrix on a 16 x 16 tile. `tall`: an A operand stored (m, k), or a B operand stored (k, n)
// read transposed. `wide`: a B operand stored (n, k), or an A operand stored (k, m) read transposed.
__device__ inline int tall_offset(int lane, int length) {
    return lane % 16 * length + lane / 16 * 8;
}
__device__ inline int wide_offset(int lane, int length) {
    return (lane / 16 * 8 + lane % 8) * length + lane / 8 % 2 * 8;
}
// A B operand of 8 x 32 stored (n, k): two steps of k.
__device__ inline int narrow_offset(int lane, int length) {
    return lane % 8 * length + lane / 8 * 8;
}
__device__ inline Fragment load(unsigned address) {
    Fragment f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
                 : "r"(address)
                 : "memory");
    return f;
}
__device__ inline Fragment load_transposed(unsigned address) {
    Fragment f;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
                 : "r"(address)
                 : "memory");
    return f;
}

// A 16 x 16 tile of sums: [n][..] columns 8 n + 2 (lane % 4) + {0, 1} of rows lane / 4 (first two), lane / 4 + 8.
struct Sums {
    float x[2][4] = {};
};

// c += a b; c = a b where there is nothing yet (saves setting c to zero).
template <class T>
__device__ inline void multiply_add(float (&c)[4], const Fragment& a, unsigned b0, unsigned b1, bool first = false) {
    float x[4];
    for (int i = 0; i < 4; ++i) x[i] = first ? 0 : c[i];
    if constexpr (std::is_same_v<T, __half>) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, "
            "%11, %12, %13};"
            : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
            : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1), "f"(x[0]), "f"(x[1]), "f"(x[2]),
              "f"(x[3]));
    } else {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, "
            "%11, %12, %13};"
            : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
            : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1), "f"(x[0]), "f"(x[1]), "f"(x[2]),
              "f"(x[3]));
    }
}
template <class T>
__device__ inline void multiply_add(Sums& c, const Fragment& a, const Fragment& b, bool first = false) {
    multiply_add<T>(c.x[0], a, b.x[0], b.x[1], first);
    multiply_add<T>(c.x[1], a, b.x[2], b.x[3], first);
}
// The B operand in two halves of 8 (k) x 32 (n) each.
template <class T>
__device__ inline void multiply_add(Sums& left, Sums& right, const Fragment& a, const Fragment& low,
                                    const Fragment& high) {
    multiply_add<T>(left.x[0], a, low.x[0], high.x[0]);
    multiply_add<T>(left.x[1], a, low.x[1], high.x[1]);
    multiply_add<T>(right.x[0], a, low.x[2], high.x[2]);
    multiply_add<T>(right.x[1], a, low.x[3], high.x[3]);
}

template <class T>
__device__ inline unsigned pack(float low, float high) {
    if constexpr (std::is_same_v<T, __half>) {
        const __half2 pair = __floats2half2_rn(low, high);
        return *reinterpret_cast<const unsigned*>(&pair);
    } else {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return *reinterpret_cast<const unsigned*>(&pair);
    }
}
template <class T>
__device__ inline float2 unpack(unsigned pair) {
    if constexpr (std::is_same_v<T, __half>) {
        return __half22float2(*reinterpret_cast<const __half2*>(&pair));
    } else {
        return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
    }
}
// A tile of sums as the A operand of the next product.
template <class T>
__device__ inline Fragment pack(const Sums& c) {
    return {pack<T>(c.x[0][0], c.x[0][1]), pack<T>(c.x[0][2], c.x[0][3]), pack<T>(c.x[1][0], c.x[1][1]),
            pack<T>(c.x[1][2], c.x[1][3])};
}

constexpr float kLog2e = 1.4426950408889634f;  // exp(x) = exp2_fast(kLog2e x)

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Sum, or maximum, over the 4 lanes that share a row of a tile.
__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(kAll, x, 1);
    return x + __shfl_xor_sync(kAll, x, 2);
}
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
    return fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}

}  // namespace dynvit::cuda
