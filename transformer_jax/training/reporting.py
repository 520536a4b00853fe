"""Where a run's numbers go: a JSON line, a plain line, a progress bar, TensorBoard. The same numbers everywhere."""

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

METRICS = "metrics.jsonl"


@runtime_checkable
class Writer(Protocol):
    """Takes numbers and messages."""

    def write(self, step: int, values: Mapping[str, Any]) -> None: ...

    def text(self, message: str) -> None: ...

    def close(self) -> None: ...


class Writers:
    """Several writers as one. Numbers are brought into one form first, so that all of them show the same."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = list(writers)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        plain = {name: number(value) for name, value in values.items()}
        for writer in self._writers:
            writer.write(step, plain)

    def text(self, message: str) -> None:
        for writer in self._writers:
            writer.text(message)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class JsonLines:
    """`metrics.jsonl`: one object a line, `{"step": 50, "wall": 1795.2, "train/loss": 0.69}`, whole at any moment.

    `keep_until` is the step the run continues from: lines of later steps are dropped, for they will come again.
    """

    def __init__(self, path: str | os.PathLike[str], *, keep_until: int = -1) -> None:
        self._path = pathlib.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        truncate(self._path, keep_until)
        self._file = open(self._path, "a")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        # NaN is no JSON: a number that is none is null.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "wall": round(time.time(), 3), **finite}) + "\n")
        self._file.flush()

    def text(self, message: str) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class Console:
    """Plain lines, for a log file or a pipe."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream or sys.stdout

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self.text(f"step {step}  " + "  ".join(f"{name} {value}" for name, value in values.items()))

    def text(self, message: str) -> None:
        print(message, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class TensorBoard:
    """TensorBoard events in `directory`, made when the first number comes."""

    def __init__(self, directory: str | os.PathLike[str], *, keep_until: int = -1) -> None:
        self._directory, self._keep_until = os.fspath(directory), keep_until
        self._events: Any = None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        if self._events is None:
            import tensorboardX

            self._events = tensorboardX.SummaryWriter(self._directory, purge_step=self._keep_until + 1)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def text(self, message: str) -> None:
        pass

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


class Bar:
    """A progress bar on a terminal, with loss, images a second, data wait and time left; evaluations above it."""

    def __init__(self, total_steps: int, stream: Any = None, *, start: int = 0) -> None:
        from rich import console, progress

        self._progress = progress.Progress(
            progress.TextColumn("[bold]train"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[numbers]}"),
            console=console.Console(file=stream or sys.stdout),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=start, numbers="")
        self._progress.start()

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        if not any(name.startswith("train/") for name in values):
            self.text(f"step {step}  " + "  ".join(f"{name} {value}" for name, value in values.items()))
            return
        shown = {
            "loss {:.4f}": values.get("train/loss"),
            "{:.0f} images/s": values.get("time/images_per_s"),
            "data wait {:.0%}": values.get("time/data_wait"),
        }
        parts = [form.format(value) for form, value in shown.items() if value is not None]
        if "time/eta_s" in values:
            parts.append(f"{duration(values['time/eta_s'])} left")
        self._progress.update(self._task, completed=step, numbers="  ".join(parts))

    def text(self, message: str) -> None:
        self._progress.print(message, highlight=False, markup=False)

    def close(self) -> None:
        self._progress.stop()


def truncate(path: pathlib.Path, step: int) -> None:
    """Drops from a metrics file the lines after `step`, and a line cut short. The file is replaced as a whole."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if _is_until(line, step)]
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def _is_until(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a metrics file."""
    with open(path) as file:
        return [json.loads(line) for line in file]


def number(value: Any) -> float | int:
    """`value` as a plain number; a float32 with the digits it has (0.1, not 0.10000000149)."""
    if isinstance(value, int):
        return value
    array = np.asarray(value)
    if array.dtype.itemsize < 8 and array.dtype.kind not in "iub":
        return float(str(np.float32(array)))
    return array.item()


def rounded(value: float) -> float:
    """Four significant digits: what a clock is worth."""
    return float(f"{value:.4g}")


def duration(seconds: float) -> str:
    """`3:07` or `1:02:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
