// How the libraries that Vision Transformers come from name their tensors, and dynvit's own names, which are timm's.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dynvit/io/safetensors.hpp"

namespace dynvit {

/// A tensor's or a layer's name there and here. "*" stands for a block's number; the names of what is in a layer stay
/// behind both: "ln_1" takes "ln_1.weight" along.
struct Renaming {
    std::string_view from, to;  // to: empty where nobody needs it
};

/// How one library names tensors below its models' prefix.
struct Naming {
    std::string_view library;                 // whose names they are, as the log says it
    std::vector<std::string_view> anchors;    // tensors that every model has
    std::span<const Renaming> renamings;      // the first that fits counts
    std::vector<std::string_view> essential;  // what starts so and has no renaming makes it another kind of model
};

/// All that are known.
const std::vector<Naming>& namings();

/// What `name` is called here by the first renaming that fits; nothing where none does.
std::optional<std::string> renamed(std::string_view name, std::span<const Renaming> renamings);

/// Heads stand beside a backbone as well as in it.
std::span<const Renaming> head_names();

/// A backbone in a file: names of `naming` behind `prefix`, which is empty or ends in a dot.
struct NamedBackbone {
    const Naming* naming;
    std::string prefix;
};

/// All backbones among the tensors, by their anchors.
std::vector<NamedBackbone> find_backbones(const TensorMap& tensors);

}  // namespace dynvit
