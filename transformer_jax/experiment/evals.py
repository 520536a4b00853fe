"""The sections of evaluators, `config.evals.NAME`: one class a `kind`, its fields the settings and their defaults."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from transformer_jax.evaluation import fewshot, knn, linear, probe
from transformer_jax.optim import schedules

HEADED = ("classification", "multilabel")
"""The kinds that judge the head of the model; the others read its features only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Judge:
    """What all of them have. `every=None`: at the end only. With `predictions` the rows of the last evaluation are in
    `predictions/NAME.npz` of the run directory."""

    source: str
    preprocess: str
    batch_size: int
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_dir: str | None = None
    on_bad_image: Literal["raise", "skip"] = "raise"
    threads: int | None = None
    workers: int = 0
    every: schedules.Duration | None = None
    predictions: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(_Judge):
    """Top-1, top-5 and loss over exactly the examples of a split.

    With `subset` the classes of the data are some of those of the training data, matched by name, and the logits of
    the others are left out: ImageNet-R and -A as folders.
    """

    kind: Literal["classification"] = "classification"
    split: str = "test"
    subset: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(_Judge):
    """Top-1 where labels are rows (`multihot`): right is any label of an example, those without one are left out."""

    kind: Literal["multilabel"] = "multilabel"
    split: str = "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frozen(_Judge):
    """Evaluators of frozen features: learnt from `train_split`, judged on `test_split`, of whatever classes."""

    train_split: str = "train"
    test_split: str = "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot(_Frozen):
    """The ridge probe: accuracy from a few shots a class."""

    kind: Literal["fewshot"] = "fewshot"
    shots: Sequence[int] = (1, 5, 10, 25)
    seeds: int = 3
    l2: Sequence[float] = (fewshot.L2,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours(_Frozen):
    """k-nearest neighbours: accuracy of a vote weighted by `exp(cosine / temperature)`."""

    kind: Literal["knn"] = "knn"
    k: Sequence[int] = (10, 20)
    temperature: float = knn.TEMPERATURE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(_Frozen):
    """Softmax regression, its penalty picked on the share `held_out` of each class of the training split."""

    kind: Literal["probe"] = "probe"
    l2: Sequence[float] = probe.L2
    held_out: float = linear.HELD_OUT


EVALS = {
    "classification": Classification,
    "multilabel": MultiLabel,
    "fewshot": FewShot,
    "knn": Neighbours,
    "probe": Linear,
}


def metrics(section: Mapping[str, Any], classes: int) -> list[str]:
    """The names of the numbers by which a model may be picked that an evaluator of this section gives."""
    kind = section["kind"]
    if kind == "classification":  # how many classes a subset has is known when it is read
        return ["top1", *(["top5"] if classes >= 5 and not section["subset"] else []), "loss"]
    if kind == "fewshot":
        penalties = [""] if len(section["l2"]) == 1 else [f"_l2_{penalty:g}" for penalty in section["l2"]]
        return [f"{shots}shot{penalty}" for shots in section["shots"] for penalty in penalties]
    if kind == "knn":
        return [f"{k}nn" for k in section["k"]]
    return ["top1"] if kind == "multilabel" else ["top1", "loss"]


def splits(section: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits an evaluator reads; it is judged on the last."""
    return tuple(section[key] for key in ("split", "train_split", "test_split") if key in section)
