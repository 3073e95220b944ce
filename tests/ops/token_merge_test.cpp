// Merging against loops written out, loops and kernels against the definitions.
#include "dynvit/ops/token_merge.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "dynvit/ops/device_graphs.hpp"
#include "dynvit/ops/token_gather.hpp"
#include "models/golden_model.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kBatch = 2, kTokens = 30, kChannels = 12, kMetric = 5;

struct Example {
    at::Tensor x, sizes, places, metric;
};

at::Tensor random_places(std::int64_t batch, std::int64_t tokens, std::int64_t count) {
    const at::Tensor order = at::argsort(at::rand({batch, tokens}, test::generator(1)), /*stable=*/true, /*dim=*/1);
    return std::get<0>(order.slice(1, 0, count).sort(1));
}

Example make_example(std::int64_t prefix, std::int64_t count, const at::Device& device = at::kCPU,
                     std::int64_t depth = kMetric) {
    return {at::randn({kBatch, prefix + kTokens, kChannels}, test::generator(2)).to(device),
            at::randint(1, 5, {kBatch, kTokens}, test::generator(3), at::kFloat).to(device),
            random_places(kBatch, kTokens, count).to(device),
            at::randn({kBatch, kTokens, depth}, test::generator(4)).to(device)};
}

// (B, n), or undefined -> (B, prefix + n), or undefined
at::Tensor of_all(const at::Tensor& sizes, std::int64_t prefix) {
    return sizes.defined() ? at::constant_pad_nd(sizes, {prefix, 0}, 1) : sizes;
}

TokenBatch merge_dropped(const Example& e, double threshold, std::int64_t prefix) {
    return average_groups({e.x, of_all(e.sizes, prefix)}, join_nearest(e.places, e.metric, threshold), prefix);
}

// (n, d) -> (n, n), float64, on the processor
at::Tensor cosines_of(const at::Tensor& metric) {
    const at::Tensor rows = metric.cpu().to(at::kDouble);
    return at::cosine_similarity(rows.unsqueeze(0), rows.unsqueeze(1), 2);
}

std::vector<std::int64_t> list(const at::Tensor& row) {
    const at::Tensor near = row.cpu().contiguous();
    const auto* first = near.const_data_ptr<std::int64_t>();
    return {first, first + near.numel()};
}

// One token after another. @param places (k), metric (n, d) @return slots
std::vector<std::int64_t> nearest_by_hand(const std::vector<std::int64_t>& places, const at::Tensor& metric,
                                          double threshold) {
    const at::Tensor all = cosines_of(metric);
    const auto cosines = all.accessor<double, 2>();
    std::vector<std::int64_t> slots;
    for (std::int64_t i = 0; i < metric.size(0); ++i) {
        const auto own = std::find(places.begin(), places.end(), i);
        double nearest = -2;
        std::int64_t slot = -1;
        for (std::size_t j = 0; j < places.size() && own == places.end(); ++j) {
            const double similarity = cosines[i][places[j]];
            if (similarity <= nearest) continue;
            nearest = similarity;
            slot = static_cast<std::int64_t>(j);
        }
        if (nearest <= threshold) slot = -1;
        slots.push_back(own == places.end() ? slot : own - places.begin());
    }
    return slots;
}

struct Groups {
    std::vector<std::int64_t> places, slots;
};

// ToMe's matching, one token after another. @param metric (n, d)
Groups matching_by_hand(const at::Tensor& metric, std::int64_t count, std::int64_t prefix) {
    struct Edge {
        std::int64_t from, to;
        double similarity;
    };
    const at::Tensor all = cosines_of(metric);
    const auto cosines = all.accessor<double, 2>();
    std::vector<Edge> edges;
    for (std::int64_t i = 0; i < metric.size(0); ++i) {
        if ((prefix + i) % 2 != 0) continue;
        Edge edge{i, -1, -2};
        for (std::int64_t j = 0; j < metric.size(0); ++j) {
            if ((prefix + j) % 2 != 1) continue;
            const double similarity = cosines[i][j];
            if (similarity > edge.similarity) edge = {i, j, similarity};
        }
        edges.push_back(edge);
    }
    std::stable_sort(edges.begin(), edges.end(),
                     [](const Edge& a, const Edge& b) { return a.similarity > b.similarity; });
    const auto joining = static_cast<std::size_t>(metric.size(0) - count);
    Groups groups;
    std::vector<std::int64_t> goes_to(static_cast<std::size_t>(metric.size(0)));
    std::iota(goes_to.begin(), goes_to.end(), 0);
    for (std::size_t e = 0; e < edges.size(); ++e) {
        if (e < joining) {
            goes_to[static_cast<std::size_t>(edges[e].from)] = edges[e].to;
        } else {
            groups.places.push_back(edges[e].from);
        }
    }
    if (prefix > 0) std::sort(groups.places.begin(), groups.places.end());
    for (std::int64_t i = 0; i < metric.size(0); ++i) {
        if ((prefix + i) % 2 == 1) groups.places.push_back(i);
    }
    if (joining == 0) groups.places = goes_to;
    for (const std::int64_t to : goes_to) {
        groups.slots.push_back(std::find(groups.places.begin(), groups.places.end(), to) - groups.places.begin());
    }
    return groups;
}

// @param x (prefix + n, C), sizes (n) @return (prefix + k, C) and (prefix + k)
TokenBatch average_by_hand(const at::Tensor& x, const at::Tensor& sizes, const std::vector<std::int64_t>& slots,
                           std::int64_t count, std::int64_t prefix) {
    at::Tensor sums = at::zeros({count, x.size(1)}), total = at::zeros({count});
    for (std::size_t i = 0; i < slots.size(); ++i) {
        if (slots[i] < 0) continue;
        const auto place = static_cast<std::int64_t>(i);
        sums[slots[i]] += x[prefix + place] * sizes[place];
        total[slots[i]] += sizes[place];
    }
    return {at::cat({x.slice(0, 0, prefix), sums / total.unsqueeze(1)}), at::cat({at::ones({prefix}), total})};
}

void expect_by_hand(const at::Device& device) {
    for (const std::int64_t prefix : {0, 1, 3}) {
        for (const std::int64_t count : {1, 7, 29, 30}) {
            for (const double threshold : {-1.0, 0.0, 0.5, 1.0}) {
                for (const std::int64_t depth : {5, 16, 40}) {
                    const Example e = make_example(prefix, count, at::kCPU, depth),
                                  there = make_example(prefix, count, device, depth);
                    const TokenGroups groups = join_nearest(there.places, there.metric, threshold);
                    const TokenBatch merged = average_groups({there.x, of_all(there.sizes, prefix)}, groups, prefix);
                    EXPECT_TRUE(groups.places.equal(there.places));
                    for (std::int64_t image = 0; image < kBatch; ++image) {
                        const auto slots = nearest_by_hand(list(e.places[image]), e.metric[image], threshold);
                        EXPECT_EQ(list(groups.slots[image]), slots) << count << ' ' << threshold << ' ' << depth;
                        const TokenBatch expected = average_by_hand(e.x[image], e.sizes[image], slots, count, prefix);
                        EXPECT_CLOSE(merged.x[image].cpu(), expected.x, 1e-6)
                            << prefix << ' ' << count << ' ' << threshold;
                        EXPECT_TRUE(merged.sizes[image].cpu().equal(expected.sizes));
                    }
                }
            }
        }
    }
}

TEST(TokenMerge, EqualsALoop) {
    expect_by_hand(at::kCPU);
}

TEST(TokenMerge, EqualsALoopOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_by_hand(at::kCUDA);
}

TEST(TokenMerge, NothingIsLostBelowTheThreshold) {
    Example e = make_example(1, 7);
    const TokenBatch merged = merge_dropped(e, -2, 1);
    EXPECT_CLOSE(merged.sizes.slice(1, 1).sum(1), e.sizes.sum(1), 1e-6) << "every patch is in a token";
    e.sizes.reset();
    const TokenBatch once = merge_dropped(e, -2, 1);
    EXPECT_CLOSE(once.sizes.slice(1, 1).sum(1), at::full({kBatch}, double(kTokens)), 1e-6) << "one patch each";
    EXPECT_TRUE(merged.x.slice(1, 0, 1).equal(e.x.slice(1, 0, 1))) << "[CLS] stays as it is";
}

// Equal rows have a cosine of 1, which rounding must not put above a threshold of 1.
void expect_nothing_merged(const at::Device& device) {
    const Example e = make_example(1, 7, device, 16);
    const at::Tensor equal = e.metric.slice(1, 0, 1).expand({kBatch, kTokens, 16}).contiguous();
    const TokenGroups groups = join_nearest(e.places, equal, 1);
    EXPECT_EQ(groups.slots.ge(0).sum().item<std::int64_t>(), 7 * kBatch);
    const TokenBatch merged = average_groups({e.x, of_all(e.sizes, 1)}, groups, 1);
    EXPECT_TRUE(merged.x.slice(1, 1).equal(gather_tokens(e.x.slice(1, 1), e.places))) << "alone, they are copied";
    EXPECT_TRUE(merged.sizes.equal(of_all(e.sizes.gather(1, e.places), 1)));
}

TEST(TokenMerge, NothingIsMergedAtAThresholdOfOne) {
    expect_nothing_merged(at::kCPU);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_nothing_merged(at::kCUDA);
}

TEST(TokenMerge, NoneKept) {
    const Example e = make_example(1, 0);
    const TokenBatch merged = merge_dropped(e, 0, 1);
    EXPECT_TRUE(merged.x.equal(e.x.slice(1, 0, 1)));
    EXPECT_TRUE(merged.sizes.equal(at::ones({kBatch, 1})));
}

// Rows of a single one: all cosines are 0 or 1, without rounding.
at::Tensor tied_metric(std::int64_t tokens) {
    const at::Tensor which = at::randint(0, 6, {kBatch, tokens}, test::generator(20), at::kLong);
    return at::one_hot(which, 8).to(at::kFloat);
}

void expect_first_of_equal_ones(const at::Device& device) {
    for (const std::int64_t tokens : {2, 29, 30, 300}) {
        const at::Tensor metric = tied_metric(tokens), places = random_places(kBatch, tokens, (tokens + 2) / 3);
        const at::Tensor there = metric.to(device);
        for (const double threshold : {-2.0, 0.5}) {
            const TokenGroups groups = join_nearest(places.to(device), there, threshold);
            for (std::int64_t image = 0; image < kBatch; ++image) {
                EXPECT_EQ(list(groups.slots[image]), nearest_by_hand(list(places[image]), metric[image], threshold));
            }
        }
        for (const std::int64_t prefix : {0, 1}) {
            const TokenGroups groups = match_bipartite(there, tokens - tokens / 3, prefix);
            for (std::int64_t image = 0; image < kBatch; ++image) {
                const Groups expected = matching_by_hand(metric[image], tokens - tokens / 3, prefix);
                EXPECT_EQ(list(groups.places[image]), expected.places) << tokens << ' ' << prefix;
                EXPECT_EQ(list(groups.slots[image]), expected.slots) << tokens << ' ' << prefix;
            }
        }
    }
}

TEST(TokenMerge, OfEqualCosinesTheFirst) {
    expect_first_of_equal_ones(at::kCPU);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_first_of_equal_ones(at::kCUDA);
}

void expect_matching(const at::Device& device) {
    for (const std::int64_t tokens : {2, 3, 8, 29, 30}) {
        const at::Tensor metric = at::randn({kBatch, tokens, 16}, test::generator(21));
        for (const std::int64_t prefix : {0, 1, 2, 5}) {
            for (std::int64_t count = least_bipartite(tokens, prefix); count <= tokens; count += 1 + tokens / 8) {
                const TokenGroups groups = match_bipartite(metric.to(device), count, prefix);
                for (std::int64_t image = 0; image < kBatch; ++image) {
                    const Groups expected = matching_by_hand(metric[image], count, prefix);
                    EXPECT_EQ(list(groups.places[image]), expected.places) << tokens << ' ' << prefix << ' ' << count;
                    EXPECT_EQ(list(groups.slots[image]), expected.slots) << tokens << ' ' << prefix << ' ' << count;
                }
            }
        }
    }
}

TEST(MatchBipartite, EqualsALoop) {
    expect_matching(at::kCPU);
    EXPECT_ANY_THROW(match_bipartite(at::randn({1, 10, 4}), 4, 0));
    EXPECT_ANY_THROW(match_bipartite(at::randn({1, 10, 4}), 11, 0));
}

TEST(MatchBipartite, EqualsALoopOnTheGpu) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_matching(at::kCUDA);
}

TEST(MatchBipartite, LeavesTheTokensAtOddPlaces) {
    for (std::int64_t prefix = 0; prefix < 4; ++prefix) {
        for (std::int64_t tokens = 0; tokens < 8; ++tokens) {
            std::int64_t odd = 0;
            for (std::int64_t i = 0; i < tokens; ++i) odd += (prefix + i) % 2;
            EXPECT_EQ(least_bipartite(tokens, prefix), odd == 0 ? tokens : odd) << tokens << ' ' << prefix;
        }
    }
}

void expect_fused(const at::Device& device) {
    for (const std::int64_t prefix : {0, 1, 5}) {
        for (const std::int64_t count : {0, 1, 7, 29}) {
            const Example e = make_example(prefix, count);
            const at::Tensor weights = at::rand({kBatch, kTokens}, test::generator(22));
            const at::Tensor names = at::arange(100, 100 + kTokens).expand({kBatch, -1});
            const FusedTokens fused = fuse_dropped({e.x.to(device), {}, names.to(device)}, e.places.to(device),
                                                   weights.to(device), /*name=*/7, prefix);
            for (std::int64_t image = 0; image < kBatch; ++image) {
                const std::vector<std::int64_t> kept = list(e.places[image]);
                at::Tensor sum = at::zeros({kChannels});
                std::vector<at::Tensor> rows = {e.x[image].slice(0, 0, prefix)};
                for (std::int64_t i = 0; i < kTokens; ++i) {
                    const at::Tensor row = e.x[image][prefix + i];
                    if (std::find(kept.begin(), kept.end(), i) != kept.end()) {
                        rows.push_back(row.unsqueeze(0));
                    } else {
                        sum += weights[image][i] * row;
                    }
                }
                rows.push_back(sum.unsqueeze(0));
                EXPECT_CLOSE(fused.x[image].cpu(), at::cat(rows), 1e-6) << prefix << ' ' << count;
                std::vector<std::int64_t> left, slots(static_cast<std::size_t>(kTokens), count);
                for (const std::int64_t place : kept) {
                    slots[static_cast<std::size_t>(place)] = std::ssize(left);
                    left.push_back(100 + place);
                }
                left.push_back(7);
                EXPECT_EQ(list(fused.positions[image]), left);
                EXPECT_EQ(list(fused.slots[image]), slots);
            }
        }
    }
}

TEST(FuseDropped, EqualsALoop) {
    expect_fused(at::kCPU);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_fused(at::kCUDA);
}

// Compares a gradient along a random direction with a difference quotient. @param value from x to a tensor
template <class Value>
void expect_gradient(const at::Tensor& given, const Value& value) {
    const at::Tensor x = given.clone().requires_grad_(), result = value(x);
    const at::Tensor direction = at::randn(result.sizes(), test::generator(9)).to(given.device());
    (result * direction).sum().backward();
    const at::Tensor probe = at::randn(given.sizes(), test::generator(10)).to(given.device());
    const double step = 1e-2;
    const auto along = [&](double t) { return (value(given + t * probe) * direction).sum().template item<double>(); };
    EXPECT_NEAR((x.grad() * probe).sum().template item<double>(), (along(step) - along(-step)) / (2 * step), 1e-2);
}

// The gradient of a mean is what each token has in it; a deleted token has none.
void expect_gradients(const at::Device& device) {
    for (const std::int64_t prefix : {0, 1, 5}) {
        const Example e = make_example(prefix, 7, device, 16);
        const TokenGroups groups = join_nearest(e.places, e.metric, 0.2);
        ASSERT_TRUE(groups.slots.lt(0).any().item<bool>()) << "some are deleted";
        for (const at::Tensor& sizes : {of_all(e.sizes, prefix), at::Tensor()}) {
            expect_gradient(e.x, [&](const at::Tensor& x) { return average_groups({x, sizes}, groups, prefix).x; });
            const at::Tensor x = e.x.clone().requires_grad_(), twin = e.x.clone().requires_grad_();
            const TokenBatch merged = average_groups({x, sizes, groups.slots}, groups, prefix);
            EXPECT_FALSE(merged.sizes.requires_grad());
            EXPECT_TRUE(merged.positions.equal(groups.slots.gather(1, groups.places)));
            const at::Tensor direction = at::randn(merged.x.sizes(), test::generator(11)).to(device);
            merged.x.backward(direction);
            average_groups_plain({twin, sizes}, groups, prefix).x.backward(direction);
            EXPECT_CLOSE(x.grad(), twin.grad(), 1e-6);
        }
        expect_gradient(e.x, [&](const at::Tensor& x) {
            return fuse_dropped({x, {}, groups.slots}, e.places, e.sizes, 0, prefix).x;
        });
    }
    const Example none = make_example(1, 0, device);
    const at::Tensor x = none.x.clone().requires_grad_();
    merge_dropped({x, none.sizes, none.places, none.metric}, 0, 1).x.sum().backward();
    EXPECT_TRUE(x.grad().slice(1, 0, 1).eq(1).all().item<bool>());
    EXPECT_TRUE(x.grad().slice(1, 1).eq(0).all().item<bool>());
}

TEST(TokenMerge, GradientsFlowThroughTheMeans) {
    expect_gradients(at::kCPU);
    if (!at::hasCUDA()) GTEST_SKIP() << "the GPU's part needs one";
    expect_gradients(at::kCUDA);
}

// Compares slots, which may differ where two cosines are the same but for rounding.
void expect_slots(const TokenGroups& found, const TokenGroups& plain, const at::Tensor& metric,
                  const std::string& what) {
    const at::Tensor unlike = found.slots.ne(plain.slots);
    if (!unlike.any().item<bool>()) return;
    EXPECT_TRUE(found.slots.ge(0).eq(plain.slots.ge(0)).all().item<bool>()) << what;
    const at::Tensor rows = metric.to(at::kDouble);
    const auto cosines = [&](const TokenGroups& groups) {
        const at::Tensor ends = groups.places.gather(1, groups.slots.clamp_min(0));
        return at::cosine_similarity(rows, gather_tokens(rows, ends), 2);
    };
    EXPECT_LE((cosines(found) - cosines(plain)).abs().masked_fill(unlike.logical_not(), 0).max().item<double>(), 1e-6)
        << what;
}

double rounding_of(at::ScalarType type) {  // a last place, and another order of a sum in float32
    return type == at::kHalf ? 1e-3 : type == at::kBFloat16 ? 8e-3 : 1e-6;
}

// Names that are one row for all images stay so.
TokenBatch to(const at::Device& device, const TokenBatch& tokens) {
    const auto copy = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor.to(device) : tensor; };
    at::Tensor names = copy(tokens.positions);
    if (names.defined() && tokens.positions.stride(0) == 0) names = names.slice(0, 0, 1).expand(names.sizes());
    return {copy(tokens.x), copy(tokens.sizes), names};
}

struct Shape {
    std::int64_t batch, tokens, count, depth;
};

// The definition on the processor, and what `device` makes of the same.
void expect_twins(const Shape& s, std::int64_t prefix, at::ScalarType type, const at::Device& device) {
    const std::string what = c10::str(s.batch, " of ", s.tokens, " to ", s.count, ", ", type, ", prefix ", prefix);
    const std::int64_t channels = s.tokens > 500 ? 24 : 392;
    const at::Tensor all = at::randn({s.batch, prefix + s.tokens, s.depth}, test::generator(30)).to(type),
                     x = at::randn({s.batch, prefix + s.tokens, channels}, test::generator(31)).to(type),
                     sizes = of_all(at::randint(1, 5, {s.batch, s.tokens}, test::generator(32), at::kFloat), prefix);
    const at::Tensor there = all.to(device).slice(1, prefix), metric = all.slice(1, prefix);
    const auto on_cpu = [](const TokenGroups& groups) -> TokenGroups {
        return {groups.places.cpu(), groups.slots.cpu()};
    };

    const at::Tensor places = random_places(s.batch, s.tokens, s.count);
    for (const double threshold : {-2.0, 0.1}) {
        const TokenGroups groups = join_nearest(places.to(device), there, threshold);
        expect_slots(on_cpu(groups), join_nearest_plain(places, metric, threshold), metric, what);
        EXPECT_TRUE(groups.slots.equal(join_nearest(places.to(device), there, threshold).slots)) << what;
        // Names as the first stage has them, one row for all images; later stages' own; none.
        const at::Tensor same_names = (3 * at::arange(s.tokens)).expand({s.batch, -1}),
                         own_names = at::randint(0, 1000, {s.batch, s.tokens}, test::generator(33), at::kLong);
        for (const auto& [weights, names] : {std::pair(sizes, own_names), {at::Tensor(), same_names}, {sizes, {}}}) {
            const TokenBatch from{x, weights, names}, from_there = to(device, from),
                                                      plain = average_groups_plain(from, on_cpu(groups), prefix),
                                                      merged = average_groups(from_there, groups, prefix);
            EXPECT_CLOSE(merged.x, plain.x, rounding_of(type)) << what;
            EXPECT_TRUE(merged.sizes.cpu().equal(plain.sizes)) << what;
            EXPECT_EQ(merged.positions.defined(), names.defined());
            EXPECT_TRUE(!names.defined() || merged.positions.cpu().equal(names.gather(1, places))) << what;
            EXPECT_TRUE(merged.x.equal(average_groups(from_there, groups, prefix).x)) << what;
        }
    }
    const std::int64_t count = std::max(s.count, least_bipartite(s.tokens, prefix));
    const TokenGroups matched = match_bipartite(there, count, prefix),
                      plain = match_bipartite_plain(metric, count, prefix);
    EXPECT_TRUE(matched.places.cpu().equal(plain.places)) << what;
    expect_slots(on_cpu(matched), plain, metric, what);
    EXPECT_TRUE(matched.slots.equal(match_bipartite(there, count, prefix).slots)) << what;
}

void expect_all_twins(const at::Device& device) {
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
        for (const std::int64_t prefix : {0, 1, 2, 5}) {
            for (const Shape& s : {Shape{1, 196, 137, 64}, {3, 49, 20, 32}, {1, 1, 1, 8}, {3, 2, 1, 16}}) {
                expect_twins(s, prefix, type, device);
            }
        }
        for (const Shape& s : {Shape{64, 196, 98, 64}, {1, 1000, 600, 64}, {3, 577, 300, 128}, {3, 96, 3, 24}}) {
            expect_twins(s, 1, type, device);
        }
    }
}

// The same for fusing. @param channels a token has
void expect_fused_twins(const Shape& s, std::int64_t prefix, std::int64_t channels, at::ScalarType type,
                        const at::Device& device) {
    const std::string what =
        c10::str(s.batch, " of ", s.tokens, " to ", s.count, ", ", type, ", prefix ", prefix, ", ", channels);
    const at::Tensor places = random_places(s.batch, s.tokens, s.count),
                     weights = at::softmax(at::randn({s.batch, s.tokens}, test::generator(40)), 1),
                     x = at::randn({s.batch, prefix + s.tokens, channels}, test::generator(41)).to(type),
                     same_names = at::arange(s.tokens).expand({s.batch, -1}),
                     own_names = at::randint(0, 1000, {s.batch, s.tokens}, test::generator(42), at::kLong);
    for (const at::Tensor& names : {same_names, own_names}) {
        const TokenBatch from{x, {}, names};
        const auto fuse = [&] {
            return fuse_dropped(to(device, from), places.to(device), weights.to(device), 9, prefix);
        };
        const FusedTokens fused = fuse(), plain = fuse_dropped_plain(from, places, weights, 9, prefix);
        EXPECT_CLOSE(fused.x, plain.x, rounding_of(type)) << what;
        EXPECT_TRUE(fused.x.slice(1, 0, -1).cpu().equal(plain.x.slice(1, 0, -1))) << "the others are copied, " << what;
        EXPECT_TRUE(fused.positions.cpu().equal(plain.positions)) << what;
        EXPECT_TRUE(fused.slots.cpu().equal(plain.slots)) << what;
        EXPECT_TRUE(fuse().x.equal(fused.x)) << what;
    }
}

void expect_all_fused_twins(const at::Device& device) {
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
        for (const std::int64_t prefix : {0, 1, 2, 5}) {
            for (const std::int64_t channels : {8, 50, 192, 392}) {  // of 50, rows are no multiple of 16 bytes
                for (const Shape& s : {Shape{1, 196, 137, 0}, {3, 49, 20, 0}, {1, 1, 0, 0}, {3, 7, 6, 0}}) {
                    expect_fused_twins(s, prefix, channels, type, device);
                }
            }
        }
        for (const Shape& s : {Shape{64, 196, 98, 0}, {1, 1000, 999, 0}, {3, 577, 1, 0}, {1, 4096, 100, 0}}) {
            expect_fused_twins(s, 1, 24, type, device);
        }
    }
}

TEST(TokenMerge, LoopsEqualTheDefinitions) {
    expect_all_twins(at::kCPU);
}

TEST(FuseDropped, LoopsEqualTheDefinition) {
    expect_all_fused_twins(at::kCPU);
}

TEST(FuseDropped, KernelEqualsTheDefinition) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_all_fused_twins(at::kCUDA);
}

TEST(TokenMerge, KernelsEqualTheDefinitions) {
    if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    expect_all_twins(at::kCUDA);
    expect_twins({1, 4096, 2500, 8}, 1, at::kHalf, at::kCUDA);  // as many tokens as the kernels take
}

TEST(TokenMerge, GraphsReplayIt) {
    if (!DeviceGraphs::supported(at::hasCUDA() ? at::kCUDA : at::kCPU)) GTEST_SKIP() << "needs a GPU and its kernels";
    DeviceGraphs graphs(at::Device(at::kCUDA, 0));
    const auto random = [](std::uint64_t seed) {
        return at::randn({3, 197, 64}, test::generator(seed)).to(at::kCUDA, at::kHalf);
    };
    const at::Tensor x = random(40);
    const auto run = [](const at::Tensor& tokens) -> std::vector<at::Tensor> {
        const at::Tensor metric = tokens.slice(1, 1);
        const at::Tensor places = top_places(metric.select(2, 0).to(at::kFloat), 100);
        const TokenBatch near = average_groups({tokens}, join_nearest(places, metric, 0.1), 1);
        const TokenBatch matched = average_groups({near.x, near.sizes}, match_bipartite(near.x.slice(1, 1), 70, 1), 1);
        return {near.x, near.sizes, matched.x, matched.sizes};
    };
    run(x);
    std::vector<at::Tensor> results, found;
    const std::size_t graph = graphs.record([&] { results = run(x); });
    for (const std::uint64_t seed : {41, 42}) {
        graphs.run(
            graph, [&] { x.copy_(random(seed)); },
            [&] {
                found.clear();
                for (const at::Tensor& result : results) found.push_back(result.clone());
            });
        const std::vector<at::Tensor> expected = run(random(seed));
        for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(found[i].equal(expected[i])) << seed << ' ' << i;
    }
}

TEST(MeanKeys, AreTheMeanOfTheHeadsKeys) {
    constexpr std::int64_t kHeads = 3;
    const at::Tensor weight = at::randn({3 * kChannels, kChannels}, test::generator(6)),
                     bias = at::randn({3 * kChannels}, test::generator(7)),
                     x = at::randn({4, kChannels}, test::generator(8));
    const auto [mean_weight, mean_bias] = mean_key_layer(weight, bias, kHeads);
    const at::Tensor keys = at::linear(x, weight, bias).view({4, 3, kHeads, kChannels / kHeads}).select(1, 1);
    EXPECT_CLOSE(at::linear(x, mean_weight, mean_bias), keys.mean(1), 1e-5);
    EXPECT_FALSE(mean_key_layer(weight, {}, kHeads).bias.defined());
}

}  // namespace
}  // namespace dynvit
