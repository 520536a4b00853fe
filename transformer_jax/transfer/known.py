"""Public weights that are read here: where each lies, in which layout, how large it is.

The facts and their sources are in `published`. `None` is what no publisher says; a sha256 is stated by Hugging Face
alone, and here are those whose page was seen. Parameters are counted from the tables of vit_protocol and
checkpoint_layouts 3.1.
"""

from pathlib import PurePosixPath
from typing import NamedTuple

from transformer_jax.transfer import published

I1K, I21K = published.I1K, published.I21K


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


def _google() -> list[Model]:
    """Buckets vit_models and bit_models."""

    def row(folder: str, stem: str, variant: str, classes: int, size: int, mib: int | None = None) -> Model:
        count = parameters(variant, classes, size, pre_logits=folder == "imagenet21k")
        return Model(f"gs://vit_models/{folder}/{stem}.npz", variant, "google", classes, size, mib, count)

    models = [row("augreg", stem, variant, I21K, 224, mib) for variant, (stem, mib, _) in published.AUGREG.items()]
    for variant, (stem, _, rate) in published.AUGREG.items():
        if rate is not None:
            models.append(row("augreg", f"{stem}--imagenet2012-steps_20k-lr_{rate}-res_384", variant, I1K, 384))
    for stem in published.AUGREG_FINETUNED:
        models.append(row("augreg", stem, _augreg(stem), I1K, int(stem.rpartition("_")[2])))
    models += [row("imagenet21k", stem, _variant(stem), I21K, 224) for stem in published.PAPER]
    models += [
        row("imagenet21k+imagenet2012", stem, _variant(stem), I1K, size)
        for stem, size in published.PAPER_FINETUNED.items()
    ]
    models += [row("sam", stem, _variant(stem), I1K, 224) for stem in published.SAM]
    for kind, classes in (("S", I1K), ("M", I21K)):
        models += [
            Model(f"gs://bit_models/BiT-{kind}-{name}.npz", name, "bit", classes, None) for name in published.BIT
        ]
    models += [
        Model(f"gs://big_vision/{stem}.npz", variant, "big_vision", classes, size)
        for stem, variant, classes, size in published.BIG_VISION
    ]
    return models + [
        Model(f"gs://bit_models/BiT-M-{name}-ILSVRC2012.npz", name, "bit", I1K, None) for name in published.BIT
    ]


def _variant(stem: str) -> str:
    """`B/16` of `ViT-B_16-224`, `R50+B/16` of `R50+ViT-B_16`."""
    return stem.replace("ViT-", "").replace("_", "/").removesuffix("-224")


def _augreg(stem: str) -> str:
    """`R26+S/32` of `R26_S_32-i21k-300ep-...`."""
    *stems, size, patch = stem.partition("-")[0].split("_")
    return "+".join([*stems, f"{size}/{patch}"])


def _hub() -> list[Model]:
    """Repositories of Hugging Face: its own layout, and timm's."""
    models = []
    for name, variant, classes, size, mib, what in published.HUGGING_FACE:
        extra = {what: True} if what else {}
        count = parameters(variant, classes, size, **extra)
        models.append(
            Model(f"hf:{name}", variant, "huggingface", classes, size, mib, count, published.SHA256.get(name))
        )
    for name, variant, classes, mib in published.TIMM:
        size, repository = 384 if "_384." in name else 224, f"timm/{name}"
        count = parameters(variant, classes, size, distilled="distilled" in name)
        sha256 = published.SHA256.get(repository)
        models.append(Model(f"hf:{repository}", variant, "timm", classes, size, mib, count, sha256))
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
