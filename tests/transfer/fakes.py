"""Tiny weights in the published layouts (checkpoint_layouts 3.1, 3.3, 3.4), every array different."""

import re

import numpy as np

WIDTH, HEADS, MLP, PATCH, CLASSES = 8, 2, 12, 4, 5
OLD, LINEN = (1, 2, 3), (0, 1, 0)
"""Numbers of attention, second norm and MLP in the names of a block, before linen and since."""


def google(*, depth=2, grid=(3, 3), classes=CLASSES, pre_logits=True, class_token=True, numbers=OLD, seed=0):
    """The arrays of a `.npz` as Google's code wrote them in 2020; without `pre_logits` as those of AugReg."""
    shapes = {
        "embedding/kernel": (PATCH, PATCH, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "Transformer/posembed_input/pos_embedding": (1, class_token + grid[0] * grid[1], WIDTH),
        "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,),
        "head/kernel": (WIDTH, classes),
        "head/bias": (classes,),
    }
    if class_token:
        shapes["cls"] = (1, 1, WIDTH)
    if pre_logits:
        shapes |= {"pre_logits/kernel": (WIDTH, WIDTH), "pre_logits/bias": (WIDTH,)}
    attention, norm2, mlp = numbers
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        shapes |= _attention(f"{block}/MultiHeadDotProductAttention_{attention}")
        for norm in ("LayerNorm_0", f"LayerNorm_{norm2}"):
            shapes |= {f"{block}/{norm}/scale": (WIDTH,), f"{block}/{norm}/bias": (WIDTH,)}
        shapes |= _mlp(f"{block}/MlpBlock_{mlp}")
    return numbered(shapes, seed)


def hybrid(*, stages=(2, 1), wide=True, **options):
    """A `.npz` with a ResNet stem; its norms have the shape (1, 1, 1, 64), in later files (64,)."""
    shapes = {"conv_root/kernel": (7, 7, 3, 64)} | _group("gn_root", 64, wide)
    width = 64
    for b, units in enumerate(stages, start=1):
        middle = 64 * 2 ** (b - 1)
        for u in range(1, units + 1):
            unit = f"block{b}/unit{u}"
            sizes = {
                "conv1": (1, 1, width, middle),
                "conv2": (3, 3, middle, middle),
                "conv3": (1, 1, middle, 4 * middle),
            }
            shapes |= {f"{unit}/{name}/kernel": shape for name, shape in sizes.items()}
            for n, features in enumerate((middle, middle, 4 * middle), start=1):
                shapes |= _group(f"{unit}/gn{n}", features, wide)
            if u == 1:
                shapes[f"{unit}/conv_proj/kernel"] = (1, 1, width, 4 * middle)
                shapes |= _group(f"{unit}/gn_proj", 4 * middle, wide)
            width = 4 * middle
    arrays = google(**options) | numbered(shapes, 7)
    arrays["embedding/kernel"] = np.random.default_rng(8).normal(size=(1, 1, width, WIDTH)).astype(np.float32)
    return arrays


def big_vision(*, pool="map", stacked=False, wrapper="", where="pos_embedding", inline=False, **options):
    """A `.npz` of big_vision: positions for patches only, a MAP head (once without a name), blocks perhaps stacked."""
    arrays = google(numbers=LINEN, pre_logits=False, class_token=False, **options)
    arrays[where] = arrays.pop("Transformer/posembed_input/pos_embedding")
    shapes = {}
    if pool == "map":
        head = "" if inline else "MAPHead_0/"
        shapes |= {
            f"{head}probe": (1, 1, WIDTH),
            f"{head}LayerNorm_0/scale": (WIDTH,),
            f"{head}LayerNorm_0/bias": (WIDTH,),
        }
        shapes |= _attention(f"{head}MultiHeadDotProductAttention_0") | _mlp(f"{head}MlpBlock_0")
    elif pool == "tok":
        shapes["cls"] = (1, 1, WIDTH)
    arrays |= numbered(shapes, 9)
    if stacked:
        names = sorted(
            {re.sub(r"encoderblock_\d+", "encoderblock", name) for name in arrays if "encoderblock_" in name}
        )
        layers = 1 + max(int(m[1]) for name in arrays if (m := re.search(r"encoderblock_(\d+)", name)))
        for name in names:
            apart = [arrays.pop(name.replace("encoderblock/", f"encoderblock_{i}/")) for i in range(layers)]
            arrays[name] = np.stack(apart)
    return {wrapper + name: array for name, array in arrays.items()}


def bit(*, stages=(3, 4, 6, 3), factor=1, classes=CLASSES):
    """A BiT `.npz`; real ones have a root of 64 times `factor`, these a tenth of the widths after it."""
    root = 64 * factor
    shapes = {"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, root)}
    width = root
    for b, units in enumerate(stages, start=1):
        middle = 2 ** (b - 1)
        for u in range(1, units + 1):
            unit = f"resnet/block{b}/unit{u:02d}"
            sizes = {"a": (1, 1, width, middle), "b": (3, 3, middle, middle), "c": (1, 1, middle, 4 * middle)}
            for letter, shape in sizes.items():
                shapes[f"{unit}/{letter}/standardized_conv2d/kernel"] = shape
                shapes |= {f"{unit}/{letter}/group_norm/{leaf}": shape[2:3] for leaf in ("gamma", "beta")}
            if u == 1:
                shapes[f"{unit}/a/proj/standardized_conv2d/kernel"] = (1, 1, width, 4 * middle)
            width = 4 * middle
    shapes |= {f"resnet/group_norm/{leaf}": (width,) for leaf in ("gamma", "beta")}
    shapes |= {"resnet/head/conv2d/kernel": (1, 1, width, classes), "resnet/head/conv2d/bias": (classes,)}
    return numbered(shapes, 0)


def timm(
    *, depth=2, grid=(3, 3), distilled=False, class_token=True, registers=0, rows="own", pool="tok", after=False,
    layer_scale=False, qk_norm=False, stages=None,
):  # fmt: skip
    """The state of a timm ViT with the options that change names: `rows` of the position table, the pool, norms."""
    own = class_token + distilled
    patch = {"patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH)} if stages is None else _backbone(stages)
    shapes = patch | {"patch_embed.proj.bias": (WIDTH,)}
    prefix = {"own": own, "all": own + registers, "grid": 0}[rows]
    shapes["pos_embed"] = (1, prefix + grid[0] * grid[1], WIDTH)
    shapes |= {"cls_token": (1, 1, WIDTH)} if class_token else {}
    shapes |= {"dist_token": (1, 1, WIDTH)} | _torch_dense("head_dist", WIDTH, CLASSES) if distilled else {}
    shapes |= {"reg_token": (1, registers, WIDTH)} if registers else {}
    for i in range(depth):
        block = f"blocks.{i}"
        shapes |= _torch_dense(f"{block}.attn.qkv", WIDTH, 3 * WIDTH) | _torch_dense(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= _torch_dense(f"{block}.mlp.fc1", WIDTH, MLP) | _torch_dense(f"{block}.mlp.fc2", MLP, WIDTH)
        shapes |= _torch_norm(f"{block}.norm1") | _torch_norm(f"{block}.norm2")
        if qk_norm:
            for name in ("q_norm", "k_norm"):
                shapes |= _torch_norm(f"{block}.attn.{name}", WIDTH // HEADS)
        shapes |= {f"{block}.ls{n}.gamma": (WIDTH,) for n in (1, 2)} if layer_scale else {}
    shapes |= _torch_norm("fc_norm" if after else "norm") | _torch_dense("head", WIDTH, CLASSES)
    if pool == "map":
        shapes |= {"attn_pool.latent": (1, 1, WIDTH)} | _torch_norm("attn_pool.norm")
        shapes |= _torch_dense("attn_pool.q", WIDTH, WIDTH) | _torch_dense("attn_pool.kv", WIDTH, 2 * WIDTH)
        shapes |= _torch_dense("attn_pool.proj", WIDTH, WIDTH)
        shapes |= _torch_dense("attn_pool.mlp.fc1", WIDTH, MLP) | _torch_dense("attn_pool.mlp.fc2", MLP, WIDTH)
    return numbered(shapes, 0)


def hugging_face(*, depth=2, distilled=False, root="vit.", pooler=False, live=False):
    """The state of a Hugging Face ViT or DeiT; `live` as transformers 5 names its modules, not its files."""
    root = "deit." if distilled else root
    shapes = {
        f"{root}embeddings.cls_token": (1, 1, WIDTH),
        f"{root}embeddings.position_embeddings": (1, 1 + distilled + 9, WIDTH),
        f"{root}embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        f"{root}embeddings.patch_embeddings.projection.bias": (WIDTH,),
    }
    words = {name: f"attention.attention.{name}" for name in ("query", "key", "value")}
    words |= {"out": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"}
    if live:
        words = {name: f"attention.{name[0]}_proj" for name in ("query", "key", "value", "out")}
        words |= {"up": "mlp.fc1", "down": "mlp.fc2"}
    sizes = {"up": (WIDTH, MLP), "down": (MLP, WIDTH)}
    for i in range(depth):
        block = f"{root}{'layers' if live else 'encoder.layer'}.{i}"
        shapes |= _torch_norm(f"{block}.layernorm_before") | _torch_norm(f"{block}.layernorm_after")
        for name, word in words.items():
            shapes |= _torch_dense(f"{block}.{word}", *sizes.get(name, (WIDTH, WIDTH)))
    shapes |= _torch_norm(f"{root}layernorm")
    shapes |= _torch_dense(f"{root}pooler.dense", WIDTH, WIDTH) if pooler else {}
    if distilled:
        shapes[f"{root}embeddings.distillation_token"] = (1, 1, WIDTH)
        shapes |= _torch_dense("cls_classifier", WIDTH, CLASSES) | _torch_dense(
            "distillation_classifier", WIDTH, CLASSES
        )
    elif root:
        shapes |= _torch_dense("classifier", WIDTH, CLASSES)
    return numbered(shapes, 0)


def hugging_face_hybrid(*, stages=(2, 1), **options):
    """A Hugging Face ViT behind a BiT."""
    arrays, root = hugging_face(**options), "vit.embeddings.patch_embeddings.backbone.bit."
    for name, array in timm(stages=stages).items():
        if name.startswith("patch_embed.backbone."):
            name = name.removeprefix("patch_embed.backbone.").replace("blocks", "layers")
            theirs = name.replace("stem.conv", "embedder.convolution").replace("stem.norm", "embedder.norm")
            arrays[root + ("encoder." if name.startswith("stages") else "") + theirs] = array
    width = 256 * 2 ** (len(stages) - 1)
    arrays["vit.embeddings.patch_embeddings.projection.weight"] = numbered({"x": (WIDTH, width, 1, 1)}, 3)["x"]
    return arrays


def numbered(shapes, seed):
    """Normal numbers in these shapes."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _attention(name):
    shapes = {}
    for part in ("query", "key", "value"):
        shapes[f"{name}/{part}/kernel"] = (WIDTH, HEADS, WIDTH // HEADS)
        shapes[f"{name}/{part}/bias"] = (HEADS, WIDTH // HEADS)
    return shapes | {f"{name}/out/kernel": (HEADS, WIDTH // HEADS, WIDTH), f"{name}/out/bias": (WIDTH,)}


def _mlp(name):
    shapes = {f"{name}/Dense_0/kernel": (WIDTH, MLP), f"{name}/Dense_0/bias": (MLP,)}
    return shapes | {f"{name}/Dense_1/kernel": (MLP, WIDTH), f"{name}/Dense_1/bias": (WIDTH,)}


def _group(name, features, wide):
    return {f"{name}/{leaf}": (1, 1, 1, features) if wide else (features,) for leaf in ("scale", "bias")}


def _torch_dense(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _torch_norm(name, features=WIDTH):
    return {f"{name}.weight": (features,), f"{name}.bias": (features,)}


def _backbone(stages):
    """A ResNet-V2 in `patch_embed.backbone`, which is the stem itself where there are no stages."""
    root = "patch_embed.backbone." + ("stem." if stages else "")
    shapes, width = {f"{root}conv.weight": (64, 3, 7, 7)} | _torch_norm(f"{root}norm", 64), 64
    for b, units in enumerate(stages):
        middle = 64 * 2**b
        for u in range(units):
            unit = f"patch_embed.backbone.stages.{b}.blocks.{u}"
            sizes = [(middle, width, 1, 1), (middle, middle, 3, 3), (4 * middle, middle, 1, 1)]
            for n, shape in enumerate(sizes, start=1):
                shapes |= {f"{unit}.conv{n}.weight": shape} | _torch_norm(f"{unit}.norm{n}", shape[0])
            if u == 0:
                shapes |= {f"{unit}.downsample.conv.weight": (4 * middle, width, 1, 1)}
                shapes |= _torch_norm(f"{unit}.downsample.norm", 4 * middle)
            width = 4 * middle
    side = 1 if stages else 8
    return shapes | {"patch_embed.proj.weight": (WIDTH, width, side, side)}
