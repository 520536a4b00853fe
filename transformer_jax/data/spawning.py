"""What must hold before worker processes start, each of which imports the script that starts it, and how they end."""

import ast
import inspect
import multiprocessing
import os
import sys
import threading
import types as python_types
from multiprocessing import connection
from pathlib import Path

from transformer_jax import types


def prepare() -> None:
    """`InputError` when the script would start itself once more in every worker, which Python answers with a hang."""
    main = sys.modules["__main__"]
    name, line = getattr(getattr(main, "__spec__", None), "name", ""), _line_of(main)
    # A package run with -m is not imported by its workers.
    if line and not name.endswith("__main__") and not _guarded(main.__file__ or "", line):
        raise types.InputError(
            "A script that reads data with worker processes is imported by each of them. Put what"
            f' line {line} of {main.__file__} does under `if __name__ == "__main__":`, or set data.workers=0.'
        )
    _mark_flags_parsed()


def follow(index: int, count: int) -> None:
    """In a worker, number `index` of `count`: it ends when its parent does, also one that was killed.

    Else it would keep the output of the run open, and a launcher that reads it waiting. The end of a pipe says so: the
    signal of Linux for it comes at the end of the thread that started the worker, which is not that of the process.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), name="parent", daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _line_of(main: python_types.ModuleType) -> int | None:
    """The line at which the main module stands while this is called; None when it is not a file that is being run."""
    file = getattr(main, "__file__", None)
    frame = inspect.currentframe() if file and Path(file).is_file() else None
    while frame is not None:
        if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>":
            return frame.f_lineno if os.path.abspath(frame.f_code.co_filename) == os.path.abspath(file or "") else None
        frame = frame.f_back
    return None


def _guarded(file: str, line: int) -> bool:
    """Whether a line lies in an `if` that asks for `__name__`."""
    try:
        module = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):  # a program of another kind: nothing is known of it
        return True
    choices = [node for node in ast.walk(module) if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)]
    return any(node.lineno <= line <= (node.end_lineno or node.lineno) for node in choices)


def _mark_flags_parsed() -> None:
    """Grain's workers read absl flags, which raise as long as nobody has parsed a command line."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
