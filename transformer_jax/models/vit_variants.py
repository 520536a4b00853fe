"""The sizes of the Vision Transformer that have a name."""

from typing import NamedTuple

from transformer_jax import paths, types


class Size(NamedTuple):
    """One row of the table of variants."""

    width: int
    depth: int
    heads: int
    mlp_dim: int


# Every row agrees with big_vision's models/vit.py at 0b73d7b; beside it, the paper that introduced it.
VARIANTS = {
    "Ti": Size(192, 12, 3, 768),  # DeiT (2012.12877)
    "S": Size(384, 12, 6, 1536),  # DeiT (2012.12877)
    "M": Size(512, 12, 8, 2048),
    "B": Size(768, 12, 12, 3072),  # ViT (2010.11929)
    "L": Size(1024, 24, 16, 4096),  # ViT (2010.11929)
    "So400m": Size(1152, 27, 16, 4304),  # SoViT (2305.13035)
    "H": Size(1280, 32, 16, 5120),  # ViT (2010.11929)
    "g": Size(1408, 40, 16, 6144),  # Scaling ViT (2106.04560)
    "G": Size(1664, 48, 16, 8192),  # Scaling ViT (2106.04560)
}


def named(variant: str) -> tuple[Size, int]:
    """The row and the patch size of `"S/16"`."""
    name, _, patch = variant.partition("/")
    if name not in VARIANTS:
        raise types.InputError(
            f"A variant is one of {', '.join(VARIANTS)} and a patch size, such as 'S/16': it is {variant!r}."
            f"{paths.did_you_mean(name, VARIANTS)}"
        )
    if not patch.isdecimal() or int(patch) < 1:
        raise types.InputError(f"A variant ends in its patch size, such as '{name}/16': it is {variant!r}.")
    return VARIANTS[name], int(patch)
