// Reading PyTorch's checkpoints (.pth, .pt, .bin), of torch.save since PyTorch 1.6 (a zip archive) and before it
// (pickles, then the storages). They hold pickles, which in Python are programs; here they are read as data, and
// nothing in them is ever imported, called or looked up. Writing is left to safetensors.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "dynvit/io/safetensors.hpp"

namespace dynvit {

/// Which of a checkpoint's weights are meant.
enum class WeightsPart {
    kPlain,  // of the model as it was trained: under "model", "state_dict" or another usual name, or all of the file
    kEma,    // their moving average: under "model_ema", "state_dict_ema" or another usual name
};

/// What a checkpoint holds.
struct Pth {
    /// Contiguous CPU tensors in the stored type, by name without "module." and "_orig_mod." where all names have them.
    /// Tensors that share memory in the file do so here.
    TensorMap tensors;
    std::string part;  // the key that they stood under, "a.b" for b in a; "" for a bare state dict
    std::vector<std::string>
        skipped;  // keys of what else is there (optimizer, epoch ...), up to 100, quoted for printing
    std::vector<std::string> other_parts = {};       // further dicts of tensors, by their keys
    std::map<std::string, std::string> unread = {};  // tensors that are not read, and why
    bool torchscript = false;                        // of a compiled module, whose tensors these are
};

/// Reads one state dict of a checkpoint, or the tensors of a TorchScript archive. Parameters, views and tensors of any
/// device are understood, archives that were deflated and those of big-endian machines too; what is no tensor is
/// skipped, and quantized, sparse and other tensors that are no dense numbers are left unread, beside ones that are
/// read. Every size, offset and stride is checked against the file before it is used, and memory stays in proportion to
/// the file's size. Throws Error("pth", path ...) for a missing, truncated or damaged file (the zip archive's checksums
/// are compared), one of another format (the first versions' tar archives), one that lies, or one without such weights,
/// or with several dicts of them of which none has a usual name: then the error lists what is there.
/// @param name in place of `part`: the key of a dict of tensors, "a.b" for b in a
Pth read_pth(const std::filesystem::path& path, WeightsPart part = WeightsPart::kPlain, const std::string& name = {});

/// Takes "module." (DataParallel) and "_orig_mod." (torch.compile) off the names, where all of them start so.
/// @param unread tensors that were not read, and why
void take_off_wrapper_prefixes(TensorMap& tensors, std::map<std::string, std::string>& unread);

}  // namespace dynvit
