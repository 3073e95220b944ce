// A file that one process at a time holds.
#pragma once

#include <filesystem>
#include <string>

namespace dynvit {

/// Holds a file locked while it lives. The system lets go of it when the process ends, however it ends, so that a
/// killed one leaves no lock behind; the file itself stays, empty.
class FileLock {
  public:
    /// Locks the file, which is made if it is missing, and writes into it who does: "process 123 on HOST". Where the
    /// file system knows no locks, the log says so, and nothing is held.
    /// Throws Error: the file cannot be made, or another process holds it, which is named.
    /// @param what what is locked, as the error says it: "RUN: found a run at work in this folder"
    FileLock(const std::filesystem::path& file, const std::string& area, const std::string& what);
    ~FileLock();
    FileLock(FileLock&& other) noexcept;
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;
    FileLock& operator=(FileLock&&) = delete;

  private:
    int descriptor_;
};

}  // namespace dynvit
