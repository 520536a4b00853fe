"""The small files beside weights: what the arrays do not tell, in the words of the hub, of timm, or our own.

Read: `NAME.json` beside the file; `config.json` and `preprocessor_config.json` where they are about this file, which is
the `model.safetensors` of its folder or has the layout they speak of. Written: the first of them, so that
`from_pretrained` of either library builds the model for its weights.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformer_jax import types

_ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_HUGGING_FACE = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_dim",
    "num_channels": "channels",
    "image_size": "image_size",
    "patch_size": "patch",
    "layer_norm_eps": "norm_epsilon",
}
_TIMM = {
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
    "in_chans": "channels",
    "img_size": "image_size",
    "patch_size": "patch",
    "class_token": "class_token",
}
_COMPUTED = (
    *("activation", "norm_epsilon", "pool", "pool_norm"),
    *("stem_epsilon", "stem_epsilon_of", "stem_norm_epsilon", "epsilon", "epsilon_of"),
)
_POOLS = {"token": "tok", "avg": "gap", "map": "map"}
_POSITIONS = ("learn", "none", "")
# The layout of a file that a configuration of another name than the file's can be about.
_KINDS = {"vit": "huggingface", "deit": "huggingface_deit", "vit-hybrid": "huggingface_hybrid"}
_PROCESSOR = "preprocessor_config.json"
_MARK = "transformer_jax"
"""The word in a file of notes that tells it is ours: what we keep, in one that another library does not read."""
MODEL_FILE = "model.safetensors"
"""The name under which both libraries look for weights in a folder; their configuration is then `config.json`."""


class Notes(NamedTuple):
    """What was found: settings of the model's config, the whole config where we wrote it, and what is kept as meta."""

    settings: dict[str, Any]
    model: dict[str, Any]
    meta: dict[str, Any]


def read(path: Path, meta: Mapping[str, Any], layout: str) -> Notes:
    """The notes in the header of a file (`meta`) and in the files beside it. `layout` is that of its names.

    `InputError` when the configuration is of a model that computes something else than ours can.
    """
    own, shared = _json(path.with_suffix(".json")), _json(path.with_name("config.json"))
    shared = shared if path.name == MODEL_FILE or _about(shared, layout) else {}
    processor = _json(path.with_name(_PROCESSOR)) if path.name == MODEL_FILE or shared else {}
    meta = {**_ours(own), **_ours(shared), **meta}
    model, known = dict(saved(meta)), {}
    for config in (shared, own):
        known |= _hugging_face(config) if "model_type" in config else _timm(config) if "architecture" in config else {}
    if "image_mean" in processor and "image_std" in processor:
        known["normalize"] = {"mean": processor["image_mean"], "std": processor["image_std"]}
    names = known.pop("class_names", None)
    if names and "class_names" not in meta:
        meta["class_names"] = names
    if "normalize" in meta:
        known["normalize"] = meta["normalize"]
    known |= {name: model[name] for name in _COMPUTED if name in model}
    return Notes(known, model, meta)


def require_pooling(notes: Notes, layout: str, params: Mapping[str, Any]) -> None:
    """`InputError` where timm pools other tokens than ours: the mean of ours is of patches, its probe sees all tokens.

    A file we wrote says what it is; in others it is `pool_include_prefix` that does.
    """
    included = bool(notes.settings.pop("pool_prefix", False))
    tokens = [name for name in ("cls", "dist", "registers") if name in params]
    if layout != "timm" or notes.model or not tokens:
        return
    probe = "pool/probe" in params
    if probe != included and (probe or notes.settings.get("pool") == "gap"):
        raise types.InputError(
            f"With {', '.join(tokens)} beside the patches, {'a MAP head attends to' if probe else 'a mean is over'}"
            f" {'all tokens' if probe else 'the patches alone'} here: pool_include_prefix is {included} for these"
            " weights. Their model computes something else than ours can"
            f"{'; or put the config.json of the model beside them' if probe else ''}."
        )


def saved(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the model that were saved with weights, alone or in their experiment, if any."""
    return (meta.get("config") or {}).get("model") or meta.get("model") or {}


def target(path: Path) -> Path:
    """Where the notes about a file are written: `config.json` where libraries look for it, else `NAME.json`."""
    return path.with_name("config.json") if path.name == MODEL_FILE else path.with_suffix(".json")


def require_free(there: Path) -> None:
    """`InputError` when a file that is not ours lies where notes are to be written."""
    mark = there.with_name("config.json") if there.name == _PROCESSOR else there
    if there.exists() and _MARK not in _json(mark):
        raise types.InputError(
            f"What the weights do not tell belongs in {str(there)!r}, which is another file. Choose another folder."
        )


def write(there: Path, notes: Mapping[str, Any]) -> Path:
    """Writes notes beside weights, marked as ours."""
    there.parent.mkdir(parents=True, exist_ok=True)
    marked = notes if there.name == _PROCESSOR else {_MARK: {"format_version": 1}, **notes}
    there.write_text(json.dumps(marked, indent=2, sort_keys=True) + "\n")
    return there


def _about(config: Mapping[str, Any], layout: str) -> bool:
    """Whether a configuration is of a model whose file has this layout."""
    if "model_type" in config:
        kind = _KINDS.get(config["model_type"])
        return layout == kind or (layout == "huggingface_bare" and kind in ("huggingface", "huggingface_deit"))
    return "architecture" in config and layout.startswith("timm")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _ours(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.get(_MARK) or {})


def _hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {ours: config[theirs] for theirs, ours in _HUGGING_FACE.items() if config.get(theirs) is not None}
    labels = config.get("id2label") or {}
    names = [labels[key] for key in sorted(labels, key=int)]
    if names and names != [f"LABEL_{i}" for i in range(len(names))]:
        known["class_names"] = names
    stem = config.get("backbone_config")
    if stem:
        if stem.get("layer_type") != "bottleneck":  # in front of its stages the norm comes after the convolution
            raise _elsewise("layer_type", stem.get("layer_type"), ["bottleneck"])
        known["stem"] = tuple(stem.get("depths") or ())
    return _plain(known) | _activation(config.get("hidden_act"))


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    given, trained = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    table = given.get("pos_embed", "learn")
    if table not in _POSITIONS:
        raise _elsewise("pos_embed", table, _POSITIONS)
    known = {ours: given[theirs] for theirs, ours in _TIMM.items() if given.get(theirs) is not None}
    pool = given.get("global_pool", config.get("global_pool"))
    if pool is not None:
        if pool not in _POOLS:
            raise _elsewise("global_pool", pool, _POOLS)
        known["pool"] = _POOLS[pool]
    if "pool_include_prefix" in given:
        known["pool_prefix"] = bool(given["pool_include_prefix"])
    if "input_size" in trained and "image_size" not in known:
        known["image_size"] = list(trained["input_size"][1:])
    if "mean" in trained and "std" in trained:
        known["normalize"] = {"mean": list(trained["mean"]), "std": list(trained["std"])}
    if config.get("label_names"):
        known["class_names"] = list(config["label_names"])
    return _plain(known) | _activation(given.get("act_layer"))


def _activation(word: Any) -> dict[str, str]:
    if word is None:
        return {}
    if word not in _ACTIVATIONS:
        raise _elsewise("activation", word, _ACTIVATIONS)
    return {"activation": _ACTIVATIONS[word]}


def _elsewise(name: str, word: Any, known: Iterable[str]) -> types.InputError:
    return types.InputError(
        f"The {name} must be one of {', '.join(filter(None, known))}: the configuration beside the weights says"
        f" {word!r}. Their model computes something else than ours can."
    )


def _plain(known: dict[str, Any]) -> dict[str, Any]:
    """Sizes of two equal numbers as one number, of two as a tuple."""
    for name in ("image_size", "patch"):
        size = known.get(name)
        if isinstance(size, list | tuple):
            known[name] = size[0] if size[0] == size[1] else tuple(size)
    return known
