"""Weights by their name on the Hugging Face hub, as local files: `hf:org/name`, `hf:org/name/file@revision`.

Downloads go to the hub's own cache (`HF_HOME`, `HF_HUB_CACHE`), which is all that is looked at without a network or
with `HF_HUB_OFFLINE=1`. A name is resolved once a process, before anything is compiled: no network inside a job.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from transformer_jax import paths, types

SCHEME = "hf:"
READABLE = (".safetensors", ".npz")
BESIDE = ("config.json", "preprocessor_config.json")
"""Files that tell what the weights do not: heads, activation, epsilon, class names, normalisation."""
_FORM = re.compile(r"hf:/*([\w.-]+/[\w.-]+?)(?:/([^@]+?))?/?(?:@(.+))?")


class Name(NamedTuple):
    """A file of a repository at a revision (`main` when none is given; the weights when no file is)."""

    repository: str
    file: str | None
    revision: str | None

    def __str__(self) -> str:
        file, revision = self.file and f"/{self.file}" or "", self.revision and f"@{self.revision}" or ""
        return f"{SCHEME}{self.repository}{file}{revision}"


def is_name(path: object) -> bool:
    """Whether this names something on the hub."""
    return str(path).startswith(SCHEME)


def parse(address: str) -> Name:
    """The parts of `hf:org/name[/file][@revision]`. `InputError` for anything else."""
    found = _FORM.fullmatch(address)
    if found is None:
        raise types.InputError(
            f"A name on the hub is hf:ORG/NAME, hf:ORG/NAME/FILE or either with @REVISION: it is {address!r}."
            " For example hf:google/vit-base-patch16-224."
        )
    return Name(*found.groups())


@functools.lru_cache
def fetch(address: str) -> Path:
    """The local file of a name, downloaded when the cache has it not; its configuration lies beside it.

    Without a file in the name: `model.safetensors`, else the only .safetensors or .npz. Raises `InputError` with a
    remedy when the library is missing, the hub cannot be reached and the cache is empty, the repository does not
    exist or wants a login, or holds nothing that is read here.
    """
    name = parse(address)
    library = _library()
    names = _listing(library, name)
    if names is None:
        return _cached(library, name, "HF_HUB_OFFLINE is set" if _offline(library) else "it cannot be reached")
    file = _choose(name, names)
    beside = [str(PurePosixPath(file).with_name(each)) for each in BESIDE]
    for each in [*(each for each in beside if each in names), file]:
        try:
            local = library.hf_hub_download(name.repository, each, revision=name.revision)
        except Exception as error:  # the network may go at any moment, and its errors are those of several libraries
            return _cached(library, name, f"{each} did not arrive ({_brief(error)})")
    return Path(local)


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise types.InputError(
            "Names that begin with hf: need huggingface_hub, which is not installed:"
            " pip install 'transformer-jax[hub]'. Or download the file and name it."
        ) from None
    return huggingface_hub


def _offline(library: Any) -> bool:
    return bool(library.constants.HF_HUB_OFFLINE)


def _listing(library: Any, name: Name) -> list[str] | None:
    """The files of the repository; `None` when the hub cannot be asked. `InputError` when it answers with a refusal."""
    if _offline(library):
        return None
    errors = library.errors
    try:
        return library.HfApi().list_repo_files(name.repository, revision=name.revision)
    except errors.GatedRepoError:
        raise types.InputError(
            f"{name} wants a login and its terms accepted: open https://huggingface.co/{name.repository}, accept them,"
            " then run: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise types.InputError(
            f"A name on the hub must exist: there is no public model {name.repository!r}. Check its spelling at"
            f" https://huggingface.co/models?search={name.repository.split('/')[1]}; for a private one: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise types.InputError(
            f"A revision is a branch, a tag or a commit of the repository: {name.repository} has no {name.revision!r}."
            " Leave @REVISION out for the newest."
        ) from None
    except Exception:  # no network, or a server out of order: what the cache holds is as good
        return None


def _cached(library: Any, name: Name, why: str) -> Path:
    """The file from the cache, whose layout is documented: `models--ORG--NAME/{refs,snapshots}`."""
    home = Path(library.constants.HF_HUB_CACHE) / f"models--{name.repository.replace('/', '--')}"
    reference = home / "refs" / (name.revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else name.revision or "main"
    snapshot = home / "snapshots" / commit
    names = sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file())
    if not names:
        raise types.InputError(
            f"{name} is not on this machine, and the hub was not asked: {why}. Where there is a network:"
            f" {command(name)}; then set HF_HUB_CACHE to that cache (now {library.constants.HF_HUB_CACHE})."
        )
    return snapshot / _choose(name, names, f" The cache holds {_some(names)} of it; {why}.")


def command(name: Name) -> str:
    """The command that downloads it."""
    revision = f" --revision {name.revision}" if name.revision else ""
    return f"hf download {name.repository}{f' {name.file}' if name.file else ''}{revision}"


def _choose(name: Name, names: Sequence[str], remark: str = "") -> str:
    """The file that is meant."""
    if name.file is not None:
        if name.file in names:
            return name.file
        near = paths.did_you_mean(name.file, names)
        raise types.InputError(f"{name.repository} must hold the file that is named: {name.file!r}.{near}{remark}")
    readable = [each for each in names if each.endswith(READABLE)]
    if "model.safetensors" in readable or len(readable) == 1:
        return "model.safetensors" if "model.safetensors" in readable else readable[0]
    if readable:
        raise types.InputError(
            f"{name.repository} holds {len(readable)} weight files: {_some(readable)}."
            f" Name one: {SCHEME}{name.repository}/{readable[0]}{remark}"
        )
    raise types.InputError(
        f"{name.repository} must hold a .safetensors or .npz file: it holds {_some(names) or 'nothing'}. A pull request"
        f" of the hub's converter may have one ({SCHEME}{name.repository}@refs/pr/1, see its Community page); a .bin"
        f" is converted where PyTorch is installed.{remark}"
    )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}"
