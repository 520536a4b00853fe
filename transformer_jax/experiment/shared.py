"""What several runs of one process share: opened data, loaded weights, compiled programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformer_jax import config, types
from transformer_jax.data import pipeline, sources
from transformer_jax.experiment import program as programs
from transformer_jax.experiment import weights
from transformer_jax.parallel import mesh
from transformer_jax.transfer import convert

# The settings that decide what is compiled. Everything else is an argument of the compiled functions.
_COMPILED = ("model", "optim", "parallel")
_MIXED = ("mixup", "cutmix", "mix_per_example", "mix_switch")
_COMPILED_TRAIN = ("loss", "label_smoothing", *_MIXED, "accumulate", "average", "nonfinite")


class Shared:
    """Keeps what is costly to make and the same in many runs."""

    def __init__(self) -> None:
        self._programs: dict[str, programs.Program] = {}
        self._sources: dict[str, sources.Source] = {}
        self._weights: dict[str, convert.Source] = {}

    def program(self, settings: Mapping[str, Any], pixel_range: programs.PixelRange | None) -> programs.Program:
        """The program of an experiment; the same one for experiments that compile to the same."""
        train = {name: settings["train"][name] for name in _COMPILED_TRAIN}
        key = config.text({**{name: settings[name] for name in _COMPILED}, "train": train, "pixels": pixel_range})
        if key not in self._programs:
            self._programs[key] = programs.Program(settings, pixel_range)
        return self._programs[key]

    def source(self, section: Mapping[str, Any], split: str) -> sources.Source:
        """The examples a section names, opened once."""
        arguments = dict(section["arguments"])
        key = json.dumps([section["source"], split, section["data_dir"], config.plain(arguments)], sort_keys=True)
        if key not in self._sources:
            self._sources[key] = sources.open_source(
                section["source"], split, data_dir=section["data_dir"], **arguments
            )
        return self._sources[key]

    def train_pipeline(self, settings: Mapping[str, Any]) -> pipeline.Train:
        """The training examples of an experiment."""
        section, parallel = settings["data"], settings["parallel"]
        reader = mesh.readers(mesh.make(parallel["mesh"], across=parallel["across"], preset=parallel["rules"]))
        return pipeline.Train(
            self.source(section, section["split"]),
            section["preprocess"],
            batch_size=section["batch_size"],
            seed=settings["seed"],
            shuffle=section["shuffle"],
            threads=section["threads"],
            workers=section["workers"],
            on_bad_image=section["on_bad_image"],
            process_index=reader.index,
            process_count=reader.count,
        )

    def eval_pipeline(
        self,
        name: str,
        section: Mapping[str, Any],
        split: str,
        judged: programs.Program,
        *,
        classes: bool = True,
        rows: bool = False,
    ) -> pipeline.Evaluate:
        """Every example of a split once, as the evaluator's section says, checked against what the program takes: its
        classes too, unless only features or some of them are read. Labels are `rows` of classes, or one class each.

        The batch is rounded up to what divides over the devices: padding is masked, so no number depends on it.
        """
        parts, reader = mesh.batch_parts(judged.mesh), mesh.readers(judged.mesh)
        data = pipeline.Evaluate(
            self.source(section, split),
            section["preprocess"],
            batch_size=-(-section["batch_size"] // parts) * parts,
            process_index=reader.index,
            process_count=reader.count,
            threads=section["threads"],
            workers=section["workers"],
            on_bad_image=section["on_bad_image"],
        )
        judged.check(data, f"evals.{name}", classes=classes, rows=rows)
        return data

    def weights(self, path: str) -> convert.Source:
        """The weights at a path, read once."""
        if path not in self._weights:
            self._weights[path] = weights.load(path)
        return self._weights[path]


def missing(settings: Mapping[str, Any], *, train: bool = True) -> list[str]:
    """Every data set and file an experiment reads that is not on this machine, each with its remedy. Without `train`,
    only what its evaluators read."""
    sections = [settings["data"]] if train else []
    for section in settings["evals"].values():
        splits = [section[key] for key in ("split", "train_split", "test_split") if key in section]
        sections += [dict(section, split=split) for split in splits]
    problems = sources.missing(sections)
    if train and settings["init_from"] is not None:
        problems += weights.missing(settings["init_from"]["path"])
    return problems


def preflight(problems: Sequence[str]) -> None:
    """`InputError` listing all problems of `missing` at once; nothing is built yet."""
    if problems:
        listing = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(dict.fromkeys(problems), 1))
        raise types.InputError(f"Everything a run reads must be on this machine before it starts:\n{listing}")
