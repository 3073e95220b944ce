#include "dynvit/ops/prediction_head.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "cpu/prediction_head.hpp"
#ifdef DYNVIT_CUDA_KERNELS
#include "cuda/prediction_head.hpp"
#endif

namespace dynvit {
namespace {

// Rows of one group that go to the kernel together: all of them for the mean, then as few as it takes, so that each
// thread has as much to do.
struct Piece {
    std::int64_t group, first, rows;
};

// @param h (B, n, C) or (T, C) @return log pi_keep, (B n) or (T), float32
template <class T>
at::Tensor run_kernel(const cpu::HeadLayers& layers, const at::Tensor& h, const RowGroups& groups) {
    const std::int64_t channels = h.size(-1);
    const std::vector<std::int64_t> lengths =
        groups.layout ? groups.layout->lengths()
                      : std::vector<std::int64_t>(static_cast<std::size_t>(h.size(0)), h.size(1));
    std::vector<Piece> wholes, pieces;
    std::int64_t all_rows = 0;
    for (const std::int64_t length : lengths) {
        const std::int64_t first = all_rows + groups.skipped, end = all_rows += length;
        if (first >= end) continue;
        const std::int64_t group = std::ssize(wholes);
        wholes.push_back({group, first, end - first});
        for (std::int64_t row = first; row < end; row += cpu::kRows) {
            pieces.push_back({group, row, std::min(cpu::kRows, end - row)});
        }
    }
    const at::Tensor rows = h.contiguous();
    const T* from = static_cast<const T*>(rows.const_data_ptr());
    const at::Tensor shared = at::empty({std::ssize(wholes), channels / 2}, at::kFloat);
    at::Tensor result = at::zeros({all_rows}, at::kFloat);
    const auto shared_of = [&](const Piece& piece) { return shared.data_ptr<float>() + piece.group * (channels / 2); };
    const auto for_each = [](const std::vector<Piece>& all, const auto& run) {
        at::parallel_for(0, std::ssize(all), 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) run(all[static_cast<std::size_t>(i)]);
        });
    };
    for_each(wholes, [&](const Piece& piece) {
        cpu::share_mean(layers, from + piece.first * channels, piece.rows, shared_of(piece));
    });
    for_each(pieces, [&](const Piece& piece) {
        cpu::keep_log_probability(layers, from + piece.first * channels, piece.rows, shared_of(piece),
                                  result.data_ptr<float>() + piece.first);
    });
    return result;
}

std::shared_ptr<const cpu::HeadLayers> pack_layers(const std::array<PredictionHead::Layer, 3>& layers) {
    const auto packed = [](const at::Tensor& weight, const at::Tensor& bias) {
        const at::Tensor values = weight.to(at::kFloat).contiguous(),
                         added = bias.defined() ? bias.to(at::kFloat).contiguous() : at::zeros({weight.size(0)});
        return cpu::PackedLayer(weight.size(1), weight.size(0), values.const_data_ptr<float>(),
                                added.const_data_ptr<float>());
    };
    const at::Tensor second = layers[0].weight;
    const std::int64_t half = second.size(1) / 2;
    return std::make_shared<const cpu::HeadLayers>(
        cpu::HeadLayers{packed(second.slice(1, 0, half), {}), packed(second.slice(1, half), layers[0].bias),
                        packed(layers[1].weight, layers[1].bias), packed(layers[2].weight, layers[2].bias)});
}

}  // namespace

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

PredictionHead::PredictionHead(const std::array<Layer, 3>& layers, at::ScalarType precision) {
    if (layers[0].weight.is_cpu() && (precision == at::kFloat || precision == at::kBFloat16)) {
        on_cpu_ = pack_layers(layers);
        return;
    }
    for (const std::size_t i : {0, 1}) hidden_.emplace_back(layers[i].weight, layers[i].bias, precision);
    const auto copied = [&](const at::Tensor& from) {
        return from.to(precision, /*non_blocking=*/false, /*copy=*/true).contiguous();
    };
    last_weight_ = copied(layers[2].weight);
    last_bias_ = copied(layers[2].bias);
}

at::Tensor PredictionHead::operator()(const at::Tensor& h, const RowGroups& groups) const {
    if (on_cpu_) {
        const auto run = h.scalar_type() == at::kFloat ? run_kernel<float> : run_kernel<cpu::BFloat16Bits>;
        return run(*on_cpu_, h, groups).view(h.sizes().slice(0, h.dim() - 1));
    }
    const at::Tensor z = share_mean(h, groups);
    return keep_log_probability(hidden_[1].gelu(hidden_[0].gelu(z)), last_weight_, last_bias_);
}

std::array<PredictionHead::Layer, 3> PredictionHead::layers() const {
    TORCH_CHECK(!on_cpu_, "the processor's head keeps its layers in an order of its own");
    const auto of = [](const InferenceLinear& linear) { return Layer{linear.weight(), linear.bias()}; };
    return {of(hidden_[0]), of(hidden_[1]), Layer{last_weight_, last_bias_}};
}

}  // namespace dynvit
