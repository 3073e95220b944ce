#include "dynvit/ops/prediction_head.hpp"

#include <ATen/ATen.h>

#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/inference_kernels.hpp"
#endif

namespace dynvit {

at::Tensor share_mean_plain(const at::Tensor& h, const RowGroups& groups) {
    const std::int64_t half = h.size(-1) / 2;
    const at::Tensor local = h.slice(-1, 0, half), global = h.slice(-1, half);
    at::Tensor mean;  // in every row
    if (groups.layout) {
        mean = packed_mean(global, *groups.layout, groups.skipped).index_select(0, groups.layout->sequence_of_row());
    } else {
        const at::Tensor counted = global.slice(1, groups.skipped);
        mean = (counted.size(1) > 0 ? counted.mean(1, true) : counted.sum(1, true)).expand_as(global);
    }
    return at::cat({local, mean.to(h.scalar_type())}, -1);
}

at::Tensor keep_log_probability_plain(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias) {
    return at::log_softmax(at::linear(z, weight, bias), -1, at::kFloat).select(-1, 0);
}

at::Tensor share_mean(const at::Tensor& h, const RowGroups& groups) {
#ifdef DYNVIT_CUDA_KERNELS
    if (cuda::share_mean(h, groups)) return h;
#endif
    return share_mean_plain(h, groups);
}

at::Tensor keep_log_probability(const at::Tensor& z, const at::Tensor& weight, const at::Tensor& bias) {
#ifdef DYNVIT_CUDA_KERNELS
    if (at::Tensor result = cuda::keep_log_probability(z, weight, bias); result.defined()) return result;
#endif
    return keep_log_probability_plain(z, weight, bias);
}

}  // namespace dynvit
