"""Writes pictures.safetensors beside this file: picture files of every format and kind that dynvit reads, made of computed
pictures, and what Pillow's Image.open(...).convert("RGB") makes of them.

    file.NAME      the file's bytes
    rgb.NAME       (height, width, 3)
    refused.NAME   the bytes of a file of a kind that is not supported

    python3 make.py      # needs pillow (13.0 was taken), numpy, safetensors
"""
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

HERE = Path(__file__).parent
W, H = 13, 9  # neither is a multiple of what a format packs

y, x = np.mgrid[0:H, 0:W]
RGB = np.stack([x * 19, y * 28, (x * 7 + y * 31) % 256], axis=-1).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (H, W, 4), dtype=np.uint8)
ALPHA = (x * 40 % 256).astype(np.uint8)  # some 0, none regular
RGBA = np.dstack([RGB, ALPHA])
GREY = ((x * 20 + y * 5) % 256).astype(np.uint8)
INDEX = ((x + 2 * y) % 16).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)

files, refused = {}, {}


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def packed(samples, bits):
    """Rows of samples of 1, 2 or 4 bits, each row filled up to a byte."""
    digits = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(samples.shape[0], -1).astype(np.uint8), axis=1)


# ---- WebP -----------------------------------------------------------------------------------------------------------
rgb, rgba = Image.fromarray(RGB), Image.fromarray(RGBA)
files["lossy.webp"] = saved(rgb, "WEBP", quality=80)
files["lossless.webp"] = saved(Image.fromarray(NOISE[..., :3]), "WEBP", lossless=True)
files["lossy_alpha.webp"] = saved(rgba, "WEBP", quality=80)
files["lossless_alpha.webp"] = saved(rgba, "WEBP", lossless=True, exact=True)
files["one_colour.webp"] = saved(Image.new("RGB", (40, 30), (1, 200, 3)), "WEBP", lossless=True)
turned = Image.Exif()
turned[0x112] = 6
files["turned.webp"] = saved(rgb, "WEBP", quality=80, exif=turned)
files["animated.webp"] = saved(rgba, "WEBP", lossless=True, save_all=True, append_images=[rgba.transpose(0), rgba.rotate(180)])


def chunk(name, data):
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def number(value, count):
    return value.to_bytes(count, "little")


frame = files["lossless.webp"][12:]
body = chunk(b"VP8X", bytes([2, 0, 0, 0]) + number(19, 3) + number(15, 3)) + chunk(b"ANIM", bytes(6))
body += chunk(b"ANMF", number(2, 3) + number(1, 3) + number(W - 1, 3) + number(H - 1, 3) + number(9, 3) + b"\0" + frame)
files["frame_in_canvas.webp"] = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


# ---- GIF ------------------------------------------------------------------------------------------------------------
def lzw(indices, bits):
    """Codes that never leave their first width: the table is cleared before it would grow."""
    clear, stream, value, count = 1 << bits, bytearray(), 0, 0
    codes = []
    for i, index in enumerate(indices):
        codes += [clear] * (i % (clear - 2) == 0) + [int(index)]
    for code in codes + [clear + 1]:
        value |= code << count
        count += bits + 1
        while count >= 8:
            stream.append(value & 255)
            value, count = value >> 8, count - 8
    stream.append(value & 255)
    blocks = [bytes(stream[i : i + 255]) for i in range(0, len(stream), 255)]
    return bytes([bits]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def gif(indices, screen, at=(0, 0), colours=None, local=None, transparent=None, interlaced=False):
    def table(entries):
        return 128 | (len(entries).bit_length() - 2) if entries is not None else 0

    height, width = indices.shape
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, table(colours), 5, 0)
    data += colours.tobytes() if colours is not None else b""
    data += b"!\xfe\x07comment\0"
    if transparent is not None:
        data += b"!\xf9\x04" + bytes([1, 0, 0, transparent]) + b"\0"
    data += b"," + struct.pack("<HHHHB", *at, width, height, table(local) | 64 * interlaced)
    data += local.tobytes() if local is not None else b""
    rows = indices
    if interlaced:
        rows = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    return data + lzw(rows.ravel(), 4) + b";"


screen = (W, H)
files["plain.gif"] = saved(Image.fromarray(NOISE[..., 0]).convert("P", palette=Image.Palette.ADAPTIVE), "GIF")
files["grey.gif"] = saved(Image.fromarray(GREY), "GIF", interlace=0)
files["interlaced.gif"] = gif(INDEX, screen, colours=COLOURS[:16], interlaced=True)
files["transparent.gif"] = gif(INDEX, screen, colours=COLOURS[:16], transparent=3)
files["local_palette.gif"] = gif(INDEX, screen, colours=COLOURS[:16], local=COLOURS[16:32])
files["no_palette.gif"] = gif(INDEX, screen)
files["short_palette.gif"] = gif(INDEX, screen, colours=COLOURS[:8])
files["frame_in_canvas.gif"] = gif(INDEX, (W + 5, H + 4), (2, 1), colours=COLOURS[:16])
files["frame_in_transparent_canvas.gif"] = gif(INDEX, (W + 5, H + 4), (2, 1), colours=COLOURS[:16], transparent=7)
files["frame_sticks_out.gif"] = gif(INDEX, (W - 3, H - 2), (1, 1), colours=COLOURS[:16])
pictures = [Image.fromarray(INDEX * 16), Image.fromarray(NOISE[..., 0]), Image.fromarray(GREY)]
files["animated.gif"] = saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:])


# ---- BMP ------------------------------------------------------------------------------------------------------------
def bmp(bits, rows, colours=None, compression=0, masks=None, header=40, height=H, gap=0):
    """@param rows the file's rows, each filled up to 4 bytes; or run-length codes"""
    if not isinstance(rows, bytes):
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    if header == 12:
        info = struct.pack("<IHHHH", 12, W, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, W, height, 1, bits, compression, len(rows), 0, 0,
                           0 if colours is None or len(colours) == 1 << bits else len(colours), 0)
        if masks:
            info += struct.pack("<" + "I" * len(masks), *masks)
        info = info.ljust(header, b"\0")
    if colours is not None:
        bgr = colours[:, ::-1]
        info += (bgr if header == 12 else np.pad(bgr, ((0, 0), (0, 1)))).astype(np.uint8).tobytes()
    start = 14 + len(info) + gap
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + b"\0" * gap + rows


bottom_up = INDEX[::-1]
files["1_bit.bmp"] = bmp(1, packed(bottom_up & 1, 1), COLOURS[:2])
files["4_bits.bmp"] = bmp(4, packed(bottom_up, 4), COLOURS[:16])
files["4_bits_short_palette.bmp"] = bmp(4, packed(bottom_up, 4), COLOURS[:10])
files["8_bits.bmp"] = bmp(8, NOISE[..., 0], COLOURS)
files["8_bits_grey.bmp"] = saved(Image.fromarray(GREY), "BMP")
files["1_bit_black_and_white.bmp"] = saved(Image.fromarray(GREY > 90), "BMP")
files["8_bits_gap.bmp"] = bmp(8, bottom_up, COLOURS[:16], gap=6)
files["24_bits.bmp"] = saved(rgb, "BMP")
files["24_bits_os2.bmp"] = bmp(24, NOISE[..., :3].reshape(H, -1), header=12)
files["8_bits_os2.bmp"] = bmp(8, NOISE[..., 0], COLOURS, header=12)
files["32_bits.bmp"] = bmp(32, NOISE.reshape(H, -1))
files["top_down.bmp"] = bmp(24, NOISE[..., :3].reshape(H, -1), height=-H)
files["16_bits.bmp"] = bmp(16, NOISE[..., :2].reshape(H, -1))
files["565.bmp"] = bmp(16, NOISE[..., :2].reshape(H, -1), compression=3, masks=(0xF800, 0x7E0, 0x1F))
files["555_in_header.bmp"] = bmp(16, NOISE[..., :2].reshape(H, -1), compression=3, masks=(0x7C00, 0x3E0, 0x1F), header=56)
for name, masks in {
    "bgra": (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    "xbgr": (0xFF000000, 0xFF0000, 0xFF00, 0),
    "bgxr": (0xFF000000, 0xFF00, 0xFF, 0),
    "no_masks": (0, 0, 0, 0),
}.items():
    files[f"32_bits_{name}.bmp"] = bmp(32, NOISE.reshape(H, -1), compression=3, masks=masks, header=108)
# Runs, copied pixels, a row that ends early, a jump over rows, a run that is too long for its row.
runs8 = bytes([5, 1, 8, 2, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 0, 6, 9, 0, 0, 4, 11, 0, 0, 2, 12, 0, 2, 3, 2, 8, 3, 0, 0, 20, 4])
runs8 += bytes([0, 0, 13, 5, 0, 0, 13, 6])
files["rle8.bmp"] = bmp(8, runs8, COLOURS[:16], compression=1)
runs4 = bytes([5, 0x12, 8, 0x34, 0, 0, 0, 7, 0x12, 0x34, 0x56, 0x70, 6, 0x9A, 0, 0, 4, 0xB1, 0, 0, 2, 0xC2, 0, 2, 3, 2, 8, 0x31])
runs4 += bytes([0, 0, 20, 0x45, 0, 0, 13, 0x56, 0, 0, 13, 0x67])
files["rle4.bmp"] = bmp(4, runs4, COLOURS[:16], compression=2)
refused["jpeg_inside.bmp"] = bmp(24, bytes(100), compression=4)
refused["2_bits.bmp"] = bmp(2, packed(INDEX & 3, 2), COLOURS[:4])
refused["masks.bmp"] = bmp(16, NOISE[..., :2].reshape(H, -1), compression=3, masks=(0xF000, 0xF00, 0xF0))
refused["header.bmp"] = files["8_bits.bmp"][:14] + struct.pack("<I", 16) + files["8_bits.bmp"][18:]


# ---- TIFF -----------------------------------------------------------------------------------------------------------
def tiff(strips, photometric, bits, samples=1, order="<", size=screen, compression=1, planar=1, extra=(), more=()):
    """@param strips their bytes; @param more further tags: number, type (3: 16 bits, 4: 32 bits), values"""
    pack = {1: zlib.compress, 0: bytes}[compression in (8, 32946)]
    strips = [pack(strip) for strip in strips]
    tags = {256: (4, size[:1]), 257: (4, size[1:]), 258: (3, [bits] * samples), 259: (3, [compression]),
            262: (3, [photometric]), 277: (3, [samples]), 284: (3, [planar])}
    if extra:
        tags[338] = (3, extra)
    tags.update({tag: (kind, values) for tag, kind, values in more})
    tiled = 322 in tags
    tags[325 if tiled else 279] = (4, [len(strip) for strip in strips])
    tags[324 if tiled else 273] = (4, [0] * len(strips))
    sizes, letters = {3: 2, 4: 4}, {3: "H", 4: "I"}
    values_at = 8 + 2 + 12 * len(tags) + 4
    at = values_at + sum(n for n in (sizes[kind] * len(values) for kind, values in tags.values()) if n > 4)
    offsets = [at + sum(map(len, strips[:i])) for i in range(len(strips))]
    tags[324 if tiled else 273] = (4, offsets)
    directory, outside = struct.pack(order + "H", len(tags)), b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        data = struct.pack(order + letters[kind] * len(values), *values)
        if len(data) > 4:
            outside, data = outside + data, struct.pack(order + "I", values_at + len(outside))
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8) + directory + struct.pack(order + "I", 0) + outside + b"".join(strips)


def split(rows, count=4):
    """The strips of `count` rows, and their tag."""
    data = np.ascontiguousarray(rows)
    return {"strips": [data[i : i + count].tobytes() for i in range(0, H, count)], "more": [(278, 4, [count])]}


def tiles(rows, size=16):
    data = np.zeros((-(-H // size) * size, -(-W // size) * size) + rows.shape[2:], rows.dtype)
    data[:H, :W] = rows
    parts = [data[top : top + size, left : left + size].tobytes()
             for top in range(0, data.shape[0], size) for left in range(0, data.shape[1], size)]
    return {"strips": parts, "more": [(322, 4, [size]), (323, 4, [size])]}


MAP = (320, 3, [int(value) * 257 for value in COLOURS[:16].T.ravel()])
MAP8 = (320, 3, [int(value) * 256 + 255 for value in COLOURS.T.ravel()])
DEEP = (NOISE[..., :3].astype(np.uint16) << 8) | NOISE[..., 1:4]
CMYK = np.dstack([NOISE[..., :3], ALPHA])
for photometric in (0, 1):
    for bits in (1, 2, 4):
        files[f"grey_{photometric}_{bits}_bits.tif"] = tiff(**split(packed(INDEX >> (4 - bits), bits)), photometric=photometric, bits=bits)
    files[f"grey_{photometric}_8_bits.tif"] = tiff(**split(GREY), photometric=photometric, bits=8)
LOW = GREY.astype(np.uint16) * 3  # some above 255
files["grey_16_bits.tif"] = tiff(**split(LOW.astype("<u2")), photometric=1, bits=16)
files["grey_16_bits_big_endian.tif"] = tiff(**split(LOW.astype(">u2")), photometric=1, bits=16, order=">")
files["white_is_zero_16_bits.tif"] = tiff(**split(LOW.astype("<u2")), photometric=0, bits=16)
files["grey_alpha.tif"] = tiff(**split(np.dstack([GREY, ALPHA])), photometric=1, bits=8, samples=2, extra=[2])
for bits, colours in ((1, COLOURS[:2]), (2, COLOURS[:4]), (4, COLOURS[:16])):
    parts = split(packed(INDEX & (1 << bits) - 1, bits))
    parts["more"].append((320, 3, [int(value) * 257 for value in colours.T.ravel()]))
    files[f"palette_{bits}_bits.tif"] = tiff(**parts, photometric=3, bits=bits)
parts = split(NOISE[..., 0])
parts["more"].append(MAP8)
files["palette_8_bits.tif"] = tiff(**parts, photometric=3, bits=8)
files["rgb.tif"] = tiff(**split(RGB), photometric=2, bits=8, samples=3)
files["rgb_big_endian.tif"] = tiff(**split(RGB), photometric=2, bits=8, samples=3, order=">")
files["rgb_16_bits.tif"] = tiff(**split(DEEP.astype("<u2")), photometric=2, bits=16, samples=3)
files["rgb_16_bits_big_endian.tif"] = tiff(**split(DEEP.astype(">u2")), photometric=2, bits=16, samples=3, order=">")
files["rgb_alpha.tif"] = tiff(**split(RGBA), photometric=2, bits=8, samples=4, extra=[2])
files["rgb_alpha_unnamed.tif"] = tiff(**split(RGBA), photometric=2, bits=8, samples=4)
files["rgb_multiplied_alpha.tif"] = tiff(**split(RGBA), photometric=2, bits=8, samples=4, extra=[1])
files["rgb_multiplied_alpha_16_bits.tif"] = tiff(
    **split((RGBA.astype(np.uint16) * 257).astype("<u2")), photometric=2, bits=16, samples=4, extra=[1])
files["rgb_two_extra.tif"] = tiff(**split(np.dstack([RGBA, GREY])), photometric=2, bits=8, samples=5, extra=[2, 0])
files["cmyk.tif"] = tiff(**split(CMYK), photometric=5, bits=8, samples=4)
files["cmyk_16_bits.tif"] = tiff(**split((CMYK.astype(np.uint16) << 8).astype("<u2")), photometric=5, bits=16, samples=4)
planes = [plane for c in range(3) for plane in split(RGB[..., c])["strips"]]
files["planes.tif"] = tiff(planes, photometric=2, bits=8, samples=3, planar=2, more=[(278, 4, [4])])
files["planes_deflate.tif"] = tiff(planes, photometric=2, bits=8, samples=3, planar=2, more=[(278, 4, [4])], compression=8)
planes = [plane for c in range(3) for plane in split(DEEP[..., c].astype(">u2"))["strips"]]
files["planes_16_bits_deflate.tif"] = tiff(planes, photometric=2, bits=16, samples=3, planar=2, more=[(278, 4, [4])], compression=8, order=">")
planes = [plane for c in range(4) for plane in split(CMYK[..., c])["strips"]]
files["planes_cmyk.tif"] = tiff(planes, photometric=5, bits=8, samples=4, planar=2, more=[(278, 4, [4])])
files["tiles.tif"] = tiff(**tiles(RGB), photometric=2, bits=8, samples=3)
big = np.tile(RGB, (3, 3, 1))[:H, :W]
files["tiles_deflate.tif"] = tiff(**tiles(big), photometric=2, bits=8, samples=3, compression=8)
for orientation in range(1, 9):
    parts = split(GREY)
    parts["more"].append((274, 3, [orientation]))
    files[f"orientation_{orientation}.tif"] = tiff(**parts, photometric=1, bits=8, compression=8 if orientation % 2 else 1)
parts = split(GREY)
parts["more"].append((266, 3, [2]))
files["reversed_bits.tif"] = tiff(**parts, photometric=1, bits=8)
for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
    files[f"{compression}.tif"] = saved(rgb, "TIFF", compression=compression)
files["predictor.tif"] = saved(rgb, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
large = Image.fromarray(np.kron(RGB, np.ones((2, 2, 1), np.uint8)))
files["jpeg.tif"] = saved(large, "TIFF", compression="jpeg", quality=90)
files["jpeg_grey.tif"] = saved(large.convert("L"), "TIFF", compression="jpeg", quality=90)
for compression in ("group3", "group4", "tiff_ccitt"):
    files[f"{compression}.tif"] = saved(Image.fromarray(GREY > 90), "TIFF", compression=compression)
files["two_pages.tif"] = saved(rgb, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)])
files["big.tif"] = saved(rgb, "TIFF", big_tiff=True)
refused["float.tif"] = saved(Image.fromarray(GREY.astype(np.float32)), "TIFF")
refused["32_bits.tif"] = saved(Image.fromarray(GREY.astype(np.int32)), "TIFF")
refused["lab.tif"] = tiff(**split(RGB), photometric=8, bits=8, samples=3)
refused["multiplied_grey.tif"] = tiff(**split(np.dstack([GREY, ALPHA])), photometric=1, bits=8, samples=2, extra=[1])
refused["ycc.tif"] = tiff(**split(RGB), photometric=6, bits=8, samples=3)
refused["unknown_compression.tif"] = tiff(**split(RGB), photometric=2, bits=8, samples=3, compression=4321)
refused["3_bits.tif"] = tiff(**split(packed(INDEX & 7, 3)), photometric=1, bits=3)

# ---- 16-bit grey PNG ------------------------------------------------------------------------------------------------
files["grey_16_bits.png"] = saved(Image.fromarray(LOW), "PNG")
files["grey_16_bits_low.png"] = saved(Image.fromarray(GREY.astype(np.uint16)), "PNG")

tensors = {}
for name, data in files.items():
    tensors["file." + name] = np.frombuffer(data, np.uint8)
    tensors["rgb." + name] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
for name, data in refused.items():
    tensors["refused." + name] = np.frombuffer(data, np.uint8)
save_file(tensors, HERE / "pictures.safetensors")
print(len(files), "pictures,", len(refused), "that are not supported")
