"""Public weights that are read here: where each lies, in which layout, how large it is.

Facts with their source: names and MiB of Google's files from the README of google-research/vision_transformer (c6de1e5)
and of google-research/big_transfer; names of timm's from timm 1.0 (`vision_transformer.py`); MiB of hub files from the
listings of their pages, as is what revision of a repository has a .safetensors. `None` is what none of these say: no
publisher states a sha256. Parameters are counted from the tables of vit_protocol and checkpoint_layouts 3.1.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

I1K, I21K = 1000, 21843


class Model(NamedTuple):
    """A public file. `source` is a gs:// address or a name of `hub`; `classes` 0: without a head;
    `image_size` None: any."""

    source: str
    variant: str
    layout: str
    classes: int
    image_size: int | None
    mib: int | None = None
    parameters: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The name of the file without its ending, or of the repository."""
        return self.source.removeprefix("hf:") if self.on_hub else PurePosixPath(self.source).stem

    @property
    def on_hub(self) -> bool:
        """Whether it is fetched by its name; otherwise with `command`."""
        return self.source.startswith("hf:")

    @property
    def command(self) -> str:
        """The command that downloads it."""
        if self.on_hub:
            repository, _, revision = self.name.partition("@")
            return f"hf download {repository}{f' --revision {revision}' if revision else ''}"
        return f"curl -fLO https://storage.googleapis.com/{self.source.removeprefix('gs://').replace('+', '%2B')}"


class _Body(NamedTuple):
    """Parameters without the head at 224 pixels, width, and pixels a token is wide."""

    parameters: int
    width: int
    stride: int


_BODIES = {
    "Ti/16": _Body(5_524_416, 192, 16),
    "S/16": _Body(21_665_664, 384, 16),
    "S/32": _Body(22_493_952, 384, 32),
    "B/8": _Body(85_807_872, 768, 8),
    "B/16": _Body(85_798_656, 768, 16),
    "B/32": _Body(87_455_232, 768, 32),
    "L/16": _Body(303_301_632, 1024, 16),
    "L/32": _Body(305_510_400, 1024, 32),
    "H/14": _Body(630_764_800, 1280, 14),
    "R+Ti/16": _Body(6_144_704, 192, 32),
    "R26+S/32": _Body(36_046_912, 384, 32),
    "R50+B/16": _Body(97_890_112, 768, 16),
    "R50+L/32": _Body(327_969_856, 1024, 32),
}


def parameters(
    variant: str, classes: int, image_size: int, *, pre_logits: bool = False, distilled: bool = False
) -> int:
    """Parameters of a ViT with class token and learned position embedding; without `classes` it has no head."""
    body = _BODIES[variant]
    more = (image_size // body.stride) ** 2 - (224 // body.stride) ** 2
    hidden = (body.width + 1) * body.width if pre_logits else 0
    head = (body.width + 1) * classes * (2 if distilled else 1)
    return body.parameters + more * body.width + hidden + head + (2 * body.width if distilled else 0)


# README of google-research/vision_transformer: the recommended file of each size, its MiB, the rate of its fine-tuning
_AUGREG: Mapping[str, tuple[str, int | None, str | None]] = {
    "Ti/16": ("Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", 37, "0.03"),
    "S/32": ("S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0", 118, "0.01"),
    "S/16": ("S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0", 115, "0.03"),
    "B/32": ("B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0", 398, "0.01"),
    "B/16": ("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", 391, "0.03"),
    "B/8": ("B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0", None, None),
    "L/16": ("L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0", 1243, "0.01"),
    "R50+L/32": ("R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1", 1337, "0.01"),
    "R26+S/32": ("R26_S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0", 170, "0.01"),
    "R+Ti/16": ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", 40, "0.03"),
}
# The files of the ViT paper: pretrained with pre_logits; fine-tuned at 384 pixels, two also at 224.
_PAPER = ("ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14", "R50+ViT-B_16")
_PAPER_FINETUNED = {
    "ViT-B_16": 384,
    "ViT-B_16-224": 224,
    "ViT-B_32": 384,
    "ViT-L_16": 384,
    "ViT-L_16-224": 224,
    "ViT-L_32": 384,
}
# Trained on ImageNet-1k with SAM (2106.01548).
_SAM = ("ViT-S_16", "ViT-B_32", "ViT-B_16", "ViT-L_32", "ViT-L_16")
_BIT = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")
# repository and revision, variant, classes, image size, MiB; with pre_logits or distilled as said
_HUGGING_FACE = (
    ("google/vit-base-patch16-224", "B/16", I1K, 224, 330, ""),
    ("google/vit-base-patch16-224-in21k", "B/16", 0, 224, 330, "pre_logits"),
    ("google/vit-base-patch16-384", "B/16", I1K, 384, 331, ""),
    ("google/vit-base-patch32-384", "B/32", I1K, 384, 337, ""),
    ("facebook/deit-tiny-patch16-224@refs/pr/3", "Ti/16", I1K, 224, 22, ""),
    ("facebook/deit-small-patch16-224@refs/pr/4", "S/16", I1K, 224, 84, ""),
    ("facebook/deit-base-patch16-224@refs/pr/3", "B/16", I1K, 224, 330, ""),
    ("facebook/deit-tiny-distilled-patch16-224@refs/pr/3", "Ti/16", I1K, 224, 23, "distilled"),
    ("facebook/deit-base-distilled-patch16-224@refs/pr/2", "B/16", I1K, 224, 333, "distilled"),
    ("facebook/deit-base-distilled-patch16-384", "B/16", I1K, 384, 335, "distilled"),
)
# name and tag, variant, classes, MiB; the image size is in the name
_TIMM = (
    ("vit_tiny_patch16_224.augreg_in21k", "Ti/16", I21K, 37),
    ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "Ti/16", I1K, 22),
    ("vit_tiny_patch16_384.augreg_in21k_ft_in1k", "Ti/16", I1K, None),
    ("vit_small_patch32_224.augreg_in21k", "S/32", I21K, None),
    ("vit_small_patch32_224.augreg_in21k_ft_in1k", "S/32", I1K, None),
    ("vit_small_patch32_384.augreg_in21k_ft_in1k", "S/32", I1K, None),
    ("vit_small_patch16_224.augreg_in21k", "S/16", I21K, None),
    ("vit_small_patch16_224.augreg_in21k_ft_in1k", "S/16", I1K, None),
    ("vit_small_patch16_384.augreg_in21k_ft_in1k", "S/16", I1K, None),
    ("vit_small_patch16_224.augreg_in1k", "S/16", I1K, None),
    ("vit_small_patch16_384.augreg_in1k", "S/16", I1K, None),
    ("vit_base_patch32_224.augreg_in21k", "B/32", I21K, 398),
    ("vit_base_patch32_224.augreg_in21k_ft_in1k", "B/32", I1K, None),
    ("vit_base_patch32_384.augreg_in21k_ft_in1k", "B/32", I1K, None),
    ("vit_base_patch32_224.augreg_in1k", "B/32", I1K, 337),
    ("vit_base_patch32_384.augreg_in1k", "B/32", I1K, None),
    ("vit_base_patch16_224.augreg_in21k", "B/16", I21K, 391),
    ("vit_base_patch16_224.augreg_in21k_ft_in1k", "B/16", I1K, 330),
    ("vit_base_patch16_384.augreg_in21k_ft_in1k", "B/16", I1K, None),
    ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "B/16", I1K, 330),
    ("vit_base_patch16_224.augreg_in1k", "B/16", I1K, None),
    ("vit_base_patch16_384.augreg_in1k", "B/16", I1K, None),
    ("vit_base_patch8_224.augreg_in21k", "B/8", I21K, None),
    ("vit_base_patch8_224.augreg_in21k_ft_in1k", "B/8", I1K, 330),
    ("vit_base_patch8_224.augreg2_in21k_ft_in1k", "B/8", I1K, 330),
    ("vit_large_patch16_224.augreg_in21k", "L/16", I21K, None),
    ("vit_large_patch16_224.augreg_in21k_ft_in1k", "L/16", I1K, None),
    ("vit_large_patch16_384.augreg_in21k_ft_in1k", "L/16", I1K, None),
    ("vit_tiny_r_s16_p8_224.augreg_in21k", "R+Ti/16", I21K, None),
    ("vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k", "R+Ti/16", I1K, None),
    ("vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k", "R+Ti/16", I1K, None),
    ("vit_small_r26_s32_224.augreg_in21k", "R26+S/32", I21K, None),
    ("vit_small_r26_s32_224.augreg_in21k_ft_in1k", "R26+S/32", I1K, None),
    ("vit_small_r26_s32_384.augreg_in21k_ft_in1k", "R26+S/32", I1K, None),
    ("vit_large_r50_s32_224.augreg_in21k", "R50+L/32", I21K, None),
    ("vit_large_r50_s32_224.augreg_in21k_ft_in1k", "R50+L/32", I1K, None),
    ("vit_large_r50_s32_384.augreg_in21k_ft_in1k", "R50+L/32", I1K, None),
)


def _google() -> list[Model]:
    """Buckets vit_models and bit_models."""

    def row(folder: str, stem: str, variant: str, classes: int, size: int, mib: int | None = None) -> Model:
        count = parameters(variant, classes, size, pre_logits=folder == "imagenet21k")
        return Model(f"gs://vit_models/{folder}/{stem}.npz", variant, "google", classes, size, mib, count)

    models = [row("augreg", stem, variant, I21K, 224, mib) for variant, (stem, mib, _) in _AUGREG.items()]
    for variant, (stem, _, rate) in _AUGREG.items():
        if rate is not None:
            models.append(row("augreg", f"{stem}--imagenet2012-steps_20k-lr_{rate}-res_384", variant, I1K, 384))
    models += [row("imagenet21k", stem, _variant(stem), I21K, 224) for stem in _PAPER]
    models += [
        row("imagenet21k+imagenet2012", stem, _variant(stem), I1K, size) for stem, size in _PAPER_FINETUNED.items()
    ]
    models += [row("sam", stem, _variant(stem), I1K, 224) for stem in _SAM]
    for kind, classes in (("S", I1K), ("M", I21K)):
        models += [Model(f"gs://bit_models/BiT-{kind}-{name}.npz", name, "bit", classes, None) for name in _BIT]
    return models + [Model(f"gs://bit_models/BiT-M-{name}-ILSVRC2012.npz", name, "bit", I1K, None) for name in _BIT]


def _variant(stem: str) -> str:
    """`B/16` of `ViT-B_16-224`, `R50+B/16` of `R50+ViT-B_16`."""
    return stem.replace("ViT-", "").replace("_", "/").removesuffix("-224")


def _hub() -> list[Model]:
    """Repositories of Hugging Face: its own layout, and timm's."""
    models = []
    for name, variant, classes, size, mib, what in _HUGGING_FACE:
        extra = {what: True} if what else {}
        count = parameters(variant, classes, size, **extra)
        models.append(Model(f"hf:{name}", variant, "huggingface", classes, size, mib, count))
    for name, variant, classes, mib in _TIMM:
        size = 384 if "_384." in name else 224
        models.append(Model(f"hf:timm/{name}", variant, "timm", classes, size, mib, parameters(variant, classes, size)))
    return models


MODELS: tuple[Model, ...] = (*_google(), *_hub())


def named(path: object) -> list[Model]:
    """The known models a path or an address may mean: by the name of the file, whole, or by the repository."""
    text = str(path)
    if text.startswith("hf:"):
        bare = text.removeprefix("hf:").lstrip("/")
        return [model for model in MODELS if model.on_hub and _repository(model.name) == _repository(bare)]
    exact = [model for model in MODELS if model.source == text]
    stem = text.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".npz")
    return exact or [model for model in MODELS if not model.on_hub and model.name == stem]


def recognise(path: object, sha256: str | None, parameters: int | None = None) -> Model | None:
    """The known model a file is: by its checksum, else the only one of its name (and number of parameters)."""
    for model in MODELS:
        if sha256 is not None and model.sha256 == sha256:
            return model
    likely = [model for model in named(path) if parameters in (None, model.parameters) or model.parameters is None]
    return likely[0] if len(likely) == 1 else None


def hint(path: object) -> str:
    """` B_16-....npz is public (391 MiB). Get it with: curl ...`, with a leading space; nothing for other names."""
    models = named(path)
    if not models:
        return ""
    size = f" ({models[0].mib:,} MiB)" if len(models) == 1 and models[0].mib else ""
    what = "is a public file" if len(models) == 1 else f"is the name of {len(models)} public files"
    return f" {models[0].name} {what}{size}. Get it with: {' or: '.join(model.command for model in models)}"


def table() -> str:
    """Every known model in a line (address, variant, layout, sizes), and below how to get them."""
    head = ("where", "variant", "layout", "classes", "pixels", "MiB", "parameters")
    rows = [head, *(_row(model) for model in MODELS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            f"Names that begin with hf: are fetched when they are used: --checkpoint {MODELS[-1].source}",
            f"Others once, by hand: {MODELS[0].command}",
        ]
    )


def _row(model: Model) -> tuple[str, ...]:
    numbers = (model.classes, model.image_size, model.mib, model.parameters)
    return (model.source, model.variant, model.layout, *("?" if n is None else f"{n:,}" for n in numbers))


def _repository(name: str) -> str:
    return "/".join(name.partition("@")[0].split("/")[:2])
