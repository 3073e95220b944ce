// Reading and writing safetensors files (https://github.com/huggingface/safetensors, format 1): an 8-byte little-endian
// header length, a JSON header, the tensors' bytes. No C++ library for it is packaged by Debian, so this is our own;
// JSON is nlohmann's.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace dynvit {

/// Tensors by name, as a state dict has them. Sorted, so that equal contents give equal files.
using TensorMap = std::map<std::string, at::Tensor>;

/// A file's contents: contiguous CPU tensors in the stored type, and the header's `__metadata__` strings.
struct Safetensors {
    TensorMap tensors;
    std::map<std::string, std::string> metadata;
    std::map<std::string, std::string> unread = {};  // tensors of types that are not read, and the type
};

/// Reads a file. Types: F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL C64 F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ
/// F8_E8M0. Every offset, shape and length is checked against the file before any byte is used. Tensors of other types
/// are left unread, beside ones that are read.
/// Throws Error("safetensors", path ...) for a missing or truncated file, a header that is too long, not JSON or lies
/// (no known type at all, a shape that doesn't match its bytes, gaps, overlaps, bytes left over), or a directory.
Safetensors read_safetensors(const std::filesystem::path& path);

/// Whether the format has a name for tensors of this type.
bool is_safetensors_type(at::ScalarType type);

/// Writes beside `path` and renames. Equal tensors and metadata give equal bytes. Tensors may live on any device.
/// Throws Error naming the path; what stood there before is then unchanged.
void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace dynvit
