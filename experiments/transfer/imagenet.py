"""Judge a classifier of ImageNet-1k: validation, ReaL, v2, and -R, -A and -Sketch from folders.

Model     any ViT, hybrid or ResNet with the head of the 1,000 classes
Data      val     the 50,000 validation images (`tfds:imagenet2012`)
          v2      10,000 new ones, matched frequency (1902.10811; `tfds:imagenet_v2`)
          real    the validation images with every label that is right; those without one do not count (2006.07159)
          r a sketch   the folders imagenet-r, imagenet-a and sketch, a directory a class, named as in ImageNet; they
                  hold some of the classes, and the model chooses among those
Hardware  one accelerator, minutes
Expected  validation and ReaL at 384 x 384 (2010.11929, table 5; ours UNVERIFIED): B/16 from ImageNet-21k 83.97, 88.35;
          B/16 from JFT-300M 84.15, 88.85; H/14 from JFT-300M 88.04, 90.33
Command   transformer-jax evaluate --config experiments/transfer/imagenet.py:judges=val+real,weights=runs/b16
              --checkpoint runs/b16
"""

import pathlib
from typing import Any

import ml_collections

from transformer_jax import config as configs

PARTS = configs.module(pathlib.Path(__file__).parents[1] / "parts.py")
FINETUNE = pathlib.Path(__file__).with_name("finetune.py")
SOURCES: dict[str, dict[str, Any]] = {
    "val": dict(source="tfds:imagenet2012", split="validation"),
    "v2": dict(source="tfds:imagenet_v2", split="test"),
    "real": dict(
        kind="multilabel",
        source="tfds:imagenet2012_real",
        split="validation",
        arguments=dict(label_key="real_label", num_classes=1000),
    ),
    "r": dict(source="folder:{folders}/imagenet-r", split="train", subset=True),
    "a": dict(source="folder:{folders}/imagenet-a", split="train", subset=True),
    "sketch": dict(source="folder:{folders}/sketch", split="train", subset=True),
}


def evals(names: str, preprocess: str, *, folders: str = ".", every: str | None = None) -> dict[str, dict[str, Any]]:
    """The evaluators of these rows of `SOURCES`, joined by +."""
    sections = {}
    for name in PARTS.rows("judges", names, SOURCES):
        row = SOURCES[name]
        sections[name] = dict(
            row,
            source=row["source"].format(folders=folders),
            preprocess=f"{preprocess} | multihot(1000)" if name == "real" else preprocess,
            batch_size=512,
            every=every,
        )
    return sections


def get_config(
    model: str = "",
    size: str = "",
    pool: str = "",
    judges: str = "val+v2+real",
    folders: str = ".",
    weights: str = "",
    hidden: str = "",
) -> ml_collections.ConfigDict:
    """`judges` are rows of `SOURCES`, joined by +; `folders` is where those of -R, -A and -Sketch lie.

    `weights`, the --checkpoint, say the rest where they are on this machine; else B/16 at 384 with a class token.
    `hidden=yes`: they have a tanh layer before the head (`pre_logits`), as those of vit/pretrain.py.
    """
    made, pixel_size, pixels = PARTS.judged(weights, variant=model, size=size, usual=384, pool=pool, hidden=hidden)
    kept = made["image_size"] if isinstance(made["image_size"], int) else None
    config = configs.load(str(FINETUNE))
    config.name = f"{(made.get('variant') or made['name']).replace('/', '_')}_imagenet"
    config.model = made
    _, judging = PARTS.preprocess("small", pixel_size, kept=kept, pixels=pixels)
    config.data.preprocess = judging
    config.evals = evals(judges, judging, folders=folders)
    config.init_from = None
    return config
