// How well embeddings tell classes apart: by those of the nearest pictures, as DINO is evaluated.
#pragma once

#include <memory>
#include <string>

#include "dynvit/infer/evaluate.hpp"

namespace dynvit {

/// Pictures that a bank has at most.
inline constexpr std::int64_t kMostBankPictures = 4096;
/// By what a cosine is divided in a vote.
inline constexpr double kNeighbourTemperature = 0.07;

/// Embeddings of pictures whose classes are known, such as an index that pictures are looked up in. A picture is of the
/// class that its nearest neighbours vote for: the k largest cosines count exp(cosine / 0.07) each (the weighted k-NN
/// of DINO, Caron et al., 2021, after Wu et al., 2018).
class NeighbourBank {
  public:
    /// @param embeddings (M, C), M at least 1; their lengths do not count @param labels (M), int64, at least 0
    NeighbourBank(const at::Tensor& embeddings, const at::Tensor& labels);

    /// @param embeddings (B, C), on the bank's device @return (B), int64: the class of each
    at::Tensor classify(const at::Tensor& embeddings) const;

    std::int64_t size() const { return embeddings_.size(0); }
    /// Classes that have a picture here.
    std::int64_t classes() const { return classes_; }
    /// k: DINO's 20 or, where a class has fewer pictures here in the mean, as many as that, one at least.
    std::int64_t neighbours() const;

  private:
    at::Tensor embeddings_;  // (M, C), float32, of length 1
    at::Tensor labels_;      // (M)
    std::int64_t votes_;     // a label more than the largest
    std::int64_t classes_;
};

/// The bank of a model, dense: of kMostBankPictures of the pictures at most, chosen by the options' seed and prepared
/// as for evaluation. Corrupt ones are left out.
/// @param pictures with labels
/// Throws Error where none can be read.
std::shared_ptr<const NeighbourBank> make_neighbour_bank(const DynamicVit& model, const Dataset& pictures,
                                                         const DataSettings& data, std::int64_t batch_size,
                                                         const EvalOptions& options);

/// "k-NN %: how often the 20 nearest of 4096 training pictures, by their dense embeddings, tell the class, of 200; ..."
std::string describe_neighbours(const NeighbourBank& bank);

}  // namespace dynvit
