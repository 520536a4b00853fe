"""Compilation made visible: a persistent cache that says hit or miss, and a warning when a step is traced again."""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import time
import warnings
from collections.abc import Callable, Generator
from typing import Any, ParamSpec, TypeVar

import jax

from transformer_jax.training import state

P = ParamSpec("P")
R = TypeVar("R")


class Tally:
    """Counts what the compiler did since the process began listening."""

    def __init__(self) -> None:
        self.compiles = 0
        self.hits = 0
        self.misses = 0
        self.compiling = False
        """Whether a program has been handed to the compiler that has not come back."""
        jax.monitoring.register_event_listener(self._event)
        jax.monitoring.register_event_duration_secs_listener(self._duration)

    def _event(self, event: str, **_: Any) -> None:
        self.hits += event == "/jax/compilation_cache/cache_hits"
        self.misses += event == "/jax/compilation_cache/cache_misses"

    def _duration(self, event: str, duration_secs: float, **_: Any) -> None:
        finished = event == "/jax/core/compile/backend_compile_duration"
        self.compiles += finished
        if finished or event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            self.compiling = not finished


@functools.cache
def tally() -> Tally:
    """The one tally of this process. Listening starts with the first call."""
    return Tally()


class Watch:
    """Whether, and how long, the compiler worked inside a `with watch.watching()`."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        """Wall time of the last watched call if something was compiled in it, else None."""
        self.cache: str = ""
        """`"hit"`, `"miss"`, or `""` when the persistent cache was not asked."""

    @contextlib.contextmanager
    def watching(self) -> Generator[None, None, None]:
        counts = tally()
        compiles, hits, misses, start = counts.compiles, counts.hits, counts.misses, time.perf_counter()
        yield
        self.seconds = time.perf_counter() - start if counts.compiles != compiles else None
        self.cache = "miss" if counts.misses != misses else "hit" if counts.hits != hits else ""


def enable_cache(directory: str | os.PathLike[str]) -> str | None:
    """Keeps compiled programs in `directory`, for the next process to find. Returns the folder used; None, with a
    warning, when nothing can be written there.

    The folder of a CPU is its own: compiled code is not portable between CPU models, and JAX does not check.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(directory)))
    if jax.default_backend() == "cpu":
        path = os.path.join(path, f"cpu-{platform.machine()}-{_cpu_features()}")
    try:
        os.makedirs(path, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        message = f"Compiled programs are not kept: {path}: {error.strerror}. Set TRANSFORMER_JAX_CACHE to a folder."
        warnings.warn(message, stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    tally()
    return path


def _cpu_features() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        lines = [platform.processor()]
    return hashlib.sha256("".join(lines[:1]).encode()).hexdigest()[:8]


def traced_once(function: Callable[P, R], name: str) -> Callable[P, R]:
    """`function` unchanged, to be given to `jit`: a trace with shapes or dtypes not seen before, other than the
    first, warns with the difference. It costs nothing once compiled."""
    seen: list[dict[str, str]] = []

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        signature = {path: str(jax.typeof(leaf)) for path, leaf in state.flatten((args, kwargs)).items()}
        if signature not in seen:
            seen.append(signature)
            if len(seen) > 1:
                warnings.warn(retrace_message(name, seen[-2], signature), stacklevel=2)
        return function(*args, **kwargs)

    traced.__dict__["signatures"] = seen
    return traced


def retrace_message(name: str, before: dict[str, str], now: dict[str, str]) -> str:
    """Why `name` is being compiled again: the leaves whose shape or dtype changed."""
    changes = [
        f"{path}: {before.get(path, 'absent')} -> {now.get(path, 'absent')}"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]
    more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
    return f"{name} is compiled again, which should happen once: its input changed. {'; '.join(changes[:8])}{more}."
