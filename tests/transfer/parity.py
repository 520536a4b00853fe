"""Models whose logits are compared with other libraries'; weights and images are a formula, nothing of them is stored.

The golden files hold the logits the libraries computed (`tests/golden/make_*_parity.py`), from files we wrote.
"""

import math

import jax
import numpy as np

from transformer_jax import paths
from transformer_jax.models import functional
from transformer_jax.transfer import convert, formats

TINY = dict(variant=None, width=32, depth=2, heads=4, mlp_dim=48, patch=4, image_size=16, num_classes=10)
ERF = dict(activation="gelu_erf")
TIMM_STEM = dict(stem_epsilon=1e-8, stem_epsilon_of="variance", stem_norm_epsilon=1e-5)
HF = dict(activation="gelu_erf", norm_epsilon=1e-12)
TIMM = {
    "tiny": TINY | ERF,
    "tiny, tanh, oblong": TINY | dict(image_size=(12, 20), activation="gelu_tanh"),
    "tiny map": TINY | ERF | dict(pool="map"),
    "tiny map, class token": TINY | ERF | dict(pool="map", class_token=True),
    "tiny gap": TINY | ERF | dict(pool="gap", class_token=True),
    "tiny gap, sincos2d": TINY | ERF | dict(pool="gap", position="sincos2d"),
    "tiny registers, layer scale": TINY | ERF | dict(registers=4, layer_scale=0.1),
    "tiny qk norm": TINY | ERF | dict(qk_norm=True),
    "tiny qk norm, bias": TINY | ERF | dict(qk_norm=True, qk_norm_bias=True),
    "tiny distilled": TINY | ERF | dict(distilled=True),
    "tiny norm after the mean": TINY | ERF | dict(pool="gap", pool_norm="after"),
    "tiny hybrid": TINY | ERF | TIMM_STEM | dict(stem=(1, 1), patch=1, image_size=32),
    "DeiT-Ti distilled": dict(variant="Ti/16", distilled=True) | ERF,
    "R26+S/32": dict(variant="R26+S/32") | ERF | TIMM_STEM,
    "R+Ti/16": dict(variant="R+Ti/16") | ERF | TIMM_STEM,
    "Ti/16": dict(variant="Ti/16") | ERF,
    "Ti/16 at 384": dict(variant="Ti/16", image_size=384) | ERF,
    "S/32": dict(variant="S/32") | ERF,
    "S/32 at 384": dict(variant="S/32", image_size=384) | ERF,
    "S/16 map": dict(variant="S/16", pool="map") | ERF,
    "B/16": dict(variant="B/16") | ERF,
    "B/16 at 384": dict(variant="B/16", image_size=384) | ERF,
}
HUGGING_FACE = {
    "tiny": TINY | HF,
    "tiny, tanh": TINY | dict(norm_epsilon=1e-6),
    "tiny distilled": TINY | HF | dict(distilled=True),
    "DeiT-Ti distilled": dict(variant="Ti/16", distilled=True) | HF,
    "Ti/16": dict(variant="Ti/16") | HF,
    "B/16": dict(variant="B/16") | HF,
    "tiny hybrid": TINY | HF | TIMM_STEM | dict(stem=(1, 1), patch=1, image_size=32),
    "R50+B/16 at 384": dict(variant="R50+B/16", image_size=384) | HF | TIMM_STEM,
}
LINEN = {
    "tiny, 2020": TINY | dict(pre_logits=True),
    "tiny": TINY,
    "tiny gap": TINY | dict(pool="gap"),
    "tiny hybrid": TINY | dict(stem=(1, 1), patch=1, image_size=32),
    "tiny hybrid, root only": TINY | dict(stem=(), patch=2, image_size=32),
    "R26+S/32": dict(variant="R26+S/32"),
}
TOLERANCE = 1e-4


def build(config):
    """Parameters under neutral names. Those of a larger image are the ones for 224 with their positions resized."""
    if config.get("image_size") != 384:
        return weights(functional.from_family("vit", **config))
    small, large = (functional.from_family("vit", **{**config, "image_size": size}) for size in (224, 384))
    target = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in neutral(large).items()}
    return convert.apply(weights(small), target, head="keep").params


def neutral(model):
    """Shapes and types of a model's parameters under neutral names."""
    return paths.unstack(
        paths.flatten(model.abstract), model.stacks, lambda leaf, _: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    )


def weights(model):
    """Parameters whose numbers are a formula, of the size an initialiser would give them."""
    params, start = {}, 0
    for path, leaf in sorted(neutral(model).items()):
        numbers = uniform(start, math.prod(leaf.shape)).reshape(leaf.shape)
        start += numbers.size
        if path.endswith("scale"):
            params[path] = (1 + 0.2 * numbers).astype(np.float32)
            continue
        inputs = (
            math.prod(leaf.shape[:-1]) if "/out/" in path or "conv" in path or "embedding" in path else leaf.shape[0]
        )
        spread = math.sqrt(3 / inputs) if path.endswith("kernel") else 0.2
        params[path] = (spread * numbers).astype(np.float32)
    return params


def images(config, count=2):
    """Images of uniform numbers from -1 to 1."""
    shape = (count, *functional.models.MODELS["vit"].config(**config).image_shape)
    return uniform(1 << 30, math.prod(shape)).reshape(shape).astype(np.float32)


def uniform(start, count):
    """`count` numbers from -1 to 1, a hash of `start`, `start + 1`, ...: the same everywhere."""
    x = np.arange(start, start + count, dtype=np.uint64).astype(np.uint32) * np.uint32(2654435761)
    for factor in (0x7FEB352D, 0x846CA68B):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(factor)
    return (x ^ (x >> np.uint32(15))) / 2**31 - 1


def logits(path, image):
    """What the model a file tells of makes of an image."""
    source = convert.load(path)
    model = functional.from_family(**convert.model_of(source))
    params = paths.unflatten(paths.stack(source.params, model.stacks, np.stack))
    return np.asarray(jax.jit(model.apply)(params, image))


def check(found, expected):
    """The claim: logits differ by 1e-4 at most, and the five largest are the same in the same order."""
    assert found.shape == expected.shape
    assert np.max(np.abs(found - expected)) <= TOLERANCE, np.max(np.abs(found - expected))
    np.testing.assert_array_equal(*(np.argsort(-x, axis=-1, kind="stable")[:, :5] for x in (found, expected)))


def strip(path, there):
    """The arrays of a file alone in another: no notes in it, none beside it."""
    formats.write_safetensors(there, formats.read(path).arrays, {"format": "pt"})
    return there
