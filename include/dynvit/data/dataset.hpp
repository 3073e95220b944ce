// What training and evaluation read: pictures with labels, by index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dynvit/io/image.hpp"

namespace dynvit {

/// One picture before any transform: as its file has it, or drawn by the data set. Decoding is left to the transform,
/// which knows what part of the picture it needs, and at what size.
struct Sample {
    Image image;                            // a drawn picture; empty where `encoded` is to be decoded
    std::vector<std::uint8_t> encoded;      // a picture file, as decode_image reads it
    std::int64_t label = -1;                // class index; -1 where there is none
    std::vector<std::int64_t> labels;       // of a data set with any number of classes a picture: their indices
    std::string name;                       // for messages: a path or "cluttered_shapes/0/12"
    std::vector<std::uint8_t> object_mask;  // height x width, 1 on the labelled object; empty where unknown
};

/// The whole picture. Throws Error naming the sample where its file is no valid picture.
inline Image whole_image(const Sample& sample) {
    return sample.image.pixels.empty() ? decode_image(sample.encoded, sample.name) : sample.image;
}

/// A data set is read by many threads at once: get() must be safe for concurrent calls and depend on its index only.
class Dataset {
  public:
    virtual ~Dataset() = default;
    virtual std::size_t size() const = 0;
    virtual Sample get(std::size_t index) const = 0;                  // throws Error naming the sample
    virtual std::string name(std::size_t index) const = 0;            // get(index).name, without reading the sample
    virtual const std::vector<std::string>& class_names() const = 0;  // empty where nothing is labelled

    /// Whether the samples have labels; without them nothing can be classified or evaluated.
    virtual bool labelled() const { return true; }

    /// Whether a sample has any number of classes, none too: its `labels` tell then, and `label` is of no meaning.
    virtual bool multi_label() const { return false; }

    /// Where the number of classes comes from, for messages: "the class folders of ROOT".
    virtual std::string classes_from() const { return "the data set"; }

    /// The folders whose sorted names number the classes, so that other folders mean other indices. Empty where
    /// somebody has numbered them.
    virtual std::vector<std::string> numbered_folders() const { return {}; }

    /// How many samples each of the files holds that are best read from start to end, in index order; empty where a
    /// sample costs the same in any order. See training_order().
    virtual std::vector<std::size_t> shard_sizes() const { return {}; }
};

}  // namespace dynvit
