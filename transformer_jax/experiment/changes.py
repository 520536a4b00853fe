"""What two experiments differ in, and which of it does not change what is computed."""

import re
from collections.abc import Mapping
from typing import Any

from transformer_jax import config, types
from transformer_jax.experiment import sections

Changes = dict[str, tuple[Any, Any]]
"""`{"train.total": (1000, 2000)}`"""
# How a run is carried out: the numbers are the same.
_HOW = re.compile(
    r"(name|resume|resume_allow|checkpoint\..*|parallel\..*|train\.(log_every|watchdog)"
    r"|data\.(threads|workers|data_dir|examples|classes)"
    r"|evals\.\w+\.(threads|workers|data_dir)|model\.(scan|remat|attention))"
)
# What it is judged by, and where it began: nothing of a run that goes on.
_BESIDE = re.compile(r"(evals(\..*)?|init_from(\..*)?)")


def between(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Every setting that differs; settings that are newer than what was saved had their defaults then."""
    return config.changes(_as_now(saved), sections.settled(now))


def of_outcome(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The changes that make a finished run another one: its numbers could be others."""
    return {key: pair for key, pair in between(saved, now).items() if not _HOW.fullmatch(key)}


def harmless(key: str, now: Mapping[str, Any]) -> bool:
    """Whether a run may go on with this setting changed: it computes the same."""
    if key == "train.accumulate":  # the parts of a batch draw their own dropout, and partners of mixup
        train, model = now["train"], now["model"]
        return not (train["mixup"] or train["cutmix"] or model.get("dropout") or model.get("stochastic_depth"))
    return _HOW.fullmatch(key) is not None or _BESIDE.fullmatch(key) is not None


def _as_now(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved experiment with the defaults of settings that are newer than it; as it is when it no longer resolves."""
    try:
        return sections.settled(sections.restore(saved))
    except types.InputError:
        return saved
