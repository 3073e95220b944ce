#include "dynvit/io/jpeg_markers.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace dynvit {
namespace {

using Bytes = std::span<const std::uint8_t>;

// The second byte of a marker; the first is 0xff.
constexpr std::uint8_t kBaseline = 0xc0, kHuffmanTables = 0xc4, kFirstRestart = 0xd0, kStart = 0xd8, kEnd = 0xd9,
                       kScan = 0xda, kQuantizationTables = 0xdb, kRestartInterval = 0xdd, kFirstApplication = 0xe0,
                       kAdobe = 0xee, kLastApplication = 0xef, kComment = 0xfe;

int number(Bytes bytes, std::size_t at) {
    return bytes[at] << 8 | bytes[at + 1];
}

/// A frame header that a plain JPEG may have: baseline, 8 bits, one channel or three with the usual subsampling.
struct Frame {
    PictureSize size;
    int channels = 0;
    bool named_rgb = false;  // its channels are called R, G, B, which libjpeg believes
};

std::optional<Frame> read_frame(Bytes body) {
    constexpr std::size_t kFixed = 6, kPerChannel = 3;
    if (body.size() < kFixed || body[0] != 8) return std::nullopt;
    const Frame frame{{.width = number(body, 3), .height = number(body, 1)}, body[5]};
    if (frame.size.width < 1 || frame.size.height < 1 || (frame.channels != 1 && frame.channels != 3) ||
        body.size() != kFixed + kPerChannel * frame.channels)
        return std::nullopt;
    std::string_view names = "RGB";
    bool named_rgb = frame.channels == 3;
    for (int c = 0; c < frame.channels; ++c) {
        const Bytes channel = body.subspan(kFixed + kPerChannel * c, kPerChannel);
        named_rgb = named_rgb && channel[0] == static_cast<std::uint8_t>(names[c]);
        const int across = channel[1] >> 4, down = channel[1] & 15;
        const int most = c == 0 && frame.channels == 3 ? 2 : 1;
        if (across < 1 || across > most || down < 1 || down > most) return std::nullopt;
    }
    return Frame{frame.size, frame.channels, named_rgb};
}

/// Whether so many bytes can hold a picture: a block of 8 x 8 pixels takes two Huffman codes of at least a bit.
bool fits(PictureSize size, std::size_t bytes) {
    constexpr std::uint64_t kBlock = 8, kBlocksPerByte = 4;
    const std::uint64_t across = (size.width + kBlock - 1) / kBlock, down = (size.height + kBlock - 1) / kBlock;
    return across * down / kBlocksPerByte <= bytes;
}

/// Whether Adobe's segment says that three channels are something else than YCbCr.
bool denies_ycc(Bytes body) {
    constexpr std::string_view kName = "Adobe";
    constexpr std::size_t kTransform = 11;
    return body.size() > kTransform && std::equal(kName.begin(), kName.end(), body.begin()) && body[kTransform] != 1;
}

/// Whether the compressed data run to the end marker with nothing between but restart markers in their order.
bool runs_to_the_end(Bytes data, bool restarts) {
    const std::uint8_t *at = data.data(), *const end = at + data.size();
    int restart = 0;
    while ((at = static_cast<const std::uint8_t*>(std::memchr(at, 0xff, static_cast<std::size_t>(end - at))))) {
        at = std::find_if(at, end, [](std::uint8_t byte) { return byte != 0xff; });
        if (at == end) return false;
        const std::uint8_t code = *at++;
        if (code == 0) continue;  // a data byte of 0xff
        if (code == kEnd) return true;
        if (!restarts || code != kFirstRestart + restart) return false;
        restart = (restart + 1) % 8;
    }
    return false;
}

}  // namespace

std::optional<PictureSize> plain_jpeg_size(Bytes bytes) {
    if (bytes.size() < 2 || bytes[0] != 0xff || bytes[1] != kStart) return std::nullopt;
    Bytes rest = bytes.subspan(2);
    std::optional<Frame> frame;
    bool not_ycc = false, restarts = false;
    while (rest.size() >= 4 && rest[0] == 0xff) {
        const std::uint8_t code = rest[1];
        if (code == 0xff) {  // a fill byte
            rest = rest.subspan(1);
            continue;
        }
        const auto length = static_cast<std::size_t>(number(rest, 2));  // with its own two bytes
        if (length < 2 || length > rest.size() - 2) return std::nullopt;
        const Bytes body = rest.subspan(4, length - 2);
        rest = rest.subspan(2 + length);
        if (code == kScan) {
            const bool plain = frame && fits(frame->size, rest.size()) && !body.empty() && body[0] == frame->channels &&
                               (frame->channels == 1 || !(not_ycc || frame->named_rgb));
            return plain && runs_to_the_end(rest, restarts) ? std::optional(frame->size) : std::nullopt;
        }
        if (code == kBaseline) {
            if (frame) return std::nullopt;
            frame = read_frame(body);
            if (!frame) return std::nullopt;
        } else if (code == kRestartInterval) {
            if (body.size() != 2) return std::nullopt;
            restarts = number(body, 0) > 0;
        } else if (code == kAdobe) {
            not_ycc = not_ycc || denies_ycc(body);
        } else if (code != kHuffmanTables && code != kQuantizationTables && code != kComment &&
                   (code < kFirstApplication || code > kLastApplication)) {
            return std::nullopt;  // progressive, lossless, arithmetic coding ...
        }
    }
    return std::nullopt;
}

}  // namespace dynvit
