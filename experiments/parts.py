"""What recipes share: the pixels of the released code, arguments that are numbers, what weights at hand want."""

from collections.abc import Iterable
from typing import Any

from transformer_jax import experiment, paths, types
from transformer_jax.experiment import predictor
from transformer_jax.transfer import convert

GOOGLE = "value_range(-1, 1)"
"""Where the papers' models see pixels."""
_CENTRE, _SQUASHED = "decode | resize_small({large}) | central_crop({size})", "decode | resize({size})"
# For training and for judging. The released code cuts crops from images that were decoded whole, however large they
# are; `decode` alone would read a crop of twice the size and more from a smaller image, which is faster.
CROPS = {
    "inception": ("decode(reduce=False) | inception_crop({size})", _CENTRE),
    "small": ("decode | resize_small({large}) | random_crop({size})", _CENTRE),
    "resize": ("decode | resize({large}) | random_crop({size})", _SQUASHED),
    "squash": ("decode | resize({size})", _SQUASHED),
}


def preprocess(
    crop: str, size: int, *, kept: int | None = None, flip: bool = True, changes: str = "", pixels: str = GOOGLE
) -> tuple[str, str]:
    """What is done to images for training and for judging: a row of `CROPS`, flips, `changes` while training, the
    middle `kept` pixels, and the op `pixels` that scales them."""
    training, judging = (text.format(size=size, large=resized(size)) for text in CROPS[crop])
    middle = f"central_crop({kept})" if kept is not None and kept < size else ""
    return _joined(training, "flip_lr" if flip else "", changes, middle, pixels), _joined(judging, middle, pixels)


def _joined(*stages: str) -> str:
    return " | ".join(stage for stage in stages if stage)


def resized(size: int) -> int:
    """To what an image is shrunk before `size` pixels are cut from its middle: 256 for 224, 448 for 384 (big_vision's
    configs). A sixth more for other sizes is UNVERIFIED, 597 for 512 and 604 for 518 among them."""
    return 256 if size == 224 else round(size * 7 / 6)


def whole_patches(variant: str, size: int) -> int:
    """`size`, or what of it patches cover: 27 patches of H/14 are 378 of 384 pixels.

    The released code leaves six pixels out at the right and the bottom; here they are three on every side.
    """
    patch = variant.partition("/")[2]
    return size - size % int(patch) if patch.isdecimal() else size


def number(name: str, text: str, kind: type[int] | type[float] = int) -> Any:
    """The number an argument spells; `InputError` that names the argument for anything but one above 0."""
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0:
        wanted = "a whole number" if kind is int else "a number"
        raise types.InputError(f"{name} must be {wanted} above 0: it is {text!r}.")
    return value


def rows(argument: str, text: str, known: Iterable[str], **sets: Iterable[str]) -> list[str]:
    """The names in `text`, joined by +: each is one of `known`, or one of the sets and stands for its members."""
    names = [name for word in text.split("+") for name in sets.get(word, (word,))]
    choices = [*known, *sets]
    return list(dict.fromkeys(paths.one_of(argument, name, choices) for name in names))


def expected(weights: str) -> predictor.Expected | None:
    """What weights want of their model; `None` for none, or when they are not on this machine."""
    return experiment.expects(weights) if weights else None


def pixels(found: predictor.Expected | None) -> str:
    """The op that puts pixels where weights at hand want them, and where Google's want them when none are."""
    return found.pixels if found else GOOGLE


def model(variant: str, size: int, *, pool: str = "") -> dict[str, Any]:
    """The model of a recipe at this size: a ViT or hybrid, or a BiT ResNet. Without `pool` it pools as its weights."""
    if "x" in variant:
        _without_tokens(pool=pool)
        return dict(name="resnet", variant=variant, image_size=size)
    return dict(
        name="vit", variant=variant, image_size=whole_patches(variant, size), **({"pool": pool} if pool else {})
    )


def judged(
    weights: str, *, variant: str, size: str, usual: int, pool: str, hidden: str
) -> tuple[dict[str, Any], int, str]:
    """The model of weights that are judged as they are, the size to cut images to, and the op that scales pixels.

    What is not given is that of the weights as long as they are on this machine, else B/16 at the `usual` size with a
    class token and no hidden layer.
    """
    found = expected(weights)
    own: dict[str, Any] = dict(found.model) if found else {}
    pixel_size = number("size", size) if size else _own_size(own, usual)
    if own and not variant:
        made = dict(own, **({"pool": pool} if pool else {}))
        if size:
            made["image_size"] = whole_patches(own.get("variant") or "", pixel_size)
    else:
        made = model(variant or "B/16", pixel_size, pool=pool)
    if made["name"] == "resnet":
        _without_tokens(pool=pool, hidden=hidden)
    elif hidden:
        made["pre_logits"] = paths.one_of("hidden", hidden, ("yes", "no")) == "yes"
    elif own:
        made["pre_logits"] = bool(convert.model_of(experiment.Shared().weights(weights)).get("pre_logits"))
    return made, pixel_size, pixels(found)


def own_size(weights: predictor.Expected | None, usual: int) -> int:
    """The size at which weights at hand see square images, else the usual one."""
    return _own_size(weights.model if weights else {}, usual)


def _own_size(own: Any, usual: int) -> int:
    size = own.get("image_size")
    covered = whole_patches(own.get("variant") or "", usual)  # 378 of 384 pixels are seen by an H/14
    return size if isinstance(size, int) and size != covered else usual


def _without_tokens(**arguments: str) -> None:
    """`InputError` for arguments that mean nothing to a ResNet."""
    for name, value in arguments.items():
        if value:
            raise types.InputError(
                f"A BiT ResNet has no tokens to pool and no hidden layer: {name} is {value!r}. Leave {name} out."
            )
