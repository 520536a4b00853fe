"""One checkpoint on disk, and the only file that knows Orbax.

    checkpoints/400/state/...            the leaves, by plain parameter path
                    meta/metadata        JSON: format_version, config, classes, step, examples, metrics, digest ...
                    commit_success.txt   written last: without it the folder is not a checkpoint

A step is written under a temporary name and renamed when it is whole. Folders that are not whole are passed over and
left where they are.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from transformer_jax import paths, types
from transformer_jax.parallel import multihost

FORMAT_VERSION = 1
CHECKPOINTS = "checkpoints"
_COMMITTED = "commit_success.txt"
_META = pathlib.Path("meta", "metadata")
SEEN_WITHIN = 20.0
"""Seconds in which a file that another process wrote is seen here: file systems of a network show a new one late."""

_DAMAGED = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "Error decoding", "Truncated ", "corruption detected")
_ABSENT = ("NOT_FOUND", "Truncated Zstd-compressed stream; at byte 0")
"""What tensorstore says of data that are not what was written, and of those that are not there: an absent file is one
of no bytes to it. An error of the system has a number in its text, and says nothing about the checkpoint."""
_SYSTEM = "os_error_code"
_TOGETHER = (
    ('"key_metadata":', '"value_metadata":', '"value_type":', '"skip_deserialize":'),
    ('"key":', '"key_type":'),
)
"""Words that Orbax writes into the description of the arrays equally often."""

T = TypeVar("T")


class Corrupt(Exception):
    """A checkpoint that is there but not what was saved. The message says what is wrong with it."""


class Missing(Corrupt):
    """A part of a checkpoint is not there, or not yet seen by this process."""


def absolute(path: str | os.PathLike[str]) -> pathlib.Path:
    """`path` with `~` and `..` resolved: Orbax takes nothing else."""
    return pathlib.Path(path).expanduser().absolute()


def is_complete(directory: pathlib.Path) -> bool:
    """Whether a checkpoint was committed here."""
    return all((directory / name).exists() for name in (_COMMITTED, _META, "state"))


def steps(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """The complete checkpoints in a folder, newest first."""
    if not directory.is_dir():
        return {}
    numbered = {int(path.name): path for path in directory.iterdir() if path.name.isdecimal()}
    return {step: numbered[step] for step in sorted(numbered, reverse=True) if is_complete(numbered[step])}


def find(path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The checkpoints at `path`, newest first: a run directory, its `checkpoints` folder, or one step of it."""
    place = absolute(path)
    if is_complete(place):
        return [place]
    found = steps(place / CHECKPOINTS) or steps(place)
    if not found:
        inside = sorted(child.name for child in place.iterdir())[:10] if place.is_dir() else None
        what = "is not a folder" if inside is None else f"holds {inside or 'nothing'}"
        raise types.InputError(
            f"A checkpoint is a run directory, its '{CHECKPOINTS}' folder, or a finished step of it: {place} {what}."
            " Give the path of a run that has saved at least once."
        )
    return list(found.values())


def set_aside(directory: pathlib.Path, why: str) -> pathlib.Path:
    """Renames a folder that is in the way to `N.why` (or `N.why-2` ...). Nothing of the user's is deleted."""
    aside, count = directory.with_name(f"{directory.name}.{why}"), 1
    while aside.exists():
        count += 1
        aside = directory.with_name(f"{directory.name}.{why}-{count}")
    if directory.exists():
        directory.rename(aside)
    return aside


def seal(meta: Mapping[str, Any]) -> str:
    """A hash of everything in `meta` but the seal itself."""
    plain = {key: value for key, value in meta.items() if key != "seal"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_meta(directory: pathlib.Path) -> dict[str, Any]:
    """The meta data of a checkpoint. Raises `Corrupt` when it is not as it was written, the system's error when it
    cannot be read now."""
    try:
        meta = json.loads((directory / _META).read_bytes())
    except FileNotFoundError as error:
        raise Missing(f"its meta data is not there ({error.filename})") from error
    except ValueError as error:
        raise Corrupt(f"its meta data cannot be read ({error})") from error
    if not isinstance(meta, dict) or meta.get("seal") != seal(meta):
        raise Corrupt("its meta data has changed since it was written")
    if meta["format_version"] > FORMAT_VERSION:
        raise types.InputError(
            f"A checkpoint can be read by the version that wrote it or a later one: {directory} has format_version"
            f" {meta['format_version']}, this package reads up to {FORMAT_VERSION}. Update transformer_jax."
        )
    return meta


def amend_meta(directory: pathlib.Path, changes: Mapping[str, Any]) -> None:
    """Replaces entries of the meta data of a committed checkpoint, all at once or not at all."""
    meta = {**read_meta(directory), **changes}
    file = directory / _META
    partial = file.with_name(f"{file.name}.tmp")
    partial.write_text(json.dumps({**meta, "seal": seal(meta)}))
    os.replace(partial, file)


def read_leaves(directory: pathlib.Path, targets: types.FlatTree) -> types.FlatTree:
    """The leaves named in `targets`. A target that has a sharding gives a `jax.Array`, any other one a numpy array.

    Each process reads by itself, and waits for no other: one that cannot read must be able to say so. Raises `Corrupt`
    when the data are not what was written. Any other error is raised as it is: of a file system that is away or has
    no handle left, of a library that has changed; the checkpoint may be good.
    """
    import orbax.checkpoint as ocp

    def restore_args(leaf: Any) -> ocp.RestoreArgs:
        sharding = getattr(leaf, "sharding", None)
        if sharding is None:
            return ocp.RestoreArgs(restore_type=np.ndarray)
        return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)

    if not targets:
        return {}
    request = ocp.args.PyTreeRestore(
        item=paths.unflatten(targets),
        restore_args=paths.unflatten({path: restore_args(leaf) for path, leaf in targets.items()}),
        partial_restore=True,
    )
    try:
        alone = ocp.options.MultiprocessingOptions(primary_host=None, active_processes={multihost.index()})
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(), multiprocessing_options=alone) as reader:
            return paths.flatten(reader.restore(directory / "state", args=request))
    except (ValueError, KeyError, FileNotFoundError) as error:
        if found := _damage(error, directory):
            raise found(f"its arrays cannot be read ({type(error).__name__}: {_line(error)})") from error
        raise


def _damage(error: Exception, directory: pathlib.Path) -> type[Corrupt] | None:
    """What an error of reading says of the checkpoint; `None`: nothing."""
    text = str(error)
    if _SYSTEM in text:
        return None
    if isinstance(error, FileNotFoundError) or any(sign in text for sign in _ABSENT):
        return Missing
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) or any(sign in text for sign in _DAMAGED):
        return Corrupt
    if not isinstance(error, KeyError):
        return None
    names = (directory / "state" / "_METADATA").read_text()
    return None if all(len({names.count(word) for word in words}) == 1 for words in _TOGETHER) else Corrupt


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]


def patiently(read: Callable[[], T]) -> T:
    """`read()`; of several processes one that does not see a file yet tries again for a while before it is `Missing`.

    Another machine wrote it, perhaps a moment ago.
    """
    deadline = time.monotonic() + SEEN_WITHIN
    while True:
        try:
            return read()
        except Missing:
            if multihost.count() == 1 or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def seen(directory: pathlib.Path) -> bool:
    """Whether a checkpoint that another process sees, good or corrupt, is seen by this one, after a while."""
    try:
        patiently(lambda: read_meta(directory))
    except Corrupt as error:
        return not isinstance(error, Missing)
    return True


def require_digests(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """`Corrupt`, with the names of leaves, unless the digests are those that were saved."""
    wrong = sorted(path for path in expected if found.get(path) != expected[path])
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Corrupt(f"the numbers of {', '.join(wrong[:5])}{more} are not the ones that were saved")


class Writer:
    """Writes checkpoints in the background, one at a time."""

    def __init__(self) -> None:
        import orbax.checkpoint as ocp

        self._args = ocp.args
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(state=ocp.PyTreeCheckpointHandler(), meta=ocp.JsonCheckpointHandler())
        )

    def start(self, directory: pathlib.Path, leaves: types.FlatTree, meta: Mapping[str, Any]) -> None:
        """Begins to write; what is left when this returns goes on in the background. An error of the write before
        this one is raised here."""
        plain = json.loads(json.dumps(meta))
        state = self._args.PyTreeSave(paths.unflatten(leaves))
        sealed = self._args.JsonSave({**plain, "seal": seal(plain)})
        with jax.transfer_guard("allow"):
            self._orbax.save(directory, self._args.Composite(state=state, meta=sealed))

    def wait(self) -> None:
        """Returns when the last write is committed, raises if it failed."""
        self._orbax.wait_until_finished()

    def close(self) -> None:
        self._orbax.close()
