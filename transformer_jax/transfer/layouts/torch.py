"""The names of timm and of Hugging Face: PyTorch's shapes, so matrices stand transposed and heads are flattened.

checkpoint_layouts 3.3 and 3.4.
"""

import numpy as np

from transformer_jax.transfer.layouts import rules

Rule = rules.Rule


def norm(ours: str, theirs: str, when: str | None = None) -> rules.Table:
    """A layer norm or a group norm."""
    return Rule(f"{ours}/scale", f"{theirs}.weight", when=when), Rule(f"{ours}/bias", f"{theirs}.bias", when=when)


def dense(ours: str, theirs: str, form: str = "dense") -> rules.Table:
    """A linear map or, with form `conv`, a convolution."""
    return Rule(f"{ours}/kernel", f"{theirs}.weight", form), Rule(f"{ours}/bias", f"{theirs}.bias")


def heads(ours: str | tuple[str, ...], theirs: str) -> rules.Table:
    """The map to queries, keys or values, or several of them in one matrix."""
    parts = (ours,) if isinstance(ours, str) else ours
    kernels, biases = (tuple(f"{part}/{leaf}" for part in parts) for leaf in ("kernel", "bias"))
    return Rule(kernels, f"{theirs}.weight", "heads"), Rule(biases, f"{theirs}.bias", "heads_bias")


def units(ours: str, theirs: str, layers: str = "blocks") -> rules.Table:
    """The convolutions and norms of a ResNet-V2 whose stages stand under `theirs`, units in each under `layers`."""
    unit, block = f"{ours}block{{b}}/unit{{u}}", f"{theirs}stages.{{b-1}}.{layers}.{{u-1}}"
    return (
        Rule(f"{unit}/conv{{n}}/kernel", f"{block}.conv{{n}}.weight", "conv"),
        *norm(f"{unit}/norm{{n}}", f"{block}.norm{{n}}"),
        Rule(f"{unit}/conv_proj/kernel", f"{block}.downsample.conv.weight", "conv"),
        *norm(f"{unit}/norm_proj", f"{block}.downsample.norm"),
    )


_BACKBONE = "patch_embed.backbone"
_ATTENTION = "blocks/{i}/attention"
TIMM: rules.Table = (
    Rule("cls", "cls_token", "two"),
    Rule("dist", "dist_token", "two"),
    Rule("registers", "reg_token", "one"),
    Rule("position", "pos_embed", "one"),
    *dense("embedding", "patch_embed.proj", "conv"),
    Rule("stem/root/conv/kernel", f"{_BACKBONE}.conv.weight", "conv", when="root_only"),
    *norm("stem/root/norm", f"{_BACKBONE}.norm", when="root_only"),
    Rule("stem/root/conv/kernel", f"{_BACKBONE}.stem.conv.weight", "conv"),
    *norm("stem/root/norm", f"{_BACKBONE}.stem.norm"),
    *units("stem/", f"{_BACKBONE}."),
    *norm("blocks/{i}/norm1", "blocks.{i}.norm1"),
    *heads(tuple(f"{_ATTENTION}/{part}" for part in ("query", "key", "value")), "blocks.{i}.attn.qkv"),
    *norm(f"{_ATTENTION}/query_norm", "blocks.{i}.attn.q_norm"),
    *norm(f"{_ATTENTION}/key_norm", "blocks.{i}.attn.k_norm"),
    *dense(f"{_ATTENTION}/out", "blocks.{i}.attn.proj", "heads_out"),
    Rule("blocks/{i}/scale{n}/scale", "blocks.{i}.gamma_{n}", when="deit_scales"),  # DeiT III's own code
    Rule("blocks/{i}/scale{n}/scale", "blocks.{i}.ls{n}.gamma"),
    *norm("blocks/{i}/norm2", "blocks.{i}.norm2"),
    *dense("blocks/{i}/mlp/up", "blocks.{i}.mlp.fc1"),
    *dense("blocks/{i}/mlp/down", "blocks.{i}.mlp.fc2"),
    *norm("norm", "fc_norm", when="norm_after_pool"),
    *norm("norm", "norm"),
    Rule("pool/probe", "attn_pool.latent", "two"),
    *heads("pool/attention/query", "attn_pool.q"),
    *heads(("pool/attention/key", "pool/attention/value"), "attn_pool.kv"),
    *dense("pool/attention/out", "attn_pool.proj", "heads_out"),
    *norm("pool/norm", "attn_pool.norm"),
    *dense("pool/mlp/up", "attn_pool.mlp.fc1"),
    *dense("pool/mlp/down", "attn_pool.mlp.fc2"),
    *dense("pre_logits", "pre_logits.fc"),  # timm up to 0.5; later versions leave it out
    *dense("head", "head"),
    *dense("head_dist", "head_dist"),
)
TIMM_BIT: rules.Table = (
    Rule("root/conv/kernel", "stem.conv.weight", "conv"),
    *units("", ""),
    *norm("norm", "norm"),
    Rule("head/kernel", "head.fc.weight", "conv_dense"),
    Rule("head/bias", "head.fc.bias"),
)


def _encoder(block: str, parts: dict[str, str]) -> rules.Table:
    """The blocks of one generation of Hugging Face's names."""
    return (
        *norm("blocks/{i}/norm1", f"{block}.layernorm_before"),
        *(
            rule
            for part in ("query", "key", "value")
            for rule in heads(f"{_ATTENTION}/{part}", f"{block}.{parts[part]}")
        ),
        *dense(f"{_ATTENTION}/out", f"{block}.{parts['out']}", "heads_out"),
        *norm("blocks/{i}/norm2", f"{block}.layernorm_after"),
        *dense("blocks/{i}/mlp/up", f"{block}.{parts['up']}"),
        *dense("blocks/{i}/mlp/down", f"{block}.{parts['down']}"),
    )


_SAVED = {part: f"attention.attention.{part}" for part in ("query", "key", "value")} | {
    "out": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
# The modules of transformers 5; its files keep the names above.
_LIVE = {part: f"attention.{part[0]}_proj" for part in ("query", "key", "value")} | {
    "out": "attention.o_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}


def _hugging_face(root: str, distilled: bool) -> rules.Table:
    """The names of a model under `root` (`vit.`, `deit.`, or nothing for a model without a head)."""
    head, other = ("cls_classifier", "classifier") if distilled else ("classifier", "cls_classifier")
    return (
        Rule("cls", f"{root}embeddings.cls_token", "two"),
        Rule("dist", f"{root}embeddings.distillation_token", "two"),
        Rule("position", f"{root}embeddings.position_embeddings", "one"),
        *dense("embedding", f"{root}embeddings.patch_embeddings.projection", "conv"),
        *_encoder(f"{root}encoder.layer.{{i}}", _SAVED),
        *_encoder(f"{root}layers.{{i}}", _LIVE),
        *norm("norm", f"{root}layernorm"),
        *dense("pre_logits", f"{root}pooler.dense"),
        *dense("head", head),
        *dense("head", other),
        *dense("head_dist", "distillation_classifier"),
    )


_BIT = "vit.embeddings.patch_embeddings.backbone.bit"
_HYBRID_STEM: rules.Table = (
    Rule("stem/root/conv/kernel", f"{_BIT}.embedder.convolution.weight", "conv"),
    *norm("stem/root/norm", f"{_BIT}.embedder.norm"),
    *units("stem/", f"{_BIT}.encoder.", "layers"),
)
HUGGING_FACE = _hugging_face("vit.", False)
HUGGING_FACE_HYBRID: rules.Table = (*HUGGING_FACE, *_HYBRID_STEM)
HUGGING_FACE_DEIT = _hugging_face("deit.", True)
HUGGING_FACE_BARE = _hugging_face("", False)


def without_zero_biases(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm's norms of queries and keys have a bias, ours may have none: zero ones are left out where all are zero."""
    biases = [name for name in arrays if name.endswith(_NORM_BIASES)]
    if any(np.any(arrays[name] != 0) for name in biases):
        return arrays
    return {name: array for name, array in arrays.items() if name not in biases}


def with_zero_biases(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse: a zero bias for every norm of queries and keys that has none."""
    scales = [name for name in arrays if name.endswith(("query_norm/scale", "key_norm/scale"))]
    return {f"{name.removesuffix('scale')}bias": np.zeros_like(arrays[name]) for name in scales} | arrays


def rows(arrays: dict[str, np.ndarray]) -> str:
    """The kind of position table timm is written with: no rows for prefix tokens (`no_embed_class`) with registers,
    unless the class token has a position of its own."""
    own = ("cls" in arrays) + ("dist" in arrays)
    if "registers" not in arrays or "position" not in arrays:
        return "own"
    return "all" if own and np.any(arrays["position"][:own] != 0) else "grid"


def root_only(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the stem is a root without stages, which timm names differently."""
    stem = [name for name in arrays if name.startswith("stem/")]
    return bool(stem) and not any(name.startswith("stem/block") for name in stem)


_NORM_BIASES = ("query_norm/bias", "key_norm/bias")
