// The two containers that torch.save writes, as one: a pickle of the saved object, and the storages that it refers to.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "input_file.hpp"
#include "pickle.hpp"
#include "zip_directory.hpp"

namespace dynvit {

struct PthContainer {
    Pickle pickle;
    std::map<std::string, Extent> storages;  // by key; all lie inside of the file
    std::uint64_t bytes = 0;                 // of the file, or of what is packed in it where that is more
    bool torchscript = false;                // the pickle is of a compiled module, not of what torch.save was given
    bool big_endian = false;                 // the elements of typed storages are
    bool big_endian_untyped = false;         // those of untyped ones are
};

/// What the pickle says of a storage.
struct StorageId {
    std::string key;
    at::ScalarType type;      // kByte for an untyped one
    std::uint64_t begin = 0;  // of the view that is meant, in elements
    std::uint64_t count = 0;  // its elements
};

/// Reads up to where the storages start. Throws Error by file.fail, or as read_pickle does.
PthContainer read_pth_container(InputFile& file);

/// The storage that a persistent identity names; nothing if it is no storage, or one of a type that LibTorch lacks.
/// Protocol 0 has Python's text of the identity in place of the identity.
std::optional<StorageId> storage_id(const PickleValue& value);

/// The type that torch calls by this name, such as "float32"; nothing for those that LibTorch hardly has.
std::optional<at::ScalarType> type_of_dtype(const std::string& name);

}  // namespace dynvit
