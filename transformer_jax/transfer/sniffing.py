"""What a file is, by its content, and what to tell a user whose file is not a checkpoint.

Files that fail to download seldom fail loudly: buckets answer with an XML page, hubs with HTML, git with a pointer of
three lines, and all of them end up under the name of the checkpoint.
"""

import json
import re
import zipfile
from pathlib import Path

from transformer_jax import types
from transformer_jax.transfer import companions, hub, known

_HEAD = 4096  # bytes; error pages and pointers say all in less
_READABLE = "A checkpoint is a .npz, a .safetensors or an Orbax directory"
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras weights)",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


def sniff(path: str | Path) -> str:
    """`"npz"`, `"safetensors"` or `"orbax"` (a directory). Raises `InputError` saying what anything else is."""
    path = local(path)
    if path.is_dir():
        return "orbax"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if size == 0:
        raise types.InputError(f"{_READABLE}: {str(path)!r} is empty (0 bytes). Fetch it again.")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(path, head)
    if looks_like_safetensors(head):
        return "safetensors"
    raise types.InputError(f"{_READABLE}: {str(path)!r} {_what(head, size)}")


def local(path: str | Path) -> Path:
    """The local path, `~` expanded, names of the hub resolved (`hub.fetch`), and a folder as libraries save weights as
    the file in it. `InputError` when it is the address of a bucket, or nothing is there."""
    if hub.is_name(path):
        return hub.fetch(str(path))
    address = re.match(r"(gs|s3|https?):/+(.*)", str(path))  # Path() would fold the two slashes into one
    if address:
        scheme, rest = address.groups()
        command = {
            "gs": f"gcloud storage cp gs://{rest} .",
            "s3": f"aws s3 cp s3://{rest} .",
        }.get(scheme, f"curl -fLO {scheme}://{rest}")
        raise types.InputError(
            f"Weights are read from local files: {scheme}://{rest} is not one."
            + (known.hint(f"{scheme}://{rest}") or f" Get it with: {command}")
        )
    found = Path(path).expanduser()
    if not found.exists():
        beside = sorted(p.name for p in found.parent.iterdir())[:10] if found.parent.is_dir() else None
        hint = f"{str(found.parent)!r} holds {beside}" if beside is not None else f"there is no {str(found.parent)!r}"
        raise types.InputError(f"A checkpoint must exist: nothing at {str(found)!r}; {hint}.{known.hint(found)}")
    return _inside(found)


def _inside(found: Path) -> Path:
    """The weights in a folder that holds them and no checkpoints of ours; else the path itself."""
    file = found / companions.MODEL_FILE
    ours = any((found / name).exists() for name in ("checkpoints", "meta"))
    return file if found.is_dir() and file.is_file() and not ours else found


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file begins as a safetensors file does: a header length (8 bytes), then a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def damaged(path: Path, detail: object) -> types.InputError:
    """The error for a file of the right kind that is cut short or corrupt."""
    size = path.stat().st_size
    return types.InputError(
        f"{str(path)!r} is truncated or damaged ({size:,} bytes): {detail}. Fetch it again and compare the size and"
        " the sha256 with those of the source."
    )


def _sniff_zip(path: Path, head: bytes) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        if b"data.pkl" in head[:256]:
            raise types.InputError(f"{_READABLE}: {str(path)!r} {_torch('zip')}") from None
        raise damaged(path, f"a zip file without its directory ({error})") from None
    if any(name.endswith("data.pkl") for name in names):
        raise types.InputError(f"{_READABLE}: {str(path)!r} {_torch('zip')}")
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if not names:
        raise types.InputError(f"{_READABLE}: {str(path)!r} is an empty zip archive. Fetch it again.")
    raise types.InputError(
        f"{_READABLE}: {str(path)!r} is a zip archive of {names[:3]}, not of .npy arrays."
        " Unpack it and name the file inside."
    )


def _what(head: bytes, size: int) -> str:
    """The rest of the sentence "'file' ...": what it is, and the remedy."""
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("version https://git-lfs"):
        wanted = re.search(r"size (\d+)", text)
        full = f" of a file of {int(wanted[1]):,} bytes" if wanted else ""
        return f"is a git-LFS pointer{full}. Fetch the file itself with: git lfs pull"
    if text.startswith("<"):
        return _page(text)
    if text.startswith("{"):
        return f"is a JSON answer of a server or an index file: {_brief(text)}. Fetch the weights themselves."
    if re.match(rb"\x80[\x02-\x05]", head):
        return _torch("pickle")
    if head.startswith(b"\x93NUMPY"):
        return "is one .npy array, without names. Save all arrays by name with numpy.savez."
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return f"is {kind}. Unpack or convert it first."
    return (
        f"begins with the bytes {head[:8].hex(' ')} ({size:,} bytes), which is none of them."
        " Check the address and fetch it again."
    )


def _page(text: str) -> str:
    """An error page: XML of a bucket with a code and a message, or HTML with a title."""
    said = [
        match[1].strip() for tag in ("Code", "Message") if (match := re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S))
    ]
    if said:
        reason = ": ".join(said).rstrip(".")
        denied = said[0] == "AccessDenied"
        remedy = (
            "Its bucket wants a login: use an authenticated client (gcloud auth login), or another mirror of the file."
            if denied
            else "Check the address and fetch it again."
        )
        return f"is an XML error page of the server it was fetched from ({reason}). {remedy}"
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
    kind = "an HTML" if re.search(r"<!doctype html|<html", text[:512], re.I) else "an XML"
    about = f" ({_brief(title[1])})" if title else ""
    return (
        f"is {kind} page{about}, not weights. Use the direct download address of the file, and a login if it needs one."
    )


def _torch(kind: str) -> str:
    return (
        f"is a PyTorch {kind} file; unpickling runs code, so it is not read. Convert it where PyTorch is installed:"
        " safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
    )


def _brief(text: str) -> str:
    """One short line of a text; the message of a JSON error."""
    try:
        found = json.loads(text)
        text = str(found.get("error", found)) if isinstance(found, dict) else text
    except ValueError:
        pass
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:97] + "..."
