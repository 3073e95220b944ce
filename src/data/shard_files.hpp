// Archives as files: their names, and copies of packed ones.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "dynvit/io/tar.hpp"

namespace dynvit {

/// "n01440764" of n01440764.tar or n01440764.tar.gz.
std::string name_of_shard(const std::filesystem::path& path);

/// Calls job(0), ..., job(count - 1) from several threads; throws what the first of them in this order threw.
/// @param most threads
void in_parallel(std::size_t count, std::size_t most, const std::function<void(std::size_t)>& job);

/// The archives, open to be read in place: packed ones as copies, which are made where there are none. See TarShards.
/// @param unpack_to a folder for the copies; empty: .unpacked beside each archive
/// Throws Error: a file that is missing, packed data that is damaged, a copy that cannot be written.
std::vector<TarFile> open_shards(const std::vector<std::filesystem::path>& shards,
                                 const std::filesystem::path& unpack_to);

}  // namespace dynvit
