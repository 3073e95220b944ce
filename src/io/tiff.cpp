// TIFF pictures through libtiff, the first of a file's, as Pillow reads them.
#include <tiffio.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "dynvit/core/error.hpp"
#include "picture_codecs.hpp"

namespace dynvit {
namespace {

using Bytes = std::span<const std::uint8_t>;

/// A file in memory, as libtiff's callbacks see it. They are C: no exception passes through them.
struct Memory {
    Bytes bytes;
    std::uint64_t position = 0;
    char error[256] = "";  // the first one

    static Memory& of(thandle_t handle) { return *static_cast<Memory*>(handle); }

    static tmsize_t read(thandle_t handle, void* target, tmsize_t count) {
        Memory& memory = of(handle);
        const std::uint64_t rest = memory.bytes.size() - std::min<std::uint64_t>(memory.position, memory.bytes.size());
        const std::uint64_t taken = std::min<std::uint64_t>(rest, static_cast<std::uint64_t>(count));
        if (taken > 0) std::memcpy(target, memory.bytes.data() + memory.position, taken);
        memory.position += taken;
        return static_cast<tmsize_t>(taken);
    }

    static tmsize_t write(thandle_t, void*, tmsize_t) { return 0; }

    static toff_t seek(thandle_t handle, toff_t offset, int from) {
        Memory& memory = of(handle);
        memory.position = (from == SEEK_SET ? 0 : from == SEEK_CUR ? memory.position : memory.bytes.size()) + offset;
        return memory.position;
    }

    static int close(thandle_t) { return 0; }
    static toff_t size(thandle_t handle) { return of(handle).bytes.size(); }

    static int map(thandle_t handle, void** base, toff_t* size) {
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): libtiff only reads it
        *base = const_cast<std::uint8_t*>(of(handle).bytes.data());
        *size = of(handle).bytes.size();
        return 1;
    }

    static void unmap(thandle_t, void*, toff_t) {}

    static int keep_error(TIFF*, void* user, const char*, const char* format, std::va_list arguments) {
        Memory& memory = of(user);
        if (memory.error[0]) return 1;
        std::vsnprintf(memory.error, sizeof memory.error, format, arguments);
        for (char* letter = memory.error; *letter; ++letter)
            if (*letter < 0x20 || *letter == 0x7f) *letter = '?';
        return 1;
    }

    // What libtiff only warns of are tags that it does not know or puts right.
    static int ignore_warning(TIFF*, void*, const char*, const char*, std::va_list) { return 1; }
};

/// What a file's first directory says of its pixels.
struct Layout {
    std::uint32_t width = 0, height = 0;
    std::uint32_t tile_width = 0, tile_height = 0;  // 0: strips
    std::uint16_t bits = 1, samples = 1;            // a sample; a pixel
    std::uint16_t photometric = PHOTOMETRIC_MINISWHITE, compression = COMPRESSION_NONE,
                  orientation = ORIENTATION_TOPLEFT;
    bool separate = false;  // each sample has a plane of its own
    bool big_endian = false;
    bool associated_alpha = false;  // colours are multiplied by it
    std::uint16_t extras = 0;       // samples that are no colours
    Palette palette;

    std::size_t planes() const { return separate ? samples : 1; }
    std::size_t samples_a_plane() const { return separate ? 1 : samples; }
    std::uint64_t row_bytes(std::uint64_t pixels) const { return (pixels * samples_a_plane() * bits + 7) / 8; }

    /// Of the picture as it is to be seen.
    PictureSize size() const {
        const int across = static_cast<int>(width), down = static_cast<int>(height);
        return orientation >= ORIENTATION_LEFTTOP ? PictureSize{down, across} : PictureSize{across, down};
    }
};

/// A file that libtiff has opened, at its first directory.
class TiffFile {
  public:
    TiffFile(Bytes bytes, const std::string& name) : name_(name) {
        memory_.bytes = bytes;
        const std::unique_ptr<TIFFOpenOptions, void (*)(TIFFOpenOptions*)> options(TIFFOpenOptionsAlloc(),
                                                                                   TIFFOpenOptionsFree);
        if (!options) throw Error("image", name, ": no memory for the TIFF decoder");
        // What it unpacks comes into our memory: for itself it needs tables and about what the file holds.
        TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), static_cast<tmsize_t>((1 << 26) + 64 * bytes.size()));
        TIFFOpenOptionsSetErrorHandlerExtR(options.get(), Memory::keep_error, &memory_);
        TIFFOpenOptionsSetWarningHandlerExtR(options.get(), Memory::ignore_warning, nullptr);
        file_.reset(TIFFClientOpenExt("TIFF", "r", &memory_, Memory::read, Memory::write, Memory::seek, Memory::close,
                                      Memory::size, Memory::map, Memory::unmap, options.get()));
        if (!file_) fail();
    }
    ~TiffFile() = default;
    TiffFile(const TiffFile&) = delete;
    TiffFile& operator=(const TiffFile&) = delete;

    [[noreturn]] void fail() const {
        throw Error("image", name_, ": damaged TIFF: ", memory_.error[0] ? memory_.error : "its data are wrong");
    }

    template <class... Parts>
    [[noreturn]] void refuse(const Parts&... parts) const {
        throw Error("image", name_, ": not supported: a TIFF ", parts...);
    }

    /// Checks what can be checked without pixels.
    Layout read_layout() {
        Layout layout;
        layout.width = field<std::uint32_t>(TIFFTAG_IMAGEWIDTH);
        layout.height = field<std::uint32_t>(TIFFTAG_IMAGELENGTH);
        check_size(layout.width, layout.height, name_);
        layout.bits = field<std::uint16_t>(TIFFTAG_BITSPERSAMPLE);
        layout.samples = field<std::uint16_t>(TIFFTAG_SAMPLESPERPIXEL);
        layout.compression = field<std::uint16_t>(TIFFTAG_COMPRESSION);
        layout.orientation = field<std::uint16_t>(TIFFTAG_ORIENTATION);
        if (layout.orientation > ORIENTATION_LEFTBOT) layout.orientation = ORIENTATION_TOPLEFT;
        if (!TIFFGetField(file_.get(), TIFFTAG_PHOTOMETRIC, &layout.photometric)) layout.photometric = 0;
        layout.separate = field<std::uint16_t>(TIFFTAG_PLANARCONFIG) == PLANARCONFIG_SEPARATE && layout.samples > 1;
        layout.big_endian = TIFFIsBigEndian(file_.get()) != 0;
        const std::uint16_t* extras = nullptr;
        if (TIFFGetField(file_.get(), TIFFTAG_EXTRASAMPLES, &layout.extras, &extras) && layout.extras > 0)
            layout.associated_alpha = extras[0] == EXTRASAMPLE_ASSOCALPHA;
        if (!TIFFIsCODECConfigured(layout.compression)) refuse("of compression ", layout.compression);
        if (layout.compression == COMPRESSION_OJPEG) refuse("with JPEG of the old kind");
        check_samples(layout);
        if (layout.photometric == PHOTOMETRIC_PALETTE) read_palette(layout);
        if (TIFFIsTiled(file_.get())) {
            layout.tile_width = field<std::uint32_t>(TIFFTAG_TILEWIDTH);
            layout.tile_height = field<std::uint32_t>(TIFFTAG_TILELENGTH);
            check_tiles(layout);
        }
        check_unpacked_size(layout);
        return layout;
    }

    /// Makes the decoder give RGB in place of the JPEG's YCbCr.
    void prepare(Layout& layout) {
        if (layout.photometric != PHOTOMETRIC_YCBCR) return;
        if (!TIFFSetField(file_.get(), TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB)) fail();
        layout.photometric = PHOTOMETRIC_RGB;
    }

    void read_row(std::vector<std::uint8_t>& row, std::uint32_t y, std::uint16_t plane) {
        if (TIFFScanlineSize64(file_.get()) > row.size()) fail();
        if (TIFFReadScanline(file_.get(), row.data(), y, plane) != 1) fail();
    }

    void read_tile(std::vector<std::uint8_t>& tile, std::uint32_t x, std::uint32_t y, std::uint16_t plane) {
        const std::uint32_t index = TIFFComputeTile(file_.get(), x, y, 0, plane);
        const auto bytes = static_cast<tmsize_t>(tile.size());
        if (TIFFReadEncodedTile(file_.get(), index, tile.data(), bytes) != bytes) fail();
    }

  private:
    struct Close {
        void operator()(TIFF* file) const { TIFFClose(file); }
    };

    template <class T>
    T field(std::uint32_t tag) const {
        T value{};
        if (!TIFFGetFieldDefaulted(file_.get(), tag, &value)) return T{};
        return value;
    }

    /// Grey and palettes of 1 to 16 bits, RGB and CMYK of 8 or 16, each with samples that are no colours where Pillow
    /// takes them; YCbCr inside JPEG.
    void check_samples(const Layout& layout) const {
        const int bits = layout.bits;
        if (field<std::uint16_t>(TIFFTAG_SAMPLEFORMAT) != SAMPLEFORMAT_UINT)
            refuse("of ", bits,
                   "-bit samples that are signed or floating-point; whole numbers from 0 on are understood");
        const bool shallow = bits == 1 || bits == 2 || bits == 4;
        int colours = 3, most = 6;
        bool known = bits == 8 || bits == 16;
        switch (layout.photometric) {
            case PHOTOMETRIC_MINISWHITE:
                known = shallow || bits == 8 || (bits == 16 && !layout.big_endian);
                colours = most = 1;
                break;
            case PHOTOMETRIC_MINISBLACK:
                known = shallow || known;
                colours = 1;
                most = bits == 8 && !layout.associated_alpha ? 2 : 1;
                break;
            case PHOTOMETRIC_PALETTE:
                known = shallow || bits == 8;
                colours = 1;
                most = bits == 8 && !layout.associated_alpha ? 2 : 1;
                break;
            case PHOTOMETRIC_RGB:
                if (bits == 16) most = 4;
                break;
            case PHOTOMETRIC_SEPARATED:
                colours = 4;
                if (bits == 16) most = 4;
                break;
            case PHOTOMETRIC_YCBCR:
                known = bits == 8 && layout.compression == COMPRESSION_JPEG && !layout.separate;
                most = 3;
                break;
            default:
                refuse("of photometric interpretation ", layout.photometric);
        }
        if (!known || layout.samples < colours || layout.samples > most)
            refuse("of ", layout.samples, " samples of ", bits, " bits with photometric interpretation ",
                   layout.photometric, layout.separate ? " in planes" : "", ", compression ", layout.compression);
    }

    void read_palette(Layout& layout) const {
        std::array<const std::uint16_t*, 3> colours = {};
        if (!TIFFGetField(file_.get(), TIFFTAG_COLORMAP, colours.data(), &colours[1], &colours[2]))
            throw Error("image", name_, ": damaged TIFF: it has no palette");
        for (int i = 0; i < 1 << layout.bits; ++i)
            for (int c = 0; c < 3; ++c) layout.palette.colours[i][c] = static_cast<std::uint8_t>(colours[c][i] >> 8);
    }

    /// Tiles may stick out of a small picture, but not make it a large one.
    void check_tiles(const Layout& layout) const {
        constexpr std::uint64_t kSmall = 1 << 20;  // pixels
        const std::uint64_t tile = std::uint64_t{layout.tile_width} * layout.tile_height;
        const std::uint64_t picture = std::uint64_t{layout.width} * layout.height;
        if (tile == 0 || tile > std::max(kSmall, 4 * picture))
            throw Error("image", name_, ": damaged TIFF: tiles of ", layout.tile_width, " x ", layout.tile_height,
                        " pixels in a picture of ", layout.width, " x ", layout.height);
    }

    /// The most bytes that a compression makes of one; 0 where there is no such bound but the limit of pixels.
    static std::uint64_t best_ratio(std::uint16_t compression) {
        switch (compression) {
            case COMPRESSION_NONE:
                return 1;
            case COMPRESSION_PACKBITS:
                return 64;
            case COMPRESSION_LZW:
                return 4096 * 8 / 12 + 1;  // a code of 12 bits stands for at most 4,096 bytes
            case COMPRESSION_DEFLATE:
            case COMPRESSION_ADOBE_DEFLATE:
                return 1032;
            default:
                return 0;
        }
    }

    void check_unpacked_size(const Layout& layout) const {
        const std::uint64_t ratio = best_ratio(layout.compression);
        const bool tiled = layout.tile_width > 0;
        const std::uint64_t width = tiled ? layout.tile_width : layout.width;
        const std::uint64_t height = tiled ? layout.tile_height : layout.height;
        const std::uint64_t unpacked =
            std::max(layout.row_bytes(width) * height, layout.row_bytes(layout.width) * layout.height);
        if (ratio > 0)
            check_holds(memory_.bytes, unpacked * layout.planes(), ratio,
                        {static_cast<int>(layout.width), static_cast<int>(layout.height)}, "TIFF", name_);
        check_not_blank(memory_.bytes, layout.size(), name_);
    }

    const std::string& name_;
    Memory memory_;
    std::unique_ptr<TIFF, Close> file_;
};

/// Makes RGB of a run of neighbouring pixels in a row.
class TiffColours {
  public:
    explicit TiffColours(const Layout& layout) : layout_(layout) {}

    /// @param planes where each plane's samples of the run start
    void convert(const std::vector<const std::uint8_t*>& planes, std::uint32_t pixels, std::uint8_t* rgb) {
        for (std::uint32_t x = 0; x < pixels; ++x, rgb += 3) {
            const auto sample = [&](std::uint32_t s) {
                return layout_.separate ? at(planes[s], x) : at(planes[0], std::uint64_t{x} * layout_.samples + s);
            };
            switch (layout_.photometric) {
                case PHOTOMETRIC_PALETTE:
                    layout_.palette.put(sample(0), rgb);
                    break;
                case PHOTOMETRIC_RGB:
                    for (std::uint32_t c = 0; c < 3; ++c) rgb[c] = static_cast<std::uint8_t>(sample(c));
                    if (layout_.associated_alpha) divide_by_alpha(rgb, sample(3));
                    break;
                case PHOTOMETRIC_SEPARATED:
                    cmyk_to_rgb(sample(0), sample(1), sample(2), sample(3), rgb);
                    break;
                default:
                    std::memset(rgb, grey(sample(0)), 3);
            }
        }
    }

    std::int64_t clipped() const { return clipped_; }

  private:
    bool deep_grey() const { return layout_.bits == 16 && layout_.photometric <= PHOTOMETRIC_MINISBLACK; }

    /// The i-th sample of a row; of 16 bits the upper 8, but for grey.
    int at(const std::uint8_t* row, std::uint64_t i) const {
        if (layout_.bits == 8) return row[i];
        if (layout_.bits == 16) {
            std::uint16_t value = 0;  // in this machine's byte order
            std::memcpy(&value, row + 2 * i, sizeof value);
            return deep_grey() ? value : value >> 8;
        }
        const std::uint64_t bit = i * layout_.bits;
        return row[bit / 8] >> (8 - layout_.bits - bit % 8) & ((1 << layout_.bits) - 1);
    }

    /// 16 bits are clipped, and never inverted, as in Pillow.
    int grey(int value) {
        if (deep_grey()) {
            clipped_ += value > 255;
            return std::min(value, 255);
        }
        const int most = (1 << layout_.bits) - 1;
        return (layout_.photometric == PHOTOMETRIC_MINISWHITE ? most - value : value) * 255 / most;
    }

    static void divide_by_alpha(std::uint8_t* rgb, int alpha) {
        for (int c = 0; c < 3; ++c)
            rgb[c] = static_cast<std::uint8_t>(alpha == 0 ? 0 : std::min(255, rgb[c] * 255 / alpha));
    }

    const Layout& layout_;
    std::int64_t clipped_ = 0;
};

/// The picture as the orientation tag says that it is to be seen.
Image turned(Image image, std::uint16_t orientation) {
    if (orientation <= ORIENTATION_TOPLEFT) return image;
    const bool swaps = orientation >= ORIENTATION_LEFTTOP;  // rows become columns
    const bool right = orientation == ORIENTATION_TOPRIGHT || orientation == ORIENTATION_BOTRIGHT ||
                       orientation == ORIENTATION_RIGHTTOP || orientation == ORIENTATION_RIGHTBOT;
    const bool bottom = orientation == ORIENTATION_BOTRIGHT || orientation == ORIENTATION_BOTLEFT ||
                        orientation == ORIENTATION_RIGHTBOT || orientation == ORIENTATION_LEFTBOT;
    Image result(swaps ? image.height : image.width, swaps ? image.width : image.height);
    for (int y = 0; y < image.height; ++y)
        for (int x = 0; x < image.width; ++x) {
            int to_x = swaps ? y : x, to_y = swaps ? x : y;
            if (right) to_x = result.width - 1 - to_x;
            if (bottom) to_y = result.height - 1 - to_y;
            std::copy_n(image.at(x, y), 3, result.at(to_x, to_y));
        }
    return result;
}

/// A file's planes, each read through a decoder of its own, so that they advance together.
class TiffPlanes {
  public:
    TiffPlanes(Bytes bytes, const std::string& name) {
        files_.push_back(std::make_unique<TiffFile>(bytes, name));
        layout_ = files_.front()->read_layout();
        while (files_.size() < layout_.planes()) files_.push_back(std::make_unique<TiffFile>(bytes, name));
        files_.front()->prepare(layout_);
    }

    const Layout& layout() const { return layout_; }

    Image read(const std::string& name) {
        Image image(static_cast<int>(layout_.width), static_cast<int>(layout_.height));
        TiffColours colours(layout_);
        if (layout_.tile_width > 0)
            read_tiles(image, colours);
        else
            read_rows(image, colours);
        if (colours.clipped() > 0) note_clipped(name, colours.clipped(), std::int64_t{image.width} * image.height);
        return turned(std::move(image), layout_.orientation);
    }

  private:
    using Buffers = std::vector<std::vector<std::uint8_t>>;  // one a plane

    void read_rows(Image& image, TiffColours& colours) {
        Buffers rows(files_.size(), std::vector<std::uint8_t>(layout_.row_bytes(layout_.width)));
        std::vector<const std::uint8_t*> starts;
        for (const auto& row : rows) starts.push_back(row.data());
        for (std::uint32_t y = 0; y < layout_.height; ++y) {
            for (std::size_t p = 0; p < files_.size(); ++p)
                files_[p]->read_row(rows[p], y, static_cast<std::uint16_t>(p));
            colours.convert(starts, layout_.width, image.at(0, static_cast<int>(y)));
        }
    }

    void read_tiles(Image& image, TiffColours& colours) {
        const std::uint64_t row_bytes = layout_.row_bytes(layout_.tile_width);
        Buffers tiles(files_.size(), std::vector<std::uint8_t>(row_bytes * layout_.tile_height));
        for (std::uint32_t top = 0; top < layout_.height; top += layout_.tile_height)
            for (std::uint32_t left = 0; left < layout_.width; left += layout_.tile_width) {
                for (std::size_t p = 0; p < files_.size(); ++p)
                    files_[p]->read_tile(tiles[p], left, top, static_cast<std::uint16_t>(p));
                const std::uint32_t rows = std::min(layout_.tile_height, layout_.height - top);
                for (std::uint32_t y = 0; y < rows; ++y) {
                    std::vector<const std::uint8_t*> starts;
                    for (const auto& tile : tiles) starts.push_back(tile.data() + y * row_bytes);
                    colours.convert(starts, std::min(layout_.tile_width, layout_.width - left),
                                    image.at(static_cast<int>(left), static_cast<int>(top + y)));
                }
            }
    }

    std::vector<std::unique_ptr<TiffFile>> files_;
    Layout layout_;
};

}  // namespace

PictureSize tiff_size(Bytes bytes, const std::string& name) {
    return TiffFile(bytes, name).read_layout().size();
}

Image decode_tiff(Bytes bytes, const std::string& name) {
    return TiffPlanes(bytes, name).read(name);
}

}  // namespace dynvit
