"""What a protocol file says: pretraining or published weights, targets to transfer to, and what is measured of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from transformer_jax import config, experiment, paths, types
from transformer_jax.experiment import evals as kinds

EVALUATOR = "eval"
"""The evaluator that every experiment of a target has; its split is set to the development or the test split."""
RATE = "schedule.base"
ALL = "all"
"""The group of all targets."""
Grid = Sequence[float | Mapping[str, Any]]
Choice = dict[str, Any]
"""Dotted settings that one run of a grid has of its own, `{"schedule.base": 0.01, "train.total": 500}`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A data set to transfer to: an experiment a method, what to try, and which split plays which part.

    The experiments read `train` while tuning and `final` afterwards, and are judged on `dev` and then on `test`. An
    entry of a grid is a learning rate or a mapping of settings; one entry alone is taken as it is. `select` is the
    metric of the tuning runs that picks. Without `scratch` nothing is trained from scratch, without `probe_l2` there
    is no linear probe. `seeds` replaces the protocol's.
    """

    finetune: Mapping[str, Any]
    finetune_grid: Grid
    scratch: Mapping[str, Any] | None = None
    scratch_grid: Grid = ()
    train: str
    dev: str
    final: str
    test: str = "test"
    probe_l2: Sequence[float] = ()
    select: str = f"{EVALUATOR}/top1"
    seeds: int | None = None

    def methods(self) -> dict[str, tuple[Mapping[str, Any], Grid]]:
        """The experiment and the grid of every way to train on this target."""
        scratch = {} if self.scratch is None else {"scratch": (self.scratch, self.scratch_grid)}
        return {"finetune": (self.finetune, self.finetune_grid), **scratch}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """The whole loop: `pretrain` an experiment, or start from `weights` (whatever `init_from.path` takes).

    `evals` are evaluators of the pretrained weights themselves. `groups` are targets whose mean is reported beside the
    mean over all. `seeds` counts the final runs of a method, which differ in their seed only.
    """

    name: str
    pretrain: Mapping[str, Any] | None = None
    weights: str | None = None
    targets: Mapping[str, Any]
    evals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    seeds: int = 3


def resolve(raw: ml_collections.ConfigDict, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The protocol with its overrides (`targets.NAME.finetune.train.total=...`) applied and every section checked."""
    config.check(raw.to_dict(), config.fields(Protocol), "")
    settings = ml_collections.ConfigDict(raw.to_dict())
    config.override_in_order(settings, _schema, overrides or {})
    top = config.check(settings.to_dict(), config.fields(Protocol), "")
    if top["seeds"] < 1:
        raise types.InputError(f"A protocol needs at least one seed: config.seeds is {top['seeds']}.")
    if (top["pretrain"] is None) == (top["weights"] is None):
        raise types.InputError("A protocol has a section pretrain, or weights to start from: one of the two.")
    if top["pretrain"] is not None:
        top["pretrain"] = _experiment(top["pretrain"])
    top["targets"] = {name: _target(name, section) for name, section in top["targets"].items()}
    for name, members in top["groups"].items():
        unknown = sorted(set(members) - set(top["targets"]))
        if unknown or not members or name == ALL:
            raise types.InputError(
                f"A group has a name of its own ({ALL!r} is the mean over all) and names targets:"
                f" config.groups.{name} has {unknown or list(members)}. Targets are: {', '.join(top['targets'])}."
            )
    if top["evals"]:
        first = next(iter(top["targets"].values()))["finetune"] if top["pretrain"] is None else top["pretrain"]
        top["evals"] = _experiment(dict(first, evals=top["evals"]))["evals"]
    return top


def choices(grid: Grid) -> list[Choice]:
    """The entries of a grid as settings."""
    return [dict(entry) if isinstance(entry, Mapping) else {RATE: entry} for entry in grid]


def label(choice: Mapping[str, Any]) -> str:
    """`lr 0.01, total 500`: a choice as people read it."""
    return ", ".join(f"{_word(key)} {_number(value)}" for key, value in choice.items())


def folder_name(choice: Mapping[str, Any]) -> str:
    """`lr_0.01_total_500`: a choice as the name of a folder."""
    return label(choice).replace(", ", "_").replace(" ", "_").replace("/", "-")


def _word(key: str) -> str:
    return "lr" if key == RATE else key.rpartition(".")[2]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _target(name: str, section: Any) -> dict[str, Any]:
    """A target, its experiments resolved with each choice of their grids."""
    found = config.check(section, config.fields(Target), f"targets.{name}")
    for method, (settings, grid) in Target(**found).methods().items():
        where = f"targets.{name}.{method}"
        found[method] = resolved = _experiment(settings)
        judge = resolved["evals"].get(EVALUATOR, {})
        if judge.get("kind") != "classification":
            raise types.InputError(
                f"Every experiment of a target has an evaluator {EVALUATOR!r} of kind 'classification':"
                f" {where}.evals has {sorted(resolved['evals'])}."
            )
        if (resolved["init_from"] is None) == (method == "finetune"):
            raise types.InputError(
                f"Fine-tuning has an init_from section and training from scratch has none: see {where}."
            )
        if not grid:
            raise types.InputError(f"{where}_grid must name at least one learning rate.")
        for choice in choices(grid):
            _check_choice(choice, where)
            _experiment(config.replaced(resolved, choice))
        _check_select(found["select"], resolved["evals"], name, where)
    if found["seeds"] is not None and found["seeds"] < 1:
        raise types.InputError(f"A target needs at least one seed: config.targets.{name}.seeds is {found['seeds']}.")
    return found


def _check_choice(choice: Choice, where: str) -> None:
    """`InputError` for a setting that the protocol sets itself."""
    taken = sorted(set(choice) & {"seed", "data.split", f"evals.{EVALUATOR}.split", "init_from.path", "init_from"})
    if taken:
        raise types.InputError(f"The protocol sets {', '.join(taken)} itself: {where}_grid may not. Leave it out.")


def _check_select(select: str, evals: Mapping[str, Mapping[str, Any]], name: str, where: str) -> None:
    """`InputError` unless the metric that picks is an accuracy of an evaluator."""
    known = [
        f"{judge}/{metric}"
        for judge, section in evals.items()
        for metric in kinds.metrics(section, classes=5)
        if metric != "loss"
    ]
    if select not in known:
        raise types.InputError(
            f"The metric that picks is an accuracy of an evaluator: targets.{name}.select is {select!r},"
            f" {where}.evals gives {', '.join(known)}.{paths.did_you_mean(select, known)}"
        )


def _experiment(settings: Mapping[str, Any]) -> dict[str, Any]:
    return experiment.resolve(ml_collections.ConfigDict(settings))


def _schema(settings: Mapping[str, Any]) -> dict[str, config.Field]:
    """Every setting a protocol has, by dotted path."""
    known = config.fields(Protocol)
    inner = {"pretrain": settings.get("pretrain")}
    for name, target in settings["targets"].items():
        known |= {f"targets.{name}.{key}": field for key, field in config.fields(Target).items()}
        inner |= {f"targets.{name}.{method}": target.get(method) for method in ("finetune", "scratch")}
    for where, section in inner.items():
        if section is not None:
            known |= {f"{where}.{key}": field for key, field in experiment.schema(section).items()}
    return known
