#include "dynvit/core/file_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"

namespace dynvit {
namespace {

constexpr std::size_t kLongestName = 256;

// How this process names itself in a lock.
std::string own_name() {
    std::array<char, kLongestName> host{};
    const bool known = ::gethostname(host.data(), host.size() - 1) == 0;
    return str("process ", ::getpid(), known ? str(" on ", host.data()) : "");
}

// What the holder has written; it may be about to.
std::string holder_of(int descriptor) {
    std::array<char, 2 * kLongestName> text{};
    const ssize_t length = ::pread(descriptor, text.data(), text.size(), 0);
    return length > 0 ? std::string(text.data(), static_cast<std::size_t>(length)) : "another process";
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& file, const std::string& area, const std::string& what)
    : descriptor_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    const auto reason = [] { return std::system_category().message(errno); };
    if (descriptor_ < 0) throw Error(area, file.string(), ": cannot be made: ", reason());
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            const std::string holder = holder_of(descriptor_);
            ::close(descriptor_);
            throw Error(area, what, " (", holder, "), expected none");
        }
        log::note(str(file.string(), ": cannot be locked (", reason(), "): nothing keeps two runs apart here"));
        return;
    }
    const std::string name = own_name();
    // For people; the lock holds without it.
    [[maybe_unused]] const bool named =
        ::ftruncate(descriptor_, 0) == 0 &&
        ::pwrite(descriptor_, name.data(), name.size(), 0) == static_cast<ssize_t>(name.size());
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
    if (descriptor_ < 0) return;
    [[maybe_unused]] const bool emptied = ::ftruncate(descriptor_, 0) == 0;
    ::close(descriptor_);
}

}  // namespace dynvit
