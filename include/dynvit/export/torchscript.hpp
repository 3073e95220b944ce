// TorchScript: for torch.jit.load in Python and in C++, without dynvit.
#pragma once

#include <filesystem>

#include "dynvit/export/export_options.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

/// Writes a module whose parameters have the names of published checkpoints and whose forward(images) gives the logits
/// or, with kept_tokens, the tuple (logits, kept_1, kept_2, ...). Its extra file "dynvit.preprocessing" (see
/// torch.jit.load's _extra_files) says how pictures are prepared: a line in words, then YAML. Loads it again and
/// compares it with pruned_forward on random images of two batch sizes: kept places equal, logits to 1e-4 of the
/// largest (at least 1e-4).
/// @param model on the CPU, float32
/// Throws Error naming the path where it can't be written or the file gives something else; `path` is then unchanged.
void export_torchscript(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options);

}  // namespace dynvit
