#include "dynvit/infer/nearest_neighbours.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/infer/inference_session.hpp"

namespace dynvit {
namespace {

constexpr std::int64_t kMostNeighbours = 20;

// Rows of length 1. @param x (n, C)
at::Tensor unit_rows(const at::Tensor& x) {
    constexpr double kLeast = 1e-12;
    const at::Tensor rows = x.to(at::kFloat);
    return rows / at::linalg_vector_norm(rows, 2, at::IntArrayRef{1}, /*keepdim=*/true).clamp_min(kLeast);
}

}  // namespace

NeighbourBank::NeighbourBank(const at::Tensor& embeddings, const at::Tensor& labels)
    : embeddings_(unit_rows(embeddings)), labels_(labels.to(embeddings.device(), at::kLong)) {
    TORCH_CHECK(embeddings.dim() == 2 && embeddings.size(0) > 0 && labels.sizes() == embeddings.sizes().slice(0, 1),
                "a label an embedding is needed, found ", embeddings.sizes(), " and ", labels.sizes());
    votes_ = labels_.max().item<std::int64_t>() + 1;
    classes_ = std::get<0>(at::_unique(labels_)).size(0);
}

std::int64_t NeighbourBank::neighbours() const {
    return std::clamp<std::int64_t>(size() / classes_, 1, kMostNeighbours);
}

at::Tensor NeighbourBank::classify(const at::Tensor& embeddings) const {
    const at::Tensor cosines = at::matmul(unit_rows(embeddings), embeddings_.t());  // (B, M)
    const auto [nearest, places] = cosines.topk(neighbours(), 1);
    const at::Tensor labels = labels_.index_select(0, places.flatten()).view_as(places);
    const at::Tensor votes = at::zeros({embeddings.size(0), votes_}, nearest.options());
    return votes.scatter_add(1, labels, (nearest / kNeighbourTemperature).exp()).argmax(1);
}

std::shared_ptr<const NeighbourBank> make_neighbour_bank(const DynamicVit& model, const Dataset& pictures,
                                                         const DataSettings& data, std::int64_t batch_size,
                                                         const EvalOptions& options) {
    const torch::NoGradGuard no_grad;
    const ModelSettings& settings = model->settings();
    LoaderOptions loading = loader_options(data, Split::kVal);
    loading.batch_size = std::min(batch_size, kMostBankPictures);
    loading.pin_memory = options.device.is_cuda();
    loading.shuffle = true;
    loading.seed = options.seed;
    loading.epoch_batches = kMostBankPictures / loading.batch_size;
    Loader loader(pictures, make_transform(data, Split::kVal, settings.image_height(), settings.image_width()),
                  loading);
    const InferenceSession session(*model, PruningPlan(), options.precision, {}, data.preprocessing);
    Progress bar("embedding neighbours",
                 std::min(static_cast<std::int64_t>(pictures.size()), loading.epoch_batches * loading.batch_size));
    std::vector<at::Tensor> embeddings, labels;
    std::int64_t done = 0;
    while (const std::optional<Batch> batch = loader.next()) {
        const at::Tensor images = normalize_images(batch->images, options.device, data.preprocessing);
        embeddings.push_back(session.run(images).logits.to(at::kFloat));
        labels.push_back(batch->labels);
        done += images.size(0);
        bar.update(done, "");
    }
    const std::vector<CorruptSample> corrupt = loader.corrupt();
    for (const CorruptSample& sample : corrupt) log::warn("left out: " + sample.reason);
    if (embeddings.empty()) throw Error("eval", "none of the pictures to find neighbours among can be read");
    return std::make_shared<const NeighbourBank>(at::cat(embeddings), at::cat(labels));
}

std::string describe_neighbours(const NeighbourBank& bank) {
    return str("k-NN %: how often the ", bank.neighbours(), " nearest of ", bank.size(),
               " training pictures, by their dense embeddings, tell the class, of ", bank.classes(),
               "; a neighbour counts exp(cosine / ", kNeighbourTemperature, ')');
}

}  // namespace dynvit
