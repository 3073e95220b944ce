#include "dynvit/infer/multi_label.hpp"

#include <ATen/ATen.h>

#include <limits>

namespace dynvit {

double average_precision(const at::Tensor& scores, const at::Tensor& has_it) {
    const auto [sorted, order] = scores.to(at::kCPU, at::kFloat).sort(0, /*descending=*/true);
    const at::Tensor hits = has_it.to(at::kCPU, at::kBool).index_select(0, order);
    const float* score = sorted.const_data_ptr<float>();
    const bool* hit = hits.const_data_ptr<bool>();
    const std::int64_t count = sorted.numel();
    std::int64_t found = 0, in_step = 0;  // pictures with the class: so far, and of the scores equal to this one
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        in_step += hit[i];
        if (i + 1 < count && score[i + 1] == score[i]) continue;
        found += in_step;
        sum += static_cast<double>(in_step) * static_cast<double>(found) / static_cast<double>(i + 1);
        in_step = 0;
    }
    return found > 0 ? sum / static_cast<double>(found) : std::numeric_limits<double>::quiet_NaN();
}

MeanAveragePrecision mean_average_precision(const at::Tensor& scores, const at::Tensor& has) {
    const at::Tensor columns = scores.to(at::kCPU, at::kFloat).t().contiguous();
    const at::Tensor rows = has.to(at::kCPU, at::kBool).t().contiguous();
    MeanAveragePrecision result;
    for (std::int64_t c = 0; c < rows.size(0); ++c) {
        if (!rows[c].any().item<bool>()) continue;
        result.mean += average_precision(columns[c], rows[c]);
        ++result.classes;
    }
    if (result.classes > 0) result.mean /= static_cast<double>(result.classes);
    return result;
}

at::Tensor independent_kl(const at::Tensor& logits, const at::Tensor& reference_logits) {
    const at::Tensor own = logits.to(at::kFloat), reference = reference_logits.to(at::kFloat);
    const auto side = [](const at::Tensor& from, const at::Tensor& to) {  // of the class, or of its absence
        const at::Tensor log_from = at::log_sigmoid(from);
        return log_from.exp() * (log_from - at::log_sigmoid(to));
    };
    return (side(reference, own) + side(-reference, -own)).sum(-1);
}

at::Tensor widen_rows(const at::Tensor& rows, std::int64_t classes) {
    return rows.size(1) == classes ? rows : at::constant_pad_nd(rows, {0, classes - rows.size(1)});
}

}  // namespace dynvit
