// Whether an output file is standard output by another name.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace dynvit::tool {

/// True for /dev/stdout and whatever else standard output goes to, into which nothing else may be written then.
inline bool is_standard_output(const std::string& path) {
    struct stat named {};
    struct stat stream {};
    if (::stat(path.c_str(), &named) != 0 || ::fstat(STDOUT_FILENO, &stream) != 0) return false;
    return named.st_dev == stream.st_dev && named.st_ino == stream.st_ino;
}

}  // namespace dynvit::tool
