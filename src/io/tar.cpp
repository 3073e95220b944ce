#include "dynvit/io/tar.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"

namespace dynvit {
namespace {

constexpr const char* kArea = "tar";
constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kRecord = 20 * kBlock;         // what tar programs pad an archive to
constexpr std::uint64_t kMaxExtension = 1 << 20;       // bytes of a long name or of pax records
constexpr std::uint64_t kMaxOctalSize = 077777777777;  // what a ustar header's size field holds

/// A header block, as POSIX.1-1988 (ustar) lays it out; all fields are text.
struct Header {
    char name[100];
    char mode[8], uid[8], gid[8];
    char size[12], mtime[12];
    char checksum[8];
    char type;
    char link[100];
    char magic[6], version[2];
    char user[32], group[32];
    char major[8], minor[8];
    char prefix[155];
    char padding[12];
};
static_assert(sizeof(Header) == kBlock);

/// A field up to its first zero byte.
template <std::size_t N>
std::string text(const char (&field)[N]) {
    return {field, strnlen(field, N)};
}

/// A number in octal digits between blanks or zero bytes; nothing for anything else.
template <std::size_t N>
std::optional<std::uint64_t> octal(const char (&field)[N]) {
    std::string_view digits(field, N);
    digits = digits.substr(std::min(digits.find_first_not_of(' '), N));
    digits = digits.substr(0, digits.find_first_of(std::string_view(" \0", 2)));
    std::uint64_t value = 0;
    for (const char digit : digits) {
        if (digit < '0' || digit > '7') return std::nullopt;
        value = 8 * value + static_cast<std::uint64_t>(digit - '0');
    }
    return value;
}

/// A size: octal or, where the first byte is 0x80, GNU's binary of 95 bits, of which no file needs more than 63.
std::optional<std::uint64_t> size_field(const char (&field)[12]) {
    if (static_cast<unsigned char>(field[0]) < 0x80) return octal(field);
    if (static_cast<unsigned char>(field[0]) != 0x80) return std::nullopt;  // negative or beyond 95 bits
    std::uint64_t value = 0;
    for (std::size_t i = 1; i < sizeof field; ++i) {
        if (value >> 55) return std::nullopt;
        value = value << 8 | static_cast<unsigned char>(field[i]);
    }
    return value;
}

/// The sum of all bytes, those of the checksum itself as blanks. Some old programs added signed ones.
template <class Byte>
std::int64_t checksum(const Header& header) {
    Header blank = header;
    std::memset(blank.checksum, ' ', sizeof blank.checksum);
    std::array<Byte, kBlock> bytes;
    std::memcpy(bytes.data(), &blank, kBlock);
    std::int64_t sum = 0;
    for (const Byte byte : bytes) sum += byte;
    return sum;
}

/// A name from a file as an error may print it: quoted, printable ASCII, not too long.
std::string shown(const std::string& name) {
    std::string result = "'";
    for (const char letter : std::string_view(name).substr(0, 200)) {
        char escaped[5];
        std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned char>(letter));
        if (letter >= 0x20 && letter < 0x7f)
            result += letter;
        else
            result += escaped;
    }
    return result + (name.size() > 200 ? "...'" : "'");
}

std::uint64_t padded(std::uint64_t bytes) {
    return (bytes + kBlock - 1) / kBlock * kBlock;
}

}  // namespace

/// Steps from header to header. Reads them through a window, so that small members and the header after them cost one
/// read.
class TarWalk {
  public:
    /// @param name of the archive, for errors @param range where it lies in the file
    TarWalk(const TarFile& file, const TarMember& range, std::string name)
        : file_(file),
          name_(std::move(name)),
          begin_(range.offset),
          end_(range.offset + range.size),
          position_(range.offset) {}

    std::vector<TarMember> members() {
        std::vector<TarMember> found;
        Extension extension;
        while (true) {
            start_ = position_;
            const std::optional<Header> header = next_header();
            if (!header) break;
            const std::uint64_t size = data_size(*header, extension);
            switch (header->type) {
                case 'x':
                    read_pax(take_text(size), extension);
                    continue;
                case 'L':
                    extension.name = c_string(take_text(size));
                    continue;
                case 'K':
                case 'g':
                    skip(size);
                    continue;  // a link's target; what holds for all members: no size, no name
                case 'S':
                    fail("a sparse file, which is not understood");
                case '0':
                case '\0':
                case '7':
                    add(*header, extension, size, found);
                    break;
                default:
                    skip(size);
            }
            extension = {};
        }
        if (extension.name || extension.size) fail("a name without a member after it");
        check_end();
        return found;
    }

  private:
    /// What GNU and pax headers say of the next member.
    struct Extension {
        std::optional<std::string> name;
        std::optional<std::uint64_t> size;
    };

    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw Error(kArea, name_, ": at byte ", start_, ": ", parts...);
    }

    std::uint64_t rest() const { return end_ - position_; }

    /// Throws Error where not even the first header is one and the file is of another kind.
    void fail_if_no_tar() const {
        if (start_ > begin_) return;
        std::vector<std::uint8_t> first(std::min<std::uint64_t>(end_ - begin_, kKindBytes));
        file_.read_at(begin_, first.data(), first.size());
        const FileKind kind = file_kind(first);
        if (kind == FileKind::kTar || kind == FileKind::kUnknown) return;
        throw Error(kArea, name_, ": found ", describe_file(first, end_ - begin_), ", expected a tar archive",
                    advice(kind));
    }

    /// The next header, checked; nothing at the end-of-archive block, which is all zeros.
    std::optional<Header> next_header() {
        if (rest() < kBlock) fail_if_no_tar();
        if (rest() < kBlock)
            fail("the file ends (", rest(), " bytes left) without an end-of-archive block: it was cut short");
        Header header;
        std::memcpy(&header, window(kBlock), kBlock);
        position_ += kBlock;
        const char* bytes = reinterpret_cast<const char*>(&header);
        if (std::all_of(bytes, bytes + kBlock, [](char byte) { return byte == 0; })) return std::nullopt;
        const std::optional<std::uint64_t> sum = octal(header.checksum);
        const auto matches = [&](std::int64_t expected) { return static_cast<std::int64_t>(*sum) == expected; };
        if (!sum || (!matches(checksum<unsigned char>(header)) && !matches(checksum<signed char>(header)))) {
            fail_if_no_tar();
            fail("found no tar header (its checksum is wrong), expected one or the end-of-archive block");
        }
        return header;
    }

    /// How many bytes follow a header.
    std::uint64_t data_size(const Header& header, const Extension& extension) const {
        if (header.type >= '1' && header.type <= '6') return 0;  // links, devices, folders, whatever the field says
        std::optional<std::uint64_t> size = size_field(header.size);
        if (!size) fail("the member's size is no number");
        if (extension.size && header.type != 'x' && header.type != 'L' && header.type != 'K' && header.type != 'g')
            size = extension.size;
        if (*size > rest())
            fail("a member of ", *size, " bytes, but the file (", end_ - begin_, " bytes) has only ", rest(),
                 " more: it was cut short");
        return *size;
    }

    void add(const Header& header, Extension& extension, std::uint64_t size, std::vector<TarMember>& found) {
        std::string name = extension.name ? std::move(*extension.name) : header_name(header);
        if (name.empty()) fail("a member without a name");
        found.push_back({std::move(name), position_, size});
        skip(size);
    }

    static std::string header_name(const Header& header) {
        const bool ustar = std::memcmp(header.magic, "ustar", 6) == 0;  // GNU's own has a blank where this has a zero
        const std::string prefix = ustar ? text(header.prefix) : "";
        return prefix.empty() ? text(header.name) : prefix + '/' + text(header.name);
    }

    void skip(std::uint64_t size) {
        if (padded(size) > rest()) fail("the file ends within the member's last block: it was cut short");
        position_ += padded(size);
    }

    std::string take_text(std::uint64_t size) {
        if (size > kMaxExtension) fail("a name of ", size, " bytes; at most ", kMaxExtension, " are understood");
        std::string taken(size, '\0');
        file_.read_at(position_, taken.data(), size);
        skip(size);
        return taken;
    }

    static std::string c_string(const std::string& padded_text) {
        return padded_text.substr(0, padded_text.find('\0'));
    }

    /// "LENGTH KEY=VALUE\n" records, the length being the whole record's.
    void read_pax(std::string_view records, Extension& extension) const {
        while (!records.empty()) {
            const std::optional<std::uint64_t> length = decimal(records.substr(0, records.find(' ')));
            const std::size_t key = records.find(' ') + 1;
            if (!length || *length > records.size() || *length <= key || records[*length - 1] != '\n')
                fail("a pax header with a record of wrong length");
            const std::string_view record = records.substr(key, *length - key - 1);
            const std::size_t equals = record.find('=');
            if (equals == std::string_view::npos) fail("a pax header with a record that has no value");
            set(record.substr(0, equals), record.substr(equals + 1), extension);
            records.remove_prefix(*length);
        }
    }

    void set(std::string_view key, std::string_view value, Extension& extension) const {
        if (key == "path") {
            if (value.find('\0') != std::string_view::npos) fail("a pax header with a zero byte in a name");
            if (!value.empty()) extension.name = value;
        } else if (key == "size") {
            extension.size = decimal(value);
            if (!extension.size) fail("a pax header with a size that is no number");
        } else if (key.starts_with("GNU.sparse.")) {
            fail("a sparse file, which is not understood");
        }
    }

    static std::optional<std::uint64_t> decimal(std::string_view digits) {
        if (digits.empty() || digits.size() > 18) return std::nullopt;
        std::uint64_t value = 0;
        for (const char digit : digits) {
            if (digit < '0' || digit > '9') return std::nullopt;
            value = 10 * value + static_cast<std::uint64_t>(digit - '0');
        }
        return value;
    }

    /// Behind the end there may be padding, but no second archive, whose pictures would be lost without a word.
    void check_end() {
        while (rest() > 0) {
            start_ = position_;
            const std::uint64_t count = std::min<std::uint64_t>(rest(), kBlock);
            const char* bytes = window(count);
            if (std::any_of(bytes, bytes + count, [](char byte) { return byte != 0; }))
                fail("data after the end-of-archive block: archives that were joined are not understood");
            position_ += count;
        }
    }

    /// `count` bytes, at most a block, from the current position on; valid until the next call.
    const char* window(std::uint64_t count) {
        if (position_ < window_start_ || position_ + count > window_start_ + window_bytes_) {
            window_start_ = position_;
            window_bytes_ = std::min<std::uint64_t>(rest(), window_.size());
            file_.read_at(window_start_, window_.data(), window_bytes_);
        }
        return window_.data() + (position_ - window_start_);
    }

    const TarFile& file_;
    std::string name_;
    std::uint64_t begin_, end_;  // of the archive in the file
    std::uint64_t position_;
    std::uint64_t start_ = 0;  // of the header at hand
    std::array<char, 8 * kBlock> window_;
    std::uint64_t window_start_ = 0, window_bytes_ = 0;
};

TarFile::TarFile(std::filesystem::path path, std::string known_as)
    : path_(std::move(path)), known_as_(std::move(known_as)) {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
    if (descriptor_ < 0) {
        const int why = errno;
        if (why == EMFILE)
            throw Error(kArea, known_as_, ": this process may not open more files (`ulimit -n` says how many): ",
                        "make fewer, larger archives, or raise the limit");
        throw Error(kArea, known_as_, ": ",
                    why == ENOENT ? "no such file" : str("cannot be opened: ", std::strerror(why)));
    }
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(descriptor_);
        throw Error(kArea, known_as_, ": not a regular file, a tar archive is expected");
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
}

TarFile::~TarFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

TarFile::TarFile(TarFile&& other) noexcept
    : path_(std::move(other.path_)),
      known_as_(std::move(other.known_as_)),
      size_(other.size_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

std::vector<TarMember> TarFile::members() const {
    return walk({"", 0, size_}, known_as_);
}

std::vector<TarMember> TarFile::members(const TarMember& archive) const {
    check_inside(archive);
    return walk(archive, known_as_ + ": " + shown(archive.name));
}

std::vector<TarMember> TarFile::walk(const TarMember& range, const std::string& name) const {
    // Headers lie a picture apart: reading ahead would read the pictures too. Only advice: it may fail.
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
    std::vector<TarMember> found = TarWalk(*this, range, name).members();
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_NORMAL);
    return found;
}

void TarFile::check_inside(const TarMember& member) const {
    if (member.offset > size_ || member.size > size_ - member.offset)
        throw Error(kArea, known_as_, ": ", shown(member.name), " lies beyond the file's ", size_, " bytes");
}

std::vector<std::uint8_t> TarFile::read(const TarMember& member) const {
    check_inside(member);
    std::vector<std::uint8_t> bytes(member.size);
    read_at(member.offset, bytes.data(), bytes.size());
    return bytes;
}

void TarFile::read_at(std::uint64_t offset, void* target, std::size_t bytes) const {
    char* next = static_cast<char*>(target);
    while (bytes > 0) {
        const ssize_t got = ::pread(descriptor_, next, bytes, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            throw Error(kArea, known_as_, ": at byte ", offset, ": cannot be read: ",
                        got < 0 ? std::strerror(errno) : "the file was cut short while it was open");
        next += got;
        offset += static_cast<std::uint64_t>(got);
        bytes -= static_cast<std::size_t>(got);
    }
}

// ---- writing --------------------------------------------------------------------------------------------------------

namespace {

/// Octal digits, filled up with zeros, and a zero byte.
template <std::size_t N>
void put_octal(char (&field)[N], std::uint64_t value) {
    for (std::size_t i = N - 1; i-- > 0; value /= 8) field[i] = static_cast<char>('0' + value % 8);
    field[N - 1] = '\0';
}

/// A header without a name.
Header plain_header(char type, std::uint64_t size) {
    Header header{};
    put_octal(header.mode, 0644);
    put_octal(header.uid, 0);
    put_octal(header.gid, 0);
    put_octal(header.size, std::min(size, kMaxOctalSize));
    put_octal(header.mtime, 0);
    header.type = type;
    std::memcpy(header.magic, "ustar", 6);
    std::memcpy(header.version, "00", 2);
    put_octal(header.major, 0);
    put_octal(header.minor, 0);
    return header;
}

void seal(Header& header) {
    std::snprintf(header.checksum, sizeof header.checksum, "%06o",
                  static_cast<unsigned>(checksum<unsigned char>(header)));
    header.checksum[7] = ' ';
}

/// Puts a name into a header, split at a slash where it is long; false if it does not fit.
bool put_name(Header& header, const std::string& name) {
    if (name.size() <= sizeof header.name) {
        std::memcpy(header.name, name.data(), name.size());
        return true;
    }
    const std::size_t slash =
        name.find('/', name.size() - sizeof header.name - 1);  // the first that leaves a short rest
    if (slash == std::string::npos || slash == 0 || slash > sizeof header.prefix || slash + 1 == name.size())
        return false;
    std::memcpy(header.prefix, name.data(), slash);
    std::memcpy(header.name, name.data() + slash + 1, name.size() - slash - 1);
    return true;
}

/// "LENGTH KEY=VALUE\n", where the length counts its own digits.
std::string pax_record(const std::string& key, const std::string& value) {
    const std::string rest = ' ' + key + '=' + value + '\n';
    std::size_t length = rest.size();
    while (str(length).size() + rest.size() != length) length = str(length).size() + rest.size();
    return str(length) + rest;
}

bool is_ascii(const std::string& name) {
    return std::all_of(name.begin(), name.end(), [](char letter) { return static_cast<unsigned char>(letter) < 0x80; });
}

}  // namespace

TarWriter::TarWriter(std::filesystem::path path) : path_(path), file_(std::move(path), kArea) {}

void TarWriter::add(const std::string& name, std::span<const std::uint8_t> bytes) {
    if (name.empty() || name.find('\0') != std::string::npos)
        throw Error(kArea, path_.string(), ": ", shown(name), " is no name for a member");
    Header header = plain_header('0', bytes.size());
    std::string pax;
    if (!is_ascii(name) || !put_name(header, name)) {
        pax += pax_record("path", name);
        std::memcpy(header.name, name.data(), std::min(name.size(), sizeof header.name));  // for who reads no pax
    }
    if (bytes.size() > kMaxOctalSize) pax += pax_record("size", str(bytes.size()));
    if (!pax.empty()) {
        Header extension = plain_header('x', pax.size());
        put_name(extension, "pax_header");
        seal(extension);
        write_padded(&extension, sizeof extension);
        write_padded(pax.data(), pax.size());
    }
    seal(header);
    write_padded(&header, sizeof header);
    write_padded(bytes.data(), bytes.size());
}

void TarWriter::commit() {
    const std::uint64_t end = (size_ + 2 * kBlock + kRecord - 1) / kRecord * kRecord;
    const std::vector<char> zeros(end - size_);
    file_.write(zeros.data(), zeros.size());
    file_.commit();
}

void TarWriter::write_padded(const void* data, std::size_t bytes) {
    static constexpr std::array<char, kBlock> kZeros{};
    file_.write(data, bytes);
    file_.write(kZeros.data(), padded(bytes) - bytes);
    size_ += padded(bytes);
}

}  // namespace dynvit
