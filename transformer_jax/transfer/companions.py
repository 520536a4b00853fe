"""The small files beside weights: what the arrays do not tell, in the words of the hub, of timm, or our own.

Read: `NAME.json` or `config.json` beside the file, and `preprocessor_config.json`. Written: the first of them, so that
`from_pretrained` of either library builds the model for its weights.
"""

import json
from collections.abc import Mapping
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
    "activation", "norm_epsilon", "pool", "pool_norm", "stem_epsilon", "stem_epsilon_of", "stem_norm_epsilon"
)  # fmt: skip
_POOLS = {"token": "tok", "avg": "gap", "map": "map"}
MODEL_FILE = "model.safetensors"
"""The name under which both libraries look for weights in a folder; their configuration is then `config.json`."""


class Notes(NamedTuple):
    """What was found: settings of the model's config, the whole config where we wrote it, and what is kept as meta."""

    settings: dict[str, Any]
    model: dict[str, Any]
    meta: dict[str, Any]


def read(path: Path, meta: Mapping[str, Any]) -> Notes:
    """The notes in the header of a file (`meta`) and in the files beside it."""
    meta = {**_ours(_json(path.with_suffix(".json"))), **_ours(_json(path.with_name("config.json"))), **meta}
    saved: dict[str, Any] = dict((meta.get("config") or {}).get("model") or meta.get("model") or {})
    known: dict[str, Any] = {}
    for name in (path.with_name("config.json"), path.with_suffix(".json")):
        config = _json(name)
        known |= _hugging_face(config) if "model_type" in config else _timm(config) if "architecture" in config else {}
    processor = _json(path.with_name("preprocessor_config.json"))
    if "image_mean" in processor and "image_std" in processor:
        known["normalize"] = {"mean": processor["image_mean"], "std": processor["image_std"]}
    names = known.pop("class_names", None)
    if names and "class_names" not in meta:
        meta["class_names"] = names
    if "normalize" in meta:
        known["normalize"] = meta["normalize"]
    known |= {name: saved[name] for name in _COMPUTED if name in saved}
    return Notes(known, saved, meta)


def target(path: Path) -> Path:
    """Where the notes about a file are written: `config.json` where libraries look for it, else `NAME.json`."""
    return path.with_name("config.json") if path.name == MODEL_FILE else path.with_suffix(".json")


def write(there: Path, notes: Mapping[str, Any]) -> Path:
    """Writes notes beside weights. `InputError` when a file of another kind is there."""
    ours = {"model_type", "architecture", "transformer_jax", "image_processor_type"}
    if there.exists() and not _json(there).keys() & ours:
        raise types.InputError(
            f"What the weights do not tell belongs in {str(there)!r}, which is another file. Choose another folder."
        )
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_text(json.dumps(notes, indent=2, sort_keys=True) + "\n")
    return there


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _ours(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.get("transformer_jax") or {})


def _hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {ours: config[theirs] for theirs, ours in _HUGGING_FACE.items() if config.get(theirs) is not None}
    labels = config.get("id2label") or {}
    names = [labels[key] for key in sorted(labels, key=int)]
    if names and names != [f"LABEL_{i}" for i in range(len(names))]:
        known["class_names"] = names
    return _plain(known) | _activation(config.get("hidden_act"))


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    given, trained = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    known = {ours: given[theirs] for theirs, ours in _TIMM.items() if given.get(theirs) is not None}
    pool = config.get("global_pool", given.get("global_pool"))
    if pool in _POOLS:
        known["pool"] = _POOLS[pool]
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
        raise types.InputError(
            f"The activation must be one of {', '.join(_ACTIVATIONS)}: the configuration beside the weights says"
            f" {word!r}. Their model computes something else than ours can."
        )
    return {"activation": _ACTIVATIONS[word]}


def _plain(known: dict[str, Any]) -> dict[str, Any]:
    """Sizes of two equal numbers as one number, of two as a tuple."""
    for name in ("image_size", "patch"):
        size = known.get(name)
        if isinstance(size, list | tuple):
            known[name] = size[0] if size[0] == size[1] else tuple(size)
    return known
