#!/usr/bin/env python3
"""Writes what the fuzzers start from: small files of tests/golden and configs, and some made here where those have none.

    tests/fuzz/seeds.py OUTPUT      OUTPUT/READER/NAME for each of the programs READER_fuzz
"""
import io
import json
import pathlib
import struct
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
MOST_BYTES = 16 << 10  # longer ones are slow to learn from
READER_OF_ENDING = {"jpg": "jpeg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tif": "tiff"}


def put(reader, name, data):
    path = pathlib.Path(sys.argv[1]) / reader / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def safetensors(path):
    """The header and the bytes behind it."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8:8 + length]), data[8 + length:]


def safetensors_file(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def without_checksums(archive):
    """A zip archive whose directory knows no checksums: a reader of it gets past them to changed bytes."""
    data = bytearray(archive)
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 16:at + 20] = bytes(4)
        at = data.find(b"PK\x01\x02", at + 4)
    return bytes(data)


def pictures():
    for path in (GOLDEN / "images").iterdir():
        reader = READER_OF_ENDING.get(path.suffix[1:])
        if reader and path.stat().st_size <= MOST_BYTES:
            put(reader, path.name, path.read_bytes())
            if reader == "jpeg":
                put("jpeg_markers", path.name, path.read_bytes())
    header, data = safetensors(GOLDEN / "formats" / "pictures.safetensors")
    for key, entry in header.items():
        begin, end = entry.get("data_offsets", (0, 0))
        reader = READER_OF_ENDING.get(key.rpartition(".")[2])
        if key.startswith("file.") and reader and end - begin <= MOST_BYTES:
            put(reader, key[len("file."):], data[begin:end])


def weights():
    for path in sorted(GOLDEN.rglob("*.safetensors")):
        if path.stat().st_size <= MOST_BYTES:
            put("safetensors", path.name, path.read_bytes())
    put("safetensors", "types", safetensors_file({
        "__metadata__": {"dynvit": "model:\n  depth: 1\n"},
        "a": {"dtype": "BOOL", "shape": [2, 1], "data_offsets": [0, 2]},
        "b": {"dtype": "BF16", "shape": [0, 3], "data_offsets": [2, 2]},
        "c": {"dtype": "F64", "shape": [], "data_offsets": [2, 10]},
        "d": {"dtype": "F4", "shape": [2], "data_offsets": [10, 11]}}, bytes([0, 1]) + bytes(9)))
    for path in sorted([*GOLDEN.rglob("*.pth"), *GOLDEN.rglob("*.pt")]):
        data = path.read_bytes()
        name = path.parent.name + "_" + path.name
        if len(data) <= MOST_BYTES:
            put("pth", name, without_checksums(data))
        if len(pickle_of(data)) <= MOST_BYTES:
            put("pickle", name, pickle_of(data))
    weights = {"w": tensor("0", 4, (2, 2), (2, 1)), "b": parameter(tensor("1", 2, (2,), (1,)))}
    checkpoint = {"model": weights, "model_ema": weights, "optimizer": {"lr": 1}, "epoch": 2}
    part = made(b"__torch__\nPart", {"w": weights["w"], "training": 0})
    put("pth", "parts", archive(checkpoint))
    put("pth", "torchscript", archive(made(b"__torch__\nModel", {"part": part, "b": weights["b"]}), ["constants.pkl"]))


def pickled(value):
    """A value's opcodes, those of bytes being what they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value)) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    items = [pickled(item) for pair in value.items() for item in pair] if isinstance(value, dict) else map(pickled, value)
    return (b"}(" if isinstance(value, dict) else b"(") + b"".join(items) + (b"u" if isinstance(value, dict) else b"t")


def called(name, *arguments):
    return b"ctorch._utils\n" + name + b"\n" + pickled(arguments) + b"R"


def tensor(key, elements, sizes, strides):
    storage = pickled(("storage", b"ctorch\nFloatStorage\n", key, "cpu", elements)) + b"Q"
    return called(b"_rebuild_tensor_v2", storage, 0, sizes, strides, b"\x89", {})


def parameter(value):
    return called(b"_rebuild_parameter", value, b"\x89", {})


def made(name, state):
    """An object of a class, whose module and name a line each names."""
    return b"c" + name + b"\n)\x81" + pickled(state) + b"b"


def archive(value, more=()):
    """What torch.save writes of a value with two storages, of 4 and of 2 floats."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as files:
        files.writestr("a/data.pkl", b"\x80\x02" + pickled(value) + b".")
        files.writestr("a/byteorder", "little")
        files.writestr("a/data/0", bytes(16))
        files.writestr("a/data/1", bytes(8))
        for name in more:
            files.writestr("a/" + name, b"\x80\x02).")
    return without_checksums(out.getvalue())


def pickle_of(checkpoint):
    """The first pickle of an archive; an old checkpoint begins with its own."""
    name = checkpoint.find(b"/data.pkl")
    if name < 0:
        return checkpoint
    header = checkpoint.rfind(b"PK\x03\x04", 0, name)
    name_bytes, extra_bytes = struct.unpack_from("<HH", checkpoint, header + 26)
    begin = header + 30 + name_bytes + extra_bytes
    return checkpoint[begin:checkpoint.find(b"PK\x07\x08", begin)]


def archives():
    for name, kind in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("ustar", tarfile.USTAR_FORMAT)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as packed:
            long = "" if kind == tarfile.USTAR_FORMAT else "n" * 120
            members = ((long + "a.jpg", b"x" * 600), (long + "a.cls", b"1"), ("folder/b.png", b""), ("folder/b.cls", b"0"))
            for member, data in members:
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                packed.addfile(entry, io.BytesIO(data))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
            packed.addfile(link)
        put("tar", name, out.getvalue()[:packed.offset])  # without the padding behind its end


def texts():
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        put("yaml", path.name, path.read_bytes())
    settings = """\
x-shared: &shared {labelled: false, mean: [0.5, 0.25, 1e-3]}
name: "a b"
data:
  <<: *shared
  root: 'pictures'
  interpolation: bilinear
  train_folders:
    - a
    - |
      b
model: {num_classes: 10, pruning_loc: [3, 6, 9], keep_ratio: .7}
"""
    changes = ["data.root=/x # y", "model.pruning_loc=[1, 2]", "data.mean={}", "model.keep_ratio=1", "name=\"\""]
    put("yaml", "settings", settings.encode())
    put("yaml", "changes", "\0".join([settings, *changes]).encode())

    for path in sorted(GOLDEN.rglob("*config.json")):
        beside = path.parent / "preprocessor_config.json"
        if path.name == beside.name:
            continue
        data = path.read_bytes()
        if beside.exists():
            data += b"\0" + beside.read_bytes()
        put("model_config", path.parent.name, data)
    put("weights_index", "one", b'{"metadata": {"total_size": 4}, "weight_map": {"x": "a.safetensors"}}')
    put("label_file", "names", b'path,labels\na.jpg,cat dog\n"b c.png",traffic light;dog\n\0cat Cat\ndog The dog\n')
    put("label_file", "numbers", b"\xef\xbb\xbfa.jpg,0 2\r\nb c.png,\r\n\0" + b"0\n1 one\n2\n")


def main():
    pictures()
    weights()
    archives()
    texts()
    output = pathlib.Path(sys.argv[1])
    kinds = sorted(path for folder in output.iterdir() for path in folder.iterdir())
    for path in kinds:  # a file's first kilobyte says what it is
        put("file_kind", path.parent.name, path.read_bytes()[:1024])


main()
