#include "zip_directory.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace dynvit {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50, kEntry = 0x02014b50, kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::uint64_t kLocalHeaderBytes = 30, kEntryBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr std::uint64_t kMaxComment = 0xffff;
constexpr std::uint64_t kIn64 = 0xffffffff;  // a 32-bit field that says: see the 64-bit one
constexpr std::uint64_t kExtra64 = 0x0001;
constexpr std::uint64_t kStored = 0, kDeflate = 8;
// DEFLATE makes at most 258 bytes of 2 bits. Weights shrink by a tenth; whole archives of zeros are nobody's.
constexpr std::uint64_t kMostOfOne = 1032, kMostOfAll = 64, kFreeBytes = 64 << 20;

/// An unsigned little-endian number inside of `bytes`.
std::uint64_t number(std::string_view bytes, std::size_t at, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = count; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes.at(at + i));
    return value;
}

class ZipReader {
  public:
    explicit ZipReader(InputFile& file) : file_(file) {}

    ZipDirectory read() {
        find_directory();
        const std::string directory = bytes_at(directory_begin_, directory_bytes_);
        std::string_view rest = directory;
        while (!rest.empty()) take_entry(rest);
        return std::move(found_);
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        file_.fail("damaged zip archive: ", parts...);
    }

    std::string bytes_at(std::uint64_t offset, std::uint64_t count) {
        if (offset > file_.bytes() || count > file_.bytes() - offset) {
            fail("bytes ", offset, " to ", offset, " + ", count, " lie outside of its ", file_.bytes());
        }
        std::string bytes(count, '\0');
        file_.read(offset, bytes.data(), count);
        return bytes;
    }

    /// Sets where the central directory is.
    void find_directory() {
        const std::uint64_t tail_bytes = std::min(file_.bytes(), kEndBytes + kMaxComment);
        const std::uint64_t tail_begin = file_.bytes() - tail_bytes;
        const std::string tail = bytes_at(tail_begin, tail_bytes);
        for (std::uint64_t at = tail_bytes; at-- > 0;) {
            if (tail_bytes - at < kEndBytes || number(tail, at, 4) != kEnd) continue;
            if (number(tail, at + 20, 2) != tail_bytes - at - kEndBytes) continue;  // the comment ends the file
            directory_bytes_ = number(tail, at + 12, 4);
            directory_begin_ = number(tail, at + 16, 4);
            directory_end_ = tail_begin + at;
            if (directory_bytes_ == kIn64 || directory_begin_ == kIn64 || number(tail, at + 10, 2) == 0xffff) {
                find_directory_64();
            }
            if (directory_begin_ > directory_end_ || directory_bytes_ > directory_end_ - directory_begin_) {
                fail("its directory, ", directory_bytes_, " bytes from ", directory_begin_,
                     ", does not lie before its end record at ", directory_end_);
            }
            return;
        }
        fail("it has no end record, so it is cut off");
    }

    /// Of an archive too large for 32 bits. Absent where a field just happens to have the value that announces it.
    void find_directory_64() {
        if (directory_end_ < kLocatorBytes) return;
        const std::string locator = bytes_at(directory_end_ - kLocatorBytes, kLocatorBytes);
        if (number(locator, 0, 4) != kEnd64Locator) return;
        const std::uint64_t begin = number(locator, 8, 8);
        const std::string end = bytes_at(begin, kEnd64Bytes);
        if (number(end, 0, 4) != kEnd64) fail("its 64-bit end record is not at byte ", begin);
        directory_bytes_ = number(end, 40, 8);
        directory_begin_ = number(end, 48, 8);
        directory_end_ = begin;
    }

    /// Takes one entry off the directory.
    void take_entry(std::string_view& rest) {
        if (rest.size() < kEntryBytes || number(rest, 0, 4) != kEntry) {
            fail("no directory entry is at byte ", directory_begin_ + directory_bytes_ - rest.size());
        }
        const std::uint64_t name_bytes = number(rest, 28, 2), extra_bytes = number(rest, 30, 2);
        const std::uint64_t entry_bytes = kEntryBytes + name_bytes + extra_bytes + number(rest, 32, 2);
        if (entry_bytes > rest.size()) {
            fail("the directory entry at byte ", directory_begin_ + directory_bytes_ - rest.size(), " is cut off");
        }
        const std::string_view entry = rest.substr(0, entry_bytes);
        rest.remove_prefix(entry_bytes);

        const std::string name(entry.substr(kEntryBytes, name_bytes));
        Sizes sizes{number(entry, 24, 4), number(entry, 20, 4), number(entry, 42, 4)};
        read_extra(entry.substr(kEntryBytes + name_bytes, extra_bytes), sizes, name);
        const std::uint64_t method = number(entry, 10, 2);
        if (const bool encrypted = number(entry, 8, 2) & 1; encrypted || (method != kStored && method != kDeflate)) {
            found_.unreadable.emplace(name, encrypted ? "encrypted" : "packed by " + method_name(method));
            return;
        }
        if (method == kStored && sizes.bytes != sizes.stored) fail(quoted(name), " is not packed, but has two sizes");
        Extent extent{data_begin(sizes, name), sizes.bytes, static_cast<std::uint32_t>(number(entry, 16, 4))};
        if (method == kDeflate) {
            if (sizes.bytes / kMostOfOne > sizes.stored || sizes.stored == 0) {
                fail(quoted(name), " has ", sizes.stored, " bytes, which cannot be inflated to ", sizes.bytes);
            }
            extent.deflated = sizes.stored;
        }
        found_.bytes += sizes.bytes;
        if (found_.bytes / kMostOfAll > file_.bytes() && found_.bytes > kFreeBytes) {
            fail("its files unpack to ", found_.bytes, " bytes or more, over ", kMostOfAll, " times the ",
                 file_.bytes(), " of the archive");
        }
        if (!found_.files.emplace(name, extent).second) fail("it names ", quoted(name), " twice");
    }

    static std::string method_name(std::uint64_t method) {
        constexpr std::pair<int, const char*> kNames[] = {
            {9, "Deflate64"}, {12, "bzip2"}, {14, "LZMA"}, {93, "Zstandard"}, {95, "xz"}};
        for (const auto& [number, name] : kNames) {
            if (method == static_cast<std::uint64_t>(number)) return name;
        }
        return str("method ", method);
    }

    struct Sizes {
        std::uint64_t bytes, stored, header;  // header: offset of the local header
    };

    /// Takes the sizes that are too large for the entry itself from its zip64 extra field.
    void read_extra(std::string_view extra, Sizes& sizes, const std::string& name) const {
        while (extra.size() >= 4) {
            const std::uint64_t id = number(extra, 0, 2), bytes = number(extra, 2, 2);
            if (bytes > extra.size() - 4) fail("the extra field of ", quoted(name), " is cut off");
            std::string_view field = extra.substr(4, bytes);
            extra.remove_prefix(4 + bytes);
            if (id != kExtra64) continue;
            for (std::uint64_t* size : {&sizes.bytes, &sizes.stored, &sizes.header}) {
                if (*size != kIn64) continue;
                if (field.size() < 8) fail("the 64-bit sizes of ", quoted(name), " are cut off");
                *size = number(field, 0, 8);
                field.remove_prefix(8);
            }
        }
    }

    /// Where the file's bytes start: after its local header, whose name must be the same.
    std::uint64_t data_begin(const Sizes& sizes, const std::string& name) {
        const auto fits = [&](std::uint64_t begin, std::uint64_t bytes) {
            return begin <= directory_begin_ && bytes <= directory_begin_ - begin;
        };
        if (!fits(sizes.header, kLocalHeaderBytes + name.size())) {
            fail("the header of ", quoted(name), ", at byte ", sizes.header, ", does not lie before the directory");
        }
        const std::string header = bytes_at(sizes.header, kLocalHeaderBytes + name.size());
        const bool same = number(header, 26, 2) == name.size() && header.substr(kLocalHeaderBytes) == name;
        if (number(header, 0, 4) != kLocalHeader || !same) {
            fail("the header of ", quoted(name), " is not at byte ", sizes.header);
        }
        const std::uint64_t begin = sizes.header + kLocalHeaderBytes + name.size() + number(header, 28, 2);
        if (!fits(begin, sizes.stored)) {
            fail("the ", sizes.stored, " bytes of ", quoted(name), " do not lie before the directory");
        }
        return begin;
    }

    InputFile& file_;
    ZipDirectory found_;
    std::uint64_t directory_begin_ = 0;
    std::uint64_t directory_bytes_ = 0;
    std::uint64_t directory_end_ = 0;  // the latest byte at which it may end
};

/// Inflates a run of bytes piece by piece, to as many as are expected.
class Inflater {
  public:
    Inflater(InputFile& file, const Extent& extent, const std::string& name)
        : file_(file), extent_(extent), name_(name) {
        constexpr int kNoHeader = -MAX_WBITS;
        if (inflateInit2(&stream_, kNoHeader) != Z_OK) file_.fail("zlib cannot be started");
    }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;
    ~Inflater() { inflateEnd(&stream_); }

    void run(char* target) {
        for (int state = Z_OK; state != Z_STREAM_END;) {
            if (stream_.avail_in == 0) refill();
            char one_more = 0;  // shows that there is more than there should be
            const std::uint64_t room = extent_.bytes - written_;
            const auto window = static_cast<uInt>(std::clamp<std::uint64_t>(room, 1, kWindow));
            stream_.next_out = reinterpret_cast<Bytef*>(room > 0 ? target + written_ : &one_more);
            stream_.avail_out = window;
            state = inflate(&stream_, Z_NO_FLUSH);
            written_ += window - stream_.avail_out;
            if (written_ > extent_.bytes) fail("inflates to more than the ", extent_.bytes, " bytes");
            if (state == Z_BUF_ERROR) fail("is cut off after ", written_, " of the ", extent_.bytes, " bytes");
            if (state != Z_OK && state != Z_STREAM_END) fail("is not deflated");
        }
        if (written_ < extent_.bytes) fail("inflates to ", written_, " of the ", extent_.bytes, " bytes");
    }

  private:
    static constexpr std::uint64_t kWindow = 1 << 30;  // zlib counts in 32 bits

    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        file_.fail("damaged zip archive: ", quoted(name_), ' ', parts..., ", as its directory has it");
    }

    void refill() {
        const std::uint64_t count = std::min<std::uint64_t>(input_.size(), extent_.deflated - taken_);
        if (count == 0) return;  // what was taken may still have to be written
        file_.read(extent_.offset + taken_, input_.data(), count);
        taken_ += count;
        stream_.next_in = input_.data();
        stream_.avail_in = static_cast<uInt>(count);
    }

    InputFile& file_;
    const Extent& extent_;
    const std::string& name_;
    z_stream stream_{};
    std::vector<Bytef> input_ = std::vector<Bytef>(1 << 16);
    std::uint64_t taken_ = 0, written_ = 0;
};

}  // namespace

void read_extent(InputFile& file, const Extent& extent, void* target, const std::string& name) {
    if (extent.deflated > 0) {
        Inflater(file, extent, name).run(static_cast<char*>(target));
    } else {
        file.read(extent.offset, target, extent.bytes);
    }
    if (extent.crc == 0) return;
    const auto found = crc32_z(crc32_z(0, nullptr, 0), static_cast<const Bytef*>(target), extent.bytes);
    if (found != extent.crc) file.fail("damaged: the checksum of ", quoted(name), " is wrong");
}

ZipDirectory read_zip_directory(InputFile& file) {
    return ZipReader(file).read();
}

}  // namespace dynvit
