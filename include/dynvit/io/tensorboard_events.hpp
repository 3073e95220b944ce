// What TensorBoard shows: scalars, pictures and texts over a run's steps, in its own file format. A file is a row of
// TFRecords, each an Event of TensorFlow's event.proto; the few fields that are needed are encoded by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "dynvit/io/image.hpp"

namespace dynvit {

/// The cyclic redundancy check that TFRecords carry: CRC-32C, Castagnoli's polynomial 0x1EDC6F41 (Castagnoli et al.,
/// 1993; RFC 3720, appendix B.4).
std::uint32_t crc32c(std::span<const std::uint8_t> bytes);

/// Adds to a log folder one file, events.out.tfevents.SECONDS.dynvit, and an event to it with every call. An event goes
/// to the file in whole and at once: nothing waits for a flush, and TensorBoard, which may be running, finds it when it
/// next reloads.
///
/// A resumed run makes a new writer and with it a new file in the same folder, which begins with a "session start" at
/// `first_step`. A step that is done again is then shown once, as it came out last. TensorBoard's two loaders, both
/// tried with version 2.21, differ in when: with --load_fast=false all that the earlier files have of `first_step` and
/// later goes at once. The default doesn't look at session starts; there a tag's old points from a step on go when the
/// new run writes that step of the tag.
///
/// Unless told otherwise TensorBoard shows a sample of a tag's events: 1000 scalars, 10 pictures, always with the
/// latest.
class TensorBoardWriter {
  public:
    using Clock = std::function<double()>;  // seconds since 1970

    /// Makes the folder and the file.
    /// @param first_step the least step that will be written; 0 for a run that starts
    /// @param clock gives each event its time and the file its second. Where the folder has an event file of that
    ///     second or a later one, the name goes one past it: TensorBoard reads files in the order of their names.
    /// Throws Error naming the folder or the file if it cannot be made.
    TensorBoardWriter(const std::filesystem::path& folder, std::int64_t first_step, Clock clock);
    ~TensorBoardWriter();

    /// A number of a step. Tags are UTF-8; those with one beginning, "loss/total" and "loss/kl", are shown together.
    /// Throws Error naming the file if it cannot be written (no space ...), then it ends after the event before; or if
    /// the tag is no UTF-8.
    void scalar(std::string_view tag, std::int64_t step, float number);

    /// A picture of a step, stored as PNG. Throws as scalar and encode_png do.
    void image(std::string_view tag, std::int64_t step, const Image& image);

    /// A text of a step, UTF-8, which TensorBoard takes for Markdown. Throws as scalar does.
    void text(std::string_view tag, std::int64_t step, std::string_view markdown);

    /// The file that is written to.
    const std::filesystem::path& path() const;

  private:
    class File;

    void add_event(std::int64_t step, int kind, std::string_view content);
    void add_value(std::string_view tag, std::int64_t step, std::string_view content);
    void check_utf8(const char* what, std::string_view text) const;

    Clock clock_;
    std::unique_ptr<File> file_;
};

}  // namespace dynvit
