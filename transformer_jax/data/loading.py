"""One chunk of a batch: examples read, put through the ops, and laid side by side.

Images in memory go through the ops that draw no random numbers once; the result is kept (bounded), and the random ops
then run on whole batches. The outcome is the same as example by example, to the bit.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from transformer_jax import types
from transformer_jax.data import decoding, field_ops, image_ops, operation, order, sources, views

CACHE_BYTES = 1 << 30
_PAUSES = (0.1, 1.0, 5.0)
"""Seconds before a file that could not be read is tried again: file systems of a network have such moments."""
SKIPPED = "_skipped"
ID = "_id"
Draw = tuple[int, int]
"""(epoch, index): an example and the random numbers it is to see."""


@dataclasses.dataclass
class Plan:
    """The ops of a pipeline in the order and form it runs them."""

    fixed: list[operation.Op]
    """Before the first random number."""
    drawn: list[operation.Op]
    pixel_range: field_ops.PixelRange | None
    """What the levels 0 and 255 become, each one number or one a channel: left for the device to apply."""


def plan(ops: Sequence[operation.Op]) -> Plan:
    """Decode and crop fused, a last value range hoisted, the ops without random numbers apart."""
    ops, pixel_range = _hoist(_labels_first(_fuse(list(ops))))
    first = next((i for i, op in enumerate(ops) if op.random), len(ops))
    return Plan(ops[:first], ops[first:], pixel_range)


def _fuse(ops: list[operation.Op]) -> list[operation.Op]:
    for i, (op, following) in enumerate(zip(ops, ops[1:], strict=False)):
        if isinstance(op, image_ops.Decode) and isinstance(following, image_ops.InceptionCrop):
            if op.key == following.key:
                fused = image_ops.DecodeAndInceptionCrop(op, following, key=op.key)
                return [*ops[:i], fused, *_fuse(ops[i + 2 :])]
    return ops


def _labels_first(ops: list[operation.Op]) -> list[operation.Op]:
    """Sets of labels made rows before the ops on the image, which never see them: rows can be kept, sets cannot."""
    done: list[operation.Op] = []
    for op in ops:
        at = len(done)
        while isinstance(op, field_ops.MultiHot) and at and isinstance(done[at - 1], operation.ImageOp):
            at -= 1
        done.insert(at, op)
    return done


def _hoist(ops: list[operation.Op]) -> tuple[list[operation.Op], field_ops.PixelRange | None]:
    on_image = [i for i, op in enumerate(ops) if getattr(op, "key", None) == "image" or isinstance(op, field_ops.Copy)]
    last = ops[on_image[-1]] if on_image else None
    if not isinstance(last, field_ops.ValueRange | field_ops.Normalize):
        return ops, None
    return [op for op in ops if op is not last], last.pixel_range


class Loader:
    """Chunks of examples of a source. Thread-safe; pickles without its cache."""

    def __init__(self, source: "sources.Source", todo: Plan, *, seed: int, skip_bad: bool, ids: bool = False):
        self.source = source
        self.plan = todo
        self.seed = seed
        self.skip_bad = skip_bad
        self.ids = ids
        self._cache: Cache | None = None
        self._named: set[int] = set()  # bad images a warning has been given for
        self._multilabel = views.multilabel(source)
        whole = not self._multilabel or all(isinstance(op, operation.ImageOp) for op in todo.drawn)
        self._cacheable = source.in_memory and whole  # sets of labels are of any size: no array holds them

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def load(self, draws: Sequence[Draw]) -> dict[str, Any]:
        """The batch of these examples, in order. Bad images have been replaced by the next good one, and counted."""
        batch = self._load_cached(draws) if self._cacheable else None
        if batch is None:
            found = [self._example(epoch, index) for epoch, index in draws]
            batch = _collate([example for example, _ in found])
            batch[SKIPPED] = np.array([skipped for _, skipped in found], np.int32)
        if not self.ids:
            batch.pop(ID, None)
        return batch

    def _load_cached(self, draws: Sequence[Draw]) -> dict[str, Any] | None:
        if self._cache is None:
            example, _ = self._good(draws[0][1], self._fixed)
            self._cacheable = Cache.suits(example, len(self.source))
            if not self._cacheable:
                return None
            self._cache = self._cache or Cache(example, len(self.source))
        cache = self._cache
        wanted = [index for _, index in draws]
        for index, example in self._read(cache.missing(wanted)):
            cache.put(index, *self._good(index, self._fixed, given=example))
        batch = cache.get(wanted)
        skipped = batch.pop(SKIPPED)
        if self.plan.drawn:
            rngs = order.generators(self.seed, draws)
            for op in self.plan.drawn:
                batch = op.batched(batch, rngs)
        if self.ids:
            batch[ID] = np.array([self.source[index]["id"] for index in wanted])
        return {**batch, SKIPPED: skipped}

    def _read(self, indices: list[int]) -> list[tuple[int, dict[str, Any] | None]]:
        """The raw examples; None for each where reading all at once failed, to be read again one by one."""
        if not indices:
            return []
        try:
            return list(zip(indices, views.read(self.source, indices), strict=True))
        except (decoding.BadImage, OSError):
            return [(index, None) for index in indices]

    def _example(self, epoch: int, index: int) -> tuple[dict[str, Any], int]:
        def run(raw: dict[str, Any]) -> dict[str, Any]:
            (rng,) = order.generators(self.seed, [(epoch, index)])
            identity = raw.get("id")
            for op in (*self.plan.fixed, *self.plan.drawn):
                raw = op(raw, rng)
            return {**self._numbers(raw), ID: str(identity)}

        return self._good(index, run)

    def _fixed(self, raw: dict[str, Any]) -> dict[str, Any]:
        (rng,) = order.generators(self.seed, [(0, 0)])
        for op in self.plan.fixed:
            raw = op(raw, rng)
        return self._numbers(raw)

    def _numbers(self, example: dict[str, Any]) -> dict[str, Any]:
        label = np.asarray(example.get("label", 0))
        if self._multilabel and label.ndim and (label.ndim > 1 or np.issubdtype(label.dtype, np.integer)):
            raise types.InputError(
                f"The labels of a batch are numbers or rows of one length. Those of {self.source.name!r} are sets of"
                f" classes: add multihot({self.source.num_classes}) to the preprocessing."
            )
        return _numbers(example)

    def _raw(self, index: int) -> dict[str, Any]:
        """The example as the source has it.

        One that cannot be read is an error even where bad images are skipped: another process may read it, and hold
        other rows than this one in the same place.
        """
        for pause in (*_PAUSES, None):
            try:
                return self.source[index]
            except OSError as error:
                if pause is None or isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
                    reason = f"{error.filename}: {error.strerror}" if error.filename else error
                    raise types.InputError(
                        f"Every example must be readable: example {index} of {self.source.name!r} is not: {reason}."
                        " Mend the file or its disk, or remove it; the same command continues."
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _good(self, index: int, run: Any, given: dict[str, Any] | None = None) -> tuple[dict[str, Any], int]:
        """(`run` of the example, 0), or of the next good one with the number of bad ones on the way."""
        for skipped in range(len(self.source)):
            at = (index + skipped) % len(self.source)
            try:
                raw = given if given is not None and skipped == 0 else self._raw(at)
                try:
                    return run(raw), skipped
                except decoding.BadImage as error:
                    raise decoding.BadImage(f"{raw.get('id', '')}: {error}") from error
            except decoding.BadImage as error:
                message = f"Bad image, example {at} of {self.source.name!r}: {error}"
                if not self.skip_bad:
                    raise types.InputError(f'{message}. Mend or remove it, or set on_bad_image="skip".') from error
                if at not in self._named:
                    self._named.add(at)
                    logging.getLogger(__name__).warning("%s. Skipped.", message)
        raise types.InputError(
            f"A source needs an image that can be read: {self.source.name!r} has none. Mend or replace the images."
        )


class Cache:
    """Examples by index in arrays that fill as they are asked for. Two threads may both fill a place, with the same."""

    def __init__(self, example: dict[str, Any], length: int):
        self._fields = {
            name: np.zeros((length, *np.shape(value)), np.asarray(value).dtype)
            for name, value in {**example, SKIPPED: np.int32(0)}.items()
        }
        self._filled = np.zeros(length, bool)

    @staticmethod
    def suits(example: dict[str, Any], length: int) -> bool:
        """Whether that many such examples may be kept."""
        if any(isinstance(value, bytes) for value in example.values()):
            return False
        return length * sum(np.asarray(value).nbytes for value in example.values()) <= CACHE_BYTES

    def missing(self, indices: Sequence[int]) -> list[int]:
        return list(dict.fromkeys(index for index in indices if not self._filled[index]))

    def put(self, index: int, example: dict[str, Any], skipped: int) -> None:
        for name, value in {**example, SKIPPED: skipped}.items():
            try:
                self._fields[name][index] = value
            except ValueError:
                raise _uneven({np.shape(value), self._fields[name].shape[1:]}) from None
        self._filled[index] = True

    def get(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        return {name: values[np.asarray(indices)] for name, values in self._fields.items()}


def _numbers(example: dict[str, Any]) -> dict[str, Any]:
    """What of an example may go into a batch: arrays and numbers, integers as int32."""
    kept = {}
    for name, value in example.items():
        if isinstance(value, str) or value is None:
            continue
        kept[name] = np.int32(value) if isinstance(value, int | np.integer) else value
    return kept


def _collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = {}
    for name in examples[0]:
        values = [example[name] for example in examples]
        if any(isinstance(value, bytes) for value in values):
            raise types.InputError(
                f'The field {name!r} holds encoded images. Write "decode | ..." in the preprocessing.'
            )
        shapes = {np.shape(value) for value in values}
        if len(shapes) > 1:
            raise _uneven(shapes)
        batch[name] = np.stack(values)
    return batch


def _uneven(shapes: set[tuple[int, ...]]) -> types.InputError:
    return types.InputError(
        "The images of a batch have one shape. These have"
        f" {' and '.join(sorted(str(list(shape)) for shape in shapes)[:3])}: add a resize or crop to the preprocessing."
    )
