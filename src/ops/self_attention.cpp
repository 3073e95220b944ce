#include "dynvit/ops/self_attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <numeric>

#include "cpu/self_attention.hpp"
#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/few_images_attention.hpp"
#include "cuda/flash_attention.hpp"
#endif

namespace dynvit {
namespace {

#ifdef DYNVIT_CUDA_KERNELS
// Tokens from which cuDNN's kernel, which LibTorch takes, is faster than ours: 0.44 ms for 0.54 at 577 (256 images, 6
// heads of 64, an H200), 1.9 for 2.7 at 1374.
constexpr std::int64_t kLongSequence = 512;
#endif

double scale_of(std::int64_t head_dim) {
    return 1.0 / std::sqrt(static_cast<double>(head_dim));
}

// Whether cpu/self_attention.hpp has a kernel for it.
bool has_kernel(const at::Tensor& qkv) {
    return qkv.is_cpu() && (qkv.scalar_type() == at::kFloat || qkv.scalar_type() == at::kBFloat16);
}

// Into how many parts the queries of each head are divided, for every thread to have as much to do: keys and values are
// laid out anew for each part, so with many heads none.
std::int64_t parts_of_heads(std::int64_t heads, std::int64_t threads) {
    constexpr std::int64_t kManyHeads = 8;  // a thread
    return heads % threads == 0 || heads >= kManyHeads * threads ? 1 : threads;
}

// One head of one sequence after another, several at once. @param qkv (T, 3 C) @param sizes (T), or undefined
// @return (T, C)
template <class T>
at::Tensor run_kernel(const at::Tensor& qkv, std::int64_t heads, const std::vector<std::int64_t>& lengths,
                      const at::Tensor& sizes) {
    const std::int64_t channels = qkv.size(1) / 3, head_dim = channels / heads;
    const auto scale = static_cast<float>(scale_of(head_dim));
    const at::Tensor rows = qkv.contiguous(),
                     biases = sizes.defined() ? sizes.to(at::kFloat).log2().contiguous() : sizes;
    const float* bias = biases.defined() ? biases.const_data_ptr<float>() : nullptr;
    at::Tensor attended = at::empty({qkv.size(0), channels}, qkv.options());
    std::vector<std::int64_t> first_rows(lengths.size());
    std::exclusive_scan(lengths.begin(), lengths.end(), first_rows.begin(), std::int64_t{0});
    const T* from = static_cast<const T*>(rows.const_data_ptr());
    T* to = static_cast<T*>(attended.mutable_data_ptr());
    const std::int64_t all_heads = std::ssize(lengths) * heads,
                       parts = parts_of_heads(all_heads, at::get_num_threads());
    at::parallel_for(0, all_heads * parts, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t head = i / parts, part = i % parts, column = head % heads * head_dim;
            const auto sequence = static_cast<std::size_t>(head / heads);
            const std::int64_t row = first_rows[sequence], n = lengths[sequence];
            const std::int64_t query = part * n / parts, queries = (part + 1) * n / parts - query;
            const T* q = from + row * 3 * channels + column;
            const cpu::HeadRows<T> head_rows = {.q = q + query * 3 * channels,
                                                .k = q + channels,
                                                .v = q + 2 * channels,
                                                .stride = 3 * channels,
                                                .bias = bias ? bias + row : nullptr,
                                                .out = to + (row + query) * channels + column,
                                                .out_stride = channels};
            cpu::attention(head_rows, {.queries = queries, .keys = n, .head_dim = head_dim}, scale);
        }
    });
    return attended;
}

at::Tensor on_cpu(const at::Tensor& qkv, std::int64_t heads, const std::vector<std::int64_t>& lengths,
                  const at::Tensor& sizes) {
    return qkv.scalar_type() == at::kFloat ? run_kernel<float>(qkv, heads, lengths, sizes)
                                           : run_kernel<cpu::BFloat16Bits>(qkv, heads, lengths, sizes);
}

// @param sizes (B, n), or undefined
at::Tensor by_libtorch(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& sizes) {
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), head_dim = qkv.size(2) / (3 * heads);
    const at::Tensor parts = qkv.view({batch, tokens, 3, heads, head_dim}).permute({2, 0, 3, 1, 4});  // (3, B, h, n, d)
    std::optional<at::Tensor> mask;  // added to the logits
    if (sizes.defined()) mask = sizes.detach().log().to(qkv.scalar_type()).view({batch, 1, 1, tokens});
    return at::scaled_dot_product_attention(parts[0], parts[1], parts[2], mask, 0.0, false, scale_of(head_dim))
        .transpose(1, 2)
        .reshape({batch, tokens, heads * head_dim});
}

// Without gradients. @param sizes (B, n), or undefined
at::Tensor attend(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& sizes) {
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), head_dim = qkv.size(2) / (3 * heads);
    if (has_kernel(qkv)) {
        const std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch), tokens);
        return on_cpu(qkv.flatten(0, 1), heads, lengths, sizes.defined() ? sizes.flatten() : sizes)
            .view({batch, tokens, heads * head_dim});
    }
#ifdef DYNVIT_CUDA_KERNELS
    const bool long_and_plain = tokens >= kLongSequence && !sizes.defined();
    if (!long_and_plain) {
        if (at::Tensor attended = cuda::few_images_attention(qkv, sizes, heads); attended.defined()) return attended;
        if (cuda::flash_attention_supports(qkv, heads)) {
            return cuda::flash_attention_forward(qkv, {.sizes = sizes}, heads, /*wants_lse=*/false).out;
        }
    }
#endif
    return by_libtorch(qkv, heads, sizes);
}

// One sequence after another. @param sizes (T), or undefined
at::Tensor one_by_one(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout, const at::Tensor& sizes) {
    at::Tensor attended = at::empty({qkv.size(0), qkv.size(1) / 3}, qkv.options());
    std::int64_t first = 0;
    for (const std::int64_t length : layout.lengths()) {
        if (length == 0) continue;
        const auto sequence = [&](const at::Tensor& x) { return x.narrow(0, first, length).unsqueeze(0); };
        const at::Tensor own_sizes = sizes.defined() ? sequence(sizes) : sizes;
        attended.narrow(0, first, length).copy_(attend(sequence(qkv), heads, own_sizes).squeeze(0));
        first += length;
    }
    return attended;
}

// Plain attention of all sequences at once by LibTorch's kernels for the GPU.
at::Tensor packed_by_libtorch(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout) {
    const std::int64_t head_dim = qkv.size(1) / (3 * heads);
    const at::Tensor parts = qkv.view({-1, 3, heads, head_dim});
    const at::Tensor q = parts.select(1, 0), k = parts.select(1, 1), v = parts.select(1, 2);  // (T, h, d)
    if (qkv.scalar_type() != at::kFloat) {
        return std::get<0>(at::_flash_attention_forward(q, k, v, layout.offsets(), layout.offsets(), layout.longest(),
                                                        layout.longest(), 0.0, /*is_causal=*/false,
                                                        /*return_debug_mask=*/false, scale_of(head_dim)))
            .flatten(1);
    }
    const auto batch = [](const at::Tensor& packed) { return packed.unsqueeze(0); };  // (1, T, h, d)
    return std::get<0>(at::_efficient_attention_forward(batch(q), batch(k), batch(v), {}, layout.offsets(),
                                                        layout.offsets(), layout.longest(), layout.longest(), 0.0,
                                                        /*custom_mask_type=*/0, /*compute_log_sumexp=*/false,
                                                        scale_of(head_dim)))
        .squeeze(0)
        .flatten(1);
}

// Without gradients. @param sizes (T), or undefined
at::Tensor attend(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout, const at::Tensor& sizes) {
    TORCH_CHECK(qkv.dim() == 2 && qkv.size(0) == layout.rows(), "qkv must be (", layout.rows(), ", 3 C), found ",
                qkv.sizes());
    if (has_kernel(qkv)) return on_cpu(qkv, heads, layout.lengths(), sizes);
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::flash_attention_supports(qkv, heads)) {
        return cuda::flash_attention_packed(qkv, layout.offsets(), layout.longest(), sizes, heads);
    }
#endif
    return qkv.is_cuda() && !sizes.defined() ? packed_by_libtorch(qkv, heads, layout)
                                             : one_by_one(qkv, heads, layout, sizes);
}

}  // namespace

at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads) {
    return attend(qkv, heads, {});
}

at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout) {
    return attend(qkv, heads, layout, {});
}

at::Tensor sized_self_attention(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& sizes) {
    if (!sizes.defined()) return self_attention(qkv, heads);
    const std::int64_t batch = qkv.size(0), tokens = qkv.size(1);
    TORCH_CHECK(sizes.dim() == 2 && sizes.size(0) == batch && sizes.size(1) == tokens, "sizes must be (", batch, ", ",
                tokens, "), found ", sizes.sizes());
    const bool learns = at::GradMode::is_enabled() && qkv.requires_grad();
    if (!learns) return attend(qkv, heads, sizes);
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::flash_attention_supports(qkv, heads)) return cuda::flash_attention(qkv, {.sizes = sizes}, heads);
#endif
    return by_libtorch(qkv, heads, sizes);
}

at::Tensor sized_self_attention(const at::Tensor& qkv, std::int64_t heads, const PackedLayout& layout,
                                const at::Tensor& sizes) {
    TORCH_CHECK(!sizes.defined() || (sizes.dim() == 1 && sizes.size(0) == layout.rows()), "sizes must be (",
                layout.rows(), "), found ", sizes.sizes());
    return attend(qkv, heads, layout, sizes);
}

}  // namespace dynvit
