#include "dynvit/io/image.hpp"

// jpeglib.h needs size_t and FILE from <cstdio>, so it comes after.
#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "picture_codecs.hpp"

// libjpeg and libpng are C: they leave a failed call by longjmp, which must not pass over a C++ object with a
// destructor. So each library lives in a class of its own whose functions set the jump's target, hold nothing but plain
// values and return false after a jump; memory is allocated, and exceptions are thrown, outside of them.

namespace dynvit {

void check_size(std::int64_t width, std::int64_t height, const std::string& name) {
    if (width < 1 || height < 1) throw Error("image", name, ": has no pixels (", width, " x ", height, ")");
    if (width > kMaxPixels / height)
        throw Error("image", name, ": ", width, " x ", height, " pixels are more than the limit of 2^28");
}

void check_holds(std::span<const std::uint8_t> file, std::uint64_t unpacked, std::uint64_t ratio, PictureSize size,
                 const char* format, const std::string& name) {
    if (unpacked / ratio > file.size())
        throw Error("image", name, ": damaged ", format, ": ", file.size(), " bytes cannot hold ", size.width, " x ",
                    size.height, " pixels");
}

void check_not_blank(std::span<const std::uint8_t> file, PictureSize size, const std::string& name) {
    constexpr std::uint64_t kLarge = 1 << 24, kMostPerByte = 1 << 14;
    const std::uint64_t pixels = std::uint64_t{1} * size.width * size.height;
    if (pixels > kLarge && pixels / kMostPerByte > file.size())
        throw Error("image", name, ": ", file.size(), " bytes cannot hold ", size.width, " x ", size.height,
                    " pixels, expected at most 2^24, or 2^14 a byte");
}

void note_clipped(const std::string& name, std::int64_t clipped, std::int64_t pixels) {
    static std::once_flag said;
    std::call_once(said, [&] {
        log::warn(str("[image] ", name, ": 16-bit grey: ", clipped, " of its ", pixels,
                      " pixels are above 255 and become white, here and in further pictures, as in Pillow's "
                      "convert(\"RGB\"); pictures of 8 bits keep their shades"));
    });
}

namespace {

/// a * b / 255, rounded, for a and b in [0, 255].
int multiply_255(int a, int b) {
    const int product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

}  // namespace

void cmyk_to_rgb(int cyan, int magenta, int yellow, int black, std::uint8_t* rgb) {
    const int left = 255 - black;
    const std::array<int, 3> inks = {cyan, magenta, yellow};
    for (std::size_t c = 0; c < 3; ++c)
        rgb[c] = static_cast<std::uint8_t>(std::max(0, left - multiply_255(inks[c], left)));
}

namespace {

// ---- JPEG -----------------------------------------------------------------------------------------------------------

struct JpegErrors {
    jpeg_error_mgr manager;  // first: libjpeg hands back a pointer to it
    std::jmp_buf target;
    char text[JMSG_LENGTH_MAX];
};

[[noreturn]] void fail_jpeg(j_common_ptr info) {
    JpegErrors* errors = reinterpret_cast<JpegErrors*>(info->err);
    errors->manager.format_message(info, errors->text);
    std::longjmp(errors->target, 1);
}

// libjpeg goes on after a warning and fills what it could not decode with grey; here that is a failure. Left alone are
// the warnings that cost no pixel: stray bytes between segments (common in photographs from old cameras) and odd
// values in headers that decoding does not use.
void judge_jpeg_message(j_common_ptr info, int level) {
    if (level >= 0) return;  // a trace message
    switch (info->err->msg_code) {
        case JWRN_EXTRANEOUS_DATA:
        case JWRN_JFIF_MAJOR:
        case JWRN_ADOBE_XFORM:
        case JWRN_NOT_SEQUENTIAL:
            ++info->err->num_warnings;
            return;
        default:
            fail_jpeg(info);
    }
}

/// One row of inverted CMYK (255 is no ink) as RGB. Pillow takes every four-channel JPEG for inverted, whether or not
/// an Adobe marker says so.
void inverted_cmyk_to_rgb(const std::uint8_t* cmyk, std::uint8_t* rgb, int width) {
    for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3)
        cmyk_to_rgb(255 - cmyk[0], 255 - cmyk[1], 255 - cmyk[2], 255 - cmyk[3], rgb);
}

class JpegReader {
  public:
    JpegReader() {
        info_.err = jpeg_std_error(&errors_.manager);
        errors_.manager.error_exit = fail_jpeg;
        errors_.manager.emit_message = judge_jpeg_message;
    }
    ~JpegReader() { jpeg_destroy_decompress(&info_); }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;

    /// After it width, height and the colour space are known.
    bool read_header(std::span<const std::uint8_t> bytes) {
        if (setjmp(errors_.target)) return false;
        jpeg_create_decompress(&info_);
        jpeg_mem_src(&info_, bytes.data(), bytes.size());
        jpeg_read_header(&info_, TRUE);
        return true;
    }

    /// @param rgb room for height x width x 3
    /// @param line room for width x 4; used for CMYK only
    bool read_pixels(std::uint8_t* rgb, std::uint8_t* line) {
        if (setjmp(errors_.target)) return false;
        set_output(four_channels() ? JCS_CMYK : JCS_RGB);
        jpeg_start_decompress(&info_);
        while (info_.output_scanline < info_.output_height) {
            std::uint8_t* target = rgb + std::size_t{3} * info_.output_width * info_.output_scanline;
            JSAMPROW row = four_channels() ? line : target;
            jpeg_read_scanlines(&info_, &row, 1);
            if (four_channels()) inverted_cmyk_to_rgb(line, target, static_cast<int>(info_.output_width));
        }
        jpeg_finish_decompress(&info_);  // reads on to the end marker: a file cut just before it is not whole
        return true;
    }

    /// Whether read_window can decode this picture: one pass over the file, grey or the usual subsampling of colour.
    bool takes_windows() {
        if (info_.progressive_mode || info_.arith_code || jpeg_has_multiple_scans(&info_)) return false;
        if (info_.num_components == 1) return true;
        const jpeg_component_info* parts = info_.comp_info;
        const auto single = [](const jpeg_component_info& part) {
            return part.h_samp_factor == 1 && part.v_samp_factor == 1;
        };
        return info_.num_components == 3 && parts[0].h_samp_factor <= 2 && parts[0].v_samp_factor <= 2 &&
               single(parts[1]) && single(parts[2]);
    }

    /// Whether chroma has half the samples in one direction only. libjpeg cannot transform it to more pixels in that
    /// direction alone, so at a reduced scale it stays half as wide or high as luma, less than it could be.
    bool chroma_is_lopsided() const {
        return info_.num_components == 3 && info_.comp_info[0].h_samp_factor != info_.comp_info[0].v_samp_factor;
    }

    /// Begins to decode at eighths / 8 of the size, for the columns and rows of `part` in the reduced picture. The
    /// decoded columns begin and end with whole decoding units: `part` becomes what read_part will give.
    bool begin_part(int eighths, Window& part) {
        if (setjmp(errors_.target)) return false;
        set_output(JCS_RGB);
        info_.scale_num = static_cast<unsigned>(eighths);
        info_.scale_denom = 8;
        jpeg_start_decompress(&info_);
        // Smooth upsampling looks at the neighbouring chroma sample, two pixels away. It must not take the part's
        // border for the picture's.
        constexpr int kContext = 2;
        const int left = std::max(part.left - kContext, 0);
        const int right = std::min(part.left + part.width + kContext, static_cast<int>(info_.output_width));
        JDIMENSION first = static_cast<JDIMENSION>(left), count = static_cast<JDIMENSION>(right - left);
        if (count < info_.output_width) jpeg_crop_scanline(&info_, &first, &count);
        part.left = static_cast<int>(first);
        part.width = static_cast<int>(info_.output_width);
        return true;
    }

    /// @param rgb room for the part's height x width x 3
    bool read_part(std::uint8_t* rgb, const Window& part) {
        if (setjmp(errors_.target)) return false;
        const JDIMENSION top = static_cast<JDIMENSION>(part.top), bottom = top + static_cast<JDIMENSION>(part.height);
        if (top > 0) jpeg_skip_scanlines(&info_, top);
        while (info_.output_scanline < bottom) {
            JSAMPROW row = rgb + std::size_t{3} * info_.output_width * (info_.output_scanline - top);
            jpeg_read_scanlines(&info_, &row, 1);
        }
        return true;
    }

    int width() const { return static_cast<int>(info_.image_width); }  // JPEG stores 16 bits
    int height() const { return static_cast<int>(info_.image_height); }
    int channels() const { return info_.num_components; }
    bool huffman() const { return !info_.arith_code; }
    /// Of 8 x 8 samples, of the channel that has most of them.
    std::uint64_t blocks() const {
        std::uint64_t most = 0;
        for (int c = 0; c < info_.num_components; ++c) {
            const jpeg_component_info& part = info_.comp_info[c];
            most = std::max(most, std::uint64_t{part.width_in_blocks} * part.height_in_blocks);
        }
        return most;
    }
    bool known_colours() const { return info_.jpeg_color_space != JCS_UNKNOWN; }
    bool four_channels() const { return info_.num_components == 4; }
    const char* error() const { return errors_.text; }

    /// What kind of JPEG this is that libjpeg does not decode; empty where the failure is damage.
    std::string unsupported() const {
        constexpr int kLossless = 0xc3;  // its start of frame
        const int detail = errors_.manager.msg_parm.i[0];
        switch (errors_.manager.msg_code) {
            case JERR_BAD_PRECISION:
                return str("a JPEG of ", detail, " bits a sample, expected 8");
            case JERR_SOF_UNSUPPORTED:
                return detail == kLossless ? "a lossless JPEG"
                                           : "a hierarchical or lossless JPEG with arithmetic coding";
            default:
                return {};
        }
    }

  private:
    // The faster inverse DCT and upsampling are less accurate, and with SIMD hardly faster.
    void set_output(J_COLOR_SPACE space) {
        info_.out_color_space = space;
        info_.dct_method = JDCT_ISLOW;
        info_.do_fancy_upsampling = TRUE;
    }

    jpeg_decompress_struct info_{};
    JpegErrors errors_{};
};

[[noreturn]] void throw_damaged(const JpegReader& reader, const std::string& name) {
    if (const std::string kind = reader.unsupported(); !kind.empty())
        throw Error("image", name, ": not supported: ", kind);
    throw Error("image", name, ": damaged JPEG: ", reader.error());
}

void read_header(JpegReader& reader, std::span<const std::uint8_t> bytes, const std::string& name) {
    if (!reader.read_header(bytes)) throw_damaged(reader, name);
    check_size(reader.width(), reader.height(), name);
    if (!reader.known_colours())
        throw Error("image", name, ": a JPEG of ", reader.channels(), " channels; 1, 3 or 4 are understood");
    constexpr std::uint64_t kMostBlocksPerByte = 8;  // a Huffman code has at least a bit, and each block one of them
    const PictureSize size{reader.width(), reader.height()};
    if (reader.huffman()) check_holds(bytes, reader.blocks(), kMostBlocksPerByte, size, "JPEG", name);
    check_not_blank(bytes, size, name);
}

Image decode_whole(JpegReader& reader, const std::string& name) {
    Image image(reader.width(), reader.height());
    std::vector<std::uint8_t> line(reader.four_channels() ? std::size_t{4} * image.width : 0);
    if (!reader.read_pixels(image.pixels.data(), line.data())) throw_damaged(reader, name);
    return image;
}

Image decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& name) {
    JpegReader reader;
    read_header(reader, bytes, name);
    return decode_whole(reader, name);
}

PictureSize jpeg_size(std::span<const std::uint8_t> bytes, const std::string& name) {
    JpegReader reader;
    read_header(reader, bytes, name);
    return {reader.width(), reader.height()};
}

void check_window(const Window& window, int width, int height, const std::string& name) {
    if (window.width < 1 || window.height < 1 || window.left < 0 || window.top < 0 ||
        window.left > width - window.width || window.top > height - window.height)
        throw Error("image", name, ": the window ", window.width, " x ", window.height, " at (", window.left, ", ",
                    window.top, ") is not inside the picture of ", width, " x ", height, " pixels");
}

/// The smallest scale, in eighths, at which the window has at least the target's size. Only powers of two:
/// libjpeg-turbo has no SIMD for the others, which makes them slower than full size.
int scale_in_eighths(const Window& window, std::int64_t target_width, std::int64_t target_height) {
    int eighths = 8;
    while (eighths > 1 && std::int64_t{window.width} * eighths >= 16 * target_width &&
           std::int64_t{window.height} * eighths >= 16 * target_height)
        eighths /= 2;
    return eighths;
}

DecodedWindow decode_jpeg_window(std::span<const std::uint8_t> bytes, const std::string& name, const Window& window,
                                 int target_width, int target_height) {
    JpegReader reader;
    read_header(reader, bytes, name);
    check_window(window, reader.width(), reader.height(), name);
    if (!reader.takes_windows()) return {decode_whole(reader, name), box_of(window)};

    const int luma_per_chroma = reader.chroma_is_lopsided() ? 2 : 1;
    const int eighths = scale_in_eighths(window, std::int64_t{target_width} * luma_per_chroma,
                                         std::int64_t{target_height} * luma_per_chroma);
    const auto down = [eighths](int position) { return position * eighths / 8; };  // a JPEG's side has 16 bits
    const auto up = [eighths](int position) { return (position * eighths + 7) / 8; };
    const int left = down(window.left), top = down(window.top);
    Window part{left, top, up(window.left + window.width) - left, up(window.top + window.height) - top};
    if (!reader.begin_part(eighths, part)) throw_damaged(reader, name);
    DecodedWindow result{Image(part.width, part.height), {}};
    if (!reader.read_part(result.image.pixels.data(), part)) throw_damaged(reader, name);

    const float scale = static_cast<float>(eighths) / 8;
    result.box.left = static_cast<float>(window.left) * scale - static_cast<float>(part.left);
    result.box.top = static_cast<float>(window.top) * scale - static_cast<float>(part.top);
    result.box.right = result.box.left + static_cast<float>(window.width) * scale;
    result.box.bottom = result.box.top + static_cast<float>(window.height) * scale;
    return result;
}

// ---- PNG ------------------------------------------------------------------------------------------------------------

struct PngErrors {
    std::jmp_buf target;
    char text[256];
};

[[noreturn]] void fail_png(png_structp png, png_const_charp text) {
    PngErrors* errors = static_cast<PngErrors*>(png_get_error_ptr(png));
    std::snprintf(errors->text, sizeof errors->text, "%s", text);
    std::longjmp(errors->target, 1);
}

// What libpng only warns of lies in chunks that the pixels do not depend on.
void ignore_png_warning(png_structp, png_const_charp) {}

class PngReader {
  public:
    explicit PngReader(std::span<const std::uint8_t> bytes) : rest_(bytes) {}
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;

    /// After it width and height are known.
    bool read_header() {
        if (setjmp(errors_.target)) return false;
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &errors_, fail_png, ignore_png_warning);
        if (png_) info_ = png_create_info_struct(png_);
        if (!info_) {
            std::snprintf(errors_.text, sizeof errors_.text, "no memory for the decoder");
            return false;
        }
        png_set_read_fn(png_, &rest_, take);
        // Only the pixels matter: colour profiles, texts and the like are neither unpacked nor judged.
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
        png_set_user_limits(png_, kMaxPixels, kMaxPixels);  // the product is checked by the caller
        png_read_info(png_, info_);
        return true;
    }

    /// @param rgb room for height x width x 3
    bool read_pixels(std::uint8_t* rgb) {
        if (setjmp(errors_.target)) return false;
        const bool palette = png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE;
        const bool deep_grey =
            png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png_, info_) == 16;
        if (palette) {
            png_set_packing(png_);  // one index a byte
        } else if (!deep_grey) {
            png_set_expand_gray_1_2_4_to_8(png_);
            png_set_strip_16(png_);
            png_set_strip_alpha(png_);
            png_set_gray_to_rgb(png_);
        }
        const int passes = png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        const std::size_t row_bytes = std::size_t{3} * width();
        const std::size_t index_offset = palette ? row_bytes - width() : deep_grey ? row_bytes - 2 * width() : 0;
        if (png_get_rowbytes(png_, info_) != row_bytes - index_offset) png_error(png_, "unexpected row length");
        for (int pass = 0; pass < passes; ++pass)
            for (std::int64_t y = 0; y < height(); ++y)
                png_read_row(png_, rgb + static_cast<std::size_t>(y) * row_bytes + index_offset, nullptr);
        if (palette) look_up(rgb, row_bytes, index_offset);
        if (deep_grey) clip(rgb, row_bytes, index_offset);
        png_read_end(png_, nullptr);  // a file cut after its last row is not whole
        return true;
    }

    /// Bytes of the stored rows before compression, without filter bytes.
    std::uint64_t raw_bytes() const { return std::uint64_t{png_get_rowbytes(png_, info_)} * height(); }
    std::int64_t width() const { return png_get_image_width(png_, info_); }
    std::int64_t height() const { return png_get_image_height(png_, info_); }
    std::int64_t clipped() const { return clipped_; }  // pixels of 16-bit grey above 255
    const char* error() const { return errors_.text; }

  private:
    static void take(png_structp png, png_bytep target, std::size_t count) {
        auto* rest = static_cast<std::span<const std::uint8_t>*>(png_get_io_ptr(png));
        if (count > rest->size()) png_error(png, "the file ends too early");
        std::memcpy(target, rest->data(), count);
        *rest = rest->subspan(count);
    }

    // The indices stand in the last third of each row; from left to right no colour overwrites an index still to come.
    void look_up(std::uint8_t* rgb, std::size_t row_bytes, std::size_t index_offset) {
        png_colorp colours = nullptr;
        int count = 0;
        png_get_PLTE(png_, info_, &colours, &count);
        for (std::int64_t y = 0; y < height(); ++y, rgb += row_bytes) {
            std::uint8_t* out = rgb;
            for (std::size_t at = index_offset; at < row_bytes; ++at, out += 3) {
                const int index = rgb[at];
                if (index >= count) png_error(png_, "a pixel's colour is not in the palette");
                out[0] = colours[index].red;
                out[1] = colours[index].green;
                out[2] = colours[index].blue;
            }
        }
    }

    // 16-bit grey stands, high byte first, in the last two thirds of each row; as above, nothing unread is overwritten.
    void clip(std::uint8_t* rgb, std::size_t row_bytes, std::size_t offset) {
        for (std::int64_t y = 0; y < height(); ++y, rgb += row_bytes) {
            std::uint8_t* out = rgb;
            for (std::size_t at = offset; at < row_bytes; at += 2, out += 3) {
                clipped_ += rgb[at] > 0;
                std::memset(out, rgb[at] > 0 ? 255 : rgb[at + 1], 3);
            }
        }
    }

    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    std::int64_t clipped_ = 0;
    std::span<const std::uint8_t> rest_;
    PngErrors errors_{};
};

PictureSize png_size(std::span<const std::uint8_t> bytes, const std::string& name) {
    PngReader reader(bytes);
    if (!reader.read_header()) throw Error("image", name, ": damaged PNG: ", reader.error());
    check_size(reader.width(), reader.height(), name);
    return {static_cast<int>(reader.width()), static_cast<int>(reader.height())};
}

Image decode_png(std::span<const std::uint8_t> bytes, const std::string& name) {
    PngReader reader(bytes);
    if (!reader.read_header()) throw Error("image", name, ": damaged PNG: ", reader.error());
    check_size(reader.width(), reader.height(), name);
    // Deflate shrinks to 1/1032 at best: a small file cannot make us allocate a large picture.
    const PictureSize size{static_cast<int>(reader.width()), static_cast<int>(reader.height())};
    check_holds(bytes, reader.raw_bytes(), 1032, size, "PNG", name);
    Image image(size.width, size.height);
    if (!reader.read_pixels(image.pixels.data())) throw Error("image", name, ": damaged PNG: ", reader.error());
    if (reader.clipped() > 0) note_clipped(name, reader.clipped(), std::int64_t{size.width} * size.height);
    return image;
}

class PngWriter {
  public:
    PngWriter() = default;
    ~PngWriter() { png_destroy_write_struct(&png_, &info_); }
    PngWriter(const PngWriter&) = delete;
    PngWriter& operator=(const PngWriter&) = delete;

    bool write(const Image& image) {
        if (setjmp(errors_.target)) return false;
        png_ = png_create_write_struct(PNG_LIBPNG_VER_STRING, &errors_, fail_png, ignore_png_warning);
        if (png_) info_ = png_create_info_struct(png_);
        if (!info_) {
            std::snprintf(errors_.text, sizeof errors_.text, "no memory for the encoder");
            return false;
        }
        png_set_write_fn(png_, &bytes_, append, nullptr);
        png_set_user_limits(png_, kMaxPixels, kMaxPixels);
        png_set_IHDR(png_, info_, image.width, image.height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        png_write_info(png_, info_);
        for (int y = 0; y < image.height; ++y) png_write_row(png_, image.at(0, y));
        png_write_end(png_, info_);
        return true;
    }

    std::vector<std::uint8_t>& bytes() { return bytes_; }
    const char* error() const { return errors_.text; }

  private:
    static void append(png_structp png, png_bytep data, std::size_t count) {
        if (!append_to(*static_cast<std::vector<std::uint8_t>*>(png_get_io_ptr(png)), data, count))
            png_error(png, "no memory for the encoded picture");
    }

    // No exception may pass through libpng, and no jump through a handler.
    static bool append_to(std::vector<std::uint8_t>& bytes, const std::uint8_t* data, std::size_t count) noexcept {
        try {
            bytes.insert(bytes.end(), data, data + count);
            return true;
        } catch (const std::bad_alloc&) {
            return false;
        }
    }

    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    std::vector<std::uint8_t> bytes_;
    PngErrors errors_{};
};

// ---- any ------------------------------------------------------------------------------------------------------------

/// How a format is read, whatever the file's name says.
struct Codec {
    FileKind kind;
    Image (*decode)(std::span<const std::uint8_t>, const std::string&);
    PictureSize (*size)(std::span<const std::uint8_t>, const std::string&);
};

constexpr std::array<Codec, 6> kCodecs = {{{FileKind::kJpeg, decode_jpeg, jpeg_size},
                                           {FileKind::kPng, decode_png, png_size},
                                           {FileKind::kWebp, decode_webp, webp_size},
                                           {FileKind::kGif, decode_gif, gif_size},
                                           {FileKind::kBmp, decode_bmp, bmp_size},
                                           {FileKind::kTiff, decode_tiff, tiff_size}}};

const Codec& codec_of(std::span<const std::uint8_t> bytes, const std::string& name) {
    const FileKind kind = file_kind(bytes);
    const auto* codec = std::ranges::find(kCodecs, kind, &Codec::kind);
    if (codec != kCodecs.end()) return *codec;
    throw Error("image", name, ": found ", describe_file(bytes, bytes.size()),
                ", expected a picture: JPEG, PNG, WebP, GIF, BMP or TIFF", advice(kind));
}

}  // namespace

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name) {
    return codec_of(bytes, name).decode(bytes, name);
}

PictureSize picture_size(std::span<const std::uint8_t> bytes, const std::string& name) {
    return codec_of(bytes, name).size(bytes, name);
}

DecodedWindow decode_window(std::span<const std::uint8_t> bytes, const std::string& name, const Window& window,
                            int target_width, int target_height) {
    const Codec& codec = codec_of(bytes, name);
    if (codec.kind == FileKind::kJpeg) return decode_jpeg_window(bytes, name, window, target_width, target_height);
    Image image = codec.decode(bytes, name);
    check_window(window, image.width, image.height, name);
    return {std::move(image), box_of(window)};
}

Image read_image(const std::filesystem::path& path) {
    return decode_image(read_file(path, "image"), path.string());
}

std::vector<std::uint8_t> encode_png(const Image& image) {
    check_size(image.width, image.height, "picture to encode");
    if (image.pixels.size() != std::size_t{3} * image.width * image.height)
        throw Error("image", "picture to encode: ", image.pixels.size(), " bytes are not ", image.width, " x ",
                    image.height, " RGB pixels");
    PngWriter writer;
    if (!writer.write(image)) throw Error("image", "picture to encode: ", writer.error());
    return std::move(writer.bytes());
}

void write_png(const std::filesystem::path& path, const Image& image) {
    const std::vector<std::uint8_t> bytes = encode_png(image);
    write_file_atomically(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "image");
}

}  // namespace dynvit
