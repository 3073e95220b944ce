"""Writes the folders beside this file: small Vision Transformers of every family as people have their files, with what
the family's own library makes of random pictures (README.md says what is in each).

    python3 make.py --dinov2 FOLDER --dinov3 FOLDER --deit FOLDER --mae FOLDER --clip FOLDER [--only NAME ...]

FOLDER: github.com/facebookresearch/{dinov2,dinov3,deit,mae} and github.com/openai/CLIP as they are published; needs
torch, torchvision, timm, transformers, open_clip_torch, safetensors.
"""
import argparse
import json
import re
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
FAMILIES = {}
NORM = partial(torch.nn.LayerNorm, eps=1e-6)
SMALL = dict(patch_size=8, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2.0)
ROTARY = dict(patch_size=8, embed_dim=32, depth=2, num_heads=2)  # RoPE turns a head's channels in fours
EVA = dict(**ROTARY, mlp_ratio=4 / 3, ref_feat_shape=(4, 4))
SQUARE, WIDE, LARGER = (40, 40), (24, 56), (48, 48)  # 5 x 5, 3 x 7 and 6 x 6 patches of 8
ANTIALIASED, PLAIN = "bicubic, antialias=True, to the size", "bicubic without antialiasing, to the size"
CLASSES = 7


def family(write):
    FAMILIES[write.__name__] = write
    return write


def spread(model):
    """Weights far from their neutral values, so that a norm, a scale or a token left out shows in the output.

    What tokens are made of is then made small: the first norm's eps shows beside their variance.
    """
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=random))
            if re.search("embed|token|conv1|conv_proj", name):
                parameter.mul_(0.01)
    return model.eval()


def pictures(size, count, seed=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed)).half()


def write_expected(folder, library, runs, **about):
    """runs: pairs of a size, the trained one first, and what makes {logits, features, ...} of pictures of that size."""
    tensors = {}
    for index, (size, run) in enumerate(runs, 1):
        images = pictures(size, 2 if index == 1 else 1)
        with torch.no_grad():
            outputs = {"images": images, **run(images.float())}
        if index == 1:
            tensors.update(outputs)
        else:
            tensors.update({f"{name}.{index}": outputs[name] for name in ("images", "logits")})
    about = {"library": library if isinstance(library, str) else f"{library.__name__} {library.__version__}",
             "sizes": " ".join(f"{height}x{width}" for (height, width), _ in runs), **about}
    # One entry: the file format keeps several of them in no fixed order.
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "expected.safetensors",
              {"about": json.dumps({name: str(value) for name, value in about.items()}, indent=1)})


# ----------------------------------------------------------------------------------------------------------------- timm

def run_timm(model):
    def run(images):
        tokens = model.forward_features(images)
        outputs = {"logits": model.forward_head(tokens)}
        if not isinstance(model.norm, torch.nn.Identity):
            outputs["features"] = tokens[:, model.num_prefix_tokens:]
        return outputs
    return run


def read_timm(name, path, size, **options):
    """The model that timm makes of a file, with the position embedding resampled by its own filter of checkpoints."""
    import timm

    overlay = dict(file=str(path), custom_load=False, num_classes=options["num_classes"], input_size=(3, *SQUARE))
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=size, **options).eval()


def write_timm(folder, name, sizes=SMALL, save=None, **options):
    import timm

    options = {**sizes, "num_classes": CLASSES, **options}
    model = spread(timm.create_model(name, img_size=SQUARE[0], **options))
    if save:
        path = save(model, folder)
    else:
        timm.models.save_for_hf(model, folder, safe_serialization=True)
        path = folder / "model.safetensors"
    positions = [ANTIALIASED] * (model.pos_embed is not None) + ["RoPE"] * (getattr(model, "rope", None) is not None)
    runs = [(SQUARE, run_timm(model)), (WIDE, run_timm(read_timm(name, path, WIDE, **options)))]
    write_expected(folder, timm, runs, called=f"timm.create_model({name!r}, **{options})",
                   num_heads=options["num_heads"], positions=" and ".join(positions))


def save_bare(model, folder):
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


def save_with_pre_logits(model, folder):
    random = torch.Generator().manual_seed(3)
    state = model.state_dict()
    state["pre_logits.fc.weight"] = torch.randn(24, 24, generator=random)
    state["pre_logits.fc.bias"] = torch.randn(24, generator=random)
    torch.save(state, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def timm_family(family_name, *arguments, **options):
    FAMILIES[family_name] = lambda folder, sources: write_timm(folder, *arguments, **options)


timm_family("vit_augreg", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", SMALL | {"depth": 3})
timm_family("vit_augreg_bare", "vit_base_patch16_224.augreg_in21k", save=save_bare, num_classes=41)
timm_family("vit_pre_logits", "vit_base_patch16_224.augreg_in21k", save=save_with_pre_logits)
timm_family("vit_gap_layer_scale", "vit_medium_patch16_gap_256")
timm_family("vit_gap_fc_norm", "vit_base_patch16_224.augreg_in21k_ft_in1k", global_pool="avg")
timm_family("vit_reg4", "vit_medium_patch16_reg4_gap_256", class_token=True, global_pool="token", fc_norm=False)
timm_family("vit_reg1_gap", "vit_wee_patch16_reg1_gap_256")
timm_family("vit_reg4_embedded", "vit_so150m_patch16_reg4_gap_256")
timm_family("vit_no_qkv_bias_qk_norm", "vit_base_patch16_224.augreg_in21k_ft_in1k", qkv_bias=False, qk_norm=True)
timm_family("timm_deit3", "deit3_small_patch16_224.fb_in22k_ft_in1k")
timm_family("timm_deit_distilled", "deit_tiny_distilled_patch16_224.fb_in1k")
timm_family("timm_dinov2_reg4", "vit_small_patch14_reg4_dinov2.lvd142m", num_classes=0)
timm_family("timm_dinov2_giant", "vit_giant_patch14_reg4_dinov2.lvd142m", num_classes=0, mlp_ratio=2.66667 * 2)
timm_family("timm_clip", "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k")
timm_family("timm_clip_quickgelu", "vit_base_patch16_clip_quickgelu_224.openai", num_classes=16)
timm_family("siglip_timm", "vit_base_patch16_siglip_224.webli", num_classes=0)
timm_family("siglip_timm_tanh", "vit_so400m_patch16_siglip_256.v2_webli", num_classes=0)
timm_family("siglip_gap_timm", "vit_base_patch16_siglip_gap_224.webli", num_classes=0)
timm_family("timm_dinov3", "vit_small_patch16_dinov3_qkvb.lvd1689m", ROTARY, mlp_ratio=2.0, num_classes=0)
timm_family("timm_dinov3_plus", "vit_small_plus_patch16_dinov3.lvd1689m", ROTARY, mlp_ratio=2.0, num_classes=0)
timm_family("eva02", "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", EVA)
timm_family("eva02_small_no_norm", "eva02_small_patch14_336.mim_in22k_ft_in1k", EVA)
timm_family("eva02_clip", "eva02_base_patch16_clip_224.merged2b", EVA, num_classes=16)


# -------------------------------------------------------------------------------------------------- DeiT, DeiT-III, MAE

def resized(model, state, sources):
    """The same weights in a model of another square size, as DeiT and MAE fine-tune at one (not antialiased)."""
    sys.path.insert(0, sources.mae)
    from util.pos_embed import interpolate_pos_embed

    state = dict(state)
    interpolate_pos_embed(model, state)
    model.load_state_dict(state)
    return model.eval()


def write_pth(folder, sources, library, make, run, timm_name, **timm_options):
    """make: a model of an image size; run: what makes outputs of one. The third size is what timm makes of the file."""
    import timm

    model = spread(make(SQUARE[0]))
    state = model.state_dict()
    torch.save({"model": state}, folder / "checkpoint.pth")
    larger = resized(make(LARGER[0]), state, sources)
    by_timm = read_timm(timm_name, folder / "checkpoint.pth", WIDE, **SMALL, num_classes=CLASSES, **timm_options)
    write_expected(folder, library, [(SQUARE, run(model)), (LARGER, run(larger)), (WIDE, run_timm(by_timm))],
                   called=f"{type(model).__module__}.{type(model).__name__}, on timm {timm.__version__}",
                   num_heads=SMALL["num_heads"],
                   positions=f"size 2 as DeiT and MAE fine-tune at another one: {PLAIN}; "
                             f"size 3 by timm's {timm_name}: {ANTIALIASED}")


def import_deit(sources, name):
    from timm.models import registry

    sys.path.insert(0, sources.deit)
    register = registry.register_model
    registry.register_model = lambda function: function  # DeiT's models would take the places of timm's
    module = __import__(name)
    registry.register_model = register
    return module


@family
def deit(folder, sources):
    module = import_deit(sources, "models")
    write_pth(folder, sources, "facebookresearch/deit", lambda size: module.VisionTransformer(
        img_size=size, **SMALL, num_classes=CLASSES, qkv_bias=True, norm_layer=NORM), run_timm, "deit_tiny_patch16_224")


@family
def deit_distilled(folder, sources):
    module = import_deit(sources, "models")
    write_pth(folder, sources, "facebookresearch/deit", lambda size: module.DistilledVisionTransformer(
        img_size=size, **SMALL, num_classes=CLASSES, qkv_bias=True, norm_layer=NORM),
        lambda model: lambda images: {"logits": model(images)}, "deit_tiny_distilled_patch16_224")


@family
def deit3(folder, sources):
    module = import_deit(sources, "models_v2")
    write_pth(folder, sources, "facebookresearch/deit", lambda size: module.vit_models(
        img_size=size, **SMALL, num_classes=CLASSES, qkv_bias=True, norm_layer=NORM,
        block_layers=module.Layer_scale_init_Block), lambda model: lambda images: {"logits": model(images)},
        "deit3_small_patch16_224")


@family
def mae_finetuned(folder, sources):
    sys.path.insert(0, sources.mae)
    import models_vit

    # Its forward_features() pools, which the timm of its time expected.
    write_pth(folder, sources, "facebookresearch/mae", lambda size: models_vit.VisionTransformer(
        global_pool=True, img_size=size, **SMALL, num_classes=CLASSES, qkv_bias=True, norm_layer=NORM),
        lambda model: lambda images: {"logits": model.head(model.forward_features(images))},
        "vit_base_patch16_224", global_pool="avg")


@family
def mae_pretrained(folder, sources):
    sys.path.insert(0, sources.mae)
    import numpy
    import timm

    numpy.float = float  # names that newer releases of numpy and timm dropped
    import models_mae

    models_mae.Block = lambda *sizes, qk_scale, **options: timm.models.vision_transformer.Block(*sizes, **options)

    def make(size):
        return models_mae.MaskedAutoencoderViT(img_size=size, **SMALL, decoder_embed_dim=16, decoder_depth=1,
                                               decoder_num_heads=2, norm_layer=NORM)

    def run(model):
        def forward(images):
            torch.manual_seed(4)
            tokens, _, places = model.forward_encoder(images, mask_ratio=0)  # which shuffles the patches
            patches = tokens[:, 1:].gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))
            return {"logits": tokens[:, 0], "features": patches}
        return forward

    model = spread(make(SQUARE[0]))
    state = model.state_dict()
    torch.save({"model": state}, folder / "checkpoint.pth")
    encoder = {name: tensor for name, tensor in state.items() if "decoder" not in name and name != "mask_token"}
    larger = make(LARGER[0])
    resized(larger, {**larger.state_dict(), **encoder}, sources)
    write_expected(folder, "facebookresearch/mae", [(SQUARE, run(model)), (LARGER, run(larger))],
                   called="MaskedAutoencoderViT.forward_encoder(images, mask_ratio=0); logits: [CLS] behind the norm",
                   num_heads=SMALL["num_heads"], positions=PLAIN)


# --------------------------------------------------------------------------------------------- DINOv2 and DINOv3's code

def run_dino(model):
    def run(images):
        outputs = model.forward_features(images)
        return {"logits": outputs["x_norm_clstoken"], "features": outputs["x_norm_patchtokens"]}
    return run


def write_dinov2(folder, sources, sizes=(SQUARE, WIDE), patch_size=8, head=False, depth=2, **options):
    sys.path.insert(0, sources.dinov2)
    from dinov2.models.vision_transformer import Block, DinoVisionTransformer, MemEffAttention

    model = spread(DinoVisionTransformer(
        img_size=sizes[0][0], patch_size=patch_size, embed_dim=24, depth=depth, num_heads=3, mlp_ratio=2,
        init_values=1.0, block_fn=partial(Block, attn_class=MemEffAttention), **{"block_chunks": 0, **options}))
    torch.save(model.state_dict(), folder / "checkpoint.pth")
    run = run_dino(model)
    if head:
        linear = spread(torch.nn.Linear(2 * model.embed_dim, CLASSES))
        torch.save(linear.state_dict(), folder / "linear_head.pth")

        def run(images):
            outputs = run_dino(model)(images)
            both = torch.cat([outputs["logits"], outputs["features"].mean(dim=1)], dim=1)
            return {**outputs, "linear_logits": linear(both)}
    offset = options.get("interpolate_offset", 0.1)
    positions = f"bicubic without antialiasing, scale_factor=(patches + {offset}) / 5" if offset else ANTIALIASED
    write_expected(folder, "facebookresearch/dinov2", [(size, run) for size in sizes], num_heads=3, positions=positions,
                   called=f"DinoVisionTransformer(..., **{options}).forward_features; logits: x_norm_clstoken")


@family
def dinov2(folder, sources):
    write_dinov2(folder, sources, ((70, 70), (42, 84)), patch_size=14, head=True)


@family
def dinov2_chunks(folder, sources):
    write_dinov2(folder, sources, depth=4, block_chunks=2)


@family
def dinov2_reg4(folder, sources):
    write_dinov2(folder, sources, num_register_tokens=4, interpolate_antialias=True, interpolate_offset=0.0)


@family
def dinov2_giant(folder, sources):
    write_dinov2(folder, sources, ffn_layer="swiglufused")


def write_dinov3(folder, sources, **options):
    sys.path.insert(0, sources.dinov3)
    from dinov3.hub.backbones import _make_dinov3_vit

    # The settings that every one of its hub's entries has.
    model = spread(_make_dinov3_vit(
        pos_embed_rope_rescale_coords=2, layerscale_init=1e-5, norm_layer="layernormbf16", n_storage_tokens=4,
        mask_k_bias=True, pretrained=False, **ROTARY, **options))
    periods = model.rope_embed.periods
    periods.copy_(periods.bfloat16())  # as the published files have them, rounded
    torch.save(model.state_dict(), folder / "checkpoint.pth")
    write_expected(folder, "facebookresearch/dinov3", [(SQUARE, run_dino(model)), (WIDE, run_dino(model))],
                   called=f"_make_dinov3_vit(..., **{options}).forward_features; logits: x_norm_clstoken",
                   num_heads=ROTARY["num_heads"], positions="RoPE by rope_embed.periods")


@family
def dinov3(folder, sources):
    write_dinov3(folder, sources, ffn_ratio=2)


@family
def dinov3_swiglu(folder, sources):
    write_dinov3(folder, sources, ffn_layer="swiglu", ffn_ratio=3)


@family
def dinov3_7b(folder, sources):
    write_dinov3(folder, sources, ffn_layer="swiglu64", ffn_ratio=3, qkv_bias=False,
                 untie_global_and_local_cls_norm=True)


# ---------------------------------------------------------------------------------------------------------- torchvision

@family
def torchvision_vit(folder, sources):
    import torchvision
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    def make(size):
        return VisionTransformer(image_size=size, patch_size=8, num_layers=2, num_heads=3, hidden_dim=24, mlp_dim=48,
                                 num_classes=CLASSES)

    model = spread(make(SQUARE[0]))
    torch.save(model.state_dict(), folder / "checkpoint.pth")
    larger = make(LARGER[0]).eval()
    larger.load_state_dict(interpolate_embeddings(LARGER[0], 8, model.state_dict()))
    runs = [(size, lambda images, run=run: {"logits": run(images)}) for size, run in ((SQUARE, model), (LARGER, larger))]
    library = "torchvision " + torchvision.__version__.split("+")[0]  # without the build that it is of
    write_expected(folder, library, runs, called="torchvision.models.VisionTransformer", num_heads=3,
                   positions="bicubic without antialiasing, align_corners=True, by interpolate_embeddings")


# ------------------------------------------------------------------------------------------------------ CLIP, open_clip

def run_open_clip(model):
    return lambda images: {"logits": model.encode_image(images)}


def make_open_clip(size, layers, width, head_width, quick_gelu):
    import open_clip

    vision = dict(image_size=size, layers=layers, width=width, head_width=head_width, patch_size=8)
    text = dict(context_length=8, vocab_size=50, width=8, heads=1, layers=1)
    config = dict(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=quick_gelu)
    return open_clip.model.CLIP(**config).eval(), config


def read_open_clip(state, *arguments):
    """The same weights at another size, as open_clip reads a file."""
    import open_clip

    model, _ = make_open_clip(*arguments)
    state = dict(state)
    open_clip.model.resize_pos_embed(state, model)
    model.load_state_dict(state)
    return model


@family
def open_clip(folder, sources):
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    model, config = make_open_clip(SQUARE[0], 2, 32, 16, False)
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.model.set_model_preprocess_cfg(model, preprocess)
    state = spread(model).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    wide = read_open_clip(state, WIDE, 2, 32, 16, False)
    write_expected(folder, open_clip, [(SQUARE, run_open_clip(model)), (WIDE, run_open_clip(wide))], num_heads=2,
                   called="open_clip.model.CLIP.encode_image", positions=ANTIALIASED)


@family
def open_clip_siglip(folder, sources):
    import open_clip
    import timm
    from open_clip.push_to_hf_hub import save_config_for_hf

    vision = dict(image_size=SQUARE[0], timm_model_name="vit_base_patch16_siglip_224", timm_model_pretrained=False,
                  timm_pool="map", timm_proj="none")
    text = dict(context_length=8, vocab_size=50, width=8, heads=1, layers=1)
    config = dict(embed_dim=SMALL["embed_dim"], init_logit_bias=-10, vision_cfg=vision, text_cfg=text)
    # open_clip makes timm's models by their names alone; this one is made small.
    with patch.object(timm, "create_model", partial(timm.create_model, img_size=SQUARE[0], **SMALL)):
        model = spread(open_clip.model.CustomTextCLIP(**config))
    preprocess = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash"}
    open_clip.model.set_model_preprocess_cfg(model, preprocess)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    wide = deepcopy(model)
    wide.visual.set_input_size(WIDE)
    write_expected(folder, open_clip, [(SQUARE, run_open_clip(model)), (WIDE, run_open_clip(wide))],
                   num_heads=SMALL["num_heads"], called="open_clip.model.CustomTextCLIP.encode_image",
                   positions=ANTIALIASED)


def make_openai_clip(sources, layers):
    sys.path.insert(0, sources.clip)
    import clip.model

    model = spread(clip.model.CLIP(embed_dim=16, image_resolution=SQUARE[0], vision_layers=layers, vision_width=64,
                                   vision_patch_size=8, context_length=8, vocab_size=50, transformer_width=8,
                                   transformer_heads=1, transformer_layers=1))
    clip.model.convert_weights(model)
    return model


def expect_openai_clip(folder, model, layers):
    model = model.float()  # as clip.load() does on the processor
    wide = read_open_clip(model.state_dict(), WIDE, layers, 64, 64, True)
    write_expected(folder, "openai/CLIP", [(SQUARE, run_open_clip(model)), (WIDE, run_open_clip(wide))], num_heads=1,
                   called="clip.model.CLIP.encode_image, weights of float16 read into float32",
                   positions=f"by open_clip, since CLIP itself has one size: {ANTIALIASED}")


@family
def openai_clip(folder, sources):
    model = make_openai_clip(sources, layers=2)
    numbers = {"input_resolution": SQUARE[0], "context_length": 8, "vocab_size": 50}
    state = {**model.state_dict(), **{name: torch.tensor(number) for name, number in numbers.items()}}
    torch.save(state, folder / "checkpoint.pth")
    expect_openai_clip(folder, model, layers=2)


def without_debugging(path):
    """An archive without the lines of source that each operation came from, which name folders of this machine."""
    reader = torch._C.PyTorchFileReader(path)
    own = ("version", ".data/serialization_id")  # the writer adds them
    records = {name: reader.get_record(name) for name in reader.get_all_records()
               if name not in own and not name.endswith(".debug_pkl")}
    writer = torch._C.PyTorchFileWriter(path)
    for name, record in records.items():
        writer.write_record(name, record, len(record))
    writer.write_end_of_file()


@family
def openai_clip_jit(folder, sources):
    model = make_openai_clip(sources, layers=1)
    examples = (pictures(SQUARE, 2), torch.zeros(2, 8, dtype=torch.long))
    path = str(folder / "model.pt")
    torch.jit.save(torch.jit.trace(model, examples, check_trace=False), path)
    without_debugging(path)
    expect_openai_clip(folder, model, layers=1)


# ------------------------------------------------------------------------------------------------ Hugging Face's models

HF = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=SQUARE[0], patch_size=8)
HF_HIDDEN = dict(**HF, intermediate_size=48)


def write_hf(folder, model, processor, run, positions, **interpolate):
    """run: what makes outputs of the model's; interpolate: the argument that lets it take another size."""
    import transformers

    spread(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    read = type(model).from_pretrained(folder).eval()
    config = getattr(model.config, "vision_config", model.config)
    forward = getattr(read, "get_image_features" if hasattr(read, "get_image_features") else "forward")
    write_expected(folder, transformers, [(SQUARE, lambda images: run(forward(images))),
                                          (WIDE, lambda images: run(forward(images, **interpolate)))],
                   called=type(model).__name__, num_heads=config.num_attention_heads, positions=positions)


def logits_of(outputs):
    return {"logits": outputs.logits}


def tokens_of(prefix):
    """[CLS] and the patches behind the last norm of a model that has no head."""
    def run(outputs):
        tokens = outputs.last_hidden_state
        return {"logits": tokens[:, 0], "features": tokens[:, prefix:]}
    return run


def pooled(outputs):
    return {"logits": outputs.pooler_output, "features": outputs.last_hidden_state}


@family
def hf_vit(folder, sources):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    model = ViTForImageClassification(ViTConfig(**HF_HIDDEN, num_labels=CLASSES))
    processor = ViTImageProcessor(size={"height": SQUARE[0], "width": SQUARE[1]})
    write_hf(folder, model, processor, logits_of, PLAIN, interpolate_pos_encoding=True)


@family
def hf_vit_backbone(folder, sources):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    def run(outputs):
        return {**tokens_of(1)(outputs), "pooled": outputs.pooler_output}

    processor = ViTImageProcessor(size={"height": SQUARE[0], "width": SQUARE[1]})
    write_hf(folder, ViTModel(ViTConfig(**HF_HIDDEN)), processor, run, PLAIN, interpolate_pos_encoding=True)


def deit_processor():
    from transformers import DeiTImageProcessor

    return DeiTImageProcessor(size={"height": 46, "width": 46}, crop_size={"height": SQUARE[0], "width": SQUARE[1]})


@family
def hf_deit(folder, sources):
    from transformers import ViTConfig, ViTForImageClassification

    # How facebook/deit-tiny-patch16-224 is published: DeiT without distillation is ViT there.
    model = ViTForImageClassification(ViTConfig(**HF_HIDDEN, num_labels=CLASSES))
    write_hf(folder, model, deit_processor(), logits_of, PLAIN, interpolate_pos_encoding=True)


@family
def hf_deit_one_head(folder, sources):
    from transformers import DeiTConfig, DeiTForImageClassification

    model = DeiTForImageClassification(DeiTConfig(**HF_HIDDEN, num_labels=CLASSES))
    write_hf(folder, model, deit_processor(), logits_of, PLAIN, interpolate_pos_encoding=True)


@family
def hf_deit_distilled(folder, sources):
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    model = DeiTForImageClassificationWithTeacher(DeiTConfig(**HF_HIDDEN, num_labels=CLASSES))
    write_hf(folder, model, deit_processor(), logits_of, PLAIN, interpolate_pos_encoding=True)


def dino_processor():
    from transformers import BitImageProcessor
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    return BitImageProcessor(size={"shortest_edge": 46}, crop_size={"height": SQUARE[0], "width": SQUARE[1]},
                             image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)


@family
def hf_dinov2(folder, sources):
    from transformers import Dinov2Config, Dinov2ForImageClassification

    model = Dinov2ForImageClassification(Dinov2Config(**HF, mlp_ratio=2, num_labels=CLASSES))
    write_hf(folder, model, dino_processor(), logits_of, PLAIN)


@family
def hf_dinov2_backbone(folder, sources):
    from transformers import Dinov2Config, Dinov2Model

    write_hf(folder, Dinov2Model(Dinov2Config(**HF, mlp_ratio=2)), dino_processor(), tokens_of(1), PLAIN)


@family
def hf_dinov2_giant(folder, sources):
    from transformers import Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(**HF, mlp_ratio=2, use_swiglu_ffn=True))
    write_hf(folder, model, dino_processor(), tokens_of(1), PLAIN)


@family
def hf_dinov2_reg4(folder, sources):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

    model = Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(**HF, mlp_ratio=2, num_register_tokens=4, num_labels=CLASSES))
    write_hf(folder, model, dino_processor(), logits_of, ANTIALIASED)


def clip_processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": SQUARE[0]}, crop_size={"height": SQUARE[0], "width": SQUARE[1]})


@family
def hf_clip(folder, sources):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**HF_HIDDEN, projection_dim=16))
    write_hf(folder, model, clip_processor(), lambda outputs: {"logits": outputs.image_embeds}, PLAIN,
             interpolate_pos_encoding=True)


@family
def hf_clip_classifier(folder, sources):
    from transformers import CLIPConfig, CLIPForImageClassification

    model = CLIPForImageClassification(CLIPConfig(vision_config=HF_HIDDEN, num_labels=CLASSES))
    write_hf(folder, model, clip_processor(), logits_of, PLAIN, interpolate_pos_encoding=True)


@family
def hf_clip_both_towers(folder, sources):
    from transformers import CLIPConfig, CLIPModel

    text = dict(vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
                max_position_embeddings=8)
    model = CLIPModel(CLIPConfig(vision_config=HF_HIDDEN | {"hidden_act": "gelu"}, text_config=text, projection_dim=16))
    write_hf(folder, model, clip_processor(), lambda outputs: {"logits": outputs.pooler_output}, PLAIN,
             interpolate_pos_encoding=True)


def siglip_processor():
    from transformers import SiglipImageProcessor

    return SiglipImageProcessor(size={"height": SQUARE[0], "width": SQUARE[1]})


@family
def hf_siglip(folder, sources):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    model = SiglipVisionModel(SiglipVisionConfig(**HF_HIDDEN))
    write_hf(folder, model, siglip_processor(), pooled, PLAIN, interpolate_pos_encoding=True)


@family
def hf_siglip_both_towers(folder, sources):
    from transformers import SiglipConfig, SiglipModel

    text = dict(vocab_size=50, hidden_size=24, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
                max_position_embeddings=8)
    model = SiglipModel(SiglipConfig(vision_config=HF_HIDDEN, text_config=text))
    write_hf(folder, model, siglip_processor(), pooled, PLAIN, interpolate_pos_encoding=True)


def write_hf_dinov3(folder, **options):
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    model = DINOv3ViTModel(DINOv3ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SQUARE[0], patch_size=8,
        num_register_tokens=4, **options))
    processor = DINOv3ViTImageProcessor(size={"height": SQUARE[0], "width": SQUARE[1]})
    write_hf(folder, model, processor, tokens_of(5), "RoPE")


@family
def hf_dinov3(folder, sources):
    write_hf_dinov3(folder, intermediate_size=64)


@family
def hf_dinov3_swiglu(folder, sources):
    write_hf_dinov3(folder, intermediate_size=48, use_gated_mlp=True, hidden_act="silu")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for source in ("dinov2", "dinov3", "deit", "mae", "clip"):
        parser.add_argument(f"--{source}", required=True)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME", default=list(FAMILIES))
    arguments = parser.parse_args()
    for name in arguments.only:
        torch.manual_seed(0)  # for what a library puts into its models at first
        (HERE / name).mkdir(exist_ok=True)
        FAMILIES[name](HERE / name, arguments)
