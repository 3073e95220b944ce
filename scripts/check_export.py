#!/usr/bin/env python3
"""Runs an ONNX file with ONNX Runtime and compares it with what dynvit computed. Needs numpy and onnxruntime.

    check_export.py MODEL.onnx EXPECTED.safetensors [BATCH_SIZE ...]

EXPECTED holds images (n, 3, H, W), logits (n, classes) and, where the model gives them, kept_1, kept_2, ... For each
batch size (1 and 5 if none is given) the pictures go through in batches. Prints the largest difference of a logit; exit
code 1 if it is above 1e-4, or a picture keeps other patches.
"""
import json
import sys

import numpy as np
import onnxruntime

TOLERANCE = 1e-4


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "I64": np.int64}
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def run(session, images, batch_size):
    """All outputs by name, for images that go through in batches."""
    names = [output.name for output in session.get_outputs()]
    parts = [
        session.run(names, {"images": images[first : first + batch_size]})
        for first in range(0, len(images), batch_size)
    ]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*parts))}


def main(model, expected_file, *batch_sizes):
    expected = read_safetensors(expected_file)
    images = expected.pop("images")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    good = True
    for batch_size in map(int, batch_sizes or (1, 5)):
        found = run(session, images, batch_size)
        if found.keys() != expected.keys():
            sys.exit(f"{model}: found the outputs {sorted(found)}, expected {sorted(expected)}")
        others = [name for name in found if name != "logits" and not np.array_equal(found[name], expected[name])]
        difference = float(np.abs(found["logits"] - expected["logits"]).max())
        good = good and not others and difference <= TOLERANCE
        print(
            f"{len(images)} pictures in batches of {batch_size}: largest difference of a logit {difference:.2g}, "
            + (f"other patches in {', '.join(others)}" if others else "kept patches equal")
        )
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    sys.exit(main(*sys.argv[1:]))
