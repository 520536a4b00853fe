"""Weight files on disk: `.npz` and `.safetensors`, read and written as flat dictionaries, names as stored."""

import contextlib
import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from transformer_jax import types
from transformer_jax.transfer import sniffing

sniff = sniffing.sniff

FORMAT_VERSION = 1
# The words of the safetensors format for element types, and numpy's.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}
_WORDS = {dtype: word for word, dtype in _DTYPES.items()}


class Stored(NamedTuple):
    """What a file holds: arrays by the names it gives them, and the notes beside them (`config`, `classes`, ...)."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    format: str


def read(path: str | Path) -> Stored:
    """All arrays of a `.npz` or `.safetensors`, as stored. `InputError` for anything that is not a whole one."""
    kind = sniff(path)
    if kind == "orbax":
        raise types.InputError(f"Only single files are read here: {str(path)!r} is a directory. Name the file in it.")
    path = sniffing.local(path)
    return Stored(read_npz(path), {}, kind) if kind == "npz" else Stored(*read_safetensors(path), kind)


def sha256(path: str | Path) -> str:
    """The checksum of a file, as `sha256sum` prints it."""
    with sniffing.local(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz`. NumPy stores bfloat16 as two void bytes (`V2`), which become bfloat16 again."""
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = _recover(archive[name])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise sniffing.damaged(path, error) from None
    except ValueError as error:
        if "pickle" not in str(error):
            raise sniffing.damaged(path, error) from None
        raise types.InputError(
            f"Arrays must be plain numbers: {str(path)!r} holds pickled objects, and unpickling runs code."
            " Save the arrays one by one with numpy.savez."
        ) from None
    if not arrays:
        raise types.InputError(f"A checkpoint must hold arrays: {str(path)!r} holds none.")
    return arrays


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The arrays as an uncompressed `.npz`, complete or not at all."""
    with _whole(path) as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a `.safetensors` and its metadata, JSON values decoded.

    Not the library's reader: that one knows no bfloat16 in NumPy, and has one error for everything.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            notes = header.pop("__metadata__", {})
            entries = {name: (entry["dtype"], entry["shape"], *entry["data_offsets"]) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise sniffing.damaged(path, f"its header of {length:,} bytes is not complete ({error})") from None
        expected = 8 + length + max((end for *_, end in entries.values()), default=0)
        if size != expected:
            raise sniffing.damaged(path, f"its header promises {expected:,} bytes")
        arrays = {}
        for name, (word, shape, start, end) in entries.items():
            arrays[name] = _tensor(path, name, word, shape, end - start)
            file.seek(8 + length + start)
            file.readinto(arrays[name].reshape(-1).view(np.uint8).data)
    if not arrays:
        raise types.InputError(f"A checkpoint must hold arrays: {str(path)!r} holds none.")
    return arrays, {key: _decoded(text) for key, text in notes.items()}


def write_safetensors(path: str | Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """The arrays, `meta` (config, classes, ...) as JSON in the header, complete or not at all."""
    notes = {"format": "transformer_jax", "format_version": FORMAT_VERSION, **meta}
    # "format" is the one note other libraries read, and they want the bare word.
    text = {key: value if key == "format" else json.dumps(value) for key, value in notes.items()}
    entries: dict[str, Any] = {"__metadata__": text}
    # Wide elements first keeps every array aligned without padding, which the format forbids.
    order = sorted(arrays, key=lambda name: (-np.asarray(arrays[name]).dtype.itemsize, name))
    offset = 0
    for name in order:
        array = np.asarray(arrays[name])
        if array.dtype not in _WORDS:
            raise types.InputError(f"A .safetensors holds no {array.dtype}: {name!r}. Cast it, for example to float32.")
        entries[name] = {
            "dtype": _WORDS[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with _whole(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


def _recover(array: np.ndarray) -> np.ndarray:
    return array.view(ml_dtypes.bfloat16) if array.dtype.kind == "V" and array.dtype.itemsize == 2 else array


def _tensor(path: Path, name: str, word: str, shape: list[int], nbytes: int) -> np.ndarray:
    """An empty array for one entry of the header."""
    if word not in _DTYPES:
        raise types.InputError(f"An array must be one of {', '.join(_DTYPES)}: {name!r} in {str(path)!r} is {word}.")
    if math.prod(shape) * _DTYPES[word].itemsize != nbytes:
        raise sniffing.damaged(path, f"{name!r} of shape {shape} and type {word} cannot have {nbytes:,} bytes")
    return np.empty(shape, _DTYPES[word])


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextlib.contextmanager
def _whole(path: str | Path) -> Generator[IO[bytes]]:
    """A binary file that appears under its name only when everything was written."""
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
