"""Writes interpolation.safetensors beside this file: the scenes as Pillow resizes them, whole and to any aspect ratio.

    python3 make_interpolation.py      # needs pillow, numpy, safetensors
"""
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

HERE = Path(__file__).parent
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
SIZES = [(64, 64), (48, 20), (20, 61)]  # width, height

tensors = {}
for scene in (1,):
    picture = Image.open(HERE / f"scene{scene}.png").convert("RGB")
    for name, resampling in FILTERS.items():
        for size in SIZES:
            tensors[f"scene{scene}.{name}_{size[0]}x{size[1]}"] = np.asarray(picture.resize(size, resampling))
    # A corner of 12 x 9 pixels, enlarged.
    for name, resampling in FILTERS.items():
        corner = picture.crop((30, 20, 42, 29))
        tensors[f"scene{scene}.{name}_40x50.corner"] = np.asarray(corner.resize((40, 50), resampling))
save_file(tensors, HERE / "interpolation.safetensors")
