#include "dynvit/io/unpack.hpp"

#define ZLIB_CONST  // input is not written to
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "input_file.hpp"

namespace dynvit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "unpack";
constexpr std::size_t kPiece = 1 << 18;  // bytes read or written at once

/// A packed file, piece by piece.
class Pieces {
  public:
    explicit Pieces(const fs::path& path) : file_(path, kArea), stream_(file_.stream_at(0)), bytes_(kPiece) {}

    /// The next piece, empty at the file's end; valid until the next call.
    std::span<const std::uint8_t> next() {
        const std::uint64_t count = std::min<std::uint64_t>(kPiece, file_.bytes() - end_);
        stream_.read(reinterpret_cast<char*>(bytes_.data()), static_cast<std::streamsize>(count));
        if (static_cast<std::uint64_t>(stream_.gcount()) != count) file_.fail("could not be read to its end");
        end_ += count;
        return {bytes_.data(), static_cast<std::size_t>(count)};
    }

    /// @param unused bytes of the last piece that stand behind the place
    template <class... Parts>
    [[noreturn]] void fail(std::size_t unused, const Parts&... parts) const {
        file_.fail("at byte ", end_ - unused, " of ", file_.bytes(), ": ", parts...);
    }

  private:
    InputFile file_;
    std::istream& stream_;
    std::vector<std::uint8_t> bytes_;
    std::uint64_t end_ = 0;  // of the piece at hand
};

constexpr const char* kCutShort = "the file ends within its packed data: it was cut short";

std::uint64_t unpack_gzip(Pieces& pieces, AtomicFile& target) {
    z_stream stream{};
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&stream, MAX_WBITS + kGzipOnly) != Z_OK) pieces.fail(0, "zlib has no memory left");
    const std::unique_ptr<z_stream, int (*)(z_stream*)> ended(&stream, inflateEnd);
    std::vector<std::uint8_t> out(kPiece);
    std::uint64_t written = 0;
    bool between = false;  // a member's end was the last that was read
    bool padded = false;   // zeros stand behind it, and nothing else may follow
    for (std::span<const std::uint8_t> piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
        stream.next_in = piece.data();
        stream.avail_in = static_cast<uInt>(piece.size());
        while (stream.avail_in > 0 || stream.avail_out == 0) {
            if (between && stream.avail_in == 0) break;
            if (between && (padded || *stream.next_in == 0)) {
                padded = true;
                if (*stream.next_in != 0) pieces.fail(stream.avail_in, "data behind the packed data's end");
                ++stream.next_in;
                --stream.avail_in;
                continue;
            }
            if (between && inflateReset(&stream) != Z_OK) pieces.fail(stream.avail_in, "zlib cannot go on");
            between = false;
            stream.next_out = out.data();
            stream.avail_out = static_cast<uInt>(out.size());
            const int result = inflate(&stream, Z_NO_FLUSH);
            if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
                pieces.fail(stream.avail_in, "damaged gzip data: ", stream.msg ? stream.msg : "no more is known");
            target.write(out.data(), out.size() - stream.avail_out);
            written += out.size() - stream.avail_out;
            between = result == Z_STREAM_END;
            if (result == Z_BUF_ERROR) break;  // it wants more
        }
    }
    if (!between) pieces.fail(0, kCutShort);
    return written;
}

std::uint64_t unpack_zstd(Pieces& pieces, AtomicFile& target) {
    const std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(), ZSTD_freeDStream);
    if (!stream) pieces.fail(0, "libzstd has no memory left");
    std::vector<std::uint8_t> out(kPiece);
    std::uint64_t written = 0;
    std::size_t wanted = 0;  // 0: a frame's end was the last that was read
    for (std::span<const std::uint8_t> piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
        ZSTD_inBuffer in{piece.data(), piece.size(), 0};
        bool full = false;
        while (in.pos < in.size || full) {
            ZSTD_outBuffer room{out.data(), out.size(), 0};
            wanted = ZSTD_decompressStream(stream.get(), &room, &in);
            if (ZSTD_isError(wanted))
                pieces.fail(in.size - in.pos, "damaged Zstandard data: ", ZSTD_getErrorName(wanted));
            target.write(out.data(), room.pos);
            written += room.pos;
            full = room.pos == room.size && wanted != 0;
        }
    }
    if (wanted != 0) pieces.fail(0, kCutShort);
    return written;
}

}  // namespace

bool is_packed(const fs::path& path) {
    const FileKind kind = file_kind(path);
    return kind == FileKind::kGzip || kind == FileKind::kZstd;
}

std::uint64_t unpack(const fs::path& path, AtomicFile& target) {
    Pieces pieces(path);
    switch (file_kind(path)) {
        case FileKind::kGzip:
            return unpack_gzip(pieces, target);
        case FileKind::kZstd:
            return unpack_zstd(pieces, target);
        default:
            throw Error(kArea, path.string(), ": found ", describe_file(path), ", expected a gzip or Zstandard file");
    }
}

}  // namespace dynvit
