"""Writes the files beside this one: what torch.save and other programs make of small state dicts.

    python3 make.py      # needs torch 2.11, safetensors 0.8, numpy

zip.pth and legacy.pth are older; pth_test.cpp says what is in them. Of the others `plain` is VALUES below, each file one
more way to store it:

    proto0.pth, proto1.pth                  pickle protocols 0 and 1 in the zip archive
    proto0_legacy.pth, proto1_legacy.pth    the same in the format before PyTorch 1.6
    deflated.pth                            proto 2, packed again by a program that deflates
    big_endian.pth                          as an s390x machine writes it: every number's bytes in reverse order
    types.pth, types.safetensors            a tensor of every type that torch saves, and beside those that turn into
                                            float32 what they turn into: NAME and NAME.float32
    others.pth                              quantized, sparse, nested and meta tensors beside a plain one
"""
import io
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
VALUES = {
    "floats": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 8 - 0.5,
    "turned": torch.arange(12, dtype=torch.float32).reshape(3, 4).t(),
    "halves": torch.arange(5, dtype=torch.float16) * 1.5,
    "doubles": torch.arange(3, dtype=torch.float64) / 3,
    "longs": torch.tensor([-(2**40), -1, 0, 2**40]),
    "shorts": torch.tensor([-300, 300], dtype=torch.int16),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "truths": torch.tensor([True, False, True]),
    "unsigned": torch.tensor([1, 40000], dtype=torch.uint16),
    "complex": torch.tensor([1 + 2j, -3j], dtype=torch.complex64),
    "\u00fc name": torch.ones(1),
}
REST = {"epoch": 3, "lr": 1e-3, "large": 10**30, "negative": -(10**25), "text": "a 'b'\n\\ \u20ac", "flag": True}


def plain():
    return {"model": VALUES, **REST}


def packed(name, data, method, swap=False):
    """The archive's files anew, in an archive that is packed so."""
    with zipfile.ZipFile(HERE / name, "w", method) as out, zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {}
        if swap:  # what a number has in bytes, by the storage's key
            for key, size in zip(
                (str(i) for i in range(len(VALUES))),
                (v.element_size() // (2 if v.is_complex() else 1) for v in VALUES.values()),
            ):
                sizes[key] = size
        for info in archive.namelist():
            content = archive.read(info)
            if swap and "/data/" in info:
                size = sizes[info.rsplit("/", 1)[1]]
                content = b"".join(content[i : i + size][::-1] for i in range(0, len(content), size))
            if swap and info.endswith("/byteorder"):
                content = b"big"
            out.writestr(info, content)


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def types():
    tensors = {}
    numbers = torch.tensor([0.0, 1.0, -2.0, 0.5, 96.0])
    for name in sorted(n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)):
        dtype = getattr(torch, name)
        if str(dtype) != "torch." + name:
            continue  # another name of one that is there
        try:
            if dtype.is_floating_point or dtype.is_complex:
                tensor = numbers.abs().to(dtype) if name == "float8_e8m0fnu" else numbers.to(dtype)
            else:
                tensor = torch.arange(1, 6).to(dtype)
        except (NotImplementedError, RuntimeError):
            tensor = torch.zeros(16, dtype=torch.uint8).view(dtype) if not name.startswith("q") else None
        if tensor is None:
            continue
        try:
            saved(tensor)
        except KeyError:
            continue  # torch.uint4 and its like: torch cannot save them
        tensors[name] = tensor
        try:
            if not dtype.is_complex:
                tensors[name + ".float32"] = tensor.to(torch.float32).clone()
        except NotImplementedError:
            pass
    return tensors


def main():
    for protocol in (0, 1):
        (HERE / f"proto{protocol}.pth").write_bytes(saved(plain(), pickle_protocol=protocol))
        legacy = saved(plain(), pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        (HERE / f"proto{protocol}_legacy.pth").write_bytes(legacy)
    packed("deflated.pth", saved(plain()), zipfile.ZIP_DEFLATED)
    packed("big_endian.pth", saved(plain()), zipfile.ZIP_STORED, swap=True)

    tensors = types()
    packed("types.pth", saved(tensors), zipfile.ZIP_DEFLATED)
    missing = {name for name in tensors if name.startswith("bits")} | {"complex128", "complex32"}
    save_file({name: tensor for name, tensor in tensors.items() if name not in missing}, HERE / "types.safetensors")

    weights = torch.arange(4, dtype=torch.float32)
    others = {
        "plain": weights,
        "per_tensor": torch.quantize_per_tensor(weights, 0.5, 0, torch.qint8),
        "per_channel": torch.quantize_per_channel(
            weights.reshape(2, 2), torch.ones(2), torch.zeros(2, dtype=torch.long), 0, torch.quint8
        ),
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.eye(3).to_sparse_csr(),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "meta": torch.empty(3, device="meta"),
        "conjugated": torch.tensor([1 + 2j]).conj(),
    }
    packed("others.pth", saved({"model": others}), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
