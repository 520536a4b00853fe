"""Makes vit_forward.json: parameter paths and logits of small ViTs with every option, from weights that are a formula.

`python tests/golden/make_vit_forward.py` writes the file again. Do that only when a change of the numbers or of the
layout of checkpoints is meant, and say so in the commit message.
"""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import paths
from transformer_jax.models import functional

FILE = pathlib.Path(__file__).with_name("vit_forward.json")
TINY = dict(variant=None, width=16, depth=2, heads=2, mlp_dim=32, patch=4, image_size=(8, 12), num_classes=5)
OPTIONS = {
    "as in the paper": {},
    "gap sincos2d pre_logits": dict(pool="gap", position="sincos2d", pre_logits=True),
    "map sincos1d": dict(pool="map", position="sincos1d", pre_logits=7),
    "none post rmsnorm": dict(position="none", norm_placement="post", norm="rmsnorm"),
    "22b": dict(norm_placement="parallel", qk_norm=True, pool="map"),
    "registers": dict(registers=3, layer_scale=0.1, mlp="gated", activation="silu", kv_heads=1),
    "gap with a class token": dict(pool="gap", class_token=True, registers=2, activation="gelu_erf"),
    "distilled": dict(distilled=True, registers=1),
    "norm after the mean": dict(pool="gap", pool_norm="after"),
    "root alone": dict(stem=(), patch=(1, 3)),
    "hybrid": dict(stem=(2, 1), patch=1, stem_epsilon=1e-8, stem_epsilon_of="variance", pool="gap"),
}


def weights(abstract):
    """The n-th number of the parameters, in the order of their paths, is `sin(n)`, scaled as an initialiser would.

    In stems it is `sin(n^2)`: matrices of `sin(n)` have rank 2, and behind group norms that magnifies rounding errors.
    """
    flat, start = {}, 0
    for path, leaf in paths.flatten(abstract).items():
        size = math.prod(leaf.shape)
        at = np.arange(start, start + size, dtype=np.float64)
        numbers = np.sin(at**2 if path.startswith("stem/") else at).reshape(leaf.shape)
        scale = 1.0 + 0.1 * numbers if path.endswith("scale") else numbers / math.sqrt(TINY["width"])
        flat[path], start = jnp.asarray(scale, jnp.float32), start + size
    return paths.unflatten(flat)


def images():
    """Two images of cosines."""
    return jnp.asarray(np.cos(np.arange(2 * 8 * 12 * 3, dtype=np.float64)).reshape(2, 8, 12, 3), jnp.float32)


def entry(name):
    """What the file holds of one row of `OPTIONS`."""
    model = functional.from_family("vit", **(TINY | OPTIONS[name]))
    neutral = paths.unstack(paths.flatten(model.abstract), model.stacks, lambda x, _: np.empty(x.shape[1:]))
    logits = jax.jit(model.apply)(weights(model.abstract), images())
    return {
        "logits": [[round(float(x), 6) for x in row] for row in logits],
        "parameters": {path: list(leaf.shape) for path, leaf in sorted(neutral.items())},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: entry(name) for name in OPTIONS}, indent=1) + "\n")
