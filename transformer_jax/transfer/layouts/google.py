"""The names of Google's code: flax from before linen (2020, AugReg, SAM), linen, and big_vision.

checkpoint_layouts 3.1. The three number the modules of a block differently; big_vision adds the position before the
class token (so its table has no row for it), has a MAP head, and may stack its blocks.
"""

import re

import numpy as np

from transformer_jax.transfer.layouts import rules

Rule = rules.Rule


def _blocks(attention: int, norm2: int, mlp: int) -> rules.Table:
    """One block, and what stands around all of them. The numbers are those in the names of its modules."""
    block = "Transformer/encoderblock_{i}"
    return (
        Rule("cls", "cls", "two"),
        Rule("embedding/{leaf}", "embedding/{leaf}"),
        Rule("blocks/{i}/norm1/{leaf}", f"{block}/LayerNorm_0/{{leaf}}"),
        Rule(
            "blocks/{i}/attention/{part}/{leaf}",
            f"{block}/MultiHeadDotProductAttention_{attention}/{{part}}/{{leaf}}",
        ),
        Rule("blocks/{i}/norm2/{leaf}", f"{block}/LayerNorm_{norm2}/{{leaf}}"),
        Rule("blocks/{i}/mlp/up/{leaf}", f"{block}/MlpBlock_{mlp}/Dense_0/{{leaf}}"),
        Rule("blocks/{i}/mlp/down/{leaf}", f"{block}/MlpBlock_{mlp}/Dense_1/{{leaf}}"),
        Rule("norm/{leaf}", "Transformer/encoder_norm/{leaf}"),
        Rule("pre_logits/{leaf}", "pre_logits/{leaf}"),
        Rule("head/{leaf}", "head/{leaf}"),
    )


STEM: rules.Table = (
    Rule("stem/root/conv/kernel", "conv_root/kernel"),
    Rule("stem/root/norm/{leaf}", "gn_root/{leaf}", "group"),
    Rule("stem/block{b}/unit{u}/conv{n}/kernel", "block{b}/unit{u}/conv{n}/kernel"),
    Rule("stem/block{b}/unit{u}/norm{n}/{leaf}", "block{b}/unit{u}/gn{n}/{leaf}", "group"),
    Rule("stem/block{b}/unit{u}/conv_proj/kernel", "block{b}/unit{u}/conv_proj/kernel"),
    Rule("stem/block{b}/unit{u}/norm_proj/{leaf}", "block{b}/unit{u}/gn_proj/{leaf}", "group"),
)
_POSITION = Rule("position", "Transformer/posembed_input/pos_embedding", "one")
OLD: rules.Table = (*_blocks(1, 2, 3), _POSITION, *STEM)
LINEN: rules.Table = (*_blocks(0, 1, 0), _POSITION, *STEM)
BIG_VISION: rules.Table = (
    *_blocks(0, 1, 0),
    # the names with a word are those of before 2022
    Rule("position", "Transformer/pos_embedding", "one", when="position_inside"),
    Rule("position", "pos_embedding", "one"),
    *(
        rule
        for head, word in (("", "nameless_head"), ("MAPHead_0/", None))
        for rule in (
            Rule("pool/probe", f"{head}probe", "two", word),
            Rule("pool/attention/{part}/{leaf}", f"{head}MultiHeadDotProductAttention_0/{{part}}/{{leaf}}", when=word),
            Rule("pool/norm/{leaf}", f"{head}LayerNorm_0/{{leaf}}", when=word),
            Rule("pool/mlp/up/{leaf}", f"{head}MlpBlock_0/Dense_0/{{leaf}}", when=word),
            Rule("pool/mlp/down/{leaf}", f"{head}MlpBlock_0/Dense_1/{{leaf}}", when=word),
        )
    ),
)
_STACK = "Transformer/encoderblock/"


def unstack(arrays: dict[str, np.ndarray], style: rules.Style) -> dict[str, np.ndarray]:
    """Blocks that big_vision keeps in one array each, with a leading axis of layers, one by one."""
    if not any(name.startswith(_STACK) for name in arrays):
        return arrays
    style["stacked"] = True
    apart = {}
    for name, array in arrays.items():
        if not name.startswith(_STACK):
            apart[name] = array
            continue
        for layer, leaf in enumerate(array):
            apart[f"{_STACK[:-1]}_{layer}/{name.removeprefix(_STACK)}"] = leaf
    return apart


def stack(arrays: dict[str, np.ndarray], style: rules.Style) -> dict[str, np.ndarray]:
    """The inverse of `unstack`, where the file was stacked."""
    if not style.get("stacked"):
        return arrays
    plain, layers = {}, {}
    for name, array in arrays.items():
        found = re.fullmatch(_STACK[:-1] + r"_(\d+)/(.*)", name)
        if found:
            layers.setdefault(_STACK + found[2], {})[int(found[1])] = array
        else:
            plain[name] = array
    return plain | {name: np.stack([found[i] for i in range(len(found))]) for name, found in layers.items()}


def stacked(name: str) -> str:
    """The name of a parameter of a block among stacked ones."""
    return re.sub("^" + _STACK[:-1] + r"_\d+/", _STACK, name)
