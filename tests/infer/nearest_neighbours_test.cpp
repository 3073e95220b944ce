// The vote of the nearest neighbours against what it comes to by hand.
#include "dynvit/infer/nearest_neighbours.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "dynvit/data/cluttered_shapes.hpp"
#include "inference_support.hpp"
#include "models/golden_model.hpp"
#include "tensor_support.hpp"

namespace dynvit {
namespace {

constexpr double kPi = 3.14159265358979323846;

// Embeddings of two numbers, at these degrees around the circle and of these lengths.
at::Tensor at_angles(const std::vector<double>& degrees, const std::vector<double>& lengths = {}) {
    at::Tensor rows = at::empty({std::ssize(degrees), 2});
    for (std::size_t i = 0; i < degrees.size(); ++i) {
        const double angle = degrees[i] * kPi / 180, length = lengths.empty() ? 1 : lengths[i];
        rows[static_cast<std::int64_t>(i)][0] = length * std::cos(angle);
        rows[static_cast<std::int64_t>(i)][1] = length * std::sin(angle);
    }
    return rows;
}

at::Tensor numbers(const std::vector<std::int64_t>& values) {
    return at::tensor(at::ArrayRef<std::int64_t>(values), at::kLong);
}

TEST(NeighbourBank, AsManyVoteAsAClassHasPicturesAndTwentyAtMost) {
    const auto bank_of = [](std::int64_t pictures, std::int64_t classes) {
        return NeighbourBank(at::ones({pictures, 3}), at::arange(pictures) % classes);
    };
    EXPECT_EQ(bank_of(1, 1).neighbours(), 1);
    EXPECT_EQ(bank_of(7, 2).neighbours(), 3);
    EXPECT_EQ(bank_of(3, 3).neighbours(), 1);
    EXPECT_EQ(bank_of(400, 10).neighbours(), 20);
    EXPECT_EQ(bank_of(7, 2).classes(), 2);
    EXPECT_EQ(NeighbourBank(at::ones({4, 2}), numbers({9, 9, 2, 9})).classes(), 2) << "those that have a picture";
}

// Three neighbours each. One at 0 degrees counts exp(1 / 0.07), two at d degrees 2 exp(cos(d) / 0.07): they win where
// 1 - cos(d) < 0.07 ln 2, which is up to 17.92 degrees.
TEST(NeighbourBank, TwoNearOnesOutweighANearerOne) {
    EXPECT_NEAR(std::acos(1 - kNeighbourTemperature * std::log(2)) * 180 / kPi, 17.92, 0.01);
    const auto class_of = [](double degrees) {
        const NeighbourBank bank(at_angles({0, degrees, -degrees, 180, 180, 180}), numbers({0, 1, 1, 0, 0, 1}));
        EXPECT_EQ(bank.neighbours(), 3);
        return bank.classify(at_angles({0})).item<std::int64_t>();
    };
    EXPECT_EQ(class_of(17.8), 1);
    EXPECT_EQ(class_of(18.0), 0);
}

TEST(NeighbourBank, FartherOnesHaveNoVoteAndLengthsDoNotCount) {
    // Two vote. Class 1 has three pictures, of which one is among the two.
    const NeighbourBank bank(at_angles({0, 10, 60, 70, 80}, {1, 1, 9, 0.1, 5}), numbers({4, 1, 4, 1, 1}));
    EXPECT_EQ(bank.neighbours(), 2);
    const at::Tensor found = bank.classify(at_angles({1, 9, 61, 75}, {3, 0.01, 1, 1}));
    EXPECT_TRUE(at::equal(found, numbers({4, 1, 4, 1}))) << found;
}

// A plain loop over all pairs, classes and neighbours.
TEST(NeighbourBank, EqualsAPlainLoop) {
    const std::int64_t pictures = 60, queries = 40, channels = 5, classes = 6;
    at::Generator random = test::generator(3);
    const at::Tensor embeddings = at::randn({pictures, channels}, random),
                     asked = at::randn({queries, channels}, random);
    const at::Tensor labels = at::randint(classes, {pictures}, random, at::kLong);
    const NeighbourBank bank(embeddings, labels);
    const at::Tensor found = bank.classify(asked);
    for (std::int64_t q = 0; q < queries; ++q) {
        std::vector<std::pair<double, std::int64_t>> all;
        for (std::int64_t i = 0; i < pictures; ++i) {
            const double cosine =
                at::cosine_similarity(asked[q].to(at::kDouble), embeddings[i].to(at::kDouble), 0).item<double>();
            all.emplace_back(cosine, labels[i].item<std::int64_t>());
        }
        std::ranges::sort(all, std::greater());
        std::vector<double> votes(classes);
        for (std::int64_t k = 0; k < bank.neighbours(); ++k) {
            const auto& [cosine, label] = all[static_cast<std::size_t>(k)];
            votes[static_cast<std::size_t>(label)] += std::exp(cosine / 0.07);
        }
        EXPECT_EQ(found[q].item<std::int64_t>(), std::ranges::max_element(votes) - votes.begin()) << "query " << q;
    }
}

// In whatever order the pictures are read.
TEST(NeighbourBank, OfAModelHoldsWhatTheModelMakesOfEachPicture) {
    ModelSettings settings = test::tiny_settings({});
    settings.image_size = {64};
    settings.num_classes = 0;
    DynamicVit model(settings, test::generator(1));
    model->eval();
    DataSettings data;
    data.kind = "cluttered_shapes";
    data.workers = 1;
    const ClutteredShapes pictures({.image_size = static_cast<int>(settings.image_width()), .count = 30, .seed = 2});
    const EvalOptions options{.seed = 5};
    const auto bank = make_neighbour_bank(model, pictures, data, 8, options);
    EXPECT_EQ(bank->size(), 30);
    Loader loader(pictures, make_transform(data, Split::kVal, settings.image_height(), settings.image_width()),
                  loader_options(data, Split::kVal));
    const std::optional<Batch> batch = loader.next();
    ASSERT_TRUE(batch && batch->images.size(0) == 30);
    const at::Tensor outputs = test::prune(model, normalize_images(batch->images, at::kCPU), {}).logits;
    const NeighbourBank whole(outputs, batch->labels);
    EXPECT_EQ(bank->classes(), whole.classes());
    EXPECT_TRUE(at::equal(bank->classify(outputs), whole.classify(outputs)));
}

}  // namespace
}  // namespace dynvit
