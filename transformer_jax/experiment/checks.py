"""Settings that fit their types and still mean nothing: found before anything is built."""

from collections.abc import Mapping
from typing import Any

from transformer_jax import paths, types
from transformer_jax.experiment import evals as kinds


def ranges(settings: Mapping[str, Any]) -> None:
    """`InputError` for the first number of an experiment that is out of its range, with the rule."""
    train, batch_size = settings["train"], settings["data"]["batch_size"]
    smoothing, average, parts = train["label_smoothing"], train["average"], train["accumulate"]
    rules = {
        "seed": (settings["seed"], 0 <= settings["seed"] < 2**32, "from 0 to 2**32 - 1"),
        "train.accumulate": (
            parts,
            parts >= 1 and batch_size % parts == 0,
            f"a divisor of data.batch_size={batch_size}",
        ),
        "train.mixup": (train["mixup"], train["mixup"] >= 0, "at least 0, which turns it off"),
        "train.cutmix": (train["cutmix"], train["cutmix"] >= 0, "at least 0, which turns it off"),
        "train.mix_switch": (train["mix_switch"], 0 <= train["mix_switch"] <= 1, "a probability, from 0 to 1"),
        "train.label_smoothing": (smoothing, 0 <= smoothing < 1, "at least 0 and below 1"),
        "train.average": (average, average is None or 0 < average < 1, "between 0 and 1"),
    }
    _require(rules)
    evals(settings["evals"])


def evals(sections: Mapping[str, Mapping[str, Any]]) -> None:
    """`InputError` for the first number of an evaluator that is out of its range."""
    several = "one number or more, each"
    for name, section in sections.items():
        rules: dict[str, tuple[Any, bool, str]] = {}
        if "shots" in section:
            shots, seeds = section["shots"], section["seeds"]
            rules["shots"] = (shots, len(shots) > 0 and min(shots) >= 1, f"{several} at least 1")
            rules["seeds"] = (seeds, seeds >= 1, "at least 1")
        if "l2" in section:
            rules["l2"] = (section["l2"], len(section["l2"]) > 0 and min(section["l2"]) > 0, f"{several} above 0")
        if "k" in section:
            rules["k"] = (section["k"], len(section["k"]) > 0 and min(section["k"]) >= 1, f"{several} at least 1")
            rules["temperature"] = (section["temperature"], section["temperature"] > 0, "above 0")
        if "held_out" in section:
            rules["held_out"] = (section["held_out"], 0 < section["held_out"] < 1, "between 0 and 1")
        _require({f"evals.{name}.{key}": rule for key, rule in rules.items()})


def _require(rules: Mapping[str, tuple[Any, bool, str]]) -> None:
    """`{setting: (value, whether it is good, what it must be)}`."""
    for name, (value, good, rule) in rules.items():
        if not good:
            raise types.InputError(f"config.{name} must be {rule}: it is {value!r}.")


def best(keep_best: tuple[str, str] | None, sections: Mapping[str, Mapping[str, Any]], classes: int) -> None:
    """`InputError` unless `checkpoint.keep_best` names a number that an evaluator gives for that many classes."""
    known = [f"{name}/{metric}" for name, section in sections.items() for metric in kinds.metrics(section, classes)]
    if keep_best is not None and keep_best[0] not in known:
        raise types.InputError(
            f"config.checkpoint.keep_best must be a metric of an evaluator and 'max' or 'min': it is {keep_best!r}."
            f"{paths.did_you_mean(keep_best[0], known)} There are: {', '.join(known) or 'no evaluators'}."
        )


def evaluator_of(keep_best: tuple[str, str]) -> str:
    """The evaluator that gives the metric: `val` of `val/top1`."""
    return keep_best[0].rpartition("/")[0]
