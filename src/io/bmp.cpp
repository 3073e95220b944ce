// BMP pictures of Windows and OS/2, as Pillow reads them.
#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "dynvit/core/error.hpp"
#include "picture_codecs.hpp"

namespace dynvit {
namespace {

using Bytes = std::span<const std::uint8_t>;

enum Compression : std::uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

/// Which bits of a pixel hold red, green and blue.
using Masks = std::array<std::uint32_t, 3>;

constexpr std::array<std::uint32_t, 6> kWindowsHeaders = {40, 52, 56, 64, 108, 124};  // their bytes
constexpr Masks k555 = {0x7c00, 0x3e0, 0x1f}, k565 = {0xf800, 0x7e0, 0x1f}, k888 = {0xff0000, 0xff00, 0xff};

struct Header {
    std::uint32_t width = 0, height = 0;
    bool top_down = false;
    std::uint32_t bits = 0;  // a pixel
    std::uint32_t compression = kRaw;
    std::uint32_t colours = 0;  // in the palette
    Masks masks = {};
    Palette palette;
    std::uint32_t pixels = 0;  // where they start

    PictureSize size() const { return {static_cast<int>(width), static_cast<int>(height)}; }
};

class BmpReader {
  public:
    BmpReader(Bytes bytes, const std::string& name) : bytes_(bytes), name_(name) {}

    Header read_header() const {
        constexpr std::uint32_t kFileHeader = 14, kOs2 = 12;
        Header header;
        header.pixels = number<4>(10);
        const std::uint32_t size = number<4>(kFileHeader);
        std::uint32_t after = kFileHeader + size;  // the palette, or masks before it
        std::uint32_t colour_bytes = 4;
        if (size == kOs2) {
            header.width = number<2>(18);
            header.height = number<2>(20);
            header.bits = number<2>(24);
            check_bits(header);
            colour_bytes = 3;
        } else if (std::ranges::find(kWindowsHeaders, size) != kWindowsHeaders.end()) {
            read_windows_header(header, size, after);
        } else {
            throw Error("image", name_, ": not supported: a BMP whose header has ", size, " bytes");
        }
        check_size(header.width, header.height, name_);
        if (header.bits <= 8) {
            read_palette(header, after, colour_bytes);
            after += colour_bytes * header.colours;
            if (header.pixels == kFileHeader + size)
                header.pixels = after;  // some files leave out the palette's length
        }
        if (header.pixels == 0) header.pixels = after;
        return header;
    }

    /// The stored rows as indices or pixels, each number of `bits` bits.
    std::uint32_t stored(const Header& header, std::uint64_t row, std::uint32_t x) const {
        const std::uint64_t bit = std::uint64_t{header.bits} * x;
        const std::uint64_t at = header.pixels + row * stride(header) + bit / 8;
        switch (header.bits) {
            case 16:
                return number<2>(at);
            case 24:
                return number<3>(at);
            case 32:
                return number<4>(at);
            default:
                return number<1>(at) >> (8 - header.bits - bit % 8) & ((1u << header.bits) - 1);
        }
    }

    /// Throws Error where the file does not have all rows. The last one needs no padding.
    void check_rows(const Header& header) const {
        const std::uint64_t last_row = (std::uint64_t{header.width} * header.bits + 7) / 8;
        const std::uint64_t needed = header.pixels + (header.height - 1) * stride(header) + last_row;
        if (needed > bytes_.size())
            fail("the file ends at byte ", bytes_.size(), ", expected ", header.width, " x ", header.height,
                 " pixels of ", header.bits, " bits up to byte ", needed);
    }

    /// Unpacks run-length coded indices; what is passed over is index 0, as in Pillow.
    std::vector<std::uint8_t> read_runs(const Header& header) const {
        check_not_blank(bytes_, header.size(), name_);
        const std::uint64_t width = header.width, all = width * header.height;
        std::vector<std::uint8_t> indices;  // grows with what the file really holds
        std::uint64_t at = header.pixels, x = 0;
        const auto pad = [&](std::uint64_t count) { indices.resize(std::min(all, indices.size() + count)); };
        while (indices.size() < all) {
            const std::uint32_t count = number<1>(at), value = number<1>(at + 1);
            at += 2;
            if (count > 0) {
                const std::uint64_t fitting = std::min<std::uint64_t>(count, width - std::min(x, width));
                for (std::uint64_t i = 0; i < fitting && indices.size() < all; ++i)
                    indices.push_back(index_of_run(header, value, i));
                x += fitting;
            } else if (value == 0) {
                if (indices.size() % width != 0) pad(width - indices.size() % width);
                x = 0;
            } else if (value == 1) {
                fail("its runs end after ", indices.size(), " of ", all, " pixels");
            } else if (value == 2) {
                pad(number<1>(at) + number<1>(at + 1) * width);
                at += 2;
                x = indices.size() % width;
            } else {
                at = copy_pixels(header, at, std::min<std::uint64_t>(value, all - indices.size()), indices);
                x += value;
            }
        }
        return indices;
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw Error("image", name_, ": damaged BMP: ", parts...);
    }

    /// A little-endian number of `Count` bytes.
    template <std::size_t Count>
    std::uint32_t number(std::uint64_t at) const {
        if (at > bytes_.size() || bytes_.size() - at < Count) fail("the file ends too early");
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < Count; ++i) value |= std::uint32_t{bytes_[at + i]} << 8 * i;
        return value;
    }

    static std::uint64_t stride(const Header& header) {
        return (std::uint64_t{header.width} * header.bits + 31) / 32 * 4;
    }

    void check_bits(Header& header) const {
        constexpr std::array<std::uint32_t, 6> kBits = {1, 4, 8, 16, 24, 32};
        if (std::ranges::find(kBits, header.bits) == kBits.end())
            throw Error("image", name_, ": not supported: a BMP of ", header.bits, " bits a pixel");
        header.masks = header.bits == 16 ? k555 : k888;
    }

    /// @param after grows by masks that follow a header of 40 bytes
    void read_windows_header(Header& header, std::uint32_t size, std::uint32_t& after) const {
        header.width = number<4>(18);
        header.height = number<4>(22);
        header.top_down = header.height >> 24 == 0xff;  // a small negative number
        if (header.top_down) header.height = ~header.height + 1;
        header.bits = number<2>(28);
        header.compression = number<4>(30);
        header.colours = number<4>(46);
        check_bits(header);
        const bool fits = header.compression == kRaw || (header.compression == kRle8 && header.bits == 8) ||
                          (header.compression == kRle4 && header.bits == 4) ||
                          (header.compression == kBitFields && header.bits > 8);
        if (!fits)
            throw Error("image", name_, ": not supported: a BMP of ", header.bits, " bits with compression ",
                        header.compression);
        if (header.compression != kBitFields) return;
        constexpr std::uint32_t kMasks = 54;  // in the header, or right behind one of 40 bytes
        for (std::uint32_t c = 0; c < 3; ++c) header.masks[c] = number<4>(kMasks + 4 * c);
        if (size == 40) after += 12;
        check_masks(header);
    }

    /// 16 bits: 5 or 6 a colour; 24 and 32: whole bytes, of which 32 without any mask mean blue, green, red.
    void check_masks(Header& header) const {
        Masks& masks = header.masks;
        bool known = false;
        switch (header.bits) {
            case 16:
                known = masks == k555 || masks == k565;
                break;
            case 24:
                known = masks == k888;
                break;
            default:
                if (masks == Masks{}) masks = k888;
                constexpr std::array<Masks, 4> kKnown = {
                    {k888, {0xff000000, 0xff0000, 0xff00}, {0xff000000, 0xff00, 0xff}, {0xff, 0xff00, 0xff0000}}};
                known = std::ranges::find(kKnown, masks) != kKnown.end();
        }
        if (!known)
            throw Error("image", name_, ": not supported: a BMP of ", header.bits, " bits with the masks ", std::hex,
                        masks[0], ", ", masks[1], ", ", masks[2]);
    }

    void read_palette(Header& header, std::uint32_t at, std::uint32_t colour_bytes) const {
        if (header.colours == 0) header.colours = 1u << header.bits;
        if (header.colours > 256)
            throw Error("image", name_, ": damaged BMP: a palette of ", header.colours, " colours");
        for (std::uint32_t i = 0; i < header.colours; ++i)
            for (std::uint32_t c = 0; c < 3; ++c)
                header.palette.colours[i][2 - c] = static_cast<std::uint8_t>(number<1>(at + colour_bytes * i + c));
    }

    static std::uint8_t index_of_run(const Header& header, std::uint32_t value, std::uint64_t place) {
        if (header.compression == kRle8) return static_cast<std::uint8_t>(value);
        return static_cast<std::uint8_t>(place % 2 == 0 ? value >> 4 : value & 15);
    }

    /// Pixels that stand as they are, padded to 16 bits. Returns where the file goes on.
    std::uint64_t copy_pixels(const Header& header, std::uint64_t at, std::uint64_t count,
                              std::vector<std::uint8_t>& indices) const {
        for (std::uint64_t i = 0; i < count; ++i) {
            const bool rle8 = header.compression == kRle8;
            const std::uint32_t value = number<1>(at + (rle8 ? i : i / 2));
            indices.push_back(rle8 ? static_cast<std::uint8_t>(value) : index_of_run(header, value, i));
        }
        const std::uint64_t end = at + (header.compression == kRle8 ? count : (count + 1) / 2);
        return end + end % 2;
    }

    Bytes bytes_;
    const std::string& name_;
};

/// The bits of a mask, spread out to 0 to 255.
std::uint8_t level(std::uint32_t pixel, std::uint32_t mask) {
    const int shift = std::countr_zero(mask);
    return static_cast<std::uint8_t>(((pixel & mask) >> shift) * 255 / (mask >> shift));
}

}  // namespace

PictureSize bmp_size(Bytes bytes, const std::string& name) {
    return BmpReader(bytes, name).read_header().size();
}

Image decode_bmp(Bytes bytes, const std::string& name) {
    const BmpReader reader(bytes, name);
    const Header header = reader.read_header();
    const bool runs = header.compression == kRle8 || header.compression == kRle4;
    std::vector<std::uint8_t> indices;
    if (runs)
        indices = reader.read_runs(header);
    else
        reader.check_rows(header);
    Image image(static_cast<int>(header.width), static_cast<int>(header.height));
    for (std::uint32_t row = 0; row < header.height; ++row) {
        std::uint8_t* to = image.at(0, static_cast<int>(header.top_down ? row : header.height - 1 - row));
        for (std::uint32_t x = 0; x < header.width; ++x, to += 3) {
            const std::uint32_t pixel =
                runs ? indices[std::size_t{row} * header.width + x] : reader.stored(header, row, x);
            if (header.bits <= 8)
                header.palette.put(static_cast<int>(pixel), to);
            else
                for (int c = 0; c < 3; ++c) to[c] = level(pixel, header.masks[c]);
        }
    }
    return image;
}

}  // namespace dynvit
