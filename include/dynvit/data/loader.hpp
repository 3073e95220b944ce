// Batches made by worker threads, in an order and with contents that depend on (seed, epoch) only.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>

#include "dynvit/core/random.hpp"
#include "dynvit/data/batch_share.hpp"
#include "dynvit/data/dataset.hpp"

namespace dynvit {

struct Batch {
    at::Tensor images;                 // (B, 3, H, W) uint8, CPU; pinned if LoaderOptions::pin_memory
    at::Tensor labels;                 // (B) int64; of a multi-label data set (B, classes) uint8, 1 for a class it has
    std::vector<std::size_t> indices;  // of the samples in the data set
    std::vector<std::int64_t> rows;    // of the pictures in the whole batch: 0 ... B - 1, where this is no share of it
    std::int64_t whole = 0;            // pictures of the whole batch, before any was left out
    std::vector<std::string> names;    // the samples' own
    std::vector<std::vector<std::uint8_t>> object_masks;  // (H x W) of each picture; empty where unknown
};

/// What becomes of a sample that cannot be read or decoded.
enum class OnCorrupt {
    kFail,     // its Error ends the pass
    kReplace,  // another of the data set, chosen by (seed, epoch, index), takes its place: for training
    kSkip,     // its batch is that much smaller: for evaluation, where a replacement would be counted twice
};

/// A sample that was replaced or left out.
struct CorruptSample {
    std::size_t index;
    std::string name;
    std::string reason;  // the Error's text
};

struct LoaderOptions {
    std::int64_t batch_size = 256;
    BatchShare share = {};  // of each batch only these rows; everything else is as if all were there
    int workers = 2;        // threads, at least 1
    int prefetch = 4;       // batches that may wait, finished, in the queue
    bool shuffle = false;
    bool drop_last = false;  // leave out a last batch that is not full
    bool pin_memory = false;
    std::uint64_t seed = 0;
    std::int64_t epoch = 0;           // the first
    std::int64_t epochs = 1;          // one after the other; the next one's batches are begun while this one's are used
    std::int64_t epoch_batches = 0;   // of each epoch only the first so many; 0: all
    std::int64_t first_batch = 0;     // where a resumed epoch goes on; batches before it are never decoded
    std::int64_t shuffle_window = 0;  // samples; for data sets of shards, see training_order()
    /// Repeated augmentation (Hoffer et al., 2020; DeiT has 3): the epoch's order has every sample so many times in a
    /// row, each time with another generator, and ends where as many samples as the data set has were seen.
    std::int64_t repeats = 1;
    OnCorrupt on_corrupt = OnCorrupt::kFail;
};

/// Turns a sample into the picture that goes into a batch; every picture of a loader must come out the same size. The
/// generator is the sample's own, made from (seed, epoch, index, repetition); a replacement gets that of the sample it
/// replaces. Called from many threads at once. A transform that keeps the picture's size and geometry may leave
/// sample.object_mask; any other must clear it.
using SampleTransform = std::function<Image(Sample& sample, Random& random)>;

/// How many batches an epoch has, LoaderOptions::epoch_batches left aside.
std::int64_t batch_count(std::size_t samples, const LoaderOptions& options);

/// Passes over a data set, each in an order of its own. Workers start with the object and end with it, also when it is
/// left half-way.
class Loader {
  public:
    Loader(const Dataset& dataset, SampleTransform transform, const LoaderOptions& options);
    ~Loader();

    /// The next batch in order, or nothing at the end of the last epoch; never an empty one. An Error of a worker is
    /// thrown here, at its batch's turn. With OnCorrupt::kReplace, so is one where several replacements in a row were
    /// corrupt as well.
    std::optional<Batch> next();

    /// The samples that were replaced or left out of the batches so far handed out, each once, in the order in which
    /// they were met. May be called at any time from any thread.
    std::vector<CorruptSample> corrupt() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace dynvit
