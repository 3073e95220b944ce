// JPEG files made by the tests themselves, through libjpeg.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

#include <jpeglib.h>

#include "dynvit/io/image.hpp"

namespace dynvit::test {

struct JpegKind {
    int quality = 90;
    int horizontal = 2, vertical = 2;  // pixels a chroma sample; 2 x 2 is 4:2:0
    bool grey = false;
    bool rgb = false;  // stored without a colour transform
    bool progressive = false;
    bool scan_a_channel = false;
    int restart_rows = 0;  // a restart marker after so many rows of decoding units; 0: none
};

inline std::vector<std::uint8_t> encode_jpeg(const Image& image, const JpegKind& kind = {}) {
    jpeg_compress_struct info{};
    jpeg_error_mgr errors{};
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* data = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &data, &size);
    info.image_width = static_cast<JDIMENSION>(image.width);
    info.image_height = static_cast<JDIMENSION>(image.height);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    if (kind.grey) jpeg_set_colorspace(&info, JCS_GRAYSCALE);
    if (kind.rgb) jpeg_set_colorspace(&info, JCS_RGB);
    jpeg_set_quality(&info, kind.quality, TRUE);
    if (!kind.grey && !kind.rgb) {
        info.comp_info[0].h_samp_factor = kind.horizontal;
        info.comp_info[0].v_samp_factor = kind.vertical;
    }
    jpeg_scan_info scans[3] = {};
    if (kind.scan_a_channel) {
        for (int c = 0; c < 3; ++c) scans[c] = {1, {c}, 0, 63, 0, 0};
        info.scan_info = scans;
        info.num_scans = 3;
    }
    if (kind.progressive) jpeg_simple_progression(&info);
    info.restart_in_rows = kind.restart_rows;
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): libjpeg only reads it
        JSAMPROW row = const_cast<JSAMPROW>(image.at(0, static_cast<int>(info.next_scanline)));
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    const std::vector<std::uint8_t> bytes(data, data + size);
    std::free(data);
    return bytes;
}

}  // namespace dynvit::test
