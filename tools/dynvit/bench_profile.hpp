// --profile of the bench commands.
#pragma once

#include <c10/core/Device.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace dynvit::tool {

/// Most pictures that a bench command takes at a time.
inline constexpr double kMostBatch = 1 << 20;

/// --profile N: @param most kernels to tell of; stays 0, none, where it isn't given
void add_profile_option(CLI::App& command, std::size_t& most);

/// Throws Error where kernels are asked for and the device is no GPU.
void check_profile(std::size_t most, const at::Device& device);

/// Tells for each case which `most` kernels its time goes to.
void print_profiles(const std::vector<std::function<void()>>& cases, const std::vector<std::string>& names,
                    std::size_t most, const at::Device& device);

}  // namespace dynvit::tool
