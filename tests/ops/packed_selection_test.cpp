// The plain version against a loop written out, the kernels against the plain version.
#include "dynvit/ops/packed_selection.hpp"

#include <ATen/ATen.h>

#include <limits>
#include <numeric>

#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kThresholds[] = {0, 0.3, 0.5, 1};

// Probabilities of 0.05, 0.15 ... 0.95, and here and there 0 and 1: none that rounding could put on the other side of a
// threshold. Prefix tokens have one that is no number.
at::Tensor random_log_probability(const PackedLayout& layout, std::uint64_t seed, std::int64_t prefix = 1) {
    at::Tensor probability = at::randint(0, 12, {layout.rows()}, test::generator(seed), at::kFloat) / 10 - 0.05;
    probability = probability.clamp(0, 1);
    at::Tensor log_probability = probability.log();
    std::int64_t first = 0;
    for (const std::int64_t length : layout.lengths()) {
        log_probability.narrow(0, first, prefix).fill_(kNaN);
        first += length;
    }
    return log_probability;
}

PackedTokens random_tokens(const std::vector<std::int64_t>& lengths, std::int64_t channels, const at::Device& device,
                           at::ScalarType type, std::int64_t prefix = 1) {
    const PackedLayout layout(lengths, device);
    const std::int64_t patches = layout.rows() - prefix * layout.sequences();
    return {at::randn({layout.rows(), channels}, test::generator(1)).to(device, type),
            layout,
            at::randint(0, 5000, {patches}, test::generator(2), at::kLong).to(device),
            {}};
}

void expect_by_hand(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                    std::int64_t prefix) {
    const PackedTokens found = keep_above(from, log_probability, threshold, prefix);
    std::vector<std::int64_t> lengths, rows, patches;
    std::vector<float> probabilities;
    std::int64_t row = 0;
    for (std::int64_t b = 0; b < from.layout.sequences(); ++b) {
        for (std::int64_t i = 0; i < prefix; ++i) rows.push_back(row++);
        lengths.push_back(prefix);
        for (std::int64_t i = prefix; i < from.layout.lengths()[b]; ++i, ++row) {
            probabilities.push_back(std::exp(log_probability[row].item<float>()));
            if (!(probabilities.back() > threshold)) continue;
            rows.push_back(row);
            patches.push_back(row - (b + 1) * prefix);
            ++lengths.back();
        }
    }
    EXPECT_EQ(found.layout.lengths(), lengths) << threshold;
    EXPECT_EQ(found.layout.rows(), std::ssize(rows));
    EXPECT_TRUE(found.layout.offsets().equal(PackedLayout(lengths, at::kCPU).offsets()));
    EXPECT_TRUE(found.x.equal(from.x.index_select(0, at::tensor(rows, at::kLong))));
    EXPECT_TRUE(found.positions.equal(from.positions.index_select(0, at::tensor(patches, at::kLong))));
    EXPECT_CLOSE(found.probabilities, at::tensor(probabilities, at::kFloat), 1e-6);
}

TEST(PackedSelection, EqualsALoop) {
    for (const std::vector<std::int64_t>& lengths :
         std::vector<std::vector<std::int64_t>>{{1}, {2}, {197}, {6, 1, 197, 40, 2}, {1, 1, 1}, {}}) {
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
            const PackedTokens from = random_tokens(lengths, 24, at::kCPU, type);
            const at::Tensor log_probability = random_log_probability(from.layout, 3);
            for (const double threshold : kThresholds) expect_by_hand(from, log_probability, threshold, 1);
        }
    }
    for (const std::int64_t prefix : {0, 3}) {
        const PackedTokens from = random_tokens({3, 197, 6, 40}, 24, at::kCPU, at::kFloat, prefix);
        const at::Tensor log_probability = random_log_probability(from.layout, 3, prefix);
        for (const double threshold : kThresholds) expect_by_hand(from, log_probability, threshold, prefix);
    }
}

// Both on the same device, so that they agree on each probability.
void expect_twins(const PackedTokens& from, const at::Tensor& log_probability, double threshold,
                  std::int64_t prefix = 1) {
    const PackedTokens plain = keep_above_plain(from, log_probability, threshold, prefix);
    const PackedTokens found = keep_above(from, log_probability, threshold, prefix);
    const std::string what = c10::str(from.layout.sequences(), " sequences, ", from.x.sizes(), ' ',
                                      from.x.scalar_type(), ", above ", threshold);
    EXPECT_EQ(found.layout.lengths(), plain.layout.lengths()) << what;
    EXPECT_EQ(found.layout.longest(), plain.layout.longest()) << what;
    EXPECT_TRUE(found.layout.offsets().equal(plain.layout.offsets())) << what;
    EXPECT_TRUE(found.x.equal(plain.x)) << what;
    EXPECT_TRUE(found.positions.equal(plain.positions)) << what;
    EXPECT_CLOSE(found.probabilities, plain.probabilities, 1e-6) << what;
}

TEST(PackedSelection, OnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    std::vector<std::vector<std::int64_t>> shapes = {
        {1}, {2}, {197}, {6, 1, 197, 40, 2}, {1, 1, 1}, {513, 512}, {4097, 30}, {5000, 2, 1}, {1025, 1, 1024}};
    for (const std::int64_t sequences : {64, 70, 256, 1024, 1025, 2500, 65535}) {  // beyond 1024: several rounds
        const at::Tensor lengths =
            at::randint(1, sequences > 300 ? 9 : 250, {sequences}, test::generator(4), at::kLong);
        shapes.emplace_back(lengths.const_data_ptr<std::int64_t>(), lengths.const_data_ptr<std::int64_t>() + sequences);
    }
    for (const std::vector<std::int64_t>& lengths : shapes) {
        for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kFloat}) {
            for (const std::int64_t channels : {4, 8, 24, 384}) {  // four halves are no 16 bytes
                if (channels > 24 && lengths.size() > 3000) continue;
                const PackedTokens from = random_tokens(lengths, channels, at::kCUDA, type);
                const at::Tensor log_probability = random_log_probability(from.layout, 3).cuda();
                for (const double threshold : kThresholds) expect_twins(from, log_probability, threshold);
            }
        }
    }
    for (const std::int64_t prefix : {0, 5}) {
        const PackedTokens from = random_tokens({5, 197, 6, 40, 4097}, 384, at::kCUDA, at::kHalf, prefix);
        const at::Tensor log_probability = random_log_probability(from.layout, 3, prefix).cuda();
        for (const double threshold : kThresholds) expect_twins(from, log_probability, threshold, prefix);
    }
}

void expect_all_or_none(const at::Device& device) {
    const PackedTokens from = random_tokens({6, 1, 197, 40, 2}, 8, device, at::kHalf);
    const at::Tensor half = at::full({from.layout.rows()}, std::log(0.5f), device);
    const PackedTokens all = keep_above(from, half, 0);
    EXPECT_EQ(all.layout.lengths(), from.layout.lengths());
    EXPECT_TRUE(all.x.equal(from.x) && all.positions.equal(from.positions));
    for (const at::Tensor& log_probability : {half, at::full_like(half, kNaN)}) {  // what is no number is above nothing
        const PackedTokens none = keep_above(from, log_probability, 0.6);
        EXPECT_EQ(none.layout.lengths(), std::vector<std::int64_t>(5, 1));
        EXPECT_TRUE(none.x.equal(from.x.index_select(0, from.layout.offsets().slice(0, 0, -1))));
        EXPECT_EQ(none.positions.numel(), 0);
        const PackedTokens again = keep_above(none, log_probability.slice(0, 0, 5), 0);  // no token to choose from
        EXPECT_TRUE(again.x.equal(none.x));
        EXPECT_EQ(again.probabilities.numel(), 0);
    }
}

TEST(PackedSelection, AllOrNone) {
    expect_all_or_none(at::kCPU);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_all_or_none(at::kCUDA);
}

// Sizes go where the tokens go: here they are in a token's first channel too.
void expect_sizes_kept(const at::Device& device, std::int64_t prefix) {
    PackedTokens from = random_tokens({6, 5, 197, 40, 7}, 8, device, at::kFloat, prefix);
    from.sizes = at::randint(1, 9, {from.layout.rows()}, test::generator(5), at::kFloat).to(device);
    const at::Tensor always = (from.layout.offsets().slice(0, 0, -1).to(at::kLong).unsqueeze(1) +
                               at::arange(prefix, from.positions.options()))
                                  .flatten();
    from.sizes.index_fill_(0, always, 1);
    from.x.select(1, 0).copy_(from.sizes);
    const at::Tensor log_probability = random_log_probability(from.layout, 3, prefix).to(device);
    for (const double threshold : kThresholds) {
        const PackedTokens kept = keep_above(from, log_probability, threshold, prefix);
        EXPECT_TRUE(kept.sizes.equal(kept.x.select(1, 0))) << prefix << ' ' << threshold;
    }
    from.sizes.reset();
    EXPECT_FALSE(keep_above(from, log_probability, 0.5, prefix).sizes.defined());
}

TEST(PackedSelection, CarriesSizes) {
    for (const std::int64_t prefix : {0, 1, 3}) expect_sizes_kept(at::kCPU, prefix);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    for (const std::int64_t prefix : {0, 1, 3}) expect_sizes_kept(at::kCUDA, prefix);
}

}  // namespace
}  // namespace dynvit
