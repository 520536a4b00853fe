"""Fine-tune the pretrained ViT on scanned handwritten digits at a higher resolution, or train it there from scratch.

Model     the one of pretrain.py at 24 x 24 pixels: 36 tokens, the position embedding resized from 4 x 4 to 6 x 6
Data      scikit-learn's digits, 8 x 8, enlarged; targets digits_50, _100, _300 and _all by labelled examples
Hardware  2 CPU cores, seconds
Measured  test accuracy in protocol.py
Command   transformer-jax train --config experiments/digits/finetune.py:digits_100 --workdir runs/digits_100
              --config.init_from.path=runs/digits/pretrain
"""

import pathlib

import ml_collections

from transformer_jax import config as configs
from transformer_jax import paths

# Every stretch of a split is balanced: the first 80 of `train` are 8 of each digit. A fifth of the labels tune, as in
# VTAB-1k (800 + 200); the final run uses all of them.
SPLITS = {
    "digits_50": ("train[:40]", "validation[:10]"),
    "digits_100": ("train[:80]", "validation[:20]"),
    "digits_300": ("train[:240]", "validation[:60]"),
    "digits_all": ("train", "validation"),
}
# Fine-tuning is done after few steps. From scratch more steps help for longer: it gets at least twice as many.
STEPS = {
    "digits_50": dict(finetune=160, scratch=320),
    "digits_100": dict(finetune=160, scratch=320),
    "digits_300": dict(finetune=120, scratch=400),
    "digits_all": dict(finetune=320, scratch=640),
}
ENLARGED = "resize(24) | value_range(-1, 1)"
AUGMENTED = "resize(24) | random_affine(10, 0.08, 0.1, 10) | value_range(-1, 1)"


def get_config(target: str = "digits_100", method: str = "finetune") -> ml_collections.ConfigDict:
    """`target` is a row of `SPLITS`; `method` is `finetune` or `scratch`."""
    paths.one_of("target", target, SPLITS)
    paths.one_of("method", method, ("finetune", "scratch"))
    train, dev = SPLITS[target]
    config = configs.load(str(pathlib.Path(__file__).with_name("pretrain.py")))
    config.name = f"{target}_{method}"
    config.model.image_size = 24
    config.data = dict(source="digits", split=f"{train}+{dev}", preprocess=AUGMENTED, batch_size=32)
    config.train = dict(total=STEPS[target][method], label_smoothing=0.1, log_every="10%")
    config.evals = dict(eval=dict(source="digits", split="test", preprocess=ENLARGED, batch_size=360))
    config.checkpoint = dict()
    if method == "finetune":
        config.optim = dict(name="adamw", weight_decay=0.0)
        config.schedule = dict(name="cosine", base=1e-3, warmup="10%")
        config.init_from = dict(path="runs/digits/pretrain", head="reset")
    else:
        config.optim = dict(name="adamw", weight_decay=0.05)
        config.schedule = dict(name="cosine", base=1e-3, warmup="10%")
    return config
