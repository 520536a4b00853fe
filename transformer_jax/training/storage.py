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
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from transformer_jax import paths, types
from transformer_jax.parallel import multihost

FORMAT_VERSION = 1
CHECKPOINTS = "checkpoints"
_COMMITTED = "commit_success.txt"
_META = pathlib.Path("meta", "metadata")


class Corrupt(Exception):
    """A checkpoint that is there but not what was saved. The message says what is wrong with it."""


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
    """The meta data of a checkpoint. Raises `Corrupt` when it is not as it was written."""
    try:
        meta = json.loads((directory / _META).read_bytes())
        sealed = meta["seal"] == seal(meta)
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"its meta data cannot be read ({error})") from error
    if not sealed:
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
    when Orbax cannot read them.
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
    except (PermissionError, MemoryError):
        raise
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise Corrupt(
            f"its arrays cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        ) from error


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
