"""Tiny weights in the published layout (checkpoint_layouts 3.1), every array different."""

import numpy as np

WIDTH, HEADS, MLP, PATCH, CLASSES = 8, 2, 12, 4, 5


def google(*, depth=2, grid=(3, 3), classes=CLASSES, pre_logits=True, class_token=True, seed=0):
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
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (WIDTH, HEADS, WIDTH // HEADS)
            shapes[f"{attention}/{part}/bias"] = (HEADS, WIDTH // HEADS)
        shapes |= {f"{attention}/out/kernel": (HEADS, WIDTH // HEADS, WIDTH), f"{attention}/out/bias": (WIDTH,)}
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (WIDTH,), f"{block}/{norm}/bias": (WIDTH,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_0/kernel": (WIDTH, MLP), f"{block}/MlpBlock_3/Dense_0/bias": (MLP,)}
        shapes |= {f"{block}/MlpBlock_3/Dense_1/kernel": (MLP, WIDTH), f"{block}/MlpBlock_3/Dense_1/bias": (WIDTH,)}
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
