"""Writes the tensors beside this file: what the published code of ToMe and EViT makes of random weights and pictures.

    python3 make.py --tome FOLDER --evit FOLDER

FOLDER: github.com/facebookresearch/ToMe and github.com/youweiliang/evit as they are published; needs torch, timm, safetensors.
"""
import argparse
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES = dict(img_size=64, patch_size=8, embed_dim=24, depth=4, num_heads=3, mlp_ratio=2.0, num_classes=7, qkv_bias=True)
HERE = Path(__file__).parent


def spread(model):
    """Weights far from their neutral values, so that scores and similarities lie apart."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def pictures():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def weights(model):
    return {f"weights.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


def write_tome(folder):
    sys.path.insert(0, folder)
    import timm
    import tome

    model = spread(timm.models.vision_transformer.VisionTransformer(**SIZES))
    tensors = {"images": pictures(), **weights(model)}
    tome.patch.timm(model, trace_source=True)
    for r in (5, 20):  # the second reaches half of the tokens, where ToMe merges fewer
        model.r = r
        with torch.no_grad():
            tensors[f"logits_{r}"] = model(tensors["images"])
        # (B, tokens, 65): which of [CLS] and the patches each token stands for, behind the last block.
        tensors[f"source_{r}"] = model._tome_info["source"].to(torch.uint8)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "tome.safetensors")


def write_evit(folder):
    sys.path.insert(0, folder)
    for name, source in (("timm.models.helpers", "timm.models"), ("timm.models.layers", "timm.layers"),
                         ("timm.models.registry", "timm.models")):  # where older releases of timm had them
        module = types.ModuleType(name)
        module.__dict__.update(vars(__import__(source, fromlist=["*"])))
        for missing in ("build_model_with_cfg", "named_apply", "adapt_input_conv", "register_model"):
            module.__dict__.setdefault(missing, lambda *args, **kwargs: args[0] if args else None)
        sys.modules[name] = module
    sys.modules["torchprofile"] = types.SimpleNamespace(profile_macs=None)  # which it counts with
    import evit

    model = spread(evit.EViT(keep_rate=(1, 0.6, 0.5, 1), fuse_token=True, **SIZES))
    tensors = {"images": pictures(), **weights(model)}
    with torch.no_grad():
        tensors["logits"] = model(tensors["images"])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "evit.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tome", required=True)
    parser.add_argument("--evit", required=True)
    arguments = parser.parse_args()
    write_tome(arguments.tome)
    write_evit(arguments.evit)
