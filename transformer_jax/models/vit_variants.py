"""The sizes of the Vision Transformer, and the stems of its hybrids, that have a name."""

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


class Stem(NamedTuple):
    """What stands before the embedding of a hybrid, and the patch of its feature map that is one token."""

    units: tuple[int, ...]
    """Residual units in every stage; without any only the root is there."""
    patch: int


# google-research/vision_transformer, configs/models.py at c6de1e5, by the number that ends the name of the hybrid.
STEMS = {
    "R50/16": Stem((3, 4, 9), 1),  # ViT (2010.11929): the fourth stage's units in the third
    "R50/32": Stem((3, 4, 6, 3), 1),
    "R26/32": Stem((2, 2, 2, 2), 1),  # AugReg (2106.10270)
    "R/16": Stem((), 8),  # AugReg; with the root's 4x really one token for 32x32 pixels
}


class Named(NamedTuple):
    """What a variant says."""

    size: Size
    patch: int
    stem: tuple[int, ...] | None


def named(variant: str) -> Named:
    """Sizes and patch of `"S/16"`; of a hybrid, `"R50+B/16"`, the patch of the map its stem makes."""
    name, _, patch = variant.partition("/")
    before, _, row = name.rpartition("+")
    if row not in VARIANTS:
        raise types.InputError(
            f"A variant is one of {', '.join(VARIANTS)} and a patch size, such as 'S/16': it is {variant!r}."
            f"{paths.did_you_mean(row, VARIANTS)}"
        )
    if not patch.isdecimal() or int(patch) < 1:
        raise types.InputError(f"A variant ends in its patch size, such as '{name}/16': it is {variant!r}.")
    if not before:
        return Named(VARIANTS[row], int(patch), None)
    if f"{before}/{patch}" not in STEMS:
        known = [key.replace("/", f"+{row}/") for key in STEMS]
        raise types.InputError(
            f"A hybrid is one of {', '.join(known)}: it is {variant!r}. Other stems are given by hand:"
            " stem=(3, 4, 9), patch=1."
        )
    stem = STEMS[f"{before}/{patch}"]
    return Named(VARIANTS[row], stem.patch, stem.units)
