// Matrix products with what stands around them done inside, by cuBLASLt.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace dynvit::cuda {

/// What a product computes, of row-major matrices: out = act(op(a) op(b) + bias) + residual.
struct MatmulTerms {
    at::Tensor a, b;  // of one half type, or float8 e4m3; rows contiguous, any distance between them
    bool transpose_a = false, transpose_b = false;
    at::Tensor bias = {};        // (columns of out); may be undefined
    bool gelu = false;           // by its tanh approximation; not together with a residual
    at::Tensor gelu_input = {};  // written, as out: what GELU is applied to; may be undefined
    at::Tensor residual = {};    // as out; may be undefined
    // For float8, and there with transpose_b alone: float32 factors, one for each row of a, and of b.
    at::Tensor a_scales = {}, b_scales = {};
    at::Tensor row_sums = {};  // written: the sums of op(a)'s rows, float32, for a float32 out; may be undefined
};

/// @return why the tensor cores do not take a weight of such sizes: they take multiples of 8; empty where they do
std::string why_no_matmul(std::int64_t inputs, std::int64_t outputs);

/// @return whether the tensor cores take such a weight, (outputs, inputs): float16 or bfloat16 on a GPU, of sizes that
/// they take.
bool matmul_supports(const at::Tensor& weight, at::ScalarType type);

/// @return whether a GPU multiplies float8 with a scale for each row: compute capability 9.0, by cuBLASLt 12.9 or newer
bool multiplies_float8(const at::Device& device);

/// @return whether the weight's GPU multiplies float8, and the weight's sizes are ones that float8 products take:
/// multiples of 16
bool float8_matmul_supports(const at::Tensor& weight);

/// Writes out, (M, N), rows contiguous: of the half type (bfloat16 for float8), or float32. With three dimensions, (B,
/// M, N), the product is B products at once of (B, M, K) and a b that they share; a residual may be expanded along B.
/// The first product of each size times those of cuBLASLt's proposals that give the first one's numbers to the last
/// bit, and the fastest serves from then on in this process, for all models and threads: which one that is never shows
/// in a result (see fastest_algorithms.hpp, which also says what is kept and how much). Above 512 rows of one matrix,
/// numbers of rows with the same four leading bits count as one size, and only where cuBLASLt refuses the algorithm of
/// a near one is another chosen. May be called from several threads.
void matmul(const at::Tensor& out, const MatmulTerms& terms);

}  // namespace dynvit::cuda
