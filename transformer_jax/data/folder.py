"""Image folders: `folder:PATH`.

    PATH/train/cat/1.jpg  PATH/val/cat/2.jpg      a directory a split (train, val or validation, test)
    PATH/cat/1.jpg                                a directory a class; `val_fraction=0.1` sets a validation split aside

Classes are the directories' names, sorted; by number where all are whole numbers (ImageNet-v2: 0 to 999). ImageNet-R,
-A and -Sketch are read as they are unpacked: a directory a wnid, split "train".

What `val_fraction` sets aside is decided class by class by a hash of the file names: the same on every machine, and
hardly changed by files added later.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from transformer_jax import paths, types

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test", "testing")}
_LAYOUTS = "PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE, or PATH/CLASS/IMAGE"


def open(path: str, split: str = "train", *, val_fraction: float | None = None) -> "FolderSource":
    """The images of one base split."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise types.InputError(f"folder:{path} is not a directory. A folder of images is laid out {_LAYOUTS}.")
    if val_fraction is not None and not 0 < val_fraction < 1:
        raise types.InputError(f"val_fraction lies between 0 and 1, not {val_fraction}.")
    wanted = _canonical(split)
    stored = _splits(root) or {"train": root}
    held_out = wanted == "validation" and "train" in stored and wanted not in stored and val_fraction is not None
    if wanted not in stored and not held_out:
        raise types.InputError(_no_split(path, split, root, stored))
    base = stored["train" if held_out else wanted]
    classes = _classes(stored.get("train", base))
    files = _files(base, classes, complete=wanted == "train" or held_out)
    if val_fraction is not None and (held_out or (wanted == "train" and "validation" not in stored)):
        files = {name: _part(members, name, val_fraction, held_out) for name, members in files.items()}
    return FolderSource(base, path, split, classes, files)


def _no_split(path: str, split: str, root: Path, stored: Mapping[str, Path]) -> str:
    hint = ' To judge on the whole folder set split="train".' if stored.get("train") == root else ""
    return (
        f"folder:{path} has no split {split!r}, only: {', '.join(stored)}. Add the directory {split}/, or set"
        " val_fraction=0.1 (among the `arguments` of the training data and of the evaluator) to set a validation"
        f" split aside.{hint}"
    )


def missing(path: str, bases: tuple[str, ...], *, data_dir: str | None = None) -> str | None:
    """What to do when the folder is not there."""
    if Path(path).expanduser().is_dir():
        return None
    return f"folder:{path} is not a directory. Put your images there, laid out {_LAYOUTS}."


class FolderSource:
    """Image files by index, class by class in the order of their names; read when asked for."""

    in_memory = False

    def __init__(self, root: Path, path: str, split: str, classes: list[str], files: Mapping[str, list[str]]):
        self.name = f"folder:{path} {split}"
        self.class_names = tuple(classes)
        self.num_classes = len(classes)
        self._root = str(root)
        self._files = [f"{name}/{file}" for name in classes for file in files[name]]
        counts = [len(files[name]) for name in classes]
        self._labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
        listing = hashlib.sha256("\n".join(self._files).encode()).hexdigest()[:16]
        self.fingerprint = f"folder:{split}:{len(self._files)}:{listing}"

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = os.path.join(self._root, self._files[index])
        return {"image": Path(path).read_bytes(), "label": int(self._labels[index]), "id": path}

    def labels(self) -> Int64[np.ndarray, " batch"]:
        return self._labels


def _canonical(split: str) -> str:
    for name, spellings in _NAMES.items():
        if split in spellings:
            return name
    known = [spelling for spellings in _NAMES.values() for spelling in spellings]
    raise types.InputError(
        f"The splits of a folder are {', '.join(_NAMES)}. Not: {split!r}.{paths.did_you_mean(split, known)}"
    )


def _splits(root: Path) -> dict[str, Path]:
    """The directories of the splits; none when the folder's own directories are the classes."""
    spelled = [(name, root / spelling) for name, spellings in _NAMES.items() for spelling in spellings]
    found = {name: directory for name, directory in spelled if directory.is_dir()}
    only = set(_directories(root)) <= {directory.name for directory in found.values()}
    return found if "train" in found or only else {}


def _directories(root: Path) -> list[str]:
    return [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _classes(root: Path) -> list[str]:
    classes = _directories(root)
    if not classes:
        raise types.InputError(
            f"{root} holds no class directories.{_loose(root)} A folder of images is laid out {_LAYOUTS}."
        )
    numbers = all(name.isdecimal() and name.isascii() for name in classes)
    return sorted(classes, key=lambda name: (int(name) if numbers else 0, name))


def _loose(root: Path) -> str:
    """What to do about images that lie beside each other, as those of ImageNet's validation archive do."""
    if not any(entry.suffix.lower() in SUFFIXES for entry in root.iterdir()):
        return ""
    return " It holds images, but no directory a class: move every image into the directory of its class."


def _files(root: Path, classes: list[str], *, complete: bool = True) -> dict[str, list[str]]:
    """The images of every class, sorted. A class without any is an error where `complete`."""
    unknown = sorted(set(_directories(root)) - set(classes))
    if unknown:
        raise types.InputError(
            f"Every class of {root} is a class of the training images. {', '.join(map(repr, unknown))} is not one of"
            f" them.{paths.did_you_mean(unknown[0], classes)}"
        )
    files = {name: _images(root / name) for name in classes}
    empty = [name for name in classes if not files[name]]
    if len(empty) == len(classes):
        raise types.InputError(f"{root} holds no images of a class ({' '.join(SUFFIXES)}).{_loose(root)}")
    if empty and complete:
        raise types.InputError(
            f"Every class has at least one image. {root} has none for {', '.join(map(repr, empty))}:"
            f" add some, or remove the directory."
        )
    return files


def _images(folder: Path) -> list[str]:
    """Paths of the images at any depth below, relative, sorted."""
    found = []
    for directory, inner, names in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(directory).relative_to(folder)
        found += [
            (below / name).as_posix() for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _part(files: list[str], name: str, fraction: float, held_out: bool) -> list[str]:
    """The validation or the training part of a class: the files with the smallest hashes are set aside."""
    count = round(len(files) * fraction)
    if len(files) > 1:
        count = min(max(count, 1), len(files) - 1)
    ranked = sorted(files, key=lambda file: hashlib.sha256(f"{name}/{file}".encode()).digest())
    return sorted(ranked[:count] if held_out else ranked[count:])
