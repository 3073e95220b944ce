#include "input_file.hpp"

#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

namespace dynvit {

InputFile::InputFile(const std::filesystem::path& path, std::string area)
    : path_(path.string()), area_(std::move(area)) {
    std::error_code problem;
    const std::filesystem::file_status status = std::filesystem::status(path, problem);
    if (!std::filesystem::exists(status)) fail("no such file");
    if (std::filesystem::is_directory(status)) fail("is a folder, not a file");
    if (!std::filesystem::is_regular_file(status)) fail("is not a regular file");
    bytes_ = std::filesystem::file_size(path, problem);
    if (problem) fail("cannot be read: ", problem.message());
    stream_.open(path, std::ios::binary);
    if (!stream_) fail("cannot be opened for reading");
}

void InputFile::read(std::uint64_t offset, void* target, std::uint64_t count) {
    if (offset > bytes_ || count > bytes_ - offset) {
        fail("ends at byte ", bytes_, ", expected ", count, " bytes from byte ", offset, " on");
    }
    stream_at(offset).read(static_cast<char*>(target), static_cast<std::streamsize>(count));
    if (static_cast<std::uint64_t>(stream_.gcount()) != count) fail("could not be read to its end");
}

std::istream& InputFile::stream_at(std::uint64_t offset) {
    stream_.clear();
    stream_.seekg(static_cast<std::streamoff>(offset));
    return stream_;
}

std::string quoted(const std::string& text) {
    constexpr std::size_t kMost = 120;
    std::string shown(text, 0, kMost);
    if (text.size() > kMost) shown += "...";
    return nlohmann::json(shown).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace dynvit
