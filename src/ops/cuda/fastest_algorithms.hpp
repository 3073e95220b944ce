// Which of cuBLASLt's algorithms serves a product: what matmul.cpp has found out so far.
#pragma once

#include <cublasLt.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

namespace dynvit::cuda {

/// One of cuBLASLt's algorithms for a product, and the bytes of device memory that it works in.
struct Algorithm {
    cublasLtMatmulAlgo_t algorithm;
    std::size_t workspace_bytes;
};

/// The algorithm that was chosen for a product; none where cuBLASLt has no algorithm that does all of it at once.
using Choice = std::optional<Algorithm>;

/// Everything that a choice may depend on: the GPU, types, sizes, strides, alignments and what follows the product.
using ProductKey = std::array<std::int64_t, 18>;

/// The choices that this process has made. There is one such object a process, where everything else of dynvit has an
/// owner:
/// - Its readers have no owner in common. Products are run by free functions (half_linear() in autograd's forward and
///   backward passes), by the layers of any number of models, and by several threads.
/// - What it holds is a property of the GPU, which the process shares too: timings would be repeated for each owner,
/// and
///   a product within a recording (see DeviceGraphs), where nothing can be timed, takes what any earlier one has found.
/// - No result depends on it: among the algorithms for a product only those are taken whose results are equal to the
///   last bit. So neither the order of products nor that of threads shows in what a program computes.
///
/// What it holds: keys and algorithms in host memory, about 300 bytes each; no device memory, no handle of CUDA and no
/// tensor, so that it may outlive the CUDA context at the end of the process, when it is destroyed.
///
/// How much that becomes: a choice for each layer's products and each number of rows that they had. Numbers of rows up
/// to 512 count singly, above eight for each power of two (see matmul()), which makes at most some 600 for a layer;
/// nothing is ever dropped. That is some 2 MB for a DeiT-S whose packed batches have had every size.
///
/// Threads: all functions may be called from several at once. Two that make the same choice at the same time both time
/// it; the first to come keeps its place, and each goes on with its own.
class FastestAlgorithms {
  public:
    static FastestAlgorithms& of_this_process() {
        static FastestAlgorithms all;
        return all;
    }
    FastestAlgorithms(const FastestAlgorithms&) = delete;
    FastestAlgorithms& operator=(const FastestAlgorithms&) = delete;

    /// @return the choice that was made for this key; nothing where none was made yet
    std::optional<Choice> find(const ProductKey& key) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = choices_.find(key);
        if (found == choices_.end()) return std::nullopt;
        return found->second;
    }

    /// Keeps a choice, unless one was made for this key before.
    void insert(const ProductKey& key, const Choice& choice) {
        const std::lock_guard<std::mutex> lock(mutex_);
        choices_.emplace(key, choice);
    }

  private:
    FastestAlgorithms() = default;

    mutable std::mutex mutex_;
    std::map<ProductKey, Choice> choices_;
};

}  // namespace dynvit::cuda
