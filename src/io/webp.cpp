// WebP pictures through libwebp; of an animation the first frame.
#include <webp/decode.h>
#include <webp/demux.h>

#include <array>
#include <memory>

#include "dynvit/core/error.hpp"
#include "picture_codecs.hpp"

namespace dynvit {
namespace {

/// What libwebp says of a file's structure; the file's bytes must outlive it.
class WebpFile {
  public:
    WebpFile(std::span<const std::uint8_t> bytes, const std::string& name) : name_(name) {
        const WebPData data{bytes.data(), bytes.size()};
        WebPDemuxState state = WEBP_DEMUX_PARSING_HEADER;
        demuxer_.reset(WebPDemuxPartial(&data, &state));
        if (!demuxer_ || state == WEBP_DEMUX_PARSE_ERROR) fail("its chunks are not in order");
        if (state != WEBP_DEMUX_DONE) fail("the file ends too early");
        check_size(width(), height(), name);
        if (!WebPDemuxGetFrame(demuxer_.get(), 1, &frame_) || !frame_.complete) fail("it has no picture");
    }
    ~WebpFile() { WebPDemuxReleaseIterator(&frame_); }
    WebpFile(const WebpFile&) = delete;
    WebpFile& operator=(const WebpFile&) = delete;

    [[noreturn]] void fail(const char* what) const { throw Error("image", name_, ": damaged WebP: ", what); }

    int width() const { return static_cast<int>(WebPDemuxGetI(demuxer_.get(), WEBP_FF_CANVAS_WIDTH)); }
    int height() const { return static_cast<int>(WebPDemuxGetI(demuxer_.get(), WEBP_FF_CANVAS_HEIGHT)); }
    const WebPIterator& frame() const { return frame_; }

  private:
    struct Delete {
        void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
    };
    const std::string& name_;
    std::unique_ptr<WebPDemuxer, Delete> demuxer_;
    WebPIterator frame_{};
};

const char* text_of(VP8StatusCode status) {
    switch (status) {
        case VP8_STATUS_OUT_OF_MEMORY:
            return "no memory for the decoder";
        case VP8_STATUS_NOT_ENOUGH_DATA:
            return "its data end too early";
        case VP8_STATUS_UNSUPPORTED_FEATURE:
            return "it uses a feature that libwebp does not know";
        default:
            return "its data are wrong";
    }
}

/// A lossy frame spends more than a bit on each block of 16 x 16 pixels. A lossless one may spend none on a pixel.
void check_frame_holds(const WebPBitstreamFeatures& features, const WebPIterator& frame, const std::string& name) {
    constexpr int kLossy = 1;
    constexpr std::uint64_t kPixelsPerByte = 8 * 16 * 16;
    if (features.format != kLossy) return;
    const PictureSize size{features.width, features.height};
    check_holds({frame.fragment.bytes, frame.fragment.size}, std::uint64_t{3} * size.width * size.height,
                3 * kPixelsPerByte, size, "WebP", name);
}

}  // namespace

PictureSize webp_size(std::span<const std::uint8_t> bytes, const std::string& name) {
    const WebpFile file(bytes, name);
    return {file.width(), file.height()};
}

Image decode_webp(std::span<const std::uint8_t> bytes, const std::string& name) {
    const WebpFile file(bytes, name);
    const WebPIterator& frame = file.frame();
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        throw Error("image", name, ": this libwebp is not the one dynvit was built with");
    const VP8StatusCode header = WebPGetFeatures(frame.fragment.bytes, frame.fragment.size, &config.input);
    if (header != VP8_STATUS_OK) file.fail(text_of(header));
    if (config.input.width != frame.width || config.input.height != frame.height ||
        frame.width > file.width() - frame.x_offset || frame.height > file.height() - frame.y_offset)
        file.fail("its frame does not lie in the picture");
    check_frame_holds(config.input, frame, name);
    check_not_blank(bytes, {file.width(), file.height()}, name);

    Image image(file.width(), file.height());  // outside the frame it is black
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = image.at(frame.x_offset, frame.y_offset);
    config.output.u.RGBA.stride = 3 * image.width;
    config.output.u.RGBA.size =
        image.pixels.size() - static_cast<std::size_t>(image.at(frame.x_offset, frame.y_offset) - image.pixels.data());
    const VP8StatusCode status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
    WebPFreeDecBuffer(&config.output);
    if (status != VP8_STATUS_OK) file.fail(text_of(status));
    return image;
}

}  // namespace dynvit
