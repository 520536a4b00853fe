"""What must hold before worker processes start: each of them imports the script that starts it."""

import ast
import inspect
import sys
from pathlib import Path

from transformer_jax import types


def prepare() -> None:
    """`InputError` when the script would start itself once more in every worker, which Python answers with a hang."""
    main = sys.modules["__main__"]
    file, name = getattr(main, "__file__", None), getattr(getattr(main, "__spec__", None), "name", "")
    line = _line_of_main()
    # A package run with -m is not imported by its workers.
    if file and line and not name.endswith("__main__") and Path(file).is_file() and not _guarded(file, line):
        raise types.InputError(
            f"A script that reads data with worker processes is imported by each: put what line {line} of {file}"
            ' does under `if __name__ == "__main__":`, or set data.workers=0.'
        )
    _mark_flags_parsed()


def _line_of_main() -> int | None:
    """The line at which the main module stands while this is called; None when it is not being run."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return frame.f_lineno
        frame = frame.f_back
    return None


def _guarded(file: str, line: int) -> bool:
    """Whether a line lies in a top-level `if` that asks for `__name__`."""
    try:
        module = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):  # a program of another kind: nothing is known of it
        return True
    inside = [node for node in module.body if node.lineno <= line <= (node.end_lineno or node.lineno)]
    return any(isinstance(node, ast.If) and "__name__" in ast.dump(node.test) for node in inside)


def _mark_flags_parsed() -> None:
    """Grain's workers read absl flags, which raise as long as nobody has parsed a command line."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
