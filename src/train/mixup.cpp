#include "dynvit/train/mixup.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace dynvit {
namespace {

// Gamma(shape, 1): Marsaglia and Tsang (2000); a shape below 1 is raised by one and its draw scaled down.
double gamma(double shape, Random& random) {
    if (shape < 1) return gamma(shape + 1, random) * std::pow(1.0 - random.uniform(), 1.0 / shape);
    const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
    while (true) {
        const double x = random.normal(), v = std::pow(1.0 + c * x, 3);
        if (v > 0 && std::log(1.0 - random.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
}

double beta(double alpha, Random& random) {
    const double a = gamma(alpha, random), b = gamma(alpha, random);
    return a + b > 0 ? a / (a + b) : 0.5;
}

MixShare draw_share(const MixupSettings& s, std::int64_t height, std::int64_t width, Random& random) {
    if (!random.chance(s.probability)) return {};
    const bool cut = s.cutmix > 0 && (s.mixup <= 0 || random.chance(s.switch_probability));
    MixShare mix;
    mix.share = beta(cut ? s.cutmix : s.mixup, random);
    if (!cut) return mix;
    const double side = std::sqrt(1.0 - mix.share);
    const auto cut_height = static_cast<std::int64_t>(static_cast<double>(height) * side);
    const auto cut_width = static_cast<std::int64_t>(static_cast<double>(width) * side);
    const std::int64_t y = random.integer(0, height), x = random.integer(0, width);
    mix.top = std::clamp<std::int64_t>(y - cut_height / 2, 0, height);
    mix.bottom = std::clamp<std::int64_t>(y + cut_height / 2, 0, height);
    mix.left = std::clamp<std::int64_t>(x - cut_width / 2, 0, width);
    mix.right = std::clamp<std::int64_t>(x + cut_width / 2, 0, width);
    mix.share = 1.0 - static_cast<double>((mix.bottom - mix.top) * (mix.right - mix.left)) /
                          static_cast<double>(height * width);
    return mix;
}

at::Tensor column(const std::vector<float>& values, const at::TensorOptions& options) {
    return at::tensor(at::ArrayRef<float>(values)).to(options, /*non_blocking=*/true);
}

// How much of each pixel a picture keeps: (B, 1, 1, 1), or (B, 1, H, W) where windows are cut.
at::Tensor pixel_shares(const std::vector<MixShare>& shares, const at::Tensor& images) {
    std::vector<float> share, edges[4];
    for (const MixShare& mix : shares) {
        share.push_back(mix.cut() ? 1.0f : static_cast<float>(mix.share));
        const std::int64_t of[4] = {mix.top, mix.bottom, mix.left, mix.right};
        for (int i = 0; i < 4; ++i) edges[i].push_back(mix.cut() ? static_cast<float>(of[i]) : 0.0f);
    }
    at::Tensor outside = column(share, images.options()).view({-1, 1, 1, 1});
    if (std::none_of(shares.begin(), shares.end(), [](const MixShare& mix) { return mix.cut(); })) return outside;
    const auto edge = [&](int i) { return column(edges[i], images.options().dtype(at::kFloat)).view({-1, 1, 1, 1}); };
    const at::Tensor y = at::arange(images.size(2), images.options().dtype(at::kFloat)).view({1, 1, -1, 1});
    const at::Tensor x = at::arange(images.size(3), images.options().dtype(at::kFloat)).view({1, 1, 1, -1});
    const at::Tensor inside =
        (y >= edge(0)).logical_and(y < edge(1)).logical_and(x >= edge(2)).logical_and(x < edge(3));
    return outside.mul(inside.logical_not().to(images.scalar_type()));
}

}  // namespace

std::vector<MixShare> draw_mix(const MixupSettings& settings, std::int64_t batch, std::int64_t height,
                               std::int64_t width, Random& random) {
    const auto count = static_cast<std::size_t>(batch);
    if (settings.mode == "batch") return std::vector<MixShare>(count, draw_share(settings, height, width, random));
    std::vector<MixShare> shares(count);
    const bool pairs = settings.mode == "pair";
    for (std::size_t b = 0; b < count; ++b) {
        shares[b] = pairs && b >= count - b ? shares[count - 1 - b] : draw_share(settings, height, width, random);
    }
    return shares;
}

at::Tensor mix_images(const at::Tensor& images, const std::vector<MixShare>& shares) {
    TORCH_CHECK(std::ssize(shares) == images.size(0), "one share a picture is needed");
    const at::Tensor partner = images.flip(0);
    return at::lerp(partner, images, pixel_shares(shares, images));
}

at::Tensor mix_targets(const at::Tensor& target, const std::vector<MixShare>& shares) {
    TORCH_CHECK(std::ssize(shares) == target.size(0), "one share a picture is needed");
    std::vector<float> share;
    for (const MixShare& mix : shares) share.push_back(static_cast<float>(mix.share));
    const at::Tensor partner = target.flip(0);
    return at::lerp(partner, target, column(share, target.options()).unsqueeze(1));
}

}  // namespace dynvit
