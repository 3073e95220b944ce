// GIF pictures through giflib; of an animation the first frame.
#include <gif_lib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "dynvit/core/error.hpp"
#include "picture_codecs.hpp"

namespace dynvit {
namespace {

class GifReader {
  public:
    /// Reads up to the first frame's pixels.
    GifReader(std::span<const std::uint8_t> bytes, const std::string& name) : rest_(bytes), name_(name) {
        int error = 0;
        file_ = DGifOpen(&rest_, take, &error);
        if (!file_) fail(error);
        try {
            find_frame();
        } catch (...) {
            close();
            throw;
        }
    }
    ~GifReader() { close(); }
    GifReader(const GifReader&) = delete;
    GifReader& operator=(const GifReader&) = delete;

    const GifImageDesc& frame() const { return file_->Image; }

    /// Of the canvas, which grows where the frame sticks out of it.
    PictureSize size() const {
        return {std::max<int>(file_->SWidth, frame().Left + frame().Width),
                std::max<int>(file_->SHeight, frame().Top + frame().Height)};
    }

    /// The index that stands where the frame does not.
    int background() const { return transparent_.value_or(0); }

    Palette palette() const {
        const ColorMapObject* map = frame().ColorMap ? frame().ColorMap : file_->SColorMap;
        Palette palette;
        for (int i = 0; i < 256; ++i) {
            std::uint8_t* to = palette.colours[i];
            if (!map) std::memset(to, i, 3);  // without colours an index is a grey value
            if (!map || i >= map->ColorCount) continue;
            to[0] = map->Colors[i].Red;
            to[1] = map->Colors[i].Green;
            to[2] = map->Colors[i].Blue;
        }
        return palette;
    }

    /// The frame's next row of indices in the order of the file.
    void read_row(std::span<std::uint8_t> indices) {
        if (DGifGetLine(file_, indices.data(), static_cast<int>(indices.size())) == GIF_ERROR) fail(file_->Error);
    }

  private:
    static int take(GifFileType* file, GifByteType* target, int count) {
        auto* rest = static_cast<std::span<const std::uint8_t>*>(file->UserData);
        const std::size_t taken = std::min(rest->size(), static_cast<std::size_t>(count));
        std::memcpy(target, rest->data(), taken);
        *rest = rest->subspan(taken);
        return static_cast<int>(taken);
    }

    [[noreturn]] void fail(int error) const {
        const char* text = GifErrorString(error);
        throw Error("image", name_, ": damaged GIF: ", text ? text : "unknown error");
    }

    void close() {
        if (file_) DGifCloseFile(file_, nullptr);
        file_ = nullptr;
    }

    void find_frame() {
        while (true) {
            GifRecordType record = UNDEFINED_RECORD_TYPE;
            if (DGifGetRecordType(file_, &record) == GIF_ERROR) fail(file_->Error);
            if (record == TERMINATE_RECORD_TYPE) throw Error("image", name_, ": damaged GIF: it has no picture");
            if (record == IMAGE_DESC_RECORD_TYPE) break;
            if (record == EXTENSION_RECORD_TYPE) read_extension();
        }
        if (DGifGetImageDesc(file_) == GIF_ERROR) fail(file_->Error);
    }

    /// Of the extensions only the transparent index matters.
    void read_extension() {
        int code = 0;
        GifByteType* block = nullptr;  // its length, then its bytes
        if (DGifGetExtension(file_, &code, &block) == GIF_ERROR) fail(file_->Error);
        constexpr int kFlags = 1, kTransparent = 4;
        if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= kTransparent && (block[kFlags] & 1))
            transparent_ = block[kTransparent];
        while (block)
            if (DGifGetExtensionNext(file_, &block) == GIF_ERROR) fail(file_->Error);
    }

    std::span<const std::uint8_t> rest_;
    const std::string& name_;
    GifFileType* file_ = nullptr;
    std::optional<int> transparent_;
};

/// The rows of a frame in the order of the file.
std::vector<int> row_order(int height, bool interlaced) {
    struct Pass {
        int first, step;
    };
    constexpr std::array<Pass, 4> kInterlaced = {{{0, 8}, {4, 8}, {2, 4}, {1, 2}}};
    constexpr std::array<Pass, 1> kPlain = {{{0, 1}}};
    std::vector<int> rows;
    for (const Pass& pass : interlaced ? std::span<const Pass>(kInterlaced) : std::span<const Pass>(kPlain))
        for (int y = pass.first; y < height; y += pass.step) rows.push_back(y);
    return rows;
}

}  // namespace

PictureSize gif_size(std::span<const std::uint8_t> bytes, const std::string& name) {
    const GifReader reader(bytes, name);
    const PictureSize size = reader.size();
    check_size(size.width, size.height, name);
    return size;
}

Image decode_gif(std::span<const std::uint8_t> bytes, const std::string& name) {
    // A code of 12 bits stands for at most 4,096 pixels.
    constexpr std::uint64_t kMostPerByte = 4096 * 8 / 12 + 1;
    GifReader reader(bytes, name);
    const GifImageDesc& frame = reader.frame();
    const PictureSize size = reader.size();
    check_size(size.width, size.height, name);
    check_size(frame.Width, frame.Height, name);
    check_holds(bytes, static_cast<std::uint64_t>(frame.Width) * frame.Height, kMostPerByte,
                {frame.Width, frame.Height}, "GIF", name);
    check_not_blank(bytes, size, name);

    const Palette palette = reader.palette();
    Image image(size.width, size.height);
    const bool covered = frame.Width == size.width && frame.Height == size.height;
    for (std::uint8_t* at = image.pixels.data(); !covered && at != image.pixels.data() + image.pixels.size(); at += 3)
        palette.put(reader.background(), at);
    std::vector<std::uint8_t> indices(frame.Width);
    for (const int y : row_order(frame.Height, frame.Interlace)) {
        reader.read_row(indices);
        std::uint8_t* to = image.at(frame.Left, frame.Top + y);
        for (const std::uint8_t index : indices) {
            palette.put(index, to);
            to += 3;
        }
    }
    return image;
}

}  // namespace dynvit
