"""The configurations timm and Hugging Face build a model from, for one of ours."""

import math
from collections.abc import Mapping
from typing import Any

from transformer_jax import types
from transformer_jax.models import vit_config

# timm's architecture by width and stem; its own model_args replace every size, so any would do.
_TIMM_NAMES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
_TIMM_POOLS = {"tok": "token", "gap": "avg", "map": "map"}
_TIMM_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "relu": "relu", "silu": "silu"}
_HF_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}
_TIMM_STEMS = {  # timm's hybrids take their backbone from the name
    ((), 192): "vit_tiny_r_s16_p8_224",
    ((2, 2, 2, 2), 384): "vit_small_r26_s32_224",
    ((2, 2, 2, 2), 768): "vit_base_r26_s32_224",
    ((3, 4, 9), 768): "vit_base_r50_s16_224",
    ((3, 4, 6, 3), 1024): "vit_large_r50_s32_224",
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
    if layout in ("google", "linen"):
        faults += [f"pool={config.pool!r}"] * (config.pool == "map")
        faults += ["position='none'"] * (config.position == "none")
    return faults


def timm(config: vit_config.Config, rows: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` for `timm.create_model("local-dir:FOLDER", pretrained=True)`. `rows` as `layouts.tokens` says."""
    size, distilled, stem = config.size, config.distilled, config.stem_units
    arguments: dict[str, Any] = {
        "img_size": list(config.image_shape[:2]),
        "patch_size": config.patch_size[0] if config.patch_size[0] == config.patch_size[1] else list(config.patch_size),
        "in_chans": config.channels,
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.heads,
        "mlp_ratio": size.mlp_dim / size.width,
        "act_layer": _TIMM_ACTIVATIONS[config.activation],
        "global_pool": _TIMM_POOLS[config.pool],
    }
    if not distilled:
        arguments |= {"class_token": config.has_class_token, "fc_norm": config.pool_norm == "after"}
    if config.pool == "map" and (config.has_class_token or config.registers):
        arguments["pool_include_prefix"] = True  # ours attends to all tokens
    if rows == "grid" and (config.has_class_token or config.registers):
        arguments["no_embed_class"] = True
    if config.registers:
        arguments["reg_tokens"] = config.registers
    if config.position == "none":
        arguments["pos_embed"] = "none"
    if config.qk_norm:
        arguments["qk_norm"] = True
    if config.layer_scale is not None:
        arguments["init_values"] = config.layer_scale
    if stem is not None:
        arguments.pop("in_chans")
    kind = "deit_base_distilled_patch16_224" if distilled else "vit_base_patch16_224"
    return {
        "architecture": _TIMM_STEMS.get((stem, size.width), "vit_base_r50_s16_224") if stem is not None else kind,
        "num_classes": config.num_classes,
        "num_features": size.width,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": config.num_classes,
            "input_size": [config.channels, *config.image_shape[:2]],
            "custom_load": False,
            **_normalize(meta, "mean", "std"),
        },
        **({"label_names": list(meta["class_names"])} if meta.get("class_names") else {}),
    }


def hugging_face(config: vit_config.Config, meta: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` for `ViTForImageClassification.from_pretrained(FOLDER)`, or DeiT's."""
    size, distilled = config.size, config.distilled
    if config.image_shape[0] != config.image_shape[1] or config.patch_size[0] != config.patch_size[1]:
        raise types.InputError(
            f"Hugging Face's ViT takes square images and patches: these are {config.image_shape[:2]} and"
            f" {config.patch_size}. Write timm's layout."
        )
    names = list(meta.get("class_names") or [f"LABEL_{i}" for i in range(config.num_classes)])
    return {
        "architectures": ["DeiTForImageClassificationWithTeacher" if distilled else "ViTForImageClassification"],
        "model_type": "deit" if distilled else "vit",
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
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
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


def cautions(config: vit_config.Config, layout: str) -> list[str]:
    """What a reader of the file must know, as sentences."""
    found = []
    if layout == "timm" and not math.isclose(config.norm_epsilon, 1e-6):
        found.append(f"The norms were trained with epsilon {config.norm_epsilon:g}; timm builds them with 1e-6.")
    if layout in ("google", "linen", "big_vision") and config.activation != "gelu_tanh":
        found.append(f"The activation is {config.activation}; the code that reads this layout computes gelu_tanh.")
    if config.pre_logits and layout == "timm":
        found.append("timm has no pre_logits since 0.6: it leaves them out, and its logits are others.")
    if config.pre_logits and layout.startswith("huggingface"):
        found.append("Load it as ViTModel: its pooler is pre_logits; ViTForImageClassification has none.")
    stem = config.stem_units
    if stem is not None and layout == "timm" and (stem, config.size.width) not in _TIMM_STEMS:
        found.append("timm names no hybrid with this stem: build the backbone by hand.")
    return found


def _normalize(meta: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    how = meta.get("normalize")
    return {mean: list(how["mean"]), std: list(how["std"])} if how else {}
