"""The configurations timm and Hugging Face build a model from, for one of ours."""

import math
from collections.abc import Mapping
from typing import Any

from transformer_jax import types
from transformer_jax.models import resnet, vit_config

_TIMM_POOLS = {"tok": "token", "gap": "avg", "map": "map"}
_TIMM_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "relu": "relu", "silu": "silu"}
_HF_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
_TOLD = {"timm": ("activation",)} | dict.fromkeys(
    ("huggingface", "huggingface_deit", "huggingface_hybrid", "huggingface_bare"), ("activation", "norm_epsilon")
)
"""What a reader learns from the configuration beside the weights."""
_TIMM_STEMS = {  # timm's hybrids take their backbone from the name
    ((), 192): "vit_tiny_r_s16_p8_224",
    ((2, 2, 2, 2), 384): "vit_small_r26_s32_224",
    ((2, 2, 2, 2), 768): "vit_base_r26_s32_224",
    ((3, 4, 9), 768): "vit_base_r50_s16_224",
    ((3, 4, 6, 3), 1024): "vit_large_r50_s32_224",
}
_TIMM_RESNETS = {
    (row.units, row.width): f"resnetv2_{name[1:]}_bit"
    for name, row in resnet.VARIANTS.items()
    if name in ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")
}


def refusals(config: vit_config.Config, layout: str) -> list[str]:
    """Settings of the model that the code behind a layout cannot compute, as sentences without a full stop."""
    common = {"norm_placement": "pre", "norm": "layernorm", "mlp": "plain"}
    faults = [f"{name}={getattr(config, name)!r}" for name, only in common.items() if getattr(config, name) != only]
    if config.kv_heads not in (None, config.size.heads):
        faults.append(f"kv_heads={config.kv_heads}")
    if layout.startswith("huggingface"):
        faults += [f"pool={config.pool!r}"] * (config.pool != "tok")
        faults += ["position='none'"] * (config.position == "none")
        faults += ["stem=()"] * (config.stem_units == ())
    if layout in ("google", "linen"):
        faults += [f"pool={config.pool!r}"] * (config.pool == "map")
        faults += ["position='none'"] * (config.position == "none")
    return faults


def timm(config: vit_config.Config, rows: str, meta: Mapping[str, Any], *, head: bool = True) -> dict[str, Any]:
    """`config.json` for `timm.create_model("local-dir:FOLDER", pretrained=True)`. `rows` as `layouts.tokens` says."""
    size, distilled, stem = config.size, config.distilled, config.stem_units
    arguments: dict[str, Any] = {
        "img_size": list(config.image_shape[:2]),
        "patch_size": config.patch_size[0] if config.patch_size[0] == config.patch_size[1] else list(config.patch_size),
        "in_chans": config.channels,
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.heads,
        "mlp_ratio": _ratio(size.mlp_dim, size.width),
        "act_layer": _TIMM_ACTIVATIONS[config.activation],
        "global_pool": _TIMM_POOLS[config.pool],
        **_timm_options(config, rows),
    }
    if stem is not None:
        arguments.pop("in_chans")
    kind = "deit_base_distilled_patch16_224" if distilled else "vit_base_patch16_224"
    name = _TIMM_STEMS.get((stem, size.width), "vit_base_r50_s16_224") if stem is not None else kind
    return _timm(name, config, size.width, arguments, meta, head)


def timm_resnet(config: resnet.Config, meta: Mapping[str, Any], *, head: bool = True) -> dict[str, Any]:
    """`config.json` as `timm`'s, of a ResNet of Big Transfer; empty where timm names none of these sizes."""
    name = _TIMM_RESNETS.get((tuple(config.size.units), config.size.width))
    arguments = {"in_chans": config.channels, "global_pool": "avg"}
    return _timm(name, config, 32 * config.size.width, arguments, meta, head) if name else {}


def hugging_face(config: vit_config.Config, meta: Mapping[str, Any], *, head: bool = True) -> dict[str, Any]:
    """`config.json` for `ViTForImageClassification.from_pretrained(FOLDER)`, or DeiT's, or ViTHybrid's; without a
    head for `ViTModel`."""
    size, distilled = config.size, config.distilled
    if config.image_shape[0] != config.image_shape[1] or config.patch_size[0] != config.patch_size[1]:
        raise types.InputError(
            f"Hugging Face's ViT takes square images and patches: these are {config.image_shape[:2]} and"
            f" {config.patch_size}. Write timm's layout."
        )
    word = "DeiT" if distilled else "ViT" if config.stem_units is None else "ViTHybrid"
    kind = "Model" if not head else "ForImageClassificationWithTeacher" if distilled else "ForImageClassification"
    names = list(meta.get("class_names") or [f"LABEL_{i}" for i in range(config.num_classes)])
    labels = {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    return {
        "architectures": [word + kind],
        "model_type": {"ViTHybrid": "vit-hybrid"}.get(word, word.lower()),
        "hidden_size": size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "intermediate_size": size.mlp_dim,
        "hidden_act": _HF_ACTIVATIONS[config.activation],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_epsilon,
        "image_size": config.image_shape[0],
        "patch_size": config.patch_size[0],
        "num_channels": config.channels,
        "qkv_bias": True,
        "encoder_stride": config.patch_size[0],
        **_backbone(config),
        **(labels if head else {}),
    }


def processor(config: vit_config.Config, meta: Mapping[str, Any]) -> dict[str, Any]:
    """`preprocessor_config.json` of Hugging Face, where the normalisation is known."""
    how = _normalize(meta, "image_mean", "image_std")
    if not how:
        return {}
    height, width = config.image_shape[:2]
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        **how,
    }


def cautions(config: Any, layout: str, conventions: Mapping[str, Any], *, head: bool = True) -> list[str]:
    """What a reader of the file must know, as sentences. `conventions` are what the code behind the layout computes."""
    found = [
        f"The {name} of these weights is {_word(getattr(config, name))}; the code that reads the layout {layout}"
        f" computes {_word(theirs)}."
        for name, theirs in conventions.items()
        if name not in _TOLD.get(layout, ()) and not _same(getattr(config, name, theirs), theirs)
    ]
    if layout == "timm_bit" and not timm_resnet(config, {}):
        found.append("timm names no ResNet of these sizes, so no config.json was written: build it by hand.")
    if layout == "huggingface_hybrid":
        found.append("transformers has ViTHybrid up to version 4; later ones do not read this.")
    if layout.startswith("huggingface") and not head and not config.pre_logits:
        found.append("transformers adds a pooler with random weights: take last_hidden_state, not pooler_output.")
    if getattr(config, "pre_logits", False) and layout == "timm":
        found.append("timm has no pre_logits since 0.6: it leaves them out, and its logits are others.")
    if getattr(config, "pre_logits", False) and layout.startswith("huggingface"):
        found.append("Load it as ViTModel: its pooler is pre_logits; ViTForImageClassification has none.")
    if layout == "timm" and config.stem_units is not None and (config.stem_units, config.size.width) not in _TIMM_STEMS:
        found.append("timm names no hybrid with this stem: build the backbone by hand.")
    return found


def _timm(
    name: str, config: Any, width: int, arguments: dict[str, Any], meta: Mapping[str, Any], head: bool
) -> dict[str, Any]:
    classes = config.num_classes if head else 0
    return {
        "architecture": name,
        "num_classes": classes,
        "num_features": width,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [config.channels, *config.image_shape[:2]],
            "custom_load": False,
            **_normalize(meta, "mean", "std"),
        },
        **({"label_names": list(meta["class_names"])} if head and meta.get("class_names") else {}),
    }


def _timm_options(config: vit_config.Config, rows: str) -> dict[str, Any]:
    """Arguments of timm's `VisionTransformer` beyond sizes."""
    extra = config.has_class_token or config.registers
    options = {
        "class_token": config.has_class_token if not config.distilled else None,
        "fc_norm": config.pool_norm == "after" if not config.distilled else None,
        "pool_include_prefix": True if config.pool == "map" and extra else None,  # ours attends to all tokens
        "no_embed_class": True if rows == "grid" and extra else None,
        "reg_tokens": config.registers or None,
        "pos_embed": "none" if config.position == "none" else None,
        "qk_norm": True if config.qk_norm else None,
        "init_values": config.layer_scale,
    }
    return {name: value for name, value in options.items() if value is not None}


def _ratio(mlp_dim: int, width: int) -> float:
    """The number timm multiplies the width by and cuts off, so that `mlp_dim` comes out."""
    ratio = mlp_dim / width
    while int(width * ratio) < mlp_dim:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _backbone(config: vit_config.Config) -> dict[str, Any]:
    """The BiT in front of Hugging Face's hybrid: not pre-activated, as timm's."""
    stem = config.stem_units
    if stem is None:
        return {}
    widths, last = [256 * 2**stage for stage in range(len(stem))], f"stage{len(stem)}"
    side = config.grid[0] * config.patch_size[0]
    return {
        "backbone_featmap_shape": [1, widths[-1], side, side],
        "backbone_config": {
            "model_type": "bit",
            "num_channels": config.channels,
            "depths": list(stem),
            "hidden_sizes": widths,
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "out_features": [last],
        },
    }


def _same(ours: Any, theirs: Any) -> bool:
    return math.isclose(ours, theirs) if isinstance(theirs, float) else ours == theirs


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _normalize(meta: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    how = meta.get("normalize")
    return {mean: list(how["mean"]), std: list(how["std"])} if how else {}
