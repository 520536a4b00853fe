"""The sections of an experiment: each class is one, its fields are the settings and their defaults. Those of
evaluators are in `evals`.

`model`, `optim` and `schedule` are the keywords of the constructors they name; the rest is here. A resolved
experiment is these sections as plain dictionaries with every default filled in: what is printed, saved and compared.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_collections

from transformer_jax import config, models, paths, types
from transformer_jax.experiment import evals
from transformer_jax.optim import optimizers, schedules

Duration = schedules.Duration


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The top level."""

    name: str
    seed: int = 0
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optim: Mapping[str, Any]
    schedule: Mapping[str, Any]
    train: Mapping[str, Any]
    parallel: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    init_from: Mapping[str, Any] | None = None
    resume: str = "auto"
    resume_allow: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Training examples. `arguments` go to the source (`size`, `labels`, `val_fraction`, ...).

    `threads=None` reads data in memory with one thread and data on disk with as many as there are cores. `examples` and
    `classes` say what is there, for planning a run where it is not; a run itself counts.
    """

    source: str
    split: str = "train"
    preprocess: str
    batch_size: int
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_dir: str | None = None
    shuffle: bool = True
    on_bad_image: Literal["raise", "skip"] = "raise"
    threads: int | None = None
    workers: int = 0
    examples: int | None = None
    classes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """The objective and the length of the run. `average` is the decay of the Polyak average that is evaluated.

    `mixup`, `cutmix`, `mix_per_example` and `mix_switch` are the keywords of `training.mixing.mix`. A step that takes
    `watchdog` times the median one ends the process, so that a supervisor can start it again; `None` waits for ever.
    """

    total: Duration
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_per_example: bool = False
    mix_switch: float = 0.5
    accumulate: int = 1
    average: float | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    log_every: Duration = 50
    watchdog: float | None = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """The mesh and where the logical axes go on it: `-1` takes what is left, `None` is the mesh of the rules.

    `across` says how many parts of an axis lie on different slices, where there are several ({"replica": 2}).
    `strategy="pmap"` is data-parallel only. `optimizer_state` lies like its parameter, or is cut over `data` as well
    (ZeRO-1); with `offload` it waits in the memory of the host between steps, where the platform can.
    """

    mesh: Mapping[str, int] | None = None
    across: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rules: Literal["data", "fsdp", "hybrid", "tensor", "fsdp+tensor", "sequence"] = "data"
    strategy: Literal["jit", "pmap"] = "jit"
    optimizer_state: Literal["parameter", "data"] = "parameter"
    offload: Literal["none", "optimizer"] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When to save (the last step always is), what to keep. `keep_best` is a metric and `max` or `min`; its evaluator
    runs before every save."""

    every: Duration | None = None
    keep_last: int = 2
    keep_best: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitFrom:
    """Weights to start from at step 0: a run directory, checkpoint, .npz or .safetensors."""

    path: str
    head: Literal["auto", "keep", "reset"] = "auto"
    position: Literal["align_corners", "half_pixel", "half_pixel_antialias"] = "align_corners"
    patch: Literal["error", "pinv"] = "error"
    """What to do with patches of another size: refuse them, or resize them by the pseudo-inverse (FlexiViT)."""


SECTIONS = {"data": Data, "train": Train, "parallel": Parallel, "checkpoint": Checkpoint, "init_from": InitFrom}
Fields = dict[str, config.Field]
CONVENTIONS = (
    *("activation", "norm_placement", "norm_epsilon", "position", "pool", "pool_norm", "class_token"),
    *("stem_epsilon", "stem_epsilon_of", "stem_norm_epsilon", "epsilon", "epsilon_of"),
)
"""Settings of a model that come with its weights, like the classes with the data: `None` until `settled`."""


def resolve(raw: ml_collections.ConfigDict, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The experiment, overrides applied, every section checked and every default filled in, as plain dictionaries."""
    settings = ml_collections.ConfigDict(raw.to_dict())
    overrides = dict(overrides or {})
    for where in [where for where, text in overrides.items() if where.startswith("evals.") and text == "None"]:
        if where.removeprefix("evals.") in settings.get("evals", {}):  # one evaluator is left out
            del settings.evals[where.removeprefix("evals.")], overrides[where]
    config.override_in_order(settings, schema, overrides)
    top = config.check(settings.to_dict(), config.fields(Experiment), "")
    for where, known in _known(top).items():
        section, _, eval_name = where.partition(".")
        if eval_name:
            top[section][eval_name] = config.check(top[section][eval_name], known, where)
        elif top[section] is not None:
            top[section] = config.check(top[section], known, where)
    return top


def restore(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved experiment that was saved as JSON, where tuples had become lists."""

    def tupled(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: tupled(item) for key, item in value.items()}
        return tuple(map(tupled, value)) if isinstance(value, list) else value

    return resolve(ml_collections.ConfigDict(tupled(saved)))


def settled(settings: Mapping[str, Any], found: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The experiment with every convention of its model: its own, else the one `found` with weights, else the default
    of the constructor."""
    model = dict(settings["model"])
    for key, field in config.fields(models.MODELS[model["name"]].config).items():
        if key in CONVENTIONS and model.get(key) is None:
            model[key] = (found or {}).get(key, field.default)
    return dict(settings, model=model)


def schema(settings: Mapping[str, Any]) -> Fields:
    """`{"optim.clip_norm": Field}` for every setting this experiment could have."""
    dotted = dict(config.fields(Experiment))
    for where, known in _known(settings).items():
        dotted.update({f"{where}.{key}": field for key, field in known.items()})
    return dotted


def _known(settings: Mapping[str, Any]) -> dict[str, Fields]:
    """The keywords of every section: fixed ones, those of the constructors that are named, and of each evaluator."""
    known = {where: config.fields(section) for where, section in SECTIONS.items()}
    named = {
        "model": (models.MODELS, lambda family: family.config, ()),
        "optim": (optimizers.OPTIMIZERS, lambda build: build, ("abstract_params", "stacks")),
        "schedule": (schedules.SCHEDULES, lambda build: build, ("total_steps", "batch_size", "epoch_examples")),
    }
    for where, (table, constructor, skip) in named.items():
        choice = _choose(settings.get(where), "name", table, where)
        known[where] = {"name": config.Field(str, config.MISSING), **config.fields(constructor(choice), skip=skip)}
    for key in ("num_classes", *CONVENTIONS):  # None: taken from the data, from the weights
        if key in known["model"]:
            known["model"][key] = config.Field(known["model"][key].annotation | None, None)
    for name, section in (settings.get("evals") or {}).items():
        where = f"evals.{name}"
        kinds = config.Field(str, "classification")  # one of evals.EVALS, which `_choose` has checked
        known[where] = {**config.fields(_choose(section, "kind", evals.EVALS, where)), "kind": kinds}
    return known


def _choose(section: Any, key: str, table: Mapping[str, Any], where: str) -> Any:
    """The constructor that a section names with its `name` or `kind`."""
    name = section.get(key, "classification" if key == "kind" else None) if isinstance(section, Mapping) else None
    if not isinstance(name, str) or name not in table:
        near = paths.did_you_mean(str(name), table)
        raise types.InputError(f"config.{where}.{key} must be one of {', '.join(table)}, not {name!r}.{near}")
    return table[name]
