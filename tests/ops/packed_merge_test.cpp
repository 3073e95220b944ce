// Merging in packed sequences against a loop written out, on both devices.
#include "dynvit/ops/packed_merge.hpp"

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

struct Example {
    PackedTokens from, kept;
    at::Tensor metric;
};

// The numbers of the prefix tokens' rows.
at::Tensor prefix_rows(const PackedLayout& layout, std::int64_t prefix) {
    std::vector<std::int64_t> rows;
    std::int64_t first = 0;
    for (const std::int64_t length : layout.lengths()) {
        for (std::int64_t i = 0; i < prefix; ++i) rows.push_back(first + i);
        first += length;
    }
    return at::tensor(rows, at::kLong);
}

// Names begin anew in each sequence, and leave some out. @param share the share of the tokens that is kept
Example make_example(const std::vector<std::int64_t>& lengths, std::int64_t prefix, double share, at::ScalarType type,
                     const at::Device& device, bool sized) {
    const PackedLayout layout(lengths, device);
    std::vector<std::int64_t> names;
    for (const std::int64_t length : lengths) {
        for (std::int64_t i = 0; i < length - prefix; ++i) names.push_back(3 * i + i % 2);
    }
    Example e{{at::randn({layout.rows(), 24}, test::generator(1)).to(device, type),
               layout,
               at::tensor(names, at::kLong).to(device),
               {}},
              {at::Tensor(), layout, {}, {}},
              at::randn({layout.rows(), 16}, test::generator(2)).to(device, type)};
    if (sized) {
        e.from.sizes = at::randint(1, 5, {layout.rows()}, test::generator(3), at::kFloat).to(device);
        e.from.sizes.index_fill_(0, prefix_rows(layout, prefix).to(device), 1);
    }
    const at::Tensor probability = at::rand({layout.rows()}, test::generator(4)).to(device);
    e.kept = keep_above(e.from, probability.log(), 1 - share, prefix);
    return e;
}

// One token after another, as float32 on the processor. @return (T', C), and the sizes, (T')
std::pair<at::Tensor, at::Tensor> by_hand(const Example& e, double threshold, std::int64_t prefix) {
    const at::Tensor x = e.from.x.cpu().to(at::kFloat), metric = e.metric.cpu().to(at::kDouble),
                     names = e.from.positions.cpu(), kept_names = e.kept.positions.cpu();
    const at::Tensor sizes = e.from.sizes.defined() ? e.from.sizes.cpu() : at::ones({x.size(0)});
    at::Tensor sums = at::zeros({e.kept.layout.rows(), x.size(1)}), totals = at::zeros({e.kept.layout.rows()});
    std::int64_t row = 0, kept_row = 0;
    for (std::int64_t b = 0; b < e.from.layout.sequences(); ++b) {
        const std::int64_t patches = e.from.layout.lengths()[static_cast<std::size_t>(b)] - prefix,
                           left = e.kept.layout.lengths()[static_cast<std::size_t>(b)] - prefix;
        sums.narrow(0, kept_row, prefix).copy_(x.narrow(0, row, prefix));
        totals.narrow(0, kept_row, prefix).fill_(1);
        row += prefix;
        kept_row += prefix;
        const at::Tensor own = names.narrow(0, row - (b + 1) * prefix, patches),
                         stay = kept_names.narrow(0, kept_row - (b + 1) * prefix, left);
        const at::Tensor same = own.unsqueeze(1) == stay.unsqueeze(0);  // (n, k)
        const at::Tensor unit = at::nan_to_num(metric.narrow(0, row, patches) /
                                               metric.narrow(0, row, patches).norm(2, at::IntArrayRef{1}, true));
        for (std::int64_t i = 0; i < patches && left > 0; ++i) {
            std::int64_t joins = -1;
            double nearest = -2;
            for (std::int64_t j = 0; j < left; ++j) {
                const auto place = same.select(1, j).nonzero().item<std::int64_t>();
                const double cosine = place == i ? 3 : unit[i].dot(unit[place]).item<double>();
                if (cosine <= nearest) continue;
                nearest = cosine;
                joins = j;
            }
            if (nearest <= threshold) continue;
            sums[kept_row + joins] += x[row + i] * sizes[row + i];
            totals[kept_row + joins] += sizes[row + i];
        }
        row += patches;
        kept_row += left;
    }
    return {sums / totals.unsqueeze(1), totals};
}

void expect_by_hand(const Example& e, double threshold, std::int64_t prefix, double rounding) {
    const PackedTokens merged = merge_dropped(e.from, e.kept, e.metric, threshold, prefix);
    const auto [x, sizes] = by_hand(e, threshold, prefix);
    const std::string what = c10::str(e.from.layout.sequences(), " sequences, ", e.from.x.scalar_type(), ", above ",
                                      threshold, ", prefix ", prefix);
    EXPECT_CLOSE(merged.x, x, rounding) << what;
    EXPECT_TRUE(merged.sizes.cpu().equal(sizes)) << what;
    EXPECT_EQ(merged.layout.lengths(), e.kept.layout.lengths());
    EXPECT_TRUE(merged.positions.equal(e.kept.positions));
    EXPECT_TRUE(merged.probabilities.equal(e.kept.probabilities));
    const PackedTokens again = merge_dropped(e.from, e.kept, e.metric, threshold, prefix);
    EXPECT_TRUE(again.x.equal(merged.x) && again.sizes.equal(merged.sizes)) << what;
}

void expect_all_by_hand(const at::Device& device, at::ScalarType type, double rounding) {
    for (const std::int64_t prefix : {0, 1, 3}) {
        for (const double share : {0.0, 0.3, 0.9, 1.0}) {
            for (const bool sized : {false, true}) {
                const Example e = make_example({20, 3, 31, 4, 12}, prefix, share, type, device, sized);
                for (const double threshold : {-2.0, 0.2}) expect_by_hand(e, threshold, prefix, rounding);
            }
        }
    }
    expect_by_hand(make_example({197}, 1, 0.5, type, device, true), 0.1, 1, rounding);
}

TEST(PackedMerge, EqualsALoop) {
    expect_all_by_hand(at::kCPU, at::kFloat, 1e-6);
    expect_all_by_hand(at::kCPU, at::kBFloat16, 4e-3);
}

TEST(PackedMerge, EqualsALoopOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_all_by_hand(at::kCUDA, at::kFloat, 1e-6);
    expect_all_by_hand(at::kCUDA, at::kHalf, 5e-4);
    expect_all_by_hand(at::kCUDA, at::kBFloat16, 4e-3);
}

TEST(PackedMerge, KernelsEqualThePlainVersion) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    const at::Tensor lengths = at::randint(2, 250, {300}, test::generator(5), at::kLong);
    const std::vector<std::int64_t> shape(lengths.const_data_ptr<std::int64_t>(),
                                          lengths.const_data_ptr<std::int64_t>() + 300);
    const Example e = make_example(shape, 1, 0.4, at::kFloat, at::kCUDA, true);
    const PackedTokens merged = merge_dropped(e.from, e.kept, e.metric, 0.2);
    const auto on_cpu = [](const PackedTokens& tokens) -> PackedTokens {
        return {tokens.x.cpu(), PackedLayout(tokens.layout.lengths(), at::kCPU), tokens.positions.cpu(),
                tokens.probabilities.defined() ? tokens.probabilities.cpu() : tokens.probabilities,
                tokens.sizes.defined() ? tokens.sizes.cpu() : tokens.sizes};
    };
    const PackedTokens plain = merge_dropped_plain(on_cpu(e.from), on_cpu(e.kept), e.metric.cpu(), 0.2);
    EXPECT_CLOSE(merged.x, plain.x, 1e-6);
    EXPECT_TRUE(merged.sizes.cpu().equal(plain.sizes));
}

constexpr FusedNames kNames{1000, 7};

// One token after another, as float32 on the processor. @return (T'', C), and the names
std::pair<at::Tensor, std::vector<std::int64_t>> fused_by_hand(const Example& e, std::int64_t prefix) {
    const at::Tensor x = e.from.x.cpu().to(at::kFloat), names = e.from.positions.cpu(),
                     kept_names = e.kept.positions.cpu(), probabilities = e.kept.probabilities.cpu();
    std::vector<at::Tensor> rows = {x.slice(0, 0, 0)};
    std::vector<std::int64_t> left;
    std::int64_t row = 0, patch = 0, kept_patch = 0;
    for (std::int64_t b = 0; b < e.from.layout.sequences(); ++b) {
        const auto index = static_cast<std::size_t>(b);
        const std::int64_t patches = e.from.layout.lengths()[index] - prefix,
                           kept_end = kept_patch + e.kept.layout.lengths()[index] - prefix;
        rows.push_back(x.narrow(0, row, prefix));
        at::Tensor sum = at::zeros({1, x.size(1)});
        bool any = false;
        for (std::int64_t i = 0; i < patches; ++i) {
            const at::Tensor own = x.narrow(0, row + prefix + i, 1);
            if (kept_patch < kept_end && kept_names[kept_patch].equal(names[patch + i])) {
                rows.push_back(own);
                left.push_back(kept_names[kept_patch++].item<std::int64_t>());
            } else {
                sum += own * probabilities[patch + i] / probabilities.narrow(0, patch, patches).sum();
                any = true;
            }
        }
        if (any) {
            rows.push_back(sum);
            left.push_back(kNames.first + b * kNames.step);
        }
        row += prefix + patches;
        patch += patches;
    }
    return {at::cat(rows), left};
}

void expect_fused_by_hand(const at::Device& device, at::ScalarType type, double rounding) {
    for (const std::int64_t prefix : {0, 1, 3}) {
        for (const double share : {0.0, 0.3, 0.9, 1.0}) {
            const Example e = make_example({20, 3, 31, 4, 140}, prefix, share, type, device, false);
            const PackedTokens fused = fuse_dropped(e.from, e.kept, kNames, prefix);
            const auto [x, names] = fused_by_hand(e, prefix);
            const std::string what = c10::str(type, ", prefix ", prefix, ", ", share);
            EXPECT_CLOSE(fused.x, x, rounding) << what;
            EXPECT_TRUE(fused.positions.cpu().equal(at::tensor(names, at::kLong))) << what;
            for (std::size_t b = 0; b < 5; ++b) {
                const std::int64_t kept = e.kept.layout.lengths()[b], any = kept < e.from.layout.lengths()[b];
                EXPECT_EQ(fused.layout.lengths()[b], kept + any) << what;
            }
            EXPECT_EQ(fused.layout.offsets()[5].item<std::int64_t>(), x.size(0)) << what;
            EXPECT_TRUE(fused.probabilities.equal(e.kept.probabilities));
            EXPECT_TRUE(fuse_dropped(e.from, e.kept, kNames, prefix).x.equal(fused.x)) << what;
        }
    }
}

TEST(PackedFuse, EqualsALoop) {
    expect_fused_by_hand(at::kCPU, at::kFloat, 1e-6);
    expect_fused_by_hand(at::kCPU, at::kBFloat16, 4e-3);
}

TEST(PackedFuse, EqualsALoopOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_fused_by_hand(at::kCUDA, at::kFloat, 1e-6);
    expect_fused_by_hand(at::kCUDA, at::kHalf, 5e-4);
    expect_fused_by_hand(at::kCUDA, at::kBFloat16, 4e-3);
}

TEST(PackedMerge, SaysWhatDoesNotBelongTogether) {
    const Example e = make_example({5, 6}, 1, 0.5, at::kFloat, at::kCPU, false);
    EXPECT_ANY_THROW(merge_dropped(e.from, e.kept, e.metric.slice(0, 1), 0));
    EXPECT_ANY_THROW(merge_dropped(e.from, e.kept, e.metric, 0, 2));
    EXPECT_ANY_THROW(fuse_dropped(e.from, e.kept, kNames, 2));
}

}  // namespace
}  // namespace dynvit
