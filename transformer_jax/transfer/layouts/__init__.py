"""The published layouts of weights, each read and written by one table of names.

`LAYOUTS` names them; `find` tells by the names in a file which it is. Numbers travel unchanged: what is read and
written again in the same layout is the same, bit for bit, with every name and every shape.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from transformer_jax import types
from transformer_jax.transfer.layouts import bit, google, rules, tokens, torch

_FLAX_WRAPPERS = ("", "params/img/", "params/", "opt/target/", "img/")
_TORCH_WRAPPERS = ("", "module.", "model.", "visual.trunk.", "state_dict.")
# How the numbers were meant: what the code that trained them computes, under the names of the model's config.
_GOOGLE = {
    "activation": "gelu_tanh",
    "norm_epsilon": 1e-6,
    "normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
_GOOGLE_STEM = {"stem_epsilon": 1e-5, "stem_epsilon_of": "std", "stem_norm_epsilon": 1e-6}
_TIMM_STEM = {"stem_epsilon": 1e-8, "stem_epsilon_of": "variance", "stem_norm_epsilon": 1e-5}
_BIT = {"epsilon": 1e-10, "epsilon_of": "variance", "norm_epsilon": 1e-5}
_TIMM = {"activation": "gelu_erf", "norm_epsilon": 1e-6}
_HUGGING_FACE = {"activation": "gelu_erf", "norm_epsilon": 1e-12}


@dataclasses.dataclass(frozen=True)
class Layout:
    """One layout: its table, how it is recognised, and what its code computes beyond the parameters."""

    table: rules.Table
    signs: tuple[str, ...]
    """Patterns; each is the beginning of some name in the file."""
    file: str = "safetensors"
    family: str = "vit"
    conventions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stem: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _GOOGLE_STEM)
    """Further conventions, of hybrids."""
    rows: str = "own"
    """The position table it usually has, as `tokens` calls them."""
    without_table: str | None = None
    """The positions of a file that has no table of them; `None`: every file of a ViT has one."""
    inner: str = ""
    """A pattern of names that take part in every answer: one without a line in the table makes the file another's."""
    wrappers: tuple[str, ...] = _TORCH_WRAPPERS
    """What may stand before every name; other names are then no parameters."""

    @property
    def flattened(self) -> bool:
        """Whether the number of heads does not show in the shapes."""
        return any(rule.form == "heads" for rule in self.table)


def _flax(table: rules.Table, *signs: str, **options: Any) -> Layout:
    some: dict[str, Any] = {"file": "npz", "conventions": _GOOGLE, "wrappers": _FLAX_WRAPPERS}
    return Layout(table, signs, **(some | options))


_TIMM_INNER = r"(blocks|norm_pre|norm|fc_norm|attn_pool|patch_embed|head)\b"
_HF_INNER = r"(vit\.|deit\.)?(embeddings|encoder|layers|layernorm)\b(?!.*mask_token)"
_BLOCK = r"Transformer/encoderblock_\d+/"
_LINEN_BLOCK = r"Transformer/encoderblock(_\d+)?/(MultiHeadDotProductAttention_0|MlpBlock_0)/"
LAYOUTS: dict[str, Layout] = {
    "google": _flax(google.OLD, _BLOCK + "(MultiHeadDotProductAttention_1|MlpBlock_3)/"),
    "linen": _flax(google.LINEN, _LINEN_BLOCK, "Transformer/posembed_input/"),
    "big_vision": _flax(google.BIG_VISION, _LINEN_BLOCK, rows="grid", without_table="sincos2d"),
    "bit": _flax(
        bit.TABLE, r"resnet/block\d+/unit\d+/", family="resnet", conventions=_BIT | {"normalize": _GOOGLE["normalize"]}
    ),
    "timm": Layout(
        torch.TIMM,
        (r"blocks\.\d+\.attn\.qkv\.", r"patch_embed\."),
        conventions=_TIMM,
        stem=_TIMM_STEM,
        without_table="none",
        inner=_TIMM_INNER,
    ),
    "timm_bit": Layout(
        torch.TIMM_BIT,
        (r"stages\.\d+\.blocks\.\d+\.norm1\.", r"stem\.conv\."),
        family="resnet",
        conventions=_BIT | {"epsilon": 1e-8},
    ),
    "huggingface_hybrid": Layout(  # google/vit-hybrid-base-bit-384
        torch.HUGGING_FACE_HYBRID,
        (r"vit\.embeddings\.patch_embeddings\.backbone\.bit\.",),
        conventions=_HUGGING_FACE,
        stem=_TIMM_STEM,
        inner=_HF_INNER,
    ),
    "huggingface": Layout(torch.HUGGING_FACE, (r"vit\.embeddings\.",), conventions=_HUGGING_FACE, inner=_HF_INNER),
    "huggingface_deit": Layout(
        torch.HUGGING_FACE_DEIT, (r"deit\.embeddings\.",), conventions=_HUGGING_FACE, inner=_HF_INNER
    ),
    "huggingface_bare": Layout(
        torch.HUGGING_FACE_BARE, (r"embeddings\.patch",), conventions=_HUGGING_FACE, inner=_HF_INNER
    ),
}
_NEUTRAL = r"blocks/\d+/|block\d+/unit\d+/norm1/|position$|(norm|stem|pool|root)/"
# Names we know and cannot read, and whose they are.
_FOREIGN = {
    r"MixerBlock_\d+/": "an MLP-Mixer's",
    r"conv_root/kernel|block\d/unit\d+/gn1": "a ResNet's of big_vision, in another layout than BiT's .npz",
    r"(module\.)?visual\.(transformer|conv1|class_embedding)": "OpenAI CLIP's",
    r"vision_model\.|text_model\.": "CLIP's or SigLIP's of Hugging Face",
    r"layers\.\d+\.blocks\.\d+\.attn\.relative_position": "a Swin Transformer's",
    r"blocks\.\d+\.attn\.(q_bias|q_proj)": "BEiT's or EVA's",
    r"layer\d\.\d+\.conv1": "a ResNet's",
}


class Read(NamedTuple):
    """Arrays under our names, what the file chose where its layout leaves a choice, and names of no parameter."""

    params: dict[str, np.ndarray]
    style: rules.Style
    unused: tuple[str, ...]


def find(names: Iterable[str]) -> tuple[str, str]:
    """The layout whose names these are and its wrapper; `"neutral"` for our own. `InputError` for names of nobody."""
    names = list(names)
    for key, layout in LAYOUTS.items():
        for wrapper in layout.wrappers:
            inside = [name.removeprefix(wrapper) for name in names if name.startswith(wrapper)]
            if all(any(re.match(sign, name) for name in inside) for sign in layout.signs):
                return key, wrapper
    for wrapper in _FLAX_WRAPPERS:
        if any(name.startswith(wrapper) and re.match(_NEUTRAL, name.removeprefix(wrapper)) for name in names):
            return "neutral", wrapper
    whose = next((whose for sign, whose in _FOREIGN.items() if any(re.match(sign, name) for name in names)), None)
    raise types.InputError(
        f"Parameter names must be ours (blocks/0/...) or those of a layout ({', '.join(LAYOUTS)}):"
        f" these begin with {sorted(names)[:4]}." + (f" They are {whose}, which is not read." if whose else "")
    )


def read(
    arrays: Mapping[str, np.ndarray],
    key: str,
    *,
    wrapper: str = "",
    patches: int | None = None,
    norm_biases: bool = False,
) -> Read:
    """The arrays of a file under our names; flattened heads are one head. `patches` is their number where known.

    `norm_biases` keeps the biases of timm's norms of queries and keys where all are zero.
    """
    inside = {name.removeprefix(wrapper): array for name, array in arrays.items() if name.startswith(wrapper)}
    outside = tuple(name for name in arrays if not name.startswith(wrapper))
    style: rules.Style = {"wrapper": wrapper} if wrapper else {}
    if key == "neutral":
        return Read(inside, style, outside)
    layout = LAYOUTS[key]
    inside = google.unstack(inside, style) if key == "big_vision" else inside
    params, unused = rules.read(inside, layout.table, style=style)
    if key == "timm":
        params = params if norm_biases else torch.without_zero_biases(params)
        style["norm_after_pool"] = "fc_norm.weight" in inside
    strange = [name for name in unused if re.match(layout.inner, name)] if layout.inner else []
    if strange:
        raise types.InputError(
            f"Every parameter between the image and the head must be one of ours: {len(strange)} of these {key} names"
            f" are not, {', '.join(sorted(strange)[:4])}. Their model computes something else than ours can."
        )
    tokens.read(params, style, usual=layout.rows, patches=patches)
    return Read(params, style, unused + outside)


def conventions(key: str, params: types.FlatTree, style: Mapping[str, Any]) -> dict[str, Any]:
    """What the code of a layout computes beyond what its parameters show, as `convert.Source.conventions`."""
    if key not in LAYOUTS:
        return {}
    layout = LAYOUTS[key]
    stem = layout.stem if any(name.startswith("stem/") for name in params) else {}
    after = {"pool": "gap", "pool_norm": "after"} if style.get("norm_after_pool") else {}
    bare = {} if "position" in params or layout.family != "vit" else {"position": layout.without_table}
    if None in bare.values():
        raise types.InputError(
            f"The table of positions must be in a file of the layout {key}: it has none, and what its code computes"
            " without one is unknown. Fetch the file again."
        )
    return {**layout.conventions, **stem, **after, **bare}


class Written(NamedTuple):
    """Arrays under the names of a layout, our names it has none for, and the choices that were made."""

    arrays: dict[str, np.ndarray]
    unused: tuple[str, ...]
    style: rules.Style


def write(params: types.FlatTree, key: str, style: Mapping[str, Any] | None = None) -> Written:
    """Our arrays under the names of a layout.

    `style` is that of a file read before, for writing it again; words of it that are not given are the layout's usual.
    """
    style, found = dict(style or {}), {name: np.asarray(leaf) for name, leaf in params.items()}
    unused: tuple[str, ...] = ()
    if key != "neutral":
        if key == "timm":
            found = torch.with_zero_biases(found)
            style.setdefault("position_rows", torch.rows(found))
            style.setdefault("root_only", torch.root_only(found))
        tokens.write(found, style, usual=LAYOUTS[key].rows)
        found, unused = rules.write(found, LAYOUTS[key].table, style=style)
        found = google.stack(found, style) if key == "big_vision" else found
    return Written({style.get("wrapper", "") + name: array for name, array in found.items()}, unused, style)


def rename(name: str, key: str, style: Mapping[str, Any] | None = None) -> str | None:
    """The name a layout has for one of our parameters; `None` when it has none."""
    style = dict(style or {})
    found = rules.rename(name, LAYOUTS[key].table, style) if key in LAYOUTS else name
    if found is None:
        return None
    return style.get("wrapper", "") + (google.stacked(found) if style.get("stacked") else found)
