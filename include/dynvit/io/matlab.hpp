// Tables in MATLAB's files: ImageNet's development kit numbers its classes in one.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace dynvit {

/// A struct array: a row an element, a column a field.
struct MatlabStructs {
    std::vector<std::string> fields;
    /// Text as it stands (beyond ASCII: '?'), the first number of numbers in decimals, "" for all else.
    std::vector<std::vector<std::string>> rows;
};

/// The struct array of this name in a level-5 MAT-file (MATLAB's -v6 and -v7, packed or not), written on a
/// little-endian machine. Throws Error naming the file and the byte: another kind of file, damage, no such variable,
/// one that is no struct array, packed data of more than 64 MiB.
MatlabStructs read_matlab_structs(const std::filesystem::path& path, const std::string& variable);

}  // namespace dynvit
